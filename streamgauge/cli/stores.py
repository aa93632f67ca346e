"""The stores of a deployed stack, wired for one pipeline."""

from __future__ import annotations

from streamgauge.cli.context import Workplace
from streamgauge.processors.commit.dynamodb import DynamoDbStateStore
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts import wiring
from streamgauge.processors.hosts.wiring import Resources
from streamgauge.sinks.archive.files import ArchiveFiles
from streamgauge.sinks.archive.tables import ArchiveTables

__all__ = ["archive_tables", "resources", "state_store"]


def resources(place: Workplace) -> Resources:
    """The names of what the template created."""
    return Resources(
        stream_arn=place.output("StreamArn"),
        state_table=place.output("StateTableName"),
        state_bucket=place.output("StateBucketName"),
        archive_bucket=place.output("ArchiveBucketName"),
        panes_table=place.output("PanesTableName"),
        event_bus=place.output("EventBusName"),
    )


def state_store(place: Workplace, pipeline: Pipeline) -> DynamoDbStateStore:
    """The rows and snapshots of the pipeline's shards."""
    return wiring.state_store(place.clients, resources(place), pipeline)


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
