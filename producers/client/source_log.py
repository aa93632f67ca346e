"""One source of ours as its producer keeps it: sequences, the window W, and what the ledger states.

Why W: a processor keeps a bitmap of the last W sequences per source and takes everything below it for a duplicate
(RFC 4303, section 3.4.3). That is exact only if no sequence lands for the first time W or more below the highest one.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from uuid import UUID

from streamgauge.events.control import Ledger
from streamgauge.events.envelope import OwnSource

__all__ = ["LEDGER_RANGES_MAX", "RangeSet", "SourceLog"]

LEDGER_RANGES_MAX = 4_096
"""Acknowledged ranges that one statement spells out, so that it stays below a record's size."""

_SETTLED, _PENDING, _ACKNOWLEDGED, _ABANDONED = range(4)


class RangeSet:
    """Integers as rising, disjoint, non-adjoining ranges ``(first, last)``, both included."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __len__(self) -> int:
        return len(self._firsts)

    def add(self, number: int) -> None:
        """Put `number` in."""
        at = bisect_right(self._firsts, number)
        if at and self._lasts[at - 1] >= number:
            return
        joins_left = at > 0 and self._lasts[at - 1] == number - 1
        joins_right = at < len(self._firsts) and self._firsts[at] == number + 1
        if joins_left and joins_right:
            self._lasts[at - 1] = self._lasts.pop(at)
            self._firsts.pop(at)
        elif joins_left:
            self._lasts[at - 1] = number
        elif joins_right:
            self._firsts[at] = number
        else:
            self._firsts.insert(at, number)
            self._lasts.insert(at, number)

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges, rising."""
        return list(zip(self._firsts, self._lasts, strict=True))


class SourceLog:
    """The numbered log of one source: assigns sequences, holds their places in W, states the ledger."""

    def __init__(self, uuid: UUID, window: int) -> None:
        # configuration
        self.source = str(OwnSource(uuid, window))
        self._window = window
        # live
        self.next_sequence = 0
        self.unresolved = 0  # assigned, and neither acknowledged with all copies nor abandoned
        self.ledger_number = 0
        self._oldest = 0
        self._states = bytearray(window)
        self._given_up = RangeSet()
        self._unknown = RangeSet()

    @property
    def has_room(self) -> bool:
        """Whether the next sequence keeps W."""
        return self.next_sequence - self._oldest < self._window

    @property
    def is_stuck(self) -> bool:
        """Whether only time can make room, or the ledger would grow too long: a new source should begin."""
        if len(self._given_up) + len(self._unknown) >= LEDGER_RANGES_MAX:
            return True
        return not self.has_room and self._states[self._oldest % self._window] == _ABANDONED

    @property
    def oldest_held(self) -> int:
        """The oldest sequence whose place is held; `next_sequence` when there is none."""
        return self._oldest

    def assign(self) -> int:
        """The next sequence, pending from now on."""
        assert self.has_room
        sequence = self.next_sequence
        self._states[sequence % self._window] = _PENDING
        self.next_sequence += 1
        self.unresolved += 1
        return sequence

    def acknowledge(self, sequence: int) -> None:
        """The event is in the stream; its place is held on for its copies."""
        self._states[sequence % self._window] = _ACKNOWLEDGED

    def settle(self, sequence: int) -> None:
        """The event and its copies are in the stream: its place is free."""
        self.unresolved -= 1
        self.release(sequence)

    def abandon(self, sequence: int, *, known_refused: bool) -> None:
        """The event is given up, or unknown. Its place is held until `release`."""
        self.unresolved -= 1
        self._states[sequence % self._window] = _ABANDONED
        (self._given_up if known_refused else self._unknown).add(sequence)

    def release(self, sequence: int) -> None:
        """Free the place of `sequence`: no attempt of it can land for the first time any more."""
        states, window = self._states, self._window
        states[sequence % window] = _SETTLED
        while self._oldest < self.next_sequence and states[self._oldest % window] == _SETTLED:
            self._oldest += 1

    def statement(self, *, final: bool) -> Ledger:
        """What is acknowledged, in doubt and given up, since sequence 0.

        A statement too long for a record is cut short towards doubt: sequences past the cut that are not given up are
        stated in doubt, which a later statement mends.
        """
        given_up = self._given_up.ranges()
        pending = RangeSet()
        for sequence in range(self._oldest, self.next_sequence):
            if self._states[sequence % self._window] == _PENDING:
                pending.add(sequence)
        in_doubt = sorted([*pending.ranges(), *self._unknown.ranges()])
        acknowledged = _gaps(sorted([*in_doubt, *given_up]), 0, self.next_sequence)
        if len(acknowledged) > LEDGER_RANGES_MAX:
            cut = acknowledged[LEDGER_RANGES_MAX][0]
            acknowledged = acknowledged[:LEDGER_RANGES_MAX]
            in_doubt = [(first, last) for first, last in in_doubt if last < cut]
            in_doubt += _gaps([part for part in given_up if part[1] >= cut], cut, self.next_sequence)
        return Ledger(acknowledged=acknowledged, in_doubt=_joined(in_doubt), given_up=given_up, final=final)


def _gaps(ranges: Iterable[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """What rising disjoint `ranges` leave of ``[start, stop)``."""
    gaps = []
    for first, last in itertools.chain(ranges, [(stop, stop)]):
        if start < first:
            gaps.append((start, first - 1))
        start = max(start, last + 1)
    return gaps


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Rising disjoint ranges with adjoining ones made one."""
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        if joined and joined[-1][1] == first - 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined
