"""The payload that an event source of a Kinesis stream sends to a function.

Format: AWS Lambda's developer guide, "Process Amazon Kinesis Data Streams records with Lambda", example event.
"""

from __future__ import annotations

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import StreamRecord

__all__ = ["BadPayload", "parse_event"]


class BadPayload(StreamgaugeError):
    """A payload that no event source of the pipeline's stream sends."""


class _Data(msgspec.Struct, rename="camel"):
    sequence_number: str
    partition_key: str
    approximate_arrival_timestamp: float
    data: bytes


class _Record(msgspec.Struct):
    event_source: str = msgspec.field(name="eventSource")
    event_source_arn: str = msgspec.field(name="eventSourceARN")
    event_id: str = msgspec.field(name="eventID")
    kinesis: _Data


class _Event(msgspec.Struct):
    records: list[_Record] = msgspec.field(name="Records")


def parse_event(event: object, *, stream_arn: str) -> tuple[str, list[StreamRecord]]:
    """The shard of a batch, and its records in stream order.

    Parameters
    ----------
    event
        As Lambda's runtime hands it over: JSON, parsed.
    stream_arn
        The only stream whose records are the pipeline's.

    Raises
    ------
    BadPayload
        It is no batch of records of one shard of that stream.
    """
    try:
        found = msgspec.convert(event, _Event).records
    except msgspec.ValidationError as error:
        raise BadPayload(
            f"the payload is no batch of Kinesis records: {error}",
            where="invocation",
            remedy="Only the event source mapping of the pipeline's stream may invoke this function",
        ) from error
    if not found:
        raise BadPayload("the payload holds no records", where="invocation")
    for record in found:
        if record.event_source_arn != stream_arn:
            raise BadPayload(
                f"a record comes from {record.event_source_arn}, and the pipeline reads {stream_arn}",
                where=f"invocation, record {record.event_id}",
                remedy="Remove the event source mapping of the other stream, or deploy a stack of its own for it",
            )
    shard_id = found[0].event_id.partition(":")[0]
    for record in found:
        if record.event_id != f"{shard_id}:{record.kinesis.sequence_number}":
            raise BadPayload(
                f"its eventID is not that of a record of {shard_id}, as the first one's is",
                where=f"invocation, record {record.event_id}",
                remedy="An event source sends records of one shard at a time: what else invokes this function?",
            )
    records = [
        StreamRecord(
            record.kinesis.sequence_number,
            record.kinesis.partition_key,
            round(record.kinesis.approximate_arrival_timestamp * 1_000),
            record.kinesis.data,
        )
        for record in found
    ]
    _check_order(shard_id, records)
    return shard_id, records


def _check_order(shard_id: str, records: list[StreamRecord]) -> None:
    last = -1
    for record in records:
        try:
            number = int(record.sequence_number)
        except ValueError:
            number = -1
        if number <= last:
            raise BadPayload(
                f"the sequence number {record.sequence_number!r} is none, or does not come after the one before it",
                where=f"invocation, shard {shard_id}",
                remedy="What else than the event source invokes this function?",
            )
        last = number
