"""The two Kinesis calls that a producer makes, in boto3's form, and how their answers are read."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NotRequired, Protocol, TypedDict

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.shard_listing import ListedShard, all_listed
from streamgauge.producers.client.out_record import EntryAnswer, OutRecord
from streamgauge.producers.client.retrier import Failure, classify

__all__ = [
    "KinesisClient",
    "PutRecordsEntry",
    "StreamUnavailable",
    "failure_of",
    "first_shards",
    "list_shards",
    "put_records",
]

_FIRST_LISTINGS = 5
_FIRST_LISTINGS_APART_S = 0.2


class PutRecordsEntry(TypedDict):
    """One entry of PutRecords, as boto3 takes it."""

    Data: bytes
    PartitionKey: str
    ExplicitHashKey: NotRequired[str]


class KinesisClient(Protocol):
    """What a producer needs of ``boto3.client("kinesis")``.

    Give the client ``retries={"total_max_attempts": 1}``, for retries are the producer's and a hidden one would land
    later than it knows; ``max_pool_connections`` of at least ``requests_in_flight_max``; and timeouts of some seconds.
    """

    # Properties, because boto3's stubs spell the parameters in types of their own that nothing else can match.

    @property
    def put_records(self) -> Callable[..., Mapping[str, object]]:
        """``put_records(*, StreamName: str, Records: Sequence[PutRecordsEntry])``, as the API reference says."""
        ...

    @property
    def list_shards(self) -> Callable[..., Mapping[str, object]]:
        """``list_shards(*, StreamName: str)``, then ``list_shards(*, NextToken: str)`` page by page."""
        ...


class StreamUnavailable(StreamgaugeError):
    """The stream's shards could not be listed."""


class _PutAnswer(msgspec.Struct, rename="pascal"):
    shard_id: str | None = None
    sequence_number: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class _PutAnswers(msgspec.Struct, rename="pascal"):
    records: list[_PutAnswer]


class _Error(msgspec.Struct, rename="pascal"):
    code: str = ""
    message: str = ""


class _ErrorResponse(msgspec.Struct, rename="pascal"):
    error: _Error = msgspec.field(default_factory=_Error)


def put_records(client: KinesisClient, stream: str, records: Sequence[OutRecord]) -> list[EntryAnswer]:
    """One PutRecords call; whatever the client raises passes through."""
    entries: list[PutRecordsEntry] = []
    for record in records:
        entry: PutRecordsEntry = {"Data": record.data, "PartitionKey": record.partition_key}
        if record.explicit_hash_key is not None:
            entry["ExplicitHashKey"] = str(record.explicit_hash_key)
        entries.append(entry)
    answer = msgspec.convert(client.put_records(Records=entries, StreamName=stream), _PutAnswers)
    return [
        EntryAnswer(entry.shard_id, entry.sequence_number, entry.error_code, entry.error_message)
        for entry in answer.records
    ]


def list_shards(client: KinesisClient, stream: str) -> list[ListedShard]:
    """All shards of the stream that it still knows, page by page; whatever the client raises passes through."""
    first = client.list_shards(StreamName=stream)
    return all_listed(first, lambda token: client.list_shards(NextToken=token))


def first_shards(client: KinesisClient, stream: str) -> list[ListedShard]:
    """The shards at a producer's start, where a listing that got no answer is tried some times more.

    Raises
    ------
    StreamUnavailable
        The stream does not exist, or Kinesis cannot be reached.
    """
    for attempt in itertools.count(1):
        try:
            return list_shards(client, stream)
        except Exception as error:
            failure, reason = failure_of(error)
            if failure is Failure.PERMANENT or attempt == _FIRST_LISTINGS:
                raise StreamUnavailable(
                    reason,
                    where=f"stream {stream}",
                    remedy="Check the stream's name, the region and the endpoint",
                ) from error
        time.sleep(_FIRST_LISTINGS_APART_S * attempt)
    raise AssertionError("the loop ends by itself")


def failure_of(error: Exception) -> tuple[Failure, str]:
    """What an exception of the client says about its request, and a sentence for the caller.

    botocore's ``ClientError`` carries AWS's answer in ``response``. Everything else is an answer that did not come
    (connection refused, reset, timed out), but for requests that botocore itself refused to send.
    """
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        body = msgspec.convert(response, _ErrorResponse).error
        return classify(body.code), f"{body.code}: {body.message}"
    name = type(error).__name__
    kind = Failure.PERMANENT if name in {"ParamValidationError", "NoCredentialsError"} else Failure.LOST
    return kind, f"{name}: {error}"
