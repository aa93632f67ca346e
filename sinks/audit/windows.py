"""Checks of the results: every pane holds exactly the events that the archive has for its key and window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from streamgauge.events.times import instant_ms, rfc3339
from streamgauge.processors.commit.archive_rows import LateRow, PaneRow
from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.counters import AggregateCounters
from streamgauge.processors.core.definition import Aggregate, HoppingWindow, SessionWindow, TumblingWindow
from streamgauge.sinks.archive.panes import closed_panes
from streamgauge.sinks.audit.archived import ArchivedPositions, field_column
from streamgauge.sinks.audit.report import Check, shown
from streamgauge.sinks.audit.stores import Stores

__all__ = ["aggregate_checks"]

_POSITION = ("shard_id", "number", "sub")
_NONE = np.zeros(0, dtype=np.int64)


def aggregate_checks(stores: Stores, archived: ArchivedPositions) -> Iterator[Check]:
    """Per aggregate: its counters, its late events, and every window of every key."""
    closed = closed_panes(stores.closed)
    for aggregate in stores.pipeline.aggregates:
        late = [row for row in stores.late_rows if row.aggregate == aggregate.name]
        yield from _counter_checks(stores, aggregate, late)
        yield _revisions(stores, aggregate)
        selected = _select(stores, archived, aggregate)
        yield Check(
            name="filtered",
            scope=aggregate.name,
            expected=sum(counters.filtered for _, counters in _counters(stores, aggregate)),
            found=selected.filtered,
        )
        archived.register("late", _late_table(late))
        archived.register("selected", selected.table)
        panes = [*closed.get(aggregate.name, {}).values()]
        panes += [pane for pane in stores.open if pane.aggregate == aggregate.name]
        yield _windows(archived, aggregate, panes)


def _counters(stores: Stores, aggregate: Aggregate) -> list[tuple[int, AggregateCounters]]:
    """Per shard what it accepted, and the aggregate's counters."""
    found = (state.engine.counters for state in stores.states)
    return [(counters.accepted, counters.aggregates.get(aggregate.name, AggregateCounters())) for counters in found]


def _counter_checks(stores: Stores, aggregate: Aggregate, late: Sequence[LateRow]) -> Iterator[Check]:
    counters = _counters(stores, aggregate)
    yield Check(
        name="aggregate",
        scope=aggregate.name,
        expected=sum(accepted for accepted, _ in counters),
        found=sum(each.accepted_before + each.applied + each.filtered + each.late for _, each in counters),
    )
    copies = Counter((row.shard_id, row.sequence_number, row.sub_sequence_number) for row in late)
    yield Check(
        name="late",
        scope=aggregate.name,
        expected=sum(each.late + each.late_in_part for _, each in counters),
        found=len(late),
        doubled=shown(
            [f"shard {shard}, {number}/{sub}" for (shard, number, sub), count in copies.items() if count > 1]
        ),
    )


def _revisions(stores: Stores, aggregate: Aggregate) -> Check:
    """No revision of a pane stands in the archive twice, and none from 1 to the highest is absent."""
    seen = Counter(
        (*pane.key.values(), pane.window_start, pane.revision)
        for pane in stores.closed
        if pane.aggregate == aggregate.name
    )
    highest: dict[tuple[str, ...], int] = {}
    for *window, revision in seen:
        name = tuple(map(str, window))
        assert isinstance(revision, int)
        highest[name] = max(highest.get(name, 0), revision)
    expected = sum(highest.values())
    missing = [
        f"{' '.join(window)}, revision {revision}"
        for window, last in highest.items()
        for revision in range(1, last)
        if (*window, revision) not in seen
    ]
    doubled = [f"{' '.join(map(str, window))}, revision {rest}" for (*window, rest), n in seen.items() if n > 1]
    return Check(
        name="revisions",
        scope=aggregate.name,
        expected=expected,
        found=sum(seen.values()),
        missing=shown(missing),
        doubled=shown(doubled),
    )


class _Selected:
    def __init__(self, table: pa.Table, filtered: int) -> None:
        self.table = table
        self.filtered = filtered


def _select(stores: Stores, archived: ArchivedPositions, aggregate: Aggregate) -> _Selected:
    """The accepted events that an aggregate takes, and how many its ``where`` leaves out."""
    before = {
        state.row.shard.shard_id: state.engine.counters.aggregates.get(
            aggregate.name, AggregateCounters()
        ).accepted_before
        for state in stores.states
    }
    archived.register(
        "skipped",
        pa.table({"shard_id": pa.array(list(before), pa.string()), "n": pa.array(list(before.values()), pa.int64())}),
    )
    names = aggregate.where.names if aggregate.where is not None else ()
    chosen = ", ".join(f"a.{field_column(name)}" for name in dict.fromkeys([*aggregate.key, *names]))
    # An aggregate that was added later counts from then on.
    table = archived.connection.sql(
        f"SELECT shard_id, number, sub, time_ms, {chosen} FROM (SELECT *, row_number() OVER "  # noqa: S608
        "(PARTITION BY shard_id ORDER BY place) AS n_accepted FROM accepted) a JOIN skipped USING (shard_id) "
        "WHERE n_accepted > skipped.n"
    ).to_arrow_table()
    if aggregate.where is None:
        return _Selected(table, 0)
    columns = {name: _field(table, name) for name in names}
    held = aggregate.where.evaluate(columns, len(table))
    return _Selected(table.filter(pa.array(held)), len(table) - int(np.count_nonzero(held)))


