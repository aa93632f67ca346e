"""Every kind of window against DuckDB over the same events, and the cases of Flink's documentation.

The cases are those of "Windows" in Apache Flink's documentation
(https://nightlies.apache.org/flink/flink-docs-stable/docs/dev/datastream/operators/windows/), told in events.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from scripted_events import MEASURE_KINDS, PIPELINE, SHARD, Item, Script, ScriptedDecoder

from streamgauge.events.records import StreamRecord
from streamgauge.events.times import instant_ms
from streamgauge.processors.core.definition import HoppingWindow, Pipeline, SessionWindow, TumblingWindow, Window
from streamgauge.processors.core.effects import PaneBatch
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.hosts.time_zones import load_time_zone

WEATHER = Path(__file__).parents[1] / "data" / "nyc-weather-2013.csv.gz"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
NEW_YORK = load_time_zone("America/New_York")
ZONED = TumblingWindow(DAY_MS, NEW_YORK)
ZONED_WEEK = HoppingWindow(7 * DAY_MS, DAY_MS, NEW_YORK)
NUMBERS = ("n", "numbers", "total", "low", "high", "average")


def pipeline(window: Window, *, bound_ms: int, lateness_ms: int = 0) -> Pipeline:
    first = PIPELINE.aggregates[0]
    return replace(
        PIPELINE,
        out_of_orderness_ms=bound_ms,
        future_bound_ms=10**15,
        max_w=1_048_576,
        aggregates=(replace(first, window=window, allowed_lateness_ms=lateness_ms),),
        thresholds=(),
    )


class Shard:
    """An engine that is given events as (key, time), or as whole items, and what it has emitted."""

    def __init__(self, window: Window, *, bound_ms: int, lateness_ms: int = 0) -> None:
        decoder = ScriptedDecoder({"urn:streamgauge:00000000-0000-4000-8000-000000000000:w1048576": 1_048_576})
        self.engine = Engine(pipeline(window, bound_ms=bound_ms, lateness_ms=lateness_ms), SHARD, decoder)
        self.sent = 0
        self.panes: list[tuple[str, int, int, int, int, bool]] = []
        self.standing: dict[tuple[str, int], tuple[float | None, ...]] = {}
        self.late: list[tuple[int, int]] = []

    def put(self, items: Sequence[Item], *, end: bool = False) -> None:
        script = Script(end=("all", 0, 1)) if end else Script(events=list(items))
        self.sent += 1
        effects = self.engine.apply([StreamRecord(str(self.sent), "k", 0, msgspec.json.encode(script))])
        for batch in effects.panes:
            self.add(batch)
        self.late += [(int(event.identity), event.window_start_ms) for event in effects.late]

    def event(self, time_ms: int, key: str = "k", number: float | None = 1.0) -> None:
        self.put([Item(self.sent, key, time_ms, 1, number)])

    def add(self, batch: PaneBatch) -> None:
        for row, (key,) in enumerate(batch.keys):
            start, end = int(batch.window_start_ms[row]), int(batch.window_end_ms[row])
            tombstone = bool(batch.tombstone[row])
            self.panes.append((key, start, end, int(batch.revision[row]), int(batch.event_count[row]), tombstone))
            columns = [batch.measures[name] for name in NUMBERS]
            self.standing[key, start] = (end, *(c.values[row].item() if c.present[row] else None for c in columns))
            if tombstone:
                del self.standing[key, start]

    def shown(self) -> list[tuple[int, int, int, int, bool]]:
        """Start, end, revision, events, tombstone of what has been emitted since the last look."""
        shown, self.panes = [pane[1:] for pane in self.panes], []
        return shown


# --- against SQL


@cache
def weather() -> list[Item]:
    with gzip.open(WEATHER) as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8")))
    items = []
    for row in sorted(rows, key=lambda row: row["time_hour"]):
        direction = None if row["wind_dir"] == "NA" else int(row["wind_dir"])
        gust = None if row["wind_gust"] == "NA" else float(row["wind_gust"])
        items.append(Item(len(items), row["origin"], instant_ms(row["time_hour"]), direction, gust))
    return items


def random_events() -> list[Item]:
    chance = random.Random(11)
    times = sorted(instant_ms("2026-10-30T00:00:00Z") + int(chance.expovariate(1) * 40 * HOUR_MS) for _ in range(3_000))
    return [
        Item(
            number,
            chance.choice("abcde"),
            time,
            chance.choice([None, *range(-50, 50)]),
            chance.choice([None, chance.uniform(-5, 5)]),
        )
        for number, time in enumerate(times)
    ]


def shuffled(items: Sequence[Item], within_ms: int) -> list[Item]:
    chance = random.Random(5)
    return sorted(items, key=lambda item: item.time_ms + chance.uniform(0, within_ms))


FIXED_SQL = """
    SELECT key, {start} AS start, {end} AS "end", {measures}
    FROM events, (SELECT unnest(range({cells})) AS hop) GROUP BY ALL
