"""A year of real weather through the whole pipeline, held against DuckDB over the same file."""

from __future__ import annotations

import gzip
from pathlib import Path

import duckdb
import pytest
from cli_runner import DATA, Cli

PIPELINE = """
[pipeline]
name = "weather"
stream = "observations"
event_types = ["weather.observation"]
schemas = "schemas"
out_of_orderness = "2h"

[[aggregate]]
name = "daily_wind"
key = ["subject"]
window = { tumbling = "1d" }
allowed_lateness = "1h"
measures = { observations = "count()", gust_max = "max(data.wind_gust)", temp_mean = "mean(data.temp)" }
serve = true

[[threshold]]
name = "gale"
aggregate = "daily_wind"
raise_when = "gust_max > 40"
clear_when = "gust_max < 30"
detail_type = "Gale"
"""

DAILY = """
    SELECT origin, strftime(date_trunc('day', time_hour::TIMESTAMP), '%Y-%m-%dT00:00:00.000Z'), count(*),
           max(try_cast(wind_gust AS DOUBLE)), avg(try_cast(temp AS DOUBLE))
    FROM read_csv(?, all_varchar = true) GROUP BY ALL ORDER BY 1, 2
"""

Day = tuple[str, str, int, float | None, float | None]


@pytest.fixture(scope="module")
def weather_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "nyc-weather-2013.csv"
    path.write_bytes(gzip.decompress((DATA / "nyc-weather-2013.csv.gz").read_bytes()))
    return path


@pytest.fixture(scope="module")
def expected(weather_csv: Path) -> list[Day]:
    rows = duckdb.execute(DAILY, [str(weather_csv)]).fetchall()
    assert len(rows) == 1092
    return rows


def crossings(days: list[Day]) -> tuple[int, int]:
    """Raises and clears of the gale rule over the days of each station, in order."""
    raised, state = [0, 0], dict[str, bool]()
    for origin, _, _, gust, _ in days:
        high = state.get(origin, False)
        if gust is not None and not high and gust > 40:
            state[origin] = True
            raised[0] += 1
        elif gust is not None and high and gust < 30:
            state[origin] = False
            raised[1] += 1
    return raised[0], raised[1]


def check(cli: Cli, summary: object, expected: list[Day], *, copies: int) -> None:
    assert isinstance(summary, dict)
    raised, cleared = crossings(expected)
    assert raised > 20
    assert summary | {"events_per_second": 0} == {
        "produced": 26115,
        "duplicates_injected": 26115 * (copies - 1),
        "malformed": 0,
        "archived": 26115 * copies,
        "archived_unique": 26115,
        "aggregated": 26115,
        "late": 0,
        "failed": 0,
        "threshold_events_raised": raised,
        "threshold_events_cleared": cleared,
        "threshold_events_received": raised + cleared,
        "panes": len(expected),
        "audit": "pass",
        "events_per_second": 0,
    }
    panes = cli.ok("results", "daily_wind", "--json").json
    assert isinstance(panes, list)
    found = [
        (
            pane["key"]["subject"],
            pane["window_start"],
            pane["measures"]["observations"],
            pane["measures"]["gust_max"],
            pytest.approx(pane["measures"]["temp_mean"], rel=1e-9)
            if pane["measures"]["temp_mean"] is not None
            else None,
        )
        for pane in panes
    ]
    assert found == expected
    by_sql = cli.ok("query", "SELECT count(*) AS n, max(data.wind_speed) AS v FROM weather_observation", "--json").json
    assert by_sql == [{"n": 26115 * copies, "v": 1048.36058}]


@pytest.mark.parametrize(("shards", "host"), [(1, "local"), (2, "lambda"), (5, "local")])
def test_every_daily_window_equals_duckdbs(
    cli: Cli, weather_csv: Path, expected: list[Day], shards: int, host: str
) -> None:
    (cli.folder / "pipeline.toml").write_text(PIPELINE)
    done = cli.ok(
        *["demo", "--from-file", str(weather_csv), "--pipeline", "pipeline.toml", "--type", "weather.observation"],
        *["--key", "origin", "--time", "time_hour", "--copies", "3", "--order", "shuffled"],
        *["--host", host, "--shards", str(shards), "--seed", str(shards), "--json", "--keep"],
    )
    check(cli, done.json, expected, copies=3)


def test_plain_json_put_by_boto3_is_read_through_a_mapping(cli: Cli, weather_csv: Path, expected: list[Day]) -> None:
    (cli.folder / "pipeline.toml").write_text(PIPELINE)
    done = cli.ok(
        *["demo", "--from-file", str(weather_csv), "--pipeline", "pipeline.toml", "--type", "weather.observation"],
        *["--key", "origin", "--time", "time_hour", "--order", "shuffled", "--raw", "--json", "--keep"],
    )
    check(cli, done.json, expected, copies=1)
    assert "[event]" in done.err
