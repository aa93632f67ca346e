"""A pipeline's stores and receivers in AWS, by the names of the deployed resources: the same for every host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import Shard
from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.commit.dynamodb import DynamoDbStateStore
from streamgauge.processors.commit.eventbridge import EventBridgeReceiver
from streamgauge.processors.commit.ports import Receivers
from streamgauge.processors.commit.s3 import ArchiveReceiver, S3ObjectStore
from streamgauge.processors.commit.served_panes import ServedPanesReceiver
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.worker import OpenSession

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_events import EventBridgeClient
    from types_boto3_kinesis import KinesisClient
    from types_boto3_s3 import S3Client

__all__ = ["AwsClients", "Resources", "archive_objects", "receivers", "session_opener", "state_store"]

_PREFIX = "STREAMGAUGE_"


class AwsClients(Protocol):
    """The clients that a host needs."""

    @property
    def kinesis(self) -> KinesisClient:
        """Kinesis Data Streams."""
        ...

    @property
    def dynamodb(self) -> DynamoDBClient:
        """DynamoDB."""
        ...

    @property
    def s3(self) -> S3Client:
        """S3."""
        ...

    @property
    def events(self) -> EventBridgeClient:
        """EventBridge."""
        ...


@dataclass(frozen=True, slots=True)
class Resources:
    """The deployed resources of one pipeline. In an environment each is ``STREAMGAUGE_<NAME>``, in capitals."""

    stream_arn: str
    state_table: str
    state_bucket: str
    archive_bucket: str
    panes_table: str
    event_bus: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Resources:
        """Read the names that a function, or the child of another host, was started with.

        Raises
        ------
        StreamgaugeError
            Some are missing: it names all of them.
        """
        found = {each.name: environment.get(_PREFIX + each.name.upper(), "") for each in fields(cls)}
        missing = [_PREFIX + name.upper() for name, value in found.items() if not value]
        if missing:
            raise StreamgaugeError(
                f"not set: {', '.join(missing)}",
                where="environment",
                remedy="Deploy this version's infra/template.yaml, which sets them",
            )
        return cls(**found)

    @property
    def stream_name(self) -> str:
        """The stream's name, by which Kinesis is called."""
        return self.stream_arn.rpartition("/")[2]

    def environment(self) -> dict[str, str]:
        """The variables that `from_environment` reads."""
        return {_PREFIX + each.name.upper(): getattr(self, each.name) for each in fields(self)}


def state_store(clients: AwsClients, resources: Resources, pipeline: Pipeline) -> DynamoDbStateStore:
    """The rows and snapshots of the pipeline's shards."""
    return DynamoDbStateStore(
        clients.dynamodb,
        resources.state_table,
        S3ObjectStore(clients.s3, resources.state_bucket),
        pipeline=pipeline.name,
        state_epoch=pipeline.state_epoch,
    )


def archive_objects(clients: AwsClients, resources: Resources) -> S3ObjectStore:
    """The archive's objects."""
    return S3ObjectStore(clients.s3, resources.archive_bucket)


def receivers(clients: AwsClients, resources: Resources, pipeline: Pipeline) -> Receivers:
    """Where the pipeline's effects go."""
    return Receivers(
        archive=ArchiveReceiver(archive_objects(clients, resources)),
        threshold_events=EventBridgeReceiver(
            clients.events,
            resources.event_bus,
            severities={rule.name: rule.severity for rule in pipeline.thresholds}
            | {rule.name: rule.severity for rule in pipeline.absences},
        ),
        served_panes=ServedPanesReceiver(
            clients.dynamodb, resources.panes_table, pipeline=pipeline.name, state_epoch=pipeline.state_epoch
        ),
    )


def session_opener(clients: AwsClients, resources: Resources, pipeline: Pipeline, *, parents: Parents) -> OpenSession:
    """Opens sessions whose state and effects go to the deployed stores."""
    engine = core_engine(resources.stream_arn)
    store = state_store(clients, resources, pipeline)
    archive = archive_objects(clients, resources)
    to = receivers(clients, resources, pipeline)

    def open_session(shard: Shard, start: str, *, owner: str, seen_version: int | None) -> ShardSession:
        return ShardSession.open(
            pipeline,
            shard,
            store=store,
            archive=archive,
            receivers=to,
            owner=owner,
            now_ms=lambda: time.time_ns() // 1_000_000,
            engine=engine,
            start=start,
            seen_version=seen_version,
            parents=parents,
        )

    return open_session
