"""SQL over the archive, and the results of aggregates."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from archive_world import OURS, T0, PipelineWorld, event, put_weather

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.times import rfc3339
from streamgauge.sinks.queries.results import UnknownAggregate
from streamgauge.sinks.queries.sql import QueryError

EMPTY_TABLES = [
    "weather_observation",
    "sea_level",
    *(f"streamgauge_{name}" for name in ("control", "ledger", "misrouted", "unarchivable", "panes", "commits")),
    *(f"streamgauge_{name}" for name in ("threshold_events", "failed_events", "late_events")),
]


@pytest.fixture
def world(tmp_path: Path) -> PipelineWorld:
    world = PipelineWorld(tmp_path, shards=2)
    put_weather(world)
    world.process()
    world.deliver()
    return world


@pytest.mark.parametrize("table", EMPTY_TABLES)
def test_a_table_without_a_row_is_there_and_empty(tmp_path: Path, table: str) -> None:
    assert PipelineWorld(tmp_path).query(f"SELECT count(*) AS n FROM {table}") == [{"n": 0}]
    assert PipelineWorld(tmp_path).query(f"SELECT * FROM {table}") == []


@pytest.mark.parametrize("table", EMPTY_TABLES)
def test_a_table_that_nobody_wrote_has_the_columns_of_one_that_was(
    world: PipelineWorld, tmp_path: Path, table: str
) -> None:
    empty = PipelineWorld(tmp_path / "empty").query(f"DESCRIBE {table}")
    assert empty == world.query(f"DESCRIBE {table}")
    assert {row["column_name"] for row in empty} >= {"dt", "hour", "shard_id"}


def test_an_event_type_is_a_table_with_data_as_a_struct(world: PipelineWorld) -> None:
    (row,) = world.query(
        "SELECT *, data.wind * 2 AS twice FROM weather_observation WHERE sequence = '00000000000000000001'"
    )
    assert row["twice"] == 20
    assert row["data"] == {"temp": 1 / 7, "wind": 10.0, "unit": "mph", "tags": None, "place": None}
    assert row["time"] == rfc3339(T0 + 1_000)
    assert (row["dt"], row["hour"], row["source"]) == ("2026-03-01", "10", OURS)


def test_partitions_and_times_can_be_asked_for(world: PipelineWorld) -> None:
    sql = "SELECT date_trunc('minute', time) AS m, count(*) AS n FROM weather_observation {} GROUP BY m ORDER BY m"
    first, *_ = world.query(sql.format("WHERE dt = '2026-03-01' AND hour = '10' AND time < '2026-03-01T10:16:00Z'"))
    assert first["m"] == "2026-03-01T10:15:00.000Z"
    assert world.query(sql.format("WHERE hour = '11'")) == []


def test_processors_tables_can_be_joined_with_events(world: PipelineWorld) -> None:
    panes = world.query(
        "SELECT key['subject'] AS key, window_start, event_count, measures.n AS n FROM streamgauge_panes "
        "WHERE aggregate = 'wind' ORDER BY ALL"
    )
    assert len(panes) == 15
    assert all(pane["event_count"] == pane["n"] for pane in panes)
    (total,) = world.query(
        "SELECT sum(counters.positions)::BIGINT AS n, sum(counters.accepted) AS a FROM streamgauge_commits"
    )
    assert (total["n"], total["a"]) == (90, 65)
    reasons = world.query("SELECT reason, count(*) AS n FROM streamgauge_failed_events GROUP BY ALL ORDER BY ALL")
    assert {"reason": "future", "n": 1} in reasons
    late = world.query("SELECT DISTINCT aggregate, epoch_ms(window_start) % 10000 AS rest FROM streamgauge_late_events")
    assert late == [{"aggregate": "wind", "rest": 0}]
    states = world.query("SELECT state, count(*) AS n FROM streamgauge_threshold_events GROUP BY ALL ORDER BY ALL")
    assert {row["state"] for row in states} <= {"raised", "cleared"} and states


def test_values_come_as_json_has_them(tmp_path: Path) -> None:
    (row,) = PipelineWorld(tmp_path).query(
        "SELECT sum(x)::HUGEINT AS whole, 1.5::DECIMAL(9,2) AS part, MAP {'a': 1} AS m, [1, NULL] AS l, "
        "{'b': DATE '2026-01-02'} AS s, "
        "TIMESTAMP '2026-01-02 03:04:05.000006' AS t, 'x'::BLOB AS b, 'nan'::DOUBLE AS nan, INTERVAL 90 SECOND AS i, "
        "TIME '01:02:03' AS c, NULL AS n, true AS y FROM range(3) r(x)"
    )
    assert row | {"i": None} == {
        "whole": 3,
        "part": 1.5,
        "m": {"a": 1},
        "l": [1, None],
        "s": {"b": "2026-01-02"},
        "t": "2026-01-02T03:04:05.000006Z",
        "b": "eA==",
        "nan": None,
        "i": None,
        "c": "01:02:03",
        "n": None,
        "y": True,
    }
    msgspec.json.encode(row)


@pytest.mark.parametrize(
    ("sql", "where", "what"),
    [
        ("SELECT *\nFROM weather_observation\n  WHERE", "line 3, column 3", "syntax error"),
        ("SELECT subject,\n  wind FROM weather_observation", "line 2, column 3", 'column "wind" not found'),
        ("SELECT * FROM nowhere", "line 1, column 15", "nowhere does not exist"),
        ("", None, "no statement"),
        ("SELECT 1; SELECT 2", None, "2 statements"),
        ("CREATE TABLE t AS SELECT 1", None, "only read"),
        ("COPY (SELECT 1) TO '/tmp/never-written.csv'", None, "only read"),
    ],
)
def test_bad_sql_is_an_error_with_its_place(tmp_path: Path, sql: str, where: str | None, what: str) -> None:
    with pytest.raises(QueryError, match=what) as caught:
        PipelineWorld(tmp_path).query(sql)
    if where is not None:
        assert caught.value.where == where


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT getenv('HOME')",
        "SELECT * FROM tables",
    ],
)
def test_sql_sees_nothing_but_the_archive(tmp_path: Path, sql: str) -> None:
    with pytest.raises(QueryError):
        PipelineWorld(tmp_path).query(sql)


def test_results_are_panes_at_their_highest_revision_in_order(world: PipelineWorld) -> None:
    found = world.results("wind")
    assert len(found) == 15
    assert [(pane.key["subject"], pane.window_start) for pane in found] == sorted(
        (pane.key["subject"], pane.window_start) for pane in found
    )
    first = found[0]
    assert msgspec.to_builtins(first) == {
        "aggregate": "wind",
        "key": {"subject": "EWR"},
        "window_start": rfc3339(T0),
        "window_end": rfc3339(T0 + 10_000),
        "revision": 1,
        "measures": {"n": 3, "top": 10.0, "mean": pytest.approx((2 + 5 + 8) / 7 / 3)},
    }


def test_a_corrected_pane_replaces_what_it_corrects(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    world.put_plain(*(event(number, at_ms=T0 + 6_500 * number, data={"wind": number}) for number in range(3)))
    world.process()
    (before,) = world.results("wind")
    assert (before.revision, before.measures["n"], before.measures["top"]) == (1, 2, 1.0)
    world.put_plain(event(3, at_ms=T0 + 9_000, data={"wind": 33}))
    world.process()
    (after,) = world.results("wind")
    assert (after.revision, after.measures["n"], after.measures["top"]) == (2, 3, 33.0)


def test_open_panes_come_from_the_snapshots_when_asked_for(world: PipelineWorld) -> None:
    assert world.results("all") == []
    found = world.results("all", include_open=True)
    assert {pane.revision for pane in found} == {0}
    assert sum(int(pane.measures["n"] or 0) for pane in found) == 65


def test_an_unknown_aggregate_is_an_error_that_names_a_close_one(world: PipelineWorld) -> None:
    with pytest.raises(UnknownAggregate, match="Did you mean wind"):
        world.results("wnid")


def test_a_type_with_dashes_and_dots_is_a_table_with_underscores(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"v": {"type": "integer"}}}
    catalogue = Catalogue([EventSchema("weather.observation", 1, schema), EventSchema("A.b-c", 1, schema)])
    text = (
        '[pipeline]\nname = "p"\nstream = "observations"\nevent_types = ["weather.observation"]\nschemas = "s"\n'
        'out_of_orderness = "1s"\nstate_epoch = 1\n[[aggregate]]\nname = "a"\nkey = ["subject"]\n'
        'window = { tumbling = "1s" }\nmeasures = { n = "count()" }\n'
    )
    world = PipelineWorld(tmp_path, text=text, catalogue=catalogue)
    world.put_plain(event(0, type="A.b-c", data={"v": 3}))
    world.deliver(catalogue=catalogue)
    assert world.query("SELECT data.v AS v FROM a_b_c") == [{"v": 3}]
