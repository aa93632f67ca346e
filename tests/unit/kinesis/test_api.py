"""The API's surface, held against botocore's own model of it, and the JSON at its edges."""

from __future__ import annotations

import json

import botocore.session
import pytest

from streamgauge.infra.local.kinesis.errors import (
    InvalidArgumentException,
    KinesisError,
    SerializationException,
    UnknownOperationException,
    UnsupportedOperation,
    ValidationException,
)
from streamgauge.infra.local.kinesis.model import KinesisModel
from streamgauge.infra.local.kinesis.operations import OPERATIONS, answer

T0 = 1_700_000_000_000
SERVICE = botocore.session.get_session().get_service_model("kinesis")
# Parameters that are refused by name: what they ask for is not there.
REFUSED = {"StreamId", "DryRun", "WarmThroughputMiBps", "RecordDistributionStrategy"}


def call(model: KinesisModel, operation: str, **parameters: object) -> dict[str, object]:
    body = answer(model, operation, json.dumps(parameters).encode(), T0)
    return json.loads(body) if body else {}  # type: ignore[no-any-return]


def model_with() -> KinesisModel:
    model = KinesisModel()
    model.create_stream("s", 2, now_ms=T0)
    return model


@pytest.mark.parametrize("operation", sorted(SERVICE.operation_names))
def test_every_operation_of_the_api_is_there_or_refused_by_name(operation: str) -> None:
    if operation in OPERATIONS:
        return
    with pytest.raises(UnsupportedOperation, match=f"{operation} is not supported: the local Kinesis"):
        answer(KinesisModel(), operation, b"{}", T0)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_every_parameter_of_an_operation_is_read_or_refused_by_name(operation: str) -> None:
    shape = SERVICE.operation_model(operation).input_shape
    assert shape is not None
    parameters: set[str] = set(shape.members)
    read = set()
    for name in parameters:
        try:
            answer(model_with(), operation, json.dumps({name: None}).encode(), T0)
        except SerializationException as error:
            if f"unknown field `{name}`" in str(error):
                continue
        except KinesisError:
            pass
        read.add(name)
    assert parameters - read <= REFUSED
    assert read.isdisjoint(REFUSED)


def test_an_unknown_operation_is_told() -> None:
    with pytest.raises(UnknownOperationException, match="Nonsense"):
        answer(KinesisModel(), "Nonsense", b"{}", T0)


@pytest.mark.parametrize(
    ("operation", "body", "text"),
    [
        ("PutRecord", b"{", "truncated"),
        ("PutRecord", b"\xff", "PutRecord"),
        ("PutRecord", b'{"StreamName":"s","PartitionKey":"k"}', "`Data`"),
        ("PutRecord", b'{"StreamName":"s","PartitionKey":"k","Data":"not base64!"}', "base64"),
        ("PutRecord", b'{"StreamName":"s","PartitionKey":"k","Data":"","DryRun":true}', "`DryRun`"),
        ("CreateStream", b'{"StreamName":"s","ShardCount":"2"}', "ShardCount"),
        ("GetShardIterator", b'{"StreamName":"s","ShardId":"x","ShardIteratorType":"NEWEST"}', "NEWEST"),
    ],
)
def test_a_body_that_does_not_fit_is_told_where(operation: str, body: bytes, text: str) -> None:
    with pytest.raises(SerializationException, match=text):
        answer(model_with(), operation, body, T0)


@pytest.mark.parametrize(
    ("operation", "parameters", "error", "text"),
    [
        ("DescribeStream", {}, InvalidArgumentException, "Either StreamName or StreamARN"),
        (
            "DescribeStream",
            {"StreamName": "s", "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/t"},
            InvalidArgumentException,
            "two streams",
        ),
        ("DescribeStream", {"StreamName": "s", "Limit": 0}, ValidationException, "limit"),
        ("ListStreams", {"Limit": 10_001}, ValidationException, "limit"),
        ("ListShards", {"StreamName": "s", "MaxResults": 0}, ValidationException, "maxResults"),
        ("ListShards", {"StreamName": "s", "NextToken": "x"}, InvalidArgumentException, "cannot be provided together"),
        (
            "PutRecord",
            {"StreamName": "s", "Data": "", "PartitionKey": "k", "ExplicitHashKey": "-1"},
            ValidationException,
            "explicitHashKey",
        ),
        (
            "SplitShard",
            {"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "007"},
            ValidationException,
            "newStartingHashKey",
        ),
    ],
)
def test_a_parameter_out_of_its_bounds_is_refused(
    operation: str, parameters: dict[str, object], error: type[KinesisError], text: str
) -> None:
    with pytest.raises(error, match=text):
        call(model_with(), operation, **parameters)


def test_an_iterator_of_one_stream_is_not_read_as_another() -> None:
    model = model_with()
    model.create_stream("t", 1, now_ms=T0)
    token = call(model, "GetShardIterator", StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="LATEST")[
        "ShardIterator"
    ]
    arn = "arn:aws:kinesis:us-east-1:000000000000:stream/"
    assert call(model, "GetRecords", ShardIterator=token, StreamARN=f"{arn}s")["Records"] == []
    with pytest.raises(InvalidArgumentException, match="not of"):
        call(model, "GetRecords", ShardIterator=token, StreamARN=f"{arn}t")
