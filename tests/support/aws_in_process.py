"""AWS in the test's own process (moto), with the tables, buckets and bus that the commit protocol uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import boto3
import pytest
from moto import mock_aws

_TABLES = {"state": ("pipeline", "shard_id"), "panes": ("pane", "window_start")}
_BUCKETS = ("state", "archive")


@dataclass
class InProcessAws:
    """Clients, which are dear to make, and what they find: tables and buckets by these names, the bus `thresholds`."""

    @cached_property
    def dynamodb(self):
        return boto3.client("dynamodb")

    @cached_property
    def s3(self):
        return boto3.client("s3")

    @cached_property
    def events(self):
        return boto3.client("events")

    def make(self) -> None:
        for table in _TABLES:
            self.make_table(table)
        for bucket in _BUCKETS:
            self.s3.create_bucket(Bucket=bucket)
        self.events.create_event_bus(Name="thresholds")

    def clear(self) -> None:
        """Empty tables and buckets, for the next test."""
        for table in _TABLES:
            self.dynamodb.delete_table(TableName=table)
            self.make_table(table)
        for bucket in _BUCKETS:
            for item in self.s3.list_objects_v2(Bucket=bucket).get("Contents", []):
                self.s3.delete_object(Bucket=bucket, Key=item["Key"])

    def make_table(self, table: str) -> None:
        """Create one of the tables, empty."""
        names = _TABLES[table]
        self.dynamodb.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
            KeySchema=[
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=True)
            ],
        )


@contextmanager
def aws_in_process() -> Iterator[InProcessAws]:
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "testing"),
            ("AWS_SECRET_ACCESS_KEY", "testing"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KINESIS", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        aws = InProcessAws()
        aws.make()
        yield aws
