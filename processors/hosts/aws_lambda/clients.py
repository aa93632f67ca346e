"""boto3's clients in a function: where they go and who they are is in its environment.

Source of the retry modes and time limits: botocore's configuration reference, ``botocore.config.Config``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_events import EventBridgeClient
    from types_boto3_kinesis import KinesisClient
    from types_boto3_lambda import LambdaClient
    from types_boto3_s3 import S3Client

__all__ = ["FunctionClients"]

_CONNECT_TIMEOUT_S = 2.0
_READ_TIMEOUT_S = 10.0
_STATE_READ_TIMEOUT_S = 3.0
_ATTEMPTS = 3


class FunctionClients:
    """The `AwsClients` of a function, made on first use and kept while its sandbox lives."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        is_local = bool(environment.get("AWS_ENDPOINT_URL") or environment.get("AWS_ENDPOINT_URL_S3"))
        self._config = Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            # A local stack has no names of its own for buckets.
            s3={"addressing_style": "path" if is_local else "auto"},
        )

    @cached_property
    def kinesis(self) -> KinesisClient:
        """Kinesis Data Streams."""
        return boto3.client("kinesis", config=self._config)

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """DynamoDB."""
        return boto3.client("dynamodb", config=self._config.merge(Config(read_timeout=_STATE_READ_TIMEOUT_S)))

    @cached_property
    def s3(self) -> S3Client:
        """S3."""
        return boto3.client("s3", config=self._config)

    @cached_property
    def events(self) -> EventBridgeClient:
        """EventBridge."""
        return boto3.client("events", config=self._config)

    @cached_property
    def functions(self) -> LambdaClient:
        """Lambda itself."""
        return boto3.client("lambda", config=self._config)
