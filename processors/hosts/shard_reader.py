"""Reading one shard with GetRecords, from where its state says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.position import Position
from streamgauge.events.records import StreamRecord
from streamgauge.events.times import instant_ms
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, error_code, is_transient, reason_of, remedy_for

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient
    from types_boto3_kinesis.type_defs import GetShardIteratorInputTypeDef, RecordTypeDef

__all__ = ["Batch", "Gap", "ReadFailed", "ShardReader", "TryLater"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# So often a shard may say "nothing, and nothing is behind you" before a record that must be there counts as gone.
_SILENT_READS = 5
_THROTTLED = frozenset({"ProvisionedThroughputExceededException", "LimitExceededException", "KMSThrottlingException"})


class TryLater(StreamgaugeError):
    """Kinesis gave no records now. ``is_throttled``: because the shard's limit is used up, not because it is down."""

    def __init__(self, what: str, *, where: str, is_throttled: bool) -> None:
        super().__init__(what, where=where)
        self.is_throttled = is_throttled


class ReadFailed(StreamgaugeError):
    """Kinesis refuses to be read, and waiting is no help."""


class Gap(StreamgaugeError):
    """The record at which the state stands does not come back, so records after it may be missing as well."""

    def __init__(self, position: Position | None, *, where: str) -> None:
        what = "the shard, of which nothing was applied yet, is not in the stream any more"
        if position is not None:
            what = f"the record at position {position}, up to which the state goes, is not in the stream any more"
        super().__init__(
            f"{what}: it was trimmed, or the stream was created anew",
            where=where,
            remedy="What came after it may be lost. Go on without it with --accept-gap, a function with "
            "STREAMGAUGE_ACCEPT_GAP=true (counted and named in every commit), or raise state_epoch to begin anew",
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in stream order, and how many bytes of data they hold."""

    records: list[StreamRecord]
    size_bytes: int


class ShardReader:
    """Reads a shard to its end.

    Parameters
    ----------
    start
        Where to begin without `after`: ``TRIM_HORIZON`` or ``AT_TIMESTAMP <RFC 3339>``.
    after
        The position that is applied. Reading begins *at* it, since it may lie inside an aggregate, and since only its
        coming back proves that nothing is missing.
    on_gap
        Called with the sequence number of the first record that came instead of `after`; None: a gap is an error.
    is_listed
        Whether the stream lists the shard. One that it does not list has lost its records: a gap, then the end.
    """

    def __init__(
        self,
        client: KinesisClient,
        stream: str,
        shard_id: str,
        *,
        start: str,
        after: Position | None,
        on_gap: Callable[[str], None] | None,
        is_listed: bool = True,
    ) -> None:
        self._client = client
        self._stream = stream
        self._shard_id = shard_id
        self._start = start
        self._after = after
        self._on_gap = on_gap
        self._is_listed = is_listed
        self._where = f"stream {stream}, shard {shard_id}"
        self._iterator: str | None = None
        self._last: str | None = None
        self._is_awaiting_after = after is not None
        self._silent_reads = 0
        self.behind_ms: int | None = None
        """As the last answer said; None before the first."""
        self.is_closed = False
        """The shard was read to its end."""
        self.children: tuple[str, ...] = ()

    @property
    def is_proved(self) -> bool:
        """Whether nothing is missing: the record of `after` came back, or the gap was accepted, or there is none."""
        return not self._is_awaiting_after

    def read(self, limit: int) -> Batch:
        """The next records, at most `limit`; often none.

        Raises
        ------
        TryLater
            Throttled, or no usable answer.
        ReadFailed
            No such stream or shard, no permission.
        Gap
            The record of `after` does not come back.
        """
        if self.is_closed:
            return Batch([], 0)
        if not self._is_listed:
            self._accept("end of shard")
            self.behind_ms = 0
            self.is_closed = True
            return Batch([], 0)
        try:
            answer = self._client.get_records(ShardIterator=self._iterator or self._new_iterator(), Limit=limit)
        except AWS_ERRORS as error:
            if isinstance(error, ClientError) and error_code(error) == "ExpiredIteratorException":
                self._iterator = None
                return Batch([], 0)
            raise self._failure(error) from error
        records, size_bytes = _stream_records(answer["Records"])
        self.behind_ms = answer.get("MillisBehindLatest")
        self._iterator = answer.get("NextShardIterator")
        if records:
            self._last = records[-1].sequence_number
        if not self._iterator:
            self.is_closed = True
            self.children = tuple(child["ShardId"] for child in answer.get("ChildShards", []))
        return Batch(self._proved(records) if self._is_awaiting_after else records, size_bytes)

    def _proved(self, records: list[StreamRecord]) -> list[StreamRecord]:
        """The records, once the one of `after` was seen, or a gap accepted."""
        assert self._after is not None
        expected = self._after.sequence_number
        # Before it there is something only where a new beginning had to be made from the trim horizon.
        fresh = [record for record in records if int(record.sequence_number) >= expected]
        if fresh and int(fresh[0].sequence_number) == expected:
            self._is_awaiting_after = False
        elif fresh or self.is_closed:
            self._accept(fresh[0].sequence_number if fresh else "end of shard")
        elif self._on_gap is None and not records and self.behind_ms == 0:
            self._silent_reads += 1
            if self._silent_reads >= _SILENT_READS:
                raise Gap(self._after, where=self._where)
        return fresh

    def _accept(self, first: str) -> None:
        if self._on_gap is None:
            raise Gap(self._after, where=self._where)
        self._is_awaiting_after = False
        self._on_gap(first)

    def _new_iterator(self) -> str:
        arguments: GetShardIteratorInputTypeDef = {
            "StreamName": self._stream,
            "ShardId": self._shard_id,
            "ShardIteratorType": "TRIM_HORIZON",
        }
        if self._last is not None:
            arguments["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER"
            arguments["StartingSequenceNumber"] = self._last
        elif self._after is not None:
            arguments["ShardIteratorType"] = "AT_SEQUENCE_NUMBER"
            arguments["StartingSequenceNumber"] = str(self._after.sequence_number)
        elif self._start != "TRIM_HORIZON":
            arguments["ShardIteratorType"] = "AT_TIMESTAMP"
            arguments["Timestamp"] = _EPOCH + _MILLISECOND * instant_ms(self._start.removeprefix("AT_TIMESTAMP "))
        try:
            return self._client.get_shard_iterator(**arguments)["ShardIterator"]
        except ClientError as error:
            # A sequence number that the shard never gave out: the stream is another one of the same name.
            if error_code(error) != "InvalidArgumentException" or not self._is_awaiting_after:
                raise
            assert self._after is not None
            if self._on_gap is None:
                raise Gap(self._after, where=self._where) from error
            arguments.pop("StartingSequenceNumber")
            arguments["ShardIteratorType"] = "TRIM_HORIZON"
            return self._client.get_shard_iterator(**arguments)["ShardIterator"]

    def _failure(self, error: Exception) -> StreamgaugeError:
        assert isinstance(error, AWS_ERRORS)
        if is_transient(error):
            is_throttled = isinstance(error, ClientError) and error_code(error) in _THROTTLED
            return TryLater(reason_of(error), where=self._where, is_throttled=is_throttled)
        return ReadFailed(
            reason_of(error),
            where=self._where,
            remedy=remedy_for(error, "Check that the stream exists, and that this process may read it"),
        )


def _stream_records(records: list[RecordTypeDef]) -> tuple[list[StreamRecord], int]:
    found = [
        StreamRecord(
            record["SequenceNumber"],
            record["PartitionKey"],
            (record["ApproximateArrivalTimestamp"] - _EPOCH) // _MILLISECOND,
            record["Data"],
        )
        for record in records
    ]
    return found, sum(len(record.data) for record in found)
