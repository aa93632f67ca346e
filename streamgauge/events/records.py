"""What a stream hands over: records, and the shards that hold them."""

from __future__ import annotations

from typing import NamedTuple

from streamgauge.events.hash_key import HashRange

__all__ = ["MAX_RECORD_BYTES", "Shard", "StreamRecord"]

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


class Shard(NamedTuple):
    """A shard and its lineage. ``parents`` holds none, one (after a split) or two (after a merge) shard ids."""

    shard_id: str
    hash_range: HashRange
    parents: tuple[str, ...] = ()
