"""What a stream hands over: records, and the shards that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from streamgauge.events.hash_key import HashRange

__all__ = ["MAX_RECORD_BYTES", "Shard", "StreamRecord", "UserRecords", "arrivals_ms"]

MAX_RECORD_BYTES = 1024 * 1024
"""Partition key and data together, as the streams that this version creates allow (PutRecords reference, 1 MiB)."""


class StreamRecord(NamedTuple):
    """One Kinesis record as GetRecords, the KCL or a Lambda event gives it.

    ``sequence_number`` is the decimal text as Kinesis gave it, ``arrival_ms`` the ApproximateArrivalTimestamp in
    milliseconds since the epoch. ``sub_sequence_number`` is None where `data` is what the stream holds, aggregate or
    not. The KCL takes aggregates apart by itself: there it is the place of the user record, 0 in a plain record.
    """

    sequence_number: str
    partition_key: str
    arrival_ms: int
    data: bytes
    sub_sequence_number: int | None = None


@dataclass(frozen=True, slots=True)
class UserRecords(Sequence[StreamRecord]):
    """Records with a sub-sequence number as columns of one length: an object for each costs more than reading it."""

    sequence_numbers: list[str]
    partition_keys: list[str]
    arrivals_ms: list[int]
    payloads: list[bytes]
    places: list[int]

    @classmethod
    def of(cls, records: Sequence[StreamRecord]) -> UserRecords:
        """Columns of records, each of which has a sub-sequence number."""
        assert all(record.sub_sequence_number is not None for record in records)
        return cls(
            [record.sequence_number for record in records],
            [record.partition_key for record in records],
            [record.arrival_ms for record in records],
            [record.data for record in records],
            [record.sub_sequence_number or 0 for record in records],
        )

    def __len__(self) -> int:
        return len(self.payloads)

    @overload
    def __getitem__(self, index: int) -> StreamRecord: ...
    @overload
    def __getitem__(self, index: slice) -> UserRecords: ...
    def __getitem__(self, index: int | slice) -> StreamRecord | UserRecords:
        numbers, keys, arrivals = self.sequence_numbers, self.partition_keys, self.arrivals_ms
        if isinstance(index, slice):
            parts = (numbers[index], keys[index], arrivals[index])
            return UserRecords(*parts, self.payloads[index], self.places[index])
        return StreamRecord(numbers[index], keys[index], arrivals[index], self.payloads[index], self.places[index])


def arrivals_ms(records: Sequence[StreamRecord]) -> list[int]:
    """When each arrived."""
    return records.arrivals_ms if isinstance(records, UserRecords) else [record.arrival_ms for record in records]


class Shard(NamedTuple):
    """A shard and its lineage. ``parents`` holds none, one (after a split) or two (after a merge) shard ids."""

    shard_id: str
    hash_range: HashRange
    parents: tuple[str, ...] = ()
