"""Where an event stands in its shard."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Position"]

_TEXT = re.compile(r"(0|[1-9][0-9]*)/(0|[1-9][0-9]*)")


class Position(NamedTuple):
    """A record's sequence number, and the event's place inside it when the record is an aggregate.

    Sequence numbers of a shard rise; across shards a child's exceed its parents'. Positions compare like tuples.
    Kinesis sequence numbers have up to 129 decimal digits, so they are Python integers here and decimal text
    (no leading zeros) wherever they are written down.
    """

    sequence_number: int
    sub_sequence_number: int

    def __str__(self) -> str:
        return f"{self.sequence_number}/{self.sub_sequence_number}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what ``str`` wrote.

        Raises
        ------
        ValueError
            The text is no position.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a position (<sequence number>/<sub-sequence number>): {text!r}")
        return cls(int(match[1]), int(match[2]))
