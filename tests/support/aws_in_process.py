"""AWS in the test's own process (moto), with the tables, buckets and bus that the commit protocol uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto import mock_aws


@contextmanager
def aws_in_process() -> Iterator[Callable[..., object]]:
    """``boto3.client``, answered by moto: tables ``state`` and ``panes``, buckets of the same sense, a bus."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "testing"),
            ("AWS_SECRET_ACCESS_KEY", "testing"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KINESIS", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        dynamodb = boto3.client("dynamodb")
        for table, first, second in (("state", "pipeline", "shard_id"), ("panes", "pane", "window_start")):
            dynamodb.create_table(
                TableName=table,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in (first, second)],
                KeySchema=[
                    {"AttributeName": first, "KeyType": "HASH"},
                    {"AttributeName": second, "KeyType": "RANGE"},
                ],
            )
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="state")
        s3.create_bucket(Bucket="archive")
        boto3.client("events").create_event_bus(Name="thresholds")
        yield boto3.client
