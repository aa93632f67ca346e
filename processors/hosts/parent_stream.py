"""Reading the parents of a shard from Kinesis, for hosts that cannot leave it to a worker of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.commit.ports import ParentBehind, ShardRow
from streamgauge.processors.hosts.gap import READ_PAUSE_S, read_patiently
from streamgauge.processors.hosts.shard_reader import Batch, ShardReader, TryLater
from streamgauge.processors.hosts.stream_shards import StreamUnreadable, list_shards

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

__all__ = ["KinesisParents"]


class KinesisParents:
    """The `ParentStream` of a Kinesis stream. It waits between its reads, for a few seconds if it is throttled."""

    def __init__(
        self,
        kinesis: KinesisClient,
        stream: str,
        *,
        max_records: int = 10_000,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._max_records = max_records
        self._sleep = sleep

    def shard(self, shard_id: str) -> Shard | None:
        """The shard as the stream lists it; None where it does not any more."""
        try:
            listed = list_shards(self._kinesis, self._stream)
        except StreamUnreadable as error:
            if error.is_transient:
                raise ParentBehind(error.what, where=error.where) from error
            raise
        return next((shard for shard in listed if shard.shard_id == shard_id), None)

    def rest(self, row: ShardRow, *, on_gap: Callable[[str], None] | None) -> Iterator[Sequence[StreamRecord]]:
        """The records from where `row` stands to the null iterator.

        Raises
        ------
        ParentBehind
            No answer now.
        Gap, ReadFailed
            As `ShardReader.read`.
        """
        reader = ShardReader(
            self._kinesis,
            self._stream,
            row.shard.shard_id,
            start=row.start,
            after=row.position,
            on_gap=on_gap,
            is_listed=self.shard(row.shard.shard_id) is not None,
        )
        while not reader.is_closed:
            yield self._read(reader).records
            if not reader.is_closed:
                self._sleep(READ_PAUSE_S)

    def _read(self, reader: ShardReader) -> Batch:
        try:
            return read_patiently(reader, max_records=self._max_records, sleep=self._sleep)
        except TryLater as later:
            raise ParentBehind(f"it cannot be read now ({later.what})", where=later.where) from later
