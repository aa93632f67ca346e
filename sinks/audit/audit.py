"""The audit: from the stores alone, what was acknowledged is archived, and is counted once.

See ``docs/adr/0013-audit.md`` for what each check proves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from streamgauge.processors.commit.engine_port import EngineFactory
from streamgauge.processors.commit.ports import StateStore
from streamgauge.processors.core.definition import Pipeline
from streamgauge.sinks.archive.files import ArchiveFiles
from streamgauge.sinks.archive.states import read_states
from streamgauge.sinks.archive.tables import ArchiveTables
from streamgauge.sinks.audit.archived import ArchivedPositions
from streamgauge.sinks.audit.handed_over import handover_checks
from streamgauge.sinks.audit.positions import (
    delivery_checks,
    object_checks,
    outbox_check,
    position_checks,
    shard_count_checks,
)
from streamgauge.sinks.audit.report import AuditReport, Check, report
from streamgauge.sinks.audit.sources import source_checks
from streamgauge.sinks.audit.stores import Stores
from streamgauge.sinks.audit.thresholds import threshold_checks
from streamgauge.sinks.audit.windows import aggregate_checks

__all__ = ["audit"]

# What may hold a moment later, because delivery follows the stream at its own pace.
_MAY_COME = frozenset({"delivery", "acknowledged"})


def audit(
    pipeline: Pipeline,
    *,
    files: ArchiveFiles,
    store: StateStore,
    engine: EngineFactory,
    wait: Callable[[], bool] = lambda: False,
) -> AuditReport:
    """Check a pipeline's state against the archive, each shard up to the position of its last commit.

    Parameters
    ----------
    wait
        Called when delivery has not reached those positions, or results wait in an outbox: waits a moment and says
        whether to look once more. When it says no, the checks that do not hold are the verdict.

    Raises
    ------
    SnapshotError
        A state is there, but unreadable, or that of another definition of the pipeline.
    StoreUnavailable, StoreRefused, ArchiveUnavailable
        A store cannot be read.
    """
    while True:
        stores = _look(pipeline, files, store, engine)
        early = [_processed(stores), outbox_check(stores), *delivery_checks(stores)]
        is_covered = all(check.holds for check in early)
        if is_covered or not wait():
            result = report([*early, *_checks(stores)])
            # Sources are judged by all that is archived, of shards too where nothing was processed yet.
            may_come = any(check.name in _MAY_COME for check in result.failed)
            if not (is_covered and may_come and wait()):
                return result


def _look(pipeline: Pipeline, files: ArchiveFiles, store: StateStore, engine: EngineFactory) -> Stores:
    states = read_states(pipeline, store, engine)
    ranges = ArchiveTables(files, pipeline.catalogue).ranges
    tables = ArchiveTables(files, pipeline.catalogue)
    for table in tables.schemas:
        tables.names(table)
    return Stores(pipeline, tables, states, ranges, tables.ranges)


def _processed(stores: Stores) -> Check:
    """Without a commit nothing is proven."""
    found = "a commit" if stores.cuts else "none: nothing was processed"
    return Check(name="processed", scope="pipeline", expected="a commit", found=found)


def _checks(stores: Stores) -> Iterator[Check]:
    archived = ArchivedPositions(stores)
    try:
        yield from object_checks(stores)
        yield from position_checks(archived)
        yield from handover_checks(stores, archived)
        yield from shard_count_checks(stores, archived)
        yield from source_checks(stores)
        yield from aggregate_checks(stores, archived)
        yield from threshold_checks(stores)
    finally:
        archived.close()
