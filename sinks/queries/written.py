"""The processors' JSON Lines tables as Arrow tables, for SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import pyarrow as pa

from streamgauge.events.times import instant_ms
from streamgauge.processors.commit.archive_rows import (
    COMMITS,
    FAILED_EVENTS,
    LATE_EVENTS,
    PANES,
    THRESHOLD_EVENTS,
    CommitRow,
    FailedRow,
    LateRow,
    PaneRow,
    ThresholdRow,
)
from streamgauge.processors.core.definition import Pipeline
from streamgauge.sinks.archive.columns import PARTITION_COLUMNS, TIME
from streamgauge.sinks.archive.layout import parse_name
from streamgauge.sinks.archive.tables import ArchiveTables

__all__ = ["WRITTEN_TABLES", "written_table"]

_TEXT = pa.string()
_KEY = pa.map_(_TEXT, _TEXT)
_COUNTS = pa.map_(_TEXT, pa.int64())

# Types of the columns by their names, which mean the same in every table; what is not named here is text.
_TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("window_start", "window_end", "arrival", "committed_at", "watermark", "time"), TIME),
    **dict.fromkeys(
        ("state_epoch", "revision", "event_count", "claim_version", "crossing_ordinal", "sub_sequence_number"),
        pa.int64(),
    ),
    "tombstone": pa.bool_(),
    "key": _KEY,
    "payload": pa.binary(),
    "gaps": pa.list_(_TEXT),
}
_AGGREGATE_COUNTERS = pa.struct(
    [
        *((name, pa.int64()) for name in ("accepted_before", "applied", "filtered", "late", "corrections")),
        *((name, pa.int64()) for name in ("late_in_part", "cut_sessions")),
    ]
)
_COUNTERS = pa.struct(
    [
        *((name, pa.int64()) for name in ("positions", "accepted", "duplicate_in_window", "duplicate_below_window")),
        *((name, pa.int64()) for name in ("duplicate_foreign", "type_not_read", "control", "ledger", "misrouted")),
        ("failed", _COUNTS),
        ("redelivered", pa.int64()),
        ("aggregates", pa.map_(_TEXT, _AGGREGATE_COUNTERS)),
        ("threshold_events_raised", pa.int64()),
        ("threshold_events_cleared", pa.int64()),
    ]
)

_ROW_TYPES: Mapping[str, type[msgspec.Struct]] = {
    PANES: PaneRow,
    THRESHOLD_EVENTS: ThresholdRow,
    FAILED_EVENTS: FailedRow,
    LATE_EVENTS: LateRow,
    COMMITS: CommitRow,
}
WRITTEN_TABLES = tuple(_ROW_TYPES)
"""What processors write, by the names of the tables."""


def written_table(tables: ArchiveTables, table: str, pipeline: Pipeline, *, empty: bool = False) -> pa.Table:
    """One of `WRITTEN_TABLES` with its partition columns.

    ``measures`` is a struct of all measures of the pipeline; failed and late events are those that a commit lists.

    Parameters
    ----------
    empty
        Only the columns: nothing is read.
    """
    row_type = _ROW_TYPES[table]
    rows = [] if empty else list(tables.written(table, row_type, _names(tables, table)))
    columns: dict[str, pa.Array[pa.Scalar[pa.DataType]]] = {}
    for name in row_type.__struct_fields__:
        column_type = _column_type(name, pipeline)
        convert = _CONVERT.get(name, _TIME if column_type == TIME else _same)
        columns[name] = pa.array([convert(getattr(row, name)) for _, row in rows], type=column_type)
    for field in PARTITION_COLUMNS:
        partitions = (parse_name(name) for name, _ in rows)
        columns[field.name] = pa.array([getattr(found, field.name, None) for found in partitions], type=field.type)
    return pa.table(columns)


def _names(tables: ArchiveTables, table: str) -> Sequence[str] | None:
    if table == FAILED_EVENTS:
        return _listed(commit.failed_object for commit in tables.commits)
    if table == LATE_EVENTS:
        return _listed(commit.late_object for commit in tables.commits)
    return None


def _listed(names: Iterable[str | None]) -> list[str]:
    return sorted({name for name in names if name is not None})


def _column_type(name: str, pipeline: Pipeline) -> pa.DataType:
    if name == "measures":
        return _measures(pipeline)
    return _COUNTERS if name == "counters" else _TYPES.get(name, _TEXT)


def _measures(pipeline: Pipeline) -> pa.DataType:
    kinds: dict[str, pa.DataType] = {}
    for aggregate in pipeline.aggregates:
        for measure in aggregate.measures:
            whole = measure.kind == "count" or (measure.is_integer and measure.kind != "mean")
            kind = pa.int64() if whole else pa.float64()
            # Two aggregates may call an integer and a number alike.
            kinds[measure.name] = kind if kinds.get(measure.name, kind) == kind else pa.float64()
    return pa.struct(list(kinds.items())) if kinds else pa.map_(_TEXT, pa.float64())


def _same(value: object) -> object:
    return value


def _TIME(value: object) -> object:  # noqa: N802 - stands beside the type of its name
    return instant_ms(value) if isinstance(value, str) else None


_CONVERT: Mapping[str, Callable[[object], object]] = {"counters": msgspec.to_builtins}
