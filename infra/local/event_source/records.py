"""Records of a Kinesis shard as the event that Lambda hands to a function, and the size of its payload.

Source of the format: AWS Lambda developer guide, "Using Lambda to process records from Amazon Kinesis Data Streams"
(with-kinesis); of the limits: "Lambda quotas" (gettingstarted-limits), 6 MB for a synchronous request and its answer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass

from streamgauge.events.records import StreamRecord

__all__ = ["ANSWER_BYTES_MAX", "ENVELOPE_BYTES", "PAYLOAD_BYTES_MAX", "EncodedRecord", "encode_record", "payload_of"]

PAYLOAD_BYTES_MAX = 6 * 1024 * 1024
# What Lambda's own error message names.
ANSWER_BYTES_MAX = 6_291_556

_HEAD = b'{"Records":['
_TAIL = b"]}"
ENVELOPE_BYTES = len(_HEAD) + len(_TAIL)


@dataclass(frozen=True, slots=True)
class EncodedRecord:
    """A record on its way to the function: ``body`` is its element of the event's ``Records``."""

    sequence_number: str
    arrival_ms: int
    body: bytes


def encode_record(
    record: StreamRecord, *, shard_id: str, stream_arn: str, region: str, invoke_identity_arn: str
) -> EncodedRecord:
    """The record's element of the event's ``Records``, in JSON."""
    element = {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record.partition_key,
            "sequenceNumber": record.sequence_number,
            "data": base64.b64encode(record.data).decode(),
            "approximateArrivalTimestamp": record.arrival_ms / 1000,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard_id}:{record.sequence_number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": invoke_identity_arn,
        "awsRegion": region,
        "eventSourceARN": stream_arn,
    }
    body = json.dumps(element, separators=(",", ":"), ensure_ascii=False).encode()
    return EncodedRecord(record.sequence_number, record.arrival_ms, body)


def payload_of(records: Iterable[EncodedRecord]) -> bytes:
    """The event that holds the records."""
    return _HEAD + b",".join(record.body for record in records) + _TAIL
