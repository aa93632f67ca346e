"""Handing state over when a stream is resharded: what a shard begins with, from what its parents ended with.

Pure, and the same however a shard came about: one parent (a split) or two (a merge), each of them perhaps a child that
never had an event, or a shard that was never read. Whether the parents have ended is for the caller to know: see
``docs/adr/0017-resharding.md``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.events.hash_key import HashRange, hash_key
from streamgauge.events.records import Shard
from streamgauge.processors.core.columns import integers, texts
from streamgauge.processors.core.container import Column, Columns
from streamgauge.processors.core.dedupe import Deduper
from streamgauge.processors.core.definition import Aggregate, Pipeline
from streamgauge.processors.core.effects import Outbox, PaneBatch
from streamgauge.processors.core.floors import NEVER
from streamgauge.processors.core.keys import KeyTable
from streamgauge.processors.core.shard_state import (
    check_state,
    columns_below,
    new_aggregates,
    new_counters,
    new_deduper,
    new_watermark,
    state_columns,
)
from streamgauge.processors.core.summaries import is_page_column, pages_within
from streamgauge.processors.core.watermark import Watermark

__all__ = ["ParentState", "inherit", "split_outbox"]

_ROW_TABLES = ("pane", "slice", "seen")
"""The tables of an aggregate's columns that have a row per key and window; all other columns have one per key."""


class ParentState(NamedTuple):
    """A parent, and the columns of its engine's last snapshot; None if it never had a state."""

    shard: Shard
    columns: Columns | None


def inherit(pipeline: Pipeline, child: Shard, parents: Sequence[ParentState]) -> Columns:
    """What the engine of a shard begins with, in the form of `Engine.snapshot`.

    Parameters
    ----------
    pipeline
        The definition that the child will run.
    child
        The shard that begins.
    parents
        All its parents, in any order. They have ended: nothing will be applied to them any more.

    Returns
    -------
    Columns for `Engine.restore`. The position is None, since the child begins at its own first record, and all counters
    are zero: positions stay counted where they stood.

    Raises
    ------
    SnapshotError
        As `Engine.restore` raises it: a parent's state is that of another pipeline, of a definition that was changed
        since, or of a format that this release does not read.
    """
    ordered = sorted(parents, key=lambda parent: parent.shard.hash_range)
    for parent in ordered:
        if parent.columns is not None:
            check_state(pipeline, parent.shard, parent.columns)
    states = [parent.columns for parent in ordered if parent.columns is not None]
    counters = new_counters(pipeline)
    watermark = _watermark(pipeline, child.hash_range, ordered)
    watermark_ms = NEVER if watermark.watermark_ms is None else watermark.watermark_ms
    aggregates = new_aggregates(pipeline, counters)
    for aggregate, state in zip(pipeline.aggregates, aggregates, strict=True):
        for saved in states:
            part = columns_below(saved, f"aggregate.{aggregate.name}.")
            # A parent has nothing of an aggregate that was added after it had ended.
            if part:
                within = _within(part, aggregate, child.hash_range)
                state.restore(within, watermark_ms, closed_to_ms=watermark.closed_to_ms)
    return state_columns(
        pipeline,
        position=None,
        counters=counters,
        watermark=watermark,
        deduper=_deduper(pipeline, states),
        aggregates=aggregates,
    )


def _watermark(pipeline: Pipeline, hash_range: HashRange, parents: Sequence[ParentState]) -> Watermark:
    clocks: list[tuple[HashRange, Watermark]] = []
    for shard, columns in parents:
        clock = new_watermark(pipeline)
        if columns is not None:
            clock.restore(columns_below(columns, "watermark."))
        clocks.append((shard.hash_range, clock))
    watermark = new_watermark(pipeline)
    if clocks:
        watermark.inherit(hash_range, clocks)
    return watermark


def _deduper(pipeline: Pipeline, states: Sequence[Columns]) -> Deduper:
    joined = new_deduper(pipeline)
    for place, columns in enumerate(states):
        deduper = new_deduper(pipeline)
        deduper.restore(columns_below(columns, "dedupe."))
        if place:
            joined.join(deduper)
        else:
            joined = deduper
    return joined


def _within(columns: Columns, aggregate: Aggregate, hash_range: HashRange) -> Columns:
    """An aggregate's columns without the keys whose partition key hashes elsewhere, and without their panes."""
    field = KeyTable(aggregate.key).partition_field
    inside = _inside(texts(columns, f"key.{field}"), hash_range)
    rows = {prefix: integers(columns, f"{prefix}.key") for prefix in _ROW_TABLES if f"{prefix}.key" in columns}
    chosen: dict[str, Column] = {}
    for name, column in columns.items():
        prefix = name.partition(".")[0]
        if prefix in rows and is_page_column(name.removeprefix(f"{prefix}.")):
            continue
        kept = inside[rows[prefix]] if prefix in rows else inside
        if isinstance(column, np.ndarray):
            chosen[name] = column[kept]
        else:
            chosen[name] = list(itertools.compress(texts(columns, name), kept.tolist()))
    place = np.cumsum(inside) - 1
    for prefix, of_row in rows.items():
        chosen[f"{prefix}.key"] = place[of_row[inside[of_row]]]
        pages = pages_within(columns_below(columns, f"{prefix}."), inside[of_row])
        chosen |= {f"{prefix}.{name}": column for name, column in pages.items()}
    return chosen


def _inside(partition_keys: Sequence[str], hash_range: HashRange) -> NDArray[np.bool_]:
    return np.array([hash_key(key) in hash_range for key in partition_keys], dtype=np.bool_)


def split_outbox(outbox: Outbox, child_range: HashRange) -> Outbox:
    """What a shard takes over of a parent's outbox.

    Threshold events and served panes go where their partition key hashes to, so that each has one heir. Objects for
    the archive go to every child, whole: a second delivery under the same name overwrites the first by the same bytes.
    """
    events = tuple(event for event in outbox.threshold_events if hash_key(event.partition_key) in child_range)
    panes = (_panes_within(panes, child_range) for panes in outbox.served_panes)
    return Outbox(outbox.archive_objects, events, tuple(panes for panes in panes if len(panes)))


def _panes_within(panes: PaneBatch, hash_range: HashRange) -> PaneBatch:
    inside = _inside(panes.partition_keys, hash_range)
    return panes if inside.all() else panes.take(np.flatnonzero(inside).tolist())