"""
SESSION_SQL = """
    WITH marked AS (
        SELECT *, coalesce(time - lag(time) OVER w >= {gap}, true) AS begins FROM events
        WINDOW w AS (PARTITION BY key ORDER BY time)
    ), numbered AS (
        SELECT *, sum(begins::INT) OVER (PARTITION BY key ORDER BY time RANGE UNBOUNDED PRECEDING) AS session
        FROM marked
    )
    SELECT key, min(time) AS start, max(time) + {gap} AS "end", {measures} FROM numbered GROUP BY key, session
"""
MEASURES = "count(*) AS n, count(f), sum(i)::BIGINT, min(f), max(f), avg(f)"
LOCAL_DAY = "date_trunc('day', to_timestamp(time / 1000) AT TIME ZONE 'America/New_York')"


def instant_of(day: str) -> str:
    return f"epoch_ms(({day}) AT TIME ZONE 'America/New_York')"


def sql_of(window: Window) -> str:
    if isinstance(window, SessionWindow):
        return SESSION_SQL.format(gap=window.gap_ms, measures=MEASURES)
    grid, cells = window.fixed
    if window.zone is None:
        start = f"time - time % {grid.size_ms} - hop * {grid.size_ms}"
        end = f"{start} + {window.size_ms}"
    else:
        day = f"{LOCAL_DAY} - to_days(hop::INT)"
        start, end = instant_of(day), instant_of(f"{day} + to_days({cells})")
    return FIXED_SQL.format(start=start, end=end, cells=cells, measures=MEASURES)


def truth(window: Window, items: Sequence[Item]) -> dict[tuple[str, int], tuple[float | None, ...]]:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    columns = {
        "key": pa.array([item.key for item in items]),
        "time": pa.array([item.time_ms for item in items], pa.int64()),
        "i": pa.array([item.integer for item in items], pa.int64()),
        "f": pa.array([item.number for item in items], pa.float64()),
    }
    connection.register("events", pa.table(columns))
    return {(row[0], row[1]): row[2:] for row in connection.execute(sql_of(window)).fetchall()}


def agree(found: dict[tuple[str, int], tuple[float | None, ...]], window: Window, items: Sequence[Item]) -> None:
    expected = truth(window, items)
    assert found.keys() - expected.keys() == set() == expected.keys() - found.keys()
    for pane, values in expected.items():
        assert found[pane][:-1] == values[:-1]
        mean = values[-1]
        assert found[pane][-1] == (None if mean is None else pytest.approx(mean, rel=1e-9, abs=1e-12))


WINDOWS: dict[str, Window] = {
    "tumbling": TumblingWindow(DAY_MS),
    "hopping": HoppingWindow(DAY_MS, 2 * HOUR_MS),
    "hopping in twelfths": HoppingWindow(HOUR_MS, 5 * MINUTE_MS),
    "session": SessionWindow(3 * HOUR_MS, 10_000 * DAY_MS),
    "session of neighbours": SessionWindow(20 * MINUTE_MS, 10_000 * DAY_MS),
    "days of New York": ZONED,
    "weeks of New York": ZONED_WEEK,
}
INPUTS = {"weather": weather, "random": random_events}


# Hourly observations in windows every five minutes would be many panes and nothing new.
CASES = [
    (source, name) for source in INPUTS for name in WINDOWS if (source, name) != ("weather", "hopping in twelfths")
]


@pytest.mark.parametrize(("source", "name"), CASES)
@pytest.mark.parametrize("within_ms", [0, 4 * HOUR_MS], ids=["in order", "shuffled"])
def test_windows_are_what_sql_says(source: str, name: str, within_ms: int) -> None:
    window = WINDOWS[name]
    items = INPUTS[source]()
    shard = Shard(window, bound_ms=within_ms)
    stream = shuffled(items, within_ms)
    for first in range(0, len(stream), 1_000):
        shard.put(stream[first : first + 1_000])
    shard.put([], end=True)
    assert not shard.late
    agree(shard.standing, window, items)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_late_events_within_the_allowed_lateness_end_in_what_sql_says(window: Window) -> None:
    items = random_events()
    # No event is further behind than this, so none is lost; half of it is beyond the bound.
    shard = Shard(window, bound_ms=2 * HOUR_MS, lateness_ms=2 * HOUR_MS)
    shard.put(shuffled(items, 4 * HOUR_MS))
    shard.put([], end=True)
    # Sessions of three hours are not over where an event four hours late comes.
    assert shard.engine.counters.aggregates["narrow"].corrections > 0 or window == WINDOWS["session"]
    assert not shard.late
    agree(shard.standing, window, items)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_what_is_too_late_is_left_out_and_the_rest_is_what_sql_says(window: Window) -> None:
    items = random_events()
    shard = Shard(window, bound_ms=HOUR_MS, lateness_ms=HOUR_MS)
    shard.put(shuffled(items, 30 * HOUR_MS))
    shard.put([], end=True)
    missed = dict(shard.late)
    assert missed
    taken = [item for item in items if item.sequence not in missed]
    if isinstance(window, HoppingWindow):
        # Windows that lost an event are told by the late output: the last of them, and all before it.
        for item in items:
            if item.sequence in missed:
                grid, cells = window.fixed
                starts = [grid.after(grid.start(item.time_ms), -back) for back in range(cells)]
                for start in [start for start in starts if start <= missed[item.sequence]]:
                    shard.standing.pop((item.key, start), None)
        expected = truth(window, items)
        agreeing = [pane for pane in shard.standing if shard.standing[pane][1] == expected[pane][1]]
        assert len(agreeing) == len(shard.standing)
    elif isinstance(window, SessionWindow):
        # A late event that is left out may leave a gap behind, so the sessions are those of the events that are left.
        found = sum(int(values[1] or 0) for values in shard.standing.values())
        assert found == len(taken)
    else:
        agree(shard.standing, window, taken)


# --- time zones


def test_a_day_has_23_hours_in_spring_and_25_in_autumn() -> None:
    shard = Shard(ZONED, bound_ms=0)
    for day in ("2026-03-07", "2026-03-08", "2026-03-09", "2026-11-01", "2026-11-02"):
        shard.event(instant_ms(f"{day}T12:00:00Z"))
    shard.put([], end=True)
    lengths = [(end - start) // HOUR_MS for start, end, *_ in shard.shown()]
    assert lengths == [24, 23, 24, 25, 24]


def test_events_around_midnight_belong_to_the_local_day() -> None:
    shard = Shard(ZONED, bound_ms=0)
    midnight = instant_ms("2026-07-04T04:00:00Z")
    shard.event(midnight - 1)
    shard.event(midnight)
    shard.put([], end=True)
    assert [pane[:2] for pane in shard.shown()] == [(midnight - DAY_MS, midnight), (midnight, midnight + DAY_MS)]


def test_where_clocks_go_back_over_midnight_the_day_that_has_begun_goes_on() -> None:
    # Newfoundland, 1 November 2009: a minute past midnight it was 23:01 of 31 October again.
    shard = Shard(TumblingWindow(DAY_MS, load_time_zone("America/St_Johns")), bound_ms=0)
    midnight = instant_ms("2009-11-01T02:30:00Z")
    shard.event(midnight - 1)
    shard.event(midnight + 30 * MINUTE_MS)
    shard.put([], end=True)
    assert [pane[:2] for pane in shard.shown()] == [
        (midnight - DAY_MS, midnight),
        (midnight, midnight + 25 * HOUR_MS),
    ]


@pytest.mark.parametrize("name", ["America/Sao_Paulo", "Pacific/Apia", "Africa/Cairo", "UTC"])
def test_days_follow_each_other_without_gap_or_overlap_in_any_zone(name: str) -> None:
    zone = load_time_zone(name)
    grid, _ = TumblingWindow(DAY_MS, zone).fixed
    times = np.arange(instant_ms("1987-01-01T00:00:00Z"), instant_ms("2017-01-01T00:00:00Z"), HOUR_MS // 2)
    starts = grid.starts(times)
    after = grid.later(starts, 1)
    assert ((starts <= times) & (times < after)).all()
    assert (grid.starts(after) == after).all() and (grid.starts(after - 1) == starts).all()
    # Samoa had no 30 December 2011: its day is without an instant.
    assert set(np.unique(after - starts)) <= {hours * HOUR_MS for hours in (23, 24, 25, 26)} or name == "Pacific/Apia"
    local = [datetime.fromtimestamp(time / 1000, ZoneInfo(name)).date() for time in times[::97].tolist()]
    of_start = [datetime.fromtimestamp(start / 1000, ZoneInfo(name)).date() for start in starts[::97].tolist()]
    assert of_start == local


# --- Flink's cases


def test_tumbling_windows_do_not_overlap_and_begin_at_the_epoch() -> None:
    shard = Shard(TumblingWindow(5), bound_ms=0)
    for time_ms in (4, 5, 9, 10):
        shard.event(time_ms)
    shard.put([], end=True)
    assert shard.shown() == [(0, 5, 1, 1, False), (5, 10, 1, 2, False), (10, 15, 1, 1, False)]


def test_windows_of_10_minutes_that_slide_by_5_give_every_5_minutes_the_events_of_the_last_10() -> None:
    shard = Shard(HoppingWindow(10 * MINUTE_MS, 5 * MINUTE_MS), bound_ms=0)
    for minute in (1, 6, 11, 12):
        shard.event(minute * MINUTE_MS)
    shard.put([], end=True)
    starts = [(start // MINUTE_MS, end // MINUTE_MS, events) for start, end, _, events, _ in shard.shown()]
    assert starts == [(-5, 5, 1), (0, 10, 2), (5, 15, 3), (10, 20, 2)]


def test_a_session_closes_when_a_gap_of_inactivity_occurs() -> None:
    shard = Shard(SessionWindow(30, 1_000), bound_ms=0)
    for time_ms in (0, 29, 58):
        shard.event(time_ms)
    assert not shard.shown()
    shard.event(88)
    assert shard.shown() == [(0, 88, 1, 3, False)]


def test_events_exactly_a_gap_apart_are_two_sessions() -> None:
    # Here windows that touch do not merge, other than in Flink: an event that is in time would else change a pane
    # that has been emitted.
    shard = Shard(SessionWindow(30, 1_000), bound_ms=0)
    shard.event(0)
    shard.event(30)
    shard.put([], end=True)
    assert shard.shown() == [(0, 30, 1, 1, False), (30, 60, 1, 1, False)]


def test_without_allowed_lateness_a_late_event_is_dropped_and_told() -> None:
    shard = Shard(TumblingWindow(10), bound_ms=0)
    shard.event(5)
    shard.event(20)
    shard.event(7)
    assert shard.late == [(2, 0)]
    assert shard.shown() == [(0, 10, 1, 1, False)]


def test_a_late_event_within_the_allowed_lateness_makes_its_window_fire_again() -> None:
    shard = Shard(TumblingWindow(10), bound_ms=0, lateness_ms=15)
    shard.event(5)
    shard.event(20)
    shard.event(7)
    shard.event(25)
    shard.event(8)
    assert shard.shown() == [(0, 10, 1, 1, False), (0, 10, 2, 2, False), (10, 20, 1, 1, False)][:2]
    assert shard.late == [(4, 0)]


def test_a_late_event_may_join_two_sessions_that_have_fired() -> None:
    shard = Shard(SessionWindow(30, 1_000), bound_ms=0, lateness_ms=100)
    shard.event(0)
    shard.event(50)
    shard.event(100)
    assert shard.shown() == [(0, 30, 1, 1, False), (50, 80, 1, 1, False)]
    shard.event(25)
    assert shard.shown() == [(50, 80, 2, 0, True), (0, 80, 2, 3, False)]


def test_an_event_joins_two_open_sessions_silently() -> None:
    shard = Shard(SessionWindow(30, 1_000), bound_ms=100)
    shard.event(0)
    shard.event(50)
    shard.event(25)
    assert not shard.shown()
    shard.put([], end=True)
    assert shard.shown() == [(0, 80, 1, 3, False)]


# --- what Flink does not say


def test_a_session_that_is_open_again_is_taken_back_until_it_closes() -> None:
    shard = Shard(SessionWindow(30, 1_000), bound_ms=0, lateness_ms=100)
    shard.event(0)
    shard.event(40, key="other")
    shard.event(15)
    assert shard.shown() == [(0, 30, 1, 1, False), (0, 30, 2, 0, True)]
    shard.put([], end=True)
    assert shard.shown() == [(0, 45, 3, 2, False), (40, 70, 1, 1, False)]


def test_a_late_event_before_a_session_renames_its_pane() -> None:
    shard = Shard(SessionWindow(30, 1_000), bound_ms=0, lateness_ms=100)
    shard.event(20)
    shard.event(60)
    shard.event(10)
    assert shard.shown() == [(20, 50, 1, 1, False), (20, 50, 2, 0, True), (10, 50, 1, 2, False)]


def test_the_maximum_length_closes_a_session_and_is_counted() -> None:
    shard = Shard(SessionWindow(30, 100), bound_ms=0)
    for time_ms in range(0, 250, 20):
        shard.event(time_ms)
    shard.put([], end=True)
    assert [pane[:2] for pane in shard.shown()] == [(0, 100), (100, 200), (200, 270)]
    assert shard.engine.counters.aggregates["narrow"].cut_sessions == 2


def test_an_event_that_only_later_windows_take_is_late_in_part() -> None:
    shard = Shard(HoppingWindow(20, 10), bound_ms=0)
    shard.event(5)
    shard.event(12)
    shard.event(6)
    shard.put([], end=True)
    assert shard.late == [(2, -10)]
    counters = shard.engine.counters.aggregates["narrow"]
    assert (counters.late, counters.late_in_part, counters.applied) == (0, 1, 3)
    assert shard.shown() == [(-10, 10, 1, 1, False), (0, 20, 1, 3, False), (10, 30, 1, 1, False)]


def test_measures_have_the_names_that_the_sql_has() -> None:
    assert tuple(MEASURE_KINDS) == NUMBERS
