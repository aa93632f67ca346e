"""What an event source would send to a function: records of a stream, as the stream has them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime


def kinesis_event(kinesis, stream: str, stream_arn: str, *, shard_id: str) -> dict[str, object]:
    """All records of a shard as one batch."""
    iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
    records = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    return {"Records": [event_record(record, stream_arn=stream_arn, shard_id=shard_id) for record in records]}


def event_record(record: Mapping[str, object], *, stream_arn: str, shard_id: str) -> dict[str, object]:
    """One record of GetRecords as one of a batch (AWS Lambda's developer guide, Kinesis, example event)."""
    arrival, data = record["ApproximateArrivalTimestamp"], record["Data"]
    assert isinstance(arrival, datetime)
    assert isinstance(data, bytes)
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": round(arrival.astimezone(UTC).timestamp(), 3),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard_id}:{record['SequenceNumber']}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::000000000000:role/processor",
        "awsRegion": "us-east-1",
        "eventSourceARN": stream_arn,
    }
