"""Reading a stream's shards for delivery: in order, from the beginning or from behind a position, with gaps seen.

Source: Amazon Kinesis Data Streams API reference (ListShards, GetShardIterator, GetRecords).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import StreamRecord
from streamgauge.events.shard_listing import ListedShard, all_listed
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, error_code, is_transient, reason_of

__all__ = [
    "GAP_REMEDY",
    "KinesisReader",
    "Read",
    "ShardReader",
    "StreamUnreadable",
    "TrimmedRecords",
    "list_shards",
    "may_pass",
    "unreadable",
]

GAP_REMEDY = "Deliver with --accept-gap to go on with what is left; the gap is written down"

_RECORDS_PER_CALL = 10_000


class StreamUnreadable(StreamgaugeError):
    """The stream refuses to be read: no such stream, no permission."""


class TrimmedRecords(StreamgaugeError):
    """The stream no longer holds records that were not delivered."""


class KinesisReader(Protocol):
    """The calls of boto3's Kinesis client that delivery makes. Errors are botocore's."""

    # Properties, because boto3's stubs spell the parameters in types of their own that nothing else can match.

    @property
    def list_shards(self) -> Callable[..., Mapping[str, object]]:
        """``list_shards(*, StreamName: str)``, then ``list_shards(*, NextToken: str)`` page by page."""
        ...

    @property
    def get_shard_iterator(self) -> Callable[..., Mapping[str, object]]:
        """``get_shard_iterator(*, StreamName, ShardId, ShardIteratorType, StartingSequenceNumber)``, all text."""
        ...

    @property
    def get_records(self) -> Callable[..., Mapping[str, object]]:
        """``get_records(*, ShardIterator: str, Limit: int)``."""
        ...


class Read(NamedTuple):
    """What one call returned. `behind_ms`: how far the shard's tip is ahead; `ended`: the end of a closed shard."""

    records: list[StreamRecord]
    behind_ms: int
    ended: bool


class _Iterator(msgspec.Struct, rename="pascal"):
    shard_iterator: str


class _Record(msgspec.Struct, rename="pascal"):
    sequence_number: str
    partition_key: str
    approximate_arrival_timestamp: datetime
    data: bytes


class _Records(msgspec.Struct, rename="pascal"):
    records: list[_Record]
    next_shard_iterator: str | None = None
    millis_behind_latest: int = 0


def list_shards(client: KinesisReader, stream: str) -> list[ListedShard]:
    """Every shard that the stream still knows, closed ones included, in order of shard id.

    Raises
    ------
    StreamUnreadable
        The stream refuses.
    """
    first = client.list_shards(StreamName=stream)
    return all_listed(first, lambda token: client.list_shards(NextToken=token))


class ShardReader:
    """Reads one shard onward. Live: the iterator. Nothing is saved: a new reader starts behind a position again.

    Parameters
    ----------
    after
        The sequence number of the last record that is not wanted again; None reads from the shard's beginning.
    """

    def __init__(self, client: KinesisReader, stream: str, shard_id: str, *, after: str | None) -> None:
        self._client = client
        self._stream = stream
        self._shard_id = shard_id
        self._after = after
        self._iterator: str | None = None
        # AT the last record and not AFTER it: some streams answer with silence when what follows was trimmed.
        self._awaited: str | None = None

    def read(self) -> Read:
        """The next records, perhaps none.

        Raises
        ------
        TrimmedRecords
            The record that must come first is gone, so others may be too. The next call reads on from what is left.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            As the client raises them; the same call may be made again.
        """
        if self._iterator is None:
            self._iterator = self._position()
        try:
            answer = self._client.get_records(ShardIterator=self._iterator, Limit=_RECORDS_PER_CALL)
        except AWS_ERRORS as error:
            if not is_transient(error):
                # It may have expired: a new one is made from where reading stands.
                self._iterator = None
            raise
        page = msgspec.convert(answer, _Records)
        self._iterator = page.next_shard_iterator
        records = [_stream_record(record) for record in page.records]
        ended = page.next_shard_iterator is None
        if self._awaited is not None:
            records = self._without_awaited(records, at_tip=ended or page.millis_behind_latest == 0)
        if records:
            self._after = records[-1].sequence_number
        return Read(records, page.millis_behind_latest, ended)

    def _position(self) -> str:
        where: dict[str, str] = {"ShardIteratorType": "TRIM_HORIZON"}
        if self._after is not None:
            where = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": self._after}
        answer = self._client.get_shard_iterator(StreamName=self._stream, ShardId=self._shard_id, **where)
        self._awaited = self._after
        return msgspec.convert(answer, _Iterator).shard_iterator

    def _without_awaited(self, records: list[StreamRecord], *, at_tip: bool) -> list[StreamRecord]:
        if not records and not at_tip:
            return records
        awaited, self._awaited = self._awaited, None
        if records and records[0].sequence_number == awaited:
            return records[1:]
        self._after = None
        self._iterator = None
        raise TrimmedRecords(
            "the stream has trimmed records that were not delivered yet",
            where=f"{self._stream}, shard {self._shard_id}, after {awaited}",
            remedy=GAP_REMEDY,
        )


def _stream_record(record: _Record) -> StreamRecord:
    arrival_ms = round(record.approximate_arrival_timestamp.timestamp() * 1000)
    return StreamRecord(record.sequence_number, record.partition_key, arrival_ms, record.data)


def may_pass(error: BotoCoreError | ClientError) -> bool:
    """Whether the call may succeed later: an iterator that expired or a stream that throttles, not a missing stream."""
    return is_transient(error) or (isinstance(error, ClientError) and error_code(error) == "ExpiredIteratorException")


def unreadable(error: BotoCoreError | ClientError, stream: str) -> StreamUnreadable:
    """The error for a person."""
    return StreamUnreadable(
        f"the stream cannot be read: {reason_of(error)}",
        where=stream,
        remedy="Check that it exists and that this process may read it",
    )
