"""boto3 clients for one set of endpoints, and the guard that keeps commands away from real AWS.

Source of the retry modes and time limits: botocore's configuration reference, ``botocore.config.Config``.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.settings import Endpoints

if TYPE_CHECKING:
    from types_boto3_cloudformation import CloudFormationClient
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_events import EventBridgeClient
    from types_boto3_glue import GlueClient
    from types_boto3_kinesis import KinesisClient
    from types_boto3_lambda import LambdaClient
    from types_boto3_logs import CloudWatchLogsClient
    from types_boto3_s3 import S3Client
    from types_boto3_sns import SNSClient
    from types_boto3_sqs import SQSClient

__all__ = ["LOCAL_CREDENTIALS", "LOCAL_REGION", "Clients", "Credentials", "NotLocal"]

LOCAL_REGION = "us-east-1"

_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 30.0
_STATE_READ_TIMEOUT_S = 3.0
_ATTEMPTS = 5
_POOL_SIZE = 32


class NotLocal(StreamgaugeError):
    """A call would leave this machine, and nobody has said that it may."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What requests are signed with."""

    access_key: str
    secret_key: str
    token: str | None = None


LOCAL_CREDENTIALS = Credentials("test", "test")
"""For loopback addresses: a user's own keys are neither needed there nor handed out."""


class _Arguments(TypedDict):
    endpoint_url: str | None
    region_name: str
    config: Config
    aws_access_key_id: str | None
    aws_secret_access_key: str | None


class Clients:
    """Clients of the services that the pipeline uses, made on first use and kept. Safe to share between threads.

    Parameters
    ----------
    endpoints
        Where the services are.
    region
        None: the region of the environment or of the user's profile.
    live
        Whether an address that is not loopback, and so AWS itself, may be called.
    attempts
        Tries of one call, the first included. The producer retries by itself and asks for one.
    read_timeout_s
        How long an answer may be on its way. Whoever waits for functions needs longer than they may take.

    Raises
    ------
    NotLocal
        By the property that would make a client of a service elsewhere, without `live`.
    StreamgaugeError
        The user's AWS configuration cannot be read, or names no region.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        region: str | None = None,
        live: bool = False,
        attempts: int = _ATTEMPTS,
        read_timeout_s: float = _READ_TIMEOUT_S,
    ) -> None:
        self.endpoints = endpoints
        self.live = live
        self._config = Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=_POOL_SIZE,
            s3={"addressing_style": "path"},
        )
        # A session is not thread-safe; the clients that it makes are.
        self._lock = threading.Lock()
        try:
            self._session = boto3.Session(region_name=region)
        except BotoCoreError as error:
            raise StreamgaugeError(str(error), where="AWS configuration") from error

    @property
    def region(self) -> str:
        """The region that calls are signed for."""
        region = self._session.region_name
        if region:
            return region
        if self.endpoints.are_local:
            return LOCAL_REGION
        raise StreamgaugeError("no region is set", where="AWS configuration", remedy="Set AWS_DEFAULT_REGION")

    @cached_property
    def kinesis(self) -> KinesisClient:
        """Kinesis Data Streams."""
        with self._lock:
            return self._session.client("kinesis", **self._arguments("kinesis"))

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """DynamoDB."""
        with self._lock:
            arguments = self._arguments("dynamodb")
            # A state store that is silent for longer than a lease has lost the shard anyway: say so soon.
            arguments["config"] = self._config.merge(Config(read_timeout=_STATE_READ_TIMEOUT_S))
            return self._session.client("dynamodb", **arguments)

    @cached_property
    def s3(self) -> S3Client:
        """S3, addressed by path."""
        with self._lock:
            return self._session.client("s3", **self._arguments("s3"))

    @cached_property
    def events(self) -> EventBridgeClient:
        """EventBridge."""
        with self._lock:
            return self._session.client("events", **self._arguments("events"))

    @cached_property
    def sqs(self) -> SQSClient:
        """SQS."""
        with self._lock:
            return self._session.client("sqs", **self._arguments("sqs"))

    @cached_property
    def sns(self) -> SNSClient:
        """SNS."""
        with self._lock:
            return self._session.client("sns", **self._arguments("sns"))

    @cached_property
    def cloudformation(self) -> CloudFormationClient:
        """CloudFormation."""
        with self._lock:
            return self._session.client("cloudformation", **self._arguments("cloudformation"))

    @cached_property
    def glue(self) -> GlueClient:
        """The Glue Data Catalog."""
        with self._lock:
            return self._session.client("glue", **self._arguments("glue"))

    @cached_property
    def functions(self) -> LambdaClient:
        """Lambda."""
        with self._lock:
            return self._session.client("lambda", **self._arguments("lambda"))

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        """CloudWatch Logs."""
        with self._lock:
            return self._session.client("logs", **self._arguments("logs"))

    @cached_property
    def account(self) -> str:
        """The account that calls are made in.

        Raises
        ------
        StreamgaugeError
            AWS does not know who calls.
        """
        with self._lock:
            sts = self._session.client("sts", **self._arguments("sts"))
        try:
            return sts.get_caller_identity()["Account"]
        except (BotoCoreError, ClientError) as error:
            raise StreamgaugeError(str(error), where="AWS credentials") from error

    def credentials(self, service: str) -> Credentials:
        """What calls to the service are signed with, for those who call it without boto3 (pyarrow's file system).

        Raises
        ------
        NotLocal
            The service is not local, and `live` was not given.
        StreamgaugeError
            There are no credentials for AWS.
        """
        self._guard(service)
        if self.endpoints.is_local(service):
            return LOCAL_CREDENTIALS
        with self._lock:
            found = self._session.get_credentials()
        if found is None:
            raise StreamgaugeError("there are no credentials", where="AWS configuration", remedy="Set them as for aws")
        frozen = found.get_frozen_credentials()
        if not frozen.access_key or not frozen.secret_key:
            raise StreamgaugeError("the credentials are incomplete", where="AWS configuration")
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    def _arguments(self, service: str) -> _Arguments:
        self._guard(service)
        # Elsewhere botocore finds the user's keys itself, and renews them.
        local = LOCAL_CREDENTIALS if self.endpoints.is_local(service) else None
        return _Arguments(
            endpoint_url=self.endpoints.url(service),
            region_name=self.region,
            config=self._config,
            aws_access_key_id=local.access_key if local else None,
            aws_secret_access_key=local.secret_key if local else None,
        )

    def _guard(self, service: str) -> None:
        if self.live or self.endpoints.is_local(service):
            return
        url = self.endpoints.url(service)
        raise NotLocal(
            f"calls would go to {url or 'AWS itself'}, not to this machine",
            where=service,
            remedy="Start the local stack with `streamgauge up`, or say --live if this is meant",
        )
