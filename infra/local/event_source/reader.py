"""Reading shards with GetRecords, each after the sequence number that the core names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from streamgauge.events.records import StreamRecord
from streamgauge.infra.local.event_source.actions import Read
from streamgauge.processors.commit.aws_errors import error_code

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient
    from types_boto3_kinesis.type_defs import GetShardIteratorInputTypeDef

__all__ = ["Given", "StreamReader"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Given:
    """What a read gave; see `StreamPoller.read`."""

    records: list[StreamRecord]
    behind_ms: int
    is_end: bool


class StreamReader:
    """Reads the shards of a stream. Safe to share between threads that read different shards.

    Parameters
    ----------
    now_ms
        Milliseconds since the epoch.
    """

    def __init__(self, client: KinesisClient, stream: str, now_ms: Callable[[], int]) -> None:
        self._client = client
        self._stream = stream
        self._now_ms = now_ms
        # Shard id -> what was read last, and the iterator that goes on there.
        self._iterators: dict[str, tuple[str | None, str]] = {}
        self._latest_since_ms: dict[str, int] = {}

    def read(self, request: Read) -> Given:
        """Read once.

        Raises
        ------
        ClientError, BotoCoreError
            Nothing was read. The same request may be made again.
        """
        after, iterator = self._iterators.pop(request.shard_id, (None, None))
        if iterator is None or after != request.after:
            iterator = self._new_iterator(request)
        try:
            answer = self._client.get_records(ShardIterator=iterator)
        except ClientError as error:
            if error_code(error) == "ExpiredIteratorException":
                return Given([], 0, is_end=False)
            self._iterators[request.shard_id] = (request.after, iterator)
            raise
        records = [
            StreamRecord(
                record["SequenceNumber"],
                record["PartitionKey"],
                (record["ApproximateArrivalTimestamp"] - _EPOCH) // _MILLISECOND,
                record["Data"],
            )
            for record in answer["Records"]
        ]
        following = answer.get("NextShardIterator")
        if following:
            last = records[-1].sequence_number if records else request.after
            self._iterators[request.shard_id] = (last, following)
        return Given(records, answer.get("MillisBehindLatest", 0), is_end=not following)

    def _new_iterator(self, request: Read) -> str:
        arguments: GetShardIteratorInputTypeDef = {
            "StreamName": self._stream,
            "ShardId": request.shard_id,
            "ShardIteratorType": "TRIM_HORIZON",
        }
        timestamp_ms = request.start.timestamp_ms
        if request.after is not None:
            arguments["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER"
            arguments["StartingSequenceNumber"] = request.after
        elif request.start.type == "LATEST":
            # A second LATEST would skip what has arrived since the first.
            timestamp_ms = self._latest_since_ms.get(request.shard_id)
            if timestamp_ms is None:
                asked_ms = self._now_ms()
                arguments["ShardIteratorType"] = "LATEST"
                iterator = self._client.get_shard_iterator(**arguments)["ShardIterator"]
                self._latest_since_ms[request.shard_id] = asked_ms
                return iterator
        if request.after is None and timestamp_ms is not None:
            arguments["ShardIteratorType"] = "AT_TIMESTAMP"
            arguments["Timestamp"] = _EPOCH + _MILLISECOND * timestamp_ms
        return self._client.get_shard_iterator(**arguments)["ShardIterator"]
