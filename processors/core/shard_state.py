"""The parts of a shard's state, and the columns that they stand in. See ``docs/adr/0010-snapshot-container.md``."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.processors.core.aggregate_state import AggregateState
from streamgauge.processors.core.columns import integers
from streamgauge.processors.core.container import Column, Columns, SnapshotError
from streamgauge.processors.core.counters import AggregateCounters, Counters
from streamgauge.processors.core.dedupe import Deduper
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.fingerprints import check_definitions, definition_columns
from streamgauge.processors.core.watermark import Watermark

__all__ = [
    "STATE_FORMAT",
    "check_state",
    "columns_below",
    "new_aggregates",
    "new_counters",
    "new_deduper",
    "new_watermark",
    "state_columns",
]

STATE_FORMAT = 1
"""Which reader the columns of a snapshot need."""


def new_counters(pipeline: Pipeline) -> Counters:
    """Nothing counted yet."""
    return Counters(aggregates={aggregate.name: AggregateCounters() for aggregate in pipeline.aggregates})


def new_deduper(pipeline: Pipeline) -> Deduper:
    """Nothing seen yet."""
    return Deduper(pipeline.max_w, pipeline.resend_horizon_ms, pipeline.foreign_horizon_ms)


def new_watermark(pipeline: Pipeline) -> Watermark:
    """Before the first event."""
    return Watermark(pipeline.out_of_orderness_ms, [aggregate.window for aggregate in pipeline.aggregates])


def new_aggregates(pipeline: Pipeline, counters: Counters) -> list[AggregateState]:
    """Without panes; each counts in its part of `counters`."""
    return [
        AggregateState(pipeline, aggregate, counters.aggregates[aggregate.name]) for aggregate in pipeline.aggregates
    ]


def state_columns(
    pipeline: Pipeline,
    *,
    position: Position | None,
    counters: Counters,
    watermark: Watermark,
    deduper: Deduper,
    aggregates: Sequence[AggregateState],
) -> Columns:
    """The whole state as columns that its parts do not change afterwards; `aggregates` as the pipeline has them."""
    in_order = msgspec.structs.replace(counters, failed=dict(sorted(counters.failed.items())))
    columns: dict[str, Column] = {
        "state_format": np.array([STATE_FORMAT], dtype=np.int64),
        **definition_columns(pipeline),
        "position": [] if position is None else [str(position)],
        "counters": [msgspec.json.encode(in_order).decode()],
        **{f"watermark.{name}": column for name, column in watermark.columns().items()},
        **{f"dedupe.{name}": column for name, column in deduper.columns().items()},
    }
    for aggregate, state in zip(pipeline.aggregates, aggregates, strict=True):
        columns |= {f"aggregate.{aggregate.name}.{name}": column for name, column in state.columns().items()}
    return columns


def check_state(pipeline: Pipeline, shard: Shard, columns: Columns) -> None:
    """Refuse a state that is not this pipeline's.

    Raises
    ------
    SnapshotError
        The columns are those of another pipeline, of an aggregate or threshold that was changed since, or of a format
        that this release does not read.
    """
    (state_format,) = integers(columns, "state_format").tolist()
    if state_format != STATE_FORMAT:
        raise SnapshotError(
            f"the state has format {state_format}; this release reads format {STATE_FORMAT}",
            where=f"shard {shard.shard_id}",
            remedy="Run the release that wrote it, or a later one",
        )
    check_definitions(pipeline, columns)


def columns_below(columns: Columns, prefix: str) -> dict[str, Column]:
    """The columns whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}
