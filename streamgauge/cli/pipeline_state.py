"""What a deployed stack keeps of one pipeline's processing. The archive, which takes pyarrow, is in `stores`."""

from __future__ import annotations

from streamgauge.cli.context import Workplace
from streamgauge.processors.commit.dynamodb import DynamoDbStateStore
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts import wiring
from streamgauge.processors.hosts.wiring import Resources

__all__ = ["resources", "state_store"]


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
