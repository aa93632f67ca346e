"""Sequence numbers of 56 digits, laid out roughly as AWS's are.

AWS documents only that they rise within a shard; the layout is what its numbers show. From the highest bit down::

    4 bits   version, 2 (makes every number 56 digits long)
    36       second in which the shard was created
    4        lowest bits of the shard's index
    64       index of the record in its shard, from 1
    8        zero
    36       second of arrival
    32       index of the shard
    4        version, 2

The shard's second of creation comes first, and a child's is at least one more than its parents', so that every number
of a child exceeds every number of its parents: a later position in a lineage is always the higher one.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LAST_INDEX", "SequenceNumbers", "SequenceParts", "parse_sequence_number"]

LAST_INDEX = 2**63 - 1
"""Index in the ending sequence number of a closed shard: above every record's."""

_VERSION = 2
_SHARD_SHIFT = 4
_ARRIVAL_SHIFT = 36
_INDEX_SHIFT = 80
_NIBBLE_SHIFT = 144
_CREATED_SHIFT = 148
_VERSION_SHIFT = 184
_SECONDS_MASK = 2**36 - 1


class SequenceParts(NamedTuple):
    """What a sequence number encodes; seconds are since the epoch."""

    created_s: int
    shard_index: int
    record_index: int
    arrival_s: int


class SequenceNumbers:
    """The sequence numbers of one shard."""

    __slots__ = ("_base", "created_s", "shard_index")

    def __init__(self, created_s: int, shard_index: int) -> None:
        assert 0 <= created_s <= _SECONDS_MASK
        assert 0 <= shard_index < 2**32
        self.created_s = created_s
        self.shard_index = shard_index
        self._base = (
            _VERSION << _VERSION_SHIFT
            | created_s << _CREATED_SHIFT
            | (shard_index & 15) << _NIBBLE_SHIFT
            | shard_index << _SHARD_SHIFT
            | _VERSION
        )

    def number(self, index: int, arrival_ms: int) -> int:
        """The sequence number of the record `index` (from 1; 0 is the shard's start)."""
        return self._base | index << _INDEX_SHIFT | (arrival_ms // 1000 & _SECONDS_MASK) << _ARRIVAL_SHIFT


def parse_sequence_number(number: int) -> SequenceParts:
    """Take a sequence number apart.

    Raises
    ------
    ValueError
        It was not made by `SequenceNumbers`.
    """
    shard_index = number >> _SHARD_SHIFT & (2**32 - 1)
    well_formed = (
        number >> _VERSION_SHIFT == _VERSION
        and number & 15 == _VERSION
        and number >> _NIBBLE_SHIFT & 15 == shard_index & 15
        and number >> 72 & 255 == 0
    )
    if not well_formed:
        raise ValueError(f"not a sequence number of this service: {number}")
    return SequenceParts(
        created_s=number >> _CREATED_SHIFT & _SECONDS_MASK,
        shard_index=shard_index,
        record_index=number >> _INDEX_SHIFT & (2**64 - 1),
        arrival_s=number >> _ARRIVAL_SHIFT & _SECONDS_MASK,
    )
