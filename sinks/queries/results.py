"""The results of an aggregate: its panes as they stand, served in DynamoDB or not."""

from __future__ import annotations

import difflib

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.commit.archive_rows import PaneRow
from streamgauge.processors.commit.engine_port import EngineFactory
from streamgauge.processors.commit.ports import StateStore
from streamgauge.processors.core.definition import Pipeline
from streamgauge.sinks.archive.panes import closed_panes, emitted_panes, open_panes, pane_key
from streamgauge.sinks.archive.states import read_states
from streamgauge.sinks.archive.tables import ArchiveTables

__all__ = ["ResultPane", "UnknownAggregate", "results"]


class UnknownAggregate(StreamgaugeError):
    """The pipeline has no aggregate of that name."""


class ResultPane(msgspec.Struct, frozen=True):
    """One pane. Times are RFC 3339 UTC; a measure without a value is None; an open pane has revision 0."""

    aggregate: str
    key: dict[str, str]
    window_start: str
    window_end: str
    revision: int
    measures: dict[str, int | float | None]


def results(
    aggregate: str,
    *,
    pipeline: Pipeline,
    tables: ArchiveTables,
    store: StateStore,
    engine: EngineFactory,
    include_open: bool = False,
) -> list[ResultPane]:
    """Closed panes at their highest revision, and with `include_open` open ones, sorted by key, then by window.

    Raises
    ------
    UnknownAggregate
        The pipeline has none of that name.
    SnapshotError, StoreUnavailable, StoreRefused, ArchiveUnavailable
        State or archive cannot be read.
    """
    names = [known.name for known in pipeline.aggregates]
    if aggregate not in names:
        close = difflib.get_close_matches(aggregate, names, n=1)
        raise UnknownAggregate(
            f"the pipeline {pipeline.name!r} has no aggregate {aggregate!r}",
            remedy=f"Did you mean {close[0]}?" if close else f"It has: {', '.join(names) or 'none'}",
        )
    states = read_states(pipeline, store, engine)
    # A window that was corrected while open again would stand in both: the open one is the newer.
    found = dict(closed_panes(emitted_panes(tables, states, pipeline)).get(aggregate, {}))
    if include_open:
        found.update({pane_key(pane): pane for pane in open_panes(states, pipeline) if pane.aggregate == aggregate})
    return [_result(found[key]) for key in sorted(found)]


def _result(pane: PaneRow) -> ResultPane:
    return ResultPane(pane.aggregate, pane.key, pane.window_start, pane.window_end, pane.revision, dict(pane.measures))
