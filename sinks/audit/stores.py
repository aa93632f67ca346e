"""One consistent look at the stores: the saved states first, then what the archive holds of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from streamgauge.events.position import Position
from streamgauge.processors.commit.archive_rows import (
    COMMITS,
    FAILED_EVENTS,
    LATE_EVENTS,
    THRESHOLD_EVENTS,
    CommitRow,
    FailedRow,
    LateRow,
    PaneRow,
    ThresholdRow,
)
from streamgauge.processors.core.definition import Pipeline
from streamgauge.sinks.archive.panes import archived_panes, open_panes
from streamgauge.sinks.archive.ranges import DeliveredRange
from streamgauge.sinks.archive.states import PipelineStates
from streamgauge.sinks.archive.tables import ArchiveTables

__all__ = ["Stores"]

Row = TypeVar("Row", CommitRow, ThresholdRow)


@dataclass(frozen=True)
class Stores:
    """States were read before `tables` listed anything, so all that they committed and delivered is in the archive.

    What still waits in an outbox does not count: a processor that is well delivers it within moments.
    ``ranges`` were read before the archive's objects were listed, ``later_ranges`` after it.
    """

    pipeline: Pipeline
    tables: ArchiveTables
    states: PipelineStates
    ranges: Sequence[DeliveredRange]
    later_ranges: Sequence[DeliveredRange]

    @cached_property
    def cuts(self) -> Mapping[str, Position]:
        """By shard the position up to which it is processed; shards that have applied nothing are left out."""
        return {state.row.shard.shard_id: state.row.position for state in self.states if state.row.position is not None}

    @cached_property
    def ended(self) -> frozenset[str]:
        """The shards to which nothing will be applied any more: they are sealed, or a child has begun."""
        sealed = {shard_id for shard_id, row in self.states.rows.items() if row.sealed}
        return frozenset(sealed | (self.states.begun_children.keys() & self.states.rows.keys()))

    @cached_property
    def commits(self) -> list[CommitRow]:
        """The commits that the states include."""
        return self._saved(COMMITS, CommitRow)

    @cached_property
    def threshold_events(self) -> list[ThresholdRow]:
        """Every threshold event that the states include."""
        return self._saved(THRESHOLD_EVENTS, ThresholdRow)

    @cached_property
    def closed(self) -> list[PaneRow]:
        """Every pane emitted, at every revision."""
        return list(archived_panes(self.tables, self.states, self.pipeline))

    @cached_property
    def open(self) -> list[PaneRow]:
        """Every open pane."""
        return list(open_panes(self.states, self.pipeline))

    @cached_property
    def failed_objects(self) -> list[str]:
        """The objects of failed events that commits list."""
        return _listed(commit.failed_object for commit in self.commits)

    @cached_property
    def late_objects(self) -> list[str]:
        """The objects of late events that commits list."""
        return _listed(commit.late_object for commit in self.commits)

    @cached_property
    def failed_rows(self) -> list[FailedRow]:
        """The failed events of those objects, as far as these are there."""
        there = set(self.tables.names(FAILED_EVENTS))
        names = [name for name in self.failed_objects if name in there]
        return [row for _, row in self.tables.written(FAILED_EVENTS, FailedRow, names)]

    @cached_property
    def late_rows(self) -> list[LateRow]:
        """The late events of those objects, as far as these are there."""
        there = set(self.tables.names(LATE_EVENTS))
        names = [name for name in self.late_objects if name in there]
        return [row for _, row in self.tables.written(LATE_EVENTS, LateRow, names)]

    def _saved(self, table: str, row_type: type[Row]) -> list[Row]:
        rows = [row for _, row in self.tables.written(table, row_type)]
        latest = {state.row.shard.shard_id: state.row.claim_version for state in self.states}
        mine = (self.pipeline.name, self.pipeline.state_epoch)
        return [
            row
            for row in rows
            if (row.pipeline, row.state_epoch) == mine and row.claim_version <= latest.get(row.shard_id, -1)
        ]


def _listed(names: Iterable[str | None]) -> list[str]:
    return sorted({name for name in names if name is not None})