def _field(table: pa.Table, name: str) -> FieldColumn:
    values: list[object] = table.select([name]).to_pydict()[name]
    present = np.array([value is not None for value in values], dtype=np.bool_)
    kind = table.schema.field(name).type
    if kind == pa.string():
        return FieldColumn([value if isinstance(value, str) else "" for value in values], present)
    dtype = {pa.bool_(): np.bool_, pa.int64(): np.int64}.get(kind, np.float64)
    return FieldColumn(np.array([0 if value is None else value for value in values]).astype(dtype), present)


def _late_table(late: Sequence[LateRow]) -> pa.Table:
    return pa.table(
        {
            "shard_id": pa.array([row.shard_id for row in late], pa.string()),
            "number": pa.array([row.sequence_number for row in late], pa.string()),
            "sub": pa.array([row.sub_sequence_number for row in late], pa.int64()),
            # The last window that the event has missed.
            "missed_ms": pa.array([instant_ms(row.window_start) for row in late], pa.int64()),
        }
    )


def _windows(archived: ArchivedPositions, aggregate: Aggregate, panes: Sequence[PaneRow]) -> Check:
    keys = [f"k{index}" for index in range(len(aggregate.key))]
    pane_columns: Mapping[str, pa.Array[pa.Scalar[pa.DataType]]] = {
        **{
            name: pa.array([pane.key[field] for pane in panes], pa.string())
            for name, field in zip(keys, aggregate.key, strict=True)
        },
        "start_ms": pa.array([instant_ms(pane.window_start) for pane in panes], pa.int64()),
        "n": pa.array([pane.event_count for pane in panes], pa.int64()),
    }
    archived.register("panes", pa.table(dict(pane_columns)))
    chosen = ", ".join(
        f"CAST({field_column(field)} AS VARCHAR) AS {name}" for name, field in zip(keys, aggregate.key, strict=True)
    )
    by = ", ".join([*keys, "start_ms"])
    if isinstance(aggregate.window, SessionWindow):
        by_window = _events_by_session(keys, chosen)
    else:
        by_window = _events_by_window(archived, aggregate.window, keys, chosen)
    sql = (
        f"WITH events AS ({by_window}), "  # noqa: S608
        f"results AS (SELECT {by}, sum(n)::BIGINT AS n, count(*) AS copies FROM panes GROUP BY ALL) "
        f"SELECT {by}, coalesce(events.n, 0), coalesce(results.n, 0), coalesce(copies, 0) "
        f"FROM events FULL JOIN results USING ({by})"
    )
    missing: list[str] = []
    doubled: list[str] = []
    expected = found = 0
    for row in archived.rows(sql):
        *key, start_ms, events, applied, copies = row
        assert isinstance(start_ms, int) and isinstance(events, int) and isinstance(applied, int)
        expected, found = expected + events, found + applied
        name = f"{' '.join(map(str, key))} {rfc3339(start_ms)}: {events} events, pane holds {applied}"
        if applied < events:
            missing.append(name if copies else f"{name[: name.rindex(',')]}, no pane")
        elif applied > events:
            doubled.append(name)
    return Check(
        name="windows",
        scope=aggregate.name,
        expected=expected,
        found=found,
        missing=shown(missing),
        doubled=shown(doubled),
    )


def _events_by_window(
    archived: ArchivedPositions, window: TumblingWindow | HoppingWindow, keys: Sequence[str], chosen: str
) -> str:
    """Selects the number of events by key and window; every event counts in all windows that it has not missed."""
    grid, cells = window.fixed
    times = [row[0] for row in archived.rows("SELECT DISTINCT time_ms FROM selected")]
    times_ms = np.array(times, dtype=np.int64)
    last = grid.starts(times_ms)
    starts = [grid.later(last, -back) for back in range(cells)]
    windows = {"time_ms": np.tile(times_ms, cells), "start_ms": np.concatenate([_NONE, *starts])}
    archived.register("windows", pa.table({name: pa.array(values) for name, values in windows.items()}))
    by = ", ".join([*keys, "start_ms"])
    return (
        f"SELECT {by}, count(*) AS n FROM (SELECT {chosen}, start_ms FROM selected "  # noqa: S608
        f"JOIN windows USING (time_ms) LEFT JOIN late USING ({', '.join(_POSITION)}) "
        "WHERE missed_ms IS NULL OR start_ms > missed_ms) GROUP BY ALL"
    )


def _events_by_session(keys: Sequence[str], chosen: str) -> str:
    """Selects the number of events by key and session: an event belongs to the last one that begins at it or before.

    One that belongs to none counts at its own time, where no pane is.
    """
    same = " AND ".join(f"e.{name} = p.{name}" for name in keys)
    by = ", ".join(f"e.{name}" for name in keys)
    return (
        f"SELECT {by}, coalesce(p.start_ms, e.time_ms) AS start_ms, count(*) AS n FROM (SELECT {chosen}, time_ms "  # noqa: S608
        f"FROM selected ANTI JOIN late USING ({', '.join(_POSITION)})) e "
        f"ASOF LEFT JOIN panes p ON {same} AND e.time_ms >= p.start_ms GROUP BY ALL"
    )
