"""The payload of Kinesis' event source, and everything else that a function may be invoked with."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest

from streamgauge.events.records import StreamRecord
from streamgauge.processors.hosts.aws_lambda.kinesis_event import BadPayload, parse_event

STREAM_ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/observations"
SHARD_ID = "shardId-000000000006"
FIRST = 49590338271490256608559692538361571095921575989136588898

# The example of AWS Lambda's developer guide, "Process Amazon Kinesis Data Streams records with Lambda".
EXAMPLE: dict[str, Any] = {
    "Records": [
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": "1",
                "sequenceNumber": str(FIRST + number),
                "data": base64.b64encode(data).decode(),
                "approximateArrivalTimestamp": arrival,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{SHARD_ID}:{FIRST + number}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
            "awsRegion": "us-east-1",
            "eventSourceARN": STREAM_ARN,
        }
        for number, (data, arrival) in enumerate(
            [(b"Hello, this is a test.", 1545084650.987), (b"\x00\xff", 1545084711)]
        )
    ]
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The example with one value of its second record replaced; `...` removes it."""
    event = copy.deepcopy(EXAMPLE)
    place: Any = event["Records"][1]
    *way, last = path.split(".")
    for name in way:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return event


def test_the_example_of_the_developer_guide_is_read() -> None:
    assert parse_event(json.loads(json.dumps(EXAMPLE)), stream_arn=STREAM_ARN) == (
        SHARD_ID,
        [
            StreamRecord(str(FIRST), "1", 1_545_084_650_987, b"Hello, this is a test."),
            StreamRecord(str(FIRST + 1), "1", 1_545_084_711_000, b"\x00\xff"),
        ],
    )


def test_the_arrival_is_the_millisecond_that_get_records_gives() -> None:
    for ms in range(1_700_000_000_000, 1_700_000_001_000):
        event = json.loads(json.dumps(changed("kinesis.approximateArrivalTimestamp", ms / 1_000)))
        assert parse_event(event, stream_arn=STREAM_ARN)[1][1].arrival_ms == ms


@pytest.mark.parametrize(
    "payload",
    [None, [], "hello", 7, {}, {"Records": None}, {"Records": [None]}, {"detail-type": "Scheduled Event"}],
    ids=str,
)
def test_what_is_no_batch_is_named_as_such(payload: object) -> None:
    with pytest.raises(BadPayload, match=r"the payload is no batch of Kinesis records: .* Only the event source"):
        parse_event(payload, stream_arn=STREAM_ARN)


def test_a_batch_of_another_service_is_named_as_such() -> None:
    sqs = {"Records": [{"messageId": "1", "body": "secret", "eventSource": "aws:sqs", "eventSourceARN": "arn"}]}
    with pytest.raises(BadPayload, match="no batch of Kinesis records") as raised:
        parse_event(sqs, stream_arn=STREAM_ARN)
    assert "secret" not in str(raised.value)


def test_a_batch_without_records_is_refused() -> None:
    with pytest.raises(BadPayload, match="holds no records"):
        parse_event({"Records": []}, stream_arn=STREAM_ARN)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("kinesis", ..., "missing required field `kinesis`"),
        ("kinesis.data", ..., "missing required field `data`"),
        ("kinesis.data", 7, "Expected `bytes`, got `int`"),
        ("kinesis.data", "@@@", "Invalid base64"),
        ("kinesis.partitionKey", None, "partitionKey"),
        ("kinesis.approximateArrivalTimestamp", "now", "Expected `float`, got `str`"),
        (
            "eventSourceARN",
            "arn:aws:kinesis:us-east-1:0:stream/other",
            "comes from arn:aws:kinesis:us-east-1:0:stream/ot",
        ),
        ("eventID", f"shardId-000000000007:{FIRST + 1}", "its eventID is not that of a record of shardId-000000000006"),
        ("kinesis.sequenceNumber", str(FIRST), "its eventID is not"),
    ],
)
def test_a_record_that_is_none_of_ours_is_refused_by_name(path: str, value: object, said: str) -> None:
    with pytest.raises(BadPayload) as raised:
        parse_event(changed(path, value), stream_arn=STREAM_ARN)
    assert said in str(raised.value)


def test_records_out_of_order_are_refused() -> None:
    event = copy.deepcopy(EXAMPLE)
    event["Records"].reverse()
    with pytest.raises(BadPayload, match="does not come after the one before it"):
        parse_event(event, stream_arn=STREAM_ARN)
    event["Records"] = [EXAMPLE["Records"][0]] * 2
    with pytest.raises(BadPayload, match="does not come after the one before it"):
        parse_event(event, stream_arn=STREAM_ARN)


def test_a_sequence_number_that_is_none_is_refused() -> None:
    event = changed("kinesis.sequenceNumber", "12x")
    event["Records"][1]["eventID"] = f"{SHARD_ID}:12x"
    with pytest.raises(BadPayload, match="the sequence number '12x' is none"):
        parse_event(event, stream_arn=STREAM_ARN)
