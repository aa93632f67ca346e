"""The stores of a deployed stack, wired for one pipeline."""

from __future__ import annotations

from streamgauge.cli.context import Workplace
from streamgauge.cli.pipeline_state import resources, state_store
from streamgauge.processors.core.definition import Pipeline
from streamgauge.sinks.archive.files import ArchiveFiles
from streamgauge.sinks.archive.tables import ArchiveTables

__all__ = ["archive_tables", "resources", "state_store"]


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
