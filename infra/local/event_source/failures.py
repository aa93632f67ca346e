"""What the on-failure destination is told of records that are given up.

Source: AWS Lambda developer guide, "Retain discarded batch records for a Kinesis Data Streams event source in Lambda"
(kinesis-on-failure-destination): the document's fields, the object's name in S3, and that only S3 gets the payload.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from streamgauge.events.times import rfc3339
from streamgauge.infra.local.event_source.answers import Answered
from streamgauge.infra.local.event_source.mapping import EventSourceMapping
from streamgauge.infra.local.event_source.records import EncodedRecord, payload_of

__all__ = ["Condition", "FailureRecord", "failure_record"]


class Condition(Enum):
    """Why the records are given up, in AWS's words."""

    RETRIES_EXHAUSTED = "RetryAttemptsExhausted"
    TOO_OLD = "RecordAgeExceeded"


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """The document, and what is told to S3 alone: the event, and what the object's name is made of."""

    mapping_uuid: str
    shard_id: str
    at_ms: int
    document: dict[str, object]
    payload: bytes

    def text(self, *, is_with_payload: bool) -> str:
        """The document in JSON."""
        if is_with_payload:
            return json.dumps({**self.document, "payload": self.payload.decode()})
        return json.dumps(self.document)

    def object_key(self, unique: str) -> str:
        """The name of the object in S3; `unique` tells those of one second apart."""
        moment = rfc3339(self.at_ms)
        day, time = moment[:10], moment[11:19].replace(":", ".")
        return f"aws/lambda/{self.mapping_uuid}/{self.shard_id}/{day.replace('-', '/')}/{day}T{time}-{unique}"


def failure_record(
    mapping: EventSourceMapping,
    shard_id: str,
    records: list[EncodedRecord],
    condition: Condition,
    *,
    now_ms: int,
    invocations: int,
    last: Answered | None,
) -> FailureRecord:
    """The failure record of a batch (or a part of it) that is given up.

    Parameters
    ----------
    invocations
        How often the function has been given it.
    last
        The function's last answer; None if it never ran with these records.
    """
    document: dict[str, object] = {
        "requestContext": {
            "requestId": last.request_id if last else "",
            "functionArn": mapping.function_arn,
            "condition": condition.value,
            "approximateInvokeCount": invocations,
        }
    }
    if last is not None:
        document["responseContext"] = {
            "statusCode": last.status_code,
            "executedVersion": last.executed_version,
            "functionError": last.function_error,
        }
    document |= {
        "version": "1.0",
        "timestamp": rfc3339(now_ms),
        "KinesisBatchInfo": {
            "shardId": shard_id,
            "startSequenceNumber": records[0].sequence_number,
            "endSequenceNumber": records[-1].sequence_number,
            "approximateArrivalOfFirstRecord": rfc3339(records[0].arrival_ms),
            "approximateArrivalOfLastRecord": rfc3339(records[-1].arrival_ms),
            "batchSize": len(records),
            "streamArn": mapping.stream_arn,
        },
    }
    return FailureRecord(mapping.uuid, shard_id, now_ms, document, payload_of(records))
