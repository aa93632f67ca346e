"""The stores and receivers of a deployed stack, wired for one pipeline."""

from __future__ import annotations

from streamgauge.cli.context import Workplace
from streamgauge.processors.commit.dynamodb import DynamoDbStateStore
from streamgauge.processors.commit.eventbridge import EventBridgeReceiver
from streamgauge.processors.commit.ports import Receivers
from streamgauge.processors.commit.s3 import ArchiveReceiver, S3ObjectStore
from streamgauge.processors.commit.served_panes import ServedPanesReceiver
from streamgauge.processors.core.definition import Pipeline
from streamgauge.sinks.archive.files import ArchiveFiles
from streamgauge.sinks.archive.tables import ArchiveTables

__all__ = ["archive_objects", "archive_tables", "receivers", "state_store"]


def state_store(place: Workplace, pipeline: Pipeline) -> DynamoDbStateStore:
    """The rows and snapshots of the pipeline's shards."""
    return DynamoDbStateStore(
        place.clients.dynamodb,
        place.output("StateTableName"),
        S3ObjectStore(place.clients.s3, place.output("StateBucketName")),
        pipeline=pipeline.name,
        state_epoch=pipeline.state_epoch,
    )


def archive_objects(place: Workplace) -> S3ObjectStore:
    """The archive's objects."""
    return S3ObjectStore(place.clients.s3, place.output("ArchiveBucketName"))


def archive_tables(place: Workplace, pipeline: Pipeline) -> ArchiveTables:
    """The archive's tables, for reading."""
    credentials = place.clients.credentials("s3")
    files = ArchiveFiles.bucket(
        place.output("ArchiveBucketName"),
        endpoint=place.clients.endpoints.url("s3"),
        region=place.clients.region,
        access_key=credentials.access_key,
        secret_key=credentials.secret_key,
        session_token=credentials.token,
    )
    return ArchiveTables(files, pipeline.catalogue)


def receivers(place: Workplace, pipeline: Pipeline) -> Receivers:
    """Where the pipeline's effects go."""
    return Receivers(
        archive=ArchiveReceiver(archive_objects(place)),
        threshold_events=EventBridgeReceiver(place.clients.events, place.output("EventBusName")),
        served_panes=ServedPanesReceiver(
            place.clients.dynamodb,
            place.output("PanesTableName"),
            pipeline=pipeline.name,
            state_epoch=pipeline.state_epoch,
        ),
    )
