"""Every measure against DuckDB over the same events: real weather and random events, in order, shuffled and late."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.control import EndOfInput, control_event
from streamgauge.events.envelope import Event, encode_event
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.events.times import instant_ms, rfc3339
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.distinct import STANDARD_ERROR
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.hashes import text_digest
from streamgauge.processors.core.parse import parse_pipeline
from streamgauge.processors.core.quantiles import RELATIVE_ERROR

WEATHER = Path(__file__).parents[1] / "data" / "nyc-weather-2013.csv.gz"
SHARD = Shard("shardId-000000000000", FULL_RANGE)
SOURCES = [f"urn:streamgauge:00000000-0000-4000-8000-00000000000{number}:w65536" for number in range(3)]
HOUR_MS = 3_600_000

PIPELINE = """
[pipeline]
name = "p"
stream = "s"
event_types = ["t"]
schemas = "schemas"
out_of_orderness = "{bound}"
future_bound = "9000d"

[[aggregate]]
name = "all"
key = ["subject"]
window = {{ {window} }}
allowed_lateness = "{lateness}"

[aggregate.measures]
n = "count()"
values = "count(data.x)"
low = "min(data.x)"
high = "max(data.x)"
mean = "mean(data.x)"
total = "sum(data.i)"
spread = "variance(data.x)"
deviation = "stddev(data.i)"
opening = "first(data.x)"
closing = "last(data.x)"
first_i = "first(data.i)"
last_i = "last(data.i)"
users = "approx_distinct(data.user)"
numbers = "approx_distinct(data.x)"
flags = "approx_distinct(data.wet)"
least = "quantile(data.x, 0)"
tenth = "quantile(data.x, 0.1)"
middle = "quantile(data.x, 0.5)"
most = "quantile(data.x, 0.99)"
middle_i = "quantile(data.i, 0.5)"
"""

MEASURES_IN_SQL = """
        count(*) AS n, count(x) AS values, min(x) AS low, max(x) AS high,
        avg(x) AS mean, sum(i)::BIGINT AS total, var_samp(x) AS spread, stddev_samp(i) AS deviation,
        arg_min(x, (time, digest, sequence)) FILTER (x IS NOT NULL) AS opening,
        arg_max(x, (time, digest, sequence)) FILTER (x IS NOT NULL) AS closing,
        arg_min(i, (time, digest, sequence)) FILTER (i IS NOT NULL) AS first_i,
        arg_max(i, (time, digest, sequence)) FILTER (i IS NOT NULL) AS last_i,
        count(DISTINCT "user") AS users, count(DISTINCT x) AS numbers, count(DISTINCT wet) AS flags,
        quantile_disc(x, 0) AS least, quantile_disc(x, 0.1) AS tenth, quantile_disc(x, 0.5) AS middle,
        quantile_disc(x, 0.99) AS most, quantile_disc(i, 0.5) AS middle_i
