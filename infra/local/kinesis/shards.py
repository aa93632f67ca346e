"""A shard: its records in order, its place in the lineage, what it may still take."""

from __future__ import annotations

from bisect import bisect_left

from streamgauge.events.hash_key import HashRange
from streamgauge.events.records import StreamRecord
from streamgauge.infra.local.kinesis.limits import Limits, RateWindow
from streamgauge.infra.local.kinesis.sequence import LAST_INDEX, SequenceNumbers

__all__ = ["RecordLog", "ShardState", "key_bytes", "shard_id"]

_CHUNK = 1024


def shard_id(index: int) -> str:
    """``shardId-000000000007``."""
    return f"shardId-{index:012}"


def key_bytes(partition_key: str) -> int:
    """Length of the partition key in UTF-8."""
    return len(partition_key) if partition_key.isascii() else len(partition_key.encode())


class RecordLog:
    """Records at positions 0, 1, 2 …, the oldest of which may be trimmed.

    They lie in chunks, so that appending, reading at a position and trimming cost the same however long the log is,
    and trimmed records are freed chunk by chunk. ``first`` is the oldest position kept, ``end`` the next to be written.
    """

    __slots__ = ("_base", "_chunks", "_peaks", "end", "first")

    def __init__(self) -> None:
        self.first = 0
        self.end = 0
        self._chunks: list[list[StreamRecord]] = []
        # Highest arrival up to and including each chunk: it rises, even where the clock went backwards.
        self._peaks: list[int] = []
        # Chunks dropped so far.
        self._base = 0

    def append(self, record: StreamRecord) -> None:
        """Write one record at ``end``."""
        if self.end % _CHUNK == 0:
            self._chunks.append([])
            self._peaks.append(self._peaks[-1] if self._peaks else record.arrival_ms)
        self._chunks[-1].append(record)
        self._peaks[-1] = max(self._peaks[-1], record.arrival_ms)
        self.end += 1

    def at(self, position: int) -> StreamRecord:
        """The record at a position that is kept."""
        return self._chunks[position // _CHUNK - self._base][position % _CHUNK]

    def read(self, position: int, *, records: int, max_bytes: int) -> tuple[list[StreamRecord], int]:
        """Up to `records` records from `position` on, and their bytes (data and keys); one always fits."""
        found: list[StreamRecord] = []
        used = 0
        position = max(position, self.first)
        while position < self.end and len(found) < records:
            within = position % _CHUNK
            part = self._chunks[position // _CHUNK - self._base][within : within + records - len(found)]
            for record in part:
                size = len(record.data) + key_bytes(record.partition_key)
                if found and used + size > max_bytes:
                    return found, used
                found.append(record)
                used += size
            position += len(part)
        return found, used

    def position_at(self, timestamp_ms: int) -> int:
        """Position of the first kept record that arrived at or after `timestamp_ms`; ``end`` without one."""
        # One chunk is looked through, unless the clock went back: then a peak may be that of an earlier chunk, or of a
        # record that was trimmed.
        for chunk in range(bisect_left(self._peaks, timestamp_ms), len(self._chunks)):
            begin = (chunk + self._base) * _CHUNK
            for position, record in enumerate(self._chunks[chunk], begin):
                if record.arrival_ms >= timestamp_ms and position >= self.first:
                    return position
        return self.end

    def trim(self, arrived_until_ms: int) -> None:
        """Drop the oldest records that arrived at or before `arrived_until_ms`."""
        while self.first < self.end and self.at(self.first).arrival_ms <= arrived_until_ms:
            self.first += 1
            if self.first % _CHUNK == 0:
                del self._chunks[0], self._peaks[0]
                self._base += 1


class ShardState:
    """One shard. Configuration: identity, range, lineage upwards. Live: everything else.

    ``parents`` are shard ids, the shard to merge before its neighbour. ``closed_ms`` is None while the shard is open.
    """

    __slots__ = (
        "_limits",
        "_read_bytes",
        "_reads",
        "_write_bytes",
        "_write_records",
        "children",
        "closed_ms",
        "created_ms",
        "hash_range",
        "index",
        "iterators",
        "log",
        "numbers",
        "parents",
        "shard_id",
    )

    def __init__(
        self,
        index: int,
        hash_range: HashRange,
        *,
        parents: tuple[str, ...],
        created_ms: int,
        created_s: int,
        limits: Limits,
    ) -> None:
        self.index = index
        self.shard_id = shard_id(index)
        self.hash_range = hash_range
        self.parents = parents
        self.created_ms = created_ms
        self.closed_ms: int | None = None
        self.children: list[ShardState] = []
        self.numbers = SequenceNumbers(created_s, index)
        self.log = RecordLog()
        self.iterators = RateWindow(limits.iterators)
        self._limits = limits
        self._write_bytes = RateWindow(limits.write_bytes)
        self._write_records = RateWindow(limits.write_records)
        self._read_bytes = RateWindow(limits.read_bytes)
        self._reads = RateWindow(limits.reads)

    @property
    def starting_sequence_number(self) -> int:
        """Below every record's."""
        return self.numbers.number(0, self.created_ms)

    @property
    def ending_sequence_number(self) -> int | None:
        """Above every record's; None while the shard is open."""
        return None if self.closed_ms is None else self.numbers.number(LAST_INDEX, self.closed_ms)

    def admits_write(self, size: int, now_ms: int) -> bool:
        """Whether a record of `size` bytes fits into this second's rates."""
        if not self._limits.enforced:
            return True
        return self._write_records.admits(1, now_ms) and self._write_bytes.admits(size, now_ms)

    def append(self, partition_key: str, data: bytes, size: int, now_ms: int) -> str:
        """Write a record that was admitted; return its sequence number."""
        assert self.closed_ms is None, f"{self.shard_id} is closed"
        if self._limits.enforced:
            self._write_records.take(1)
            self._write_bytes.take(size)
        number = str(self.numbers.number(self.log.end + 1, now_ms))
        self.log.append(StreamRecord(number, partition_key, now_ms, data))
        return number

    def admits_read(self, now_ms: int) -> bool:
        """Whether a read is allowed now; if so, it is counted."""
        if not self._limits.enforced:
            return True
        if not (self._read_bytes.admits(1, now_ms) and self._reads.admits(1, now_ms)):
            return False
        self._reads.take(1)
        return True

    def took(self, size: int) -> None:
        """Count the bytes that a read gave."""
        if self._limits.enforced:
            self._read_bytes.take(size)