"""
FIXED = """
    SELECT subject, time - time % {every_ms} - hop * {every_ms} AS start, {measures}
    FROM events, range({window_ms} // {every_ms}) AS hops(hop) GROUP BY ALL
"""
SESSIONS = """
    WITH begun AS (
        SELECT *, coalesce(time - lag(time) OVER keys >= {gap_ms}, true)::INT AS begins FROM events
        WINDOW keys AS (PARTITION BY subject ORDER BY time)
    ), placed AS (
        SELECT *, sum(begins) OVER (PARTITION BY subject ORDER BY time RANGE UNBOUNDED PRECEDING) AS session FROM begun
    )
    SELECT subject, min(time) AS start, {measures} FROM placed GROUP BY subject, session
"""
EXACT = ("n", "values", "low", "high", "total", "opening", "closing", "first_i", "last_i")
ROUNDED = ("mean", "spread", "deviation")
COUNTED = ("users", "numbers", "flags")
RANKED = ("least", "tenth", "middle", "most", "middle_i")

SCHEMA = {
    "type": "object",
    "properties": {
        "x": {"type": ["number", "null"]},
        "i": {"type": ["integer", "null"]},
        "user": {"type": ["string", "null"]},
        "wet": {"type": ["boolean", "null"]},
    },
}

Row = dict[str, Any]
"""One event: subject, time, source (its number), sequence, x, i, user, wet."""


def numbered(rows: list[Row]) -> list[Row]:
    """As three producers would number them."""
    return [{**row, "source": place % 3, "sequence": place // 3} for place, row in enumerate(rows)]


def weather_events() -> list[Row]:
    """Temperatures, humidity and wind of three stations; of wind_dir the digits serve as a name."""
    text = gzip.decompress(WEATHER.read_bytes()).decode()
    return numbered(
        [
            {
                "subject": row["origin"],
                "time": instant_ms(row["time_hour"]),
                "x": None if row["wind_speed"] == "NA" else float(row["wind_speed"]),
                "i": None if row["wind_dir"] == "NA" else int(row["wind_dir"]),
                "user": None if row["wind_dir"] == "NA" else f"from-{row['wind_dir']}",
                "wet": float(row["precip"]) > 0,
            }
            for row in csv.DictReader(io.StringIO(text))
        ]
    )


def random_events(seed: int, n: int = 6_000) -> list[Row]:
    random = np.random.default_rng(seed)
    kinds = [random.lognormal(3, 2, n), random.normal(1e5, 1, n), random.normal(0, 1e-3, n), np.zeros(n)]
    x = np.choose(random.integers(0, 4, n), kinds)
    return numbered(
        [
            {
                "subject": f"key-{min(int(random.zipf(1.5)), 9)}",
                "time": 1_600_000_000_000 + place * 900 + int(random.integers(0, 3)) * 300,
                "x": None if random.random() < 0.1 else float(x[place]),
                "i": None if random.random() < 0.1 else int(random.integers(-(10**6), 10**6)),
                "user": None if random.random() < 0.1 else f"üser-{int(random.integers(0, 3_000))}",
                "wet": (True, False, None)[int(random.integers(0, 3))],
            }
            for place in range(n)
        ]
    )


def moved(rows: list[Row], by_ms: int, seed: int) -> list[Row]:
    """Out of order: each event comes up to `by_ms` after its time."""
    random = np.random.default_rng(seed)
    times = np.array([row["time"] for row in rows])
    return [rows[place] for place in np.argsort(times + random.integers(0, by_ms, len(rows)), kind="stable")]


def records_of(rows: Sequence[Row]) -> Iterator[StreamRecord]:
    for number, row in enumerate(rows):
        data = {name: row[name] for name in ("x", "i", "user", "wet") if row[name] is not None}
        event = Event(
            specversion="1.0",
            id=str(row["sequence"]),
            source=SOURCES[row["source"]],
            type="t",
            time=rfc3339(row["time"]),
            subject=row["subject"],
            sequence=f"{row['sequence']:020}",
            data=msgspec.Raw(msgspec.json.encode(data)),
        )
        yield StreamRecord(str(10**20 + number), row["subject"], row["time"], encode_event(event))
    end = encode_event(control_event("test", EndOfInput("all", 0, 1), id="end", time_ms=0))
    yield StreamRecord(str(10**21), "end", rows[-1]["time"], end)


def panes_of(rows: Sequence[Row], *, window: str, bound: str, lateness: str, batch: int) -> dict[tuple[str, int], Row]:
    """The final pane of every window, and its revision."""
    text = PIPELINE.format(window=window, bound=bound, lateness=lateness)
    pipeline = parse_pipeline(text, file="p.toml", schemas=Catalogue([EventSchema("t", 1, SCHEMA)]))
    engine = Engine(pipeline, SHARD, MsgspecDecoder(pipeline, "arn"))
    records = list(records_of(rows))
    panes: dict[tuple[str, int], Row] = {}
    for first in range(0, len(records), batch):
        effects = engine.apply(records[first : first + batch])
        assert not effects.late and not effects.failed
        for part in effects.panes:
            columns = {
                name: [v if there else None for v, there in zip(c.values.tolist(), c.present.tolist(), strict=True)]
                for name, c in part.measures.items()
            }
            for row in range(len(part)):
                pane = {name: column[row] for name, column in columns.items()}
                revision = {"revision": int(part.revision[row]), "gone": bool(part.tombstone[row])}
                panes[part.keys[row][0], int(part.window_start_ms[row])] = {**revision, **pane}
    return {name: pane for name, pane in panes.items() if not pane["gone"]}


def truth(rows: Sequence[Row], window_ms: int, every_ms: int | None = None) -> dict[tuple[str, int], Row]:
    """By fixed windows."""
    return asked(rows, FIXED.format(window_ms=window_ms, every_ms=every_ms or window_ms, measures=MEASURES_IN_SQL))


def truth_of_sessions(rows: Sequence[Row], gap_ms: int) -> dict[tuple[str, int], Row]:
    return asked(rows, SESSIONS.format(gap_ms=gap_ms, measures=MEASURES_IN_SQL))


def asked(rows: Sequence[Row], sql: str) -> dict[tuple[str, int], Row]:
    columns = {name: [row[name] for row in rows] for name in ("subject", "time", "sequence", "x", "i", "user", "wet")}
    columns["digest"] = [text_digest(SOURCES[row["source"]]) for row in rows]
    types = {"x": pa.float64(), "i": pa.int64(), "user": pa.string(), "wet": pa.bool_()}
    with duckdb.connect() as connection:
        arrays = {name: pa.array(column, type=types.get(name)) for name, column in columns.items()}
        connection.register("events", pa.table(arrays))
        found = connection.execute(sql)
        names = [column[0] for column in found.description]
        return {row[:2]: dict(zip(names[2:], row[2:], strict=True)) for row in found.fetchall()}


def check(panes: dict[tuple[str, int], Row], expected: dict[tuple[str, int], Row]) -> None:
    assert panes.keys() == expected.keys()
    off: list[float] = []
    for pane, exact in expected.items():
        found = panes[pane]
        for name in EXACT:
            assert found[name] == exact[name], (pane, name)
        for name in ROUNDED:
            if exact[name] is None:
                assert found[name] is None, (pane, name)
            else:
                assert math.isclose(found[name], exact[name], rel_tol=1e-9, abs_tol=1e-9), (pane, name)
        for name in RANKED:
            if exact[name] is None:
                assert found[name] is None, (pane, name)
            else:
                distance = abs(found[name] - exact[name])
                assert distance <= abs(exact[name]) * RELATIVE_ERROR * (1 + 1e-12), (pane, name)
        for name in COUNTED:
            off.append((found[name] - exact[name]) / max(exact[name], 1))
            assert abs(found[name] - exact[name]) <= max(2, 5 * STANDARD_ERROR * exact[name]), (pane, name)
    assert np.sqrt(np.mean(np.square(off))) < STANDARD_ERROR


ORDERS = {
    "in order": (0, "2h", "0s"),
    "shuffled within the bound": (2 * HOUR_MS, "2h", "0s"),
    "late, with corrections": (30 * HOUR_MS, "2h", "30h"),
}


@pytest.mark.parametrize(("by_ms", "bound", "lateness"), ORDERS.values(), ids=ORDERS)
def test_a_year_of_weather_by_day(by_ms: int, bound: str, lateness: str) -> None:
    rows = weather_events()
    rows = moved(rows, by_ms, 7) if by_ms else sorted(rows, key=lambda row: row["time"])
    panes = panes_of(rows, window='tumbling = "1d"', bound=bound, lateness=lateness, batch=2_000)
    assert len(panes) == 1092
    check(panes, truth(rows, 24 * HOUR_MS))
    assert (max(pane["revision"] for pane in panes.values()) > 5) == (lateness != "0s")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("by_ms", "bound", "lateness"), ORDERS.values(), ids=ORDERS)
def test_random_events_by_hour(by_ms: int, bound: str, lateness: str, seed: int) -> None:
    """A tenth of the time of the weather's: an hour here is 6 minutes there."""
    rows = random_events(seed)
    rows = moved(rows, by_ms // 10, seed) if by_ms else sorted(rows, key=lambda row: row["time"])
    panes = panes_of(
        rows, window='tumbling = "1h"', bound="12m", lateness="3h" if lateness != "0s" else "0s", batch=1_111
    )
    check(panes, truth(rows, HOUR_MS))
    assert (max(pane["revision"] for pane in panes.values()) > 5) == (lateness != "0s")


@pytest.mark.parametrize(("by_ms", "bound", "lateness"), ORDERS.values(), ids=ORDERS)
def test_windows_that_overlap_are_merged_from_slices(by_ms: int, bound: str, lateness: str) -> None:
    rows = random_events(3, 3_000)
    rows = moved(rows, by_ms // 10, 3) if by_ms else sorted(rows, key=lambda row: row["time"])
    late = "3h" if lateness != "0s" else "0s"
    panes = panes_of(rows, window='hopping = "1h", every = "20m"', bound="12m", lateness=late, batch=777)
    check(panes, truth(rows, HOUR_MS, HOUR_MS // 3))


@pytest.mark.parametrize(("by_ms", "bound", "lateness"), ORDERS.values(), ids=ORDERS)
def test_sessions_are_merged_by_the_events_between_them(by_ms: int, bound: str, lateness: str) -> None:
    rows = random_events(4, 1_200)
    rows = moved(rows, by_ms // 10, 4) if by_ms else sorted(rows, key=lambda row: row["time"])
    late = "3h" if lateness != "0s" else "0s"
    window = 'session = "8s", max_length = "1d"'
    panes = panes_of(rows, window=window, bound="12m", lateness=late, batch=777)
    check(panes, truth_of_sessions(rows, 8_000))
    assert len(panes) > 200
