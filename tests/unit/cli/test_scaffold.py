"""What ``init`` writes runs as it is, whatever the columns are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgauge.cli.scaffold import event_table, plan_scaffold
from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.core.definition import Pipeline
from streamgauge.producers.load.infer import infer_file
from streamgauge.producers.load.profile import parse_load_profile

WEATHER = Path(__file__).parents[2] / "data" / "weather-sample.csv"


def scaffolded(folder: Path, file: Path, name: str = "mine") -> Pipeline:
    return plan_scaffold(name, "mine.row", file, infer_file(file)).write(folder / name)


def test_the_pipeline_of_the_weather_fits_its_hourly_rows(tmp_path: Path) -> None:
    pipeline = scaffolded(tmp_path, WEATHER)
    (aggregate,) = pipeline.aggregates
    assert aggregate.window.size_ms == 86_400_000
    assert pipeline.out_of_orderness_ms == 7_200_000
    assert {measure.field for measure in aggregate.measures} >= {None, "data.temp"}
    assert pipeline.mapping is not None
    assert pipeline.mapping.key.path == ("origin",)


def test_the_load_profile_is_one(tmp_path: Path) -> None:
    scaffolded(tmp_path, WEATHER)
    file = tmp_path / "mine" / "load.toml"
    profile = parse_load_profile(file.read_text(), file=str(file))
    assert profile.type == "mine.row"
    assert set(profile.keys.names) <= {"EWR", "JFK", "LGA"}


def odd_rows(folder: Path, header: str) -> Path:
    file = folder / "odd.csv"
    rows = "".join(f"k{n % 3},2026-01-01T00:00:{n:02}Z,{n / 2}\n" for n in range(30))
    file.write_text(f"{header}\n{rows}", encoding="utf-8")
    return file


@pytest.mark.parametrize("header", ["id,at,wind speed", "id,at,class", "id,at,größe", 'id,at,"a""b"', "id,at,x\\y"])
def test_odd_column_names_make_a_pipeline_that_loads(tmp_path: Path, header: str) -> None:
    pipeline = scaffolded(tmp_path, odd_rows(tmp_path, header))
    assert pipeline.aggregates[0].measures[0].name == "events"


def test_a_column_name_with_a_dot_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StreamgaugeError, match=r"a\.b"):
        scaffolded(tmp_path, odd_rows(tmp_path, "id,at,a.b"))


def test_rows_without_numbers_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "log.ndjson"
    file.write_text(
        "".join(f'{{"host": "h{n % 2}", "ts": {1_700_000_000_000 + n * 1000}, "line": "x"}}\n' for n in range(20))
    )
    pipeline = scaffolded(tmp_path, file)
    assert [measure.name for measure in pipeline.aggregates[0].measures] == ["events"]
    assert not pipeline.thresholds
    assert pipeline.mapping is not None
    assert pipeline.mapping.time_format == "epoch_ms"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    scaffolded(tmp_path, WEATHER)
    with pytest.raises(StreamgaugeError, match="not overwritten"):
        scaffolded(tmp_path, WEATHER)


def test_times_without_a_zone_have_no_event_table(tmp_path: Path) -> None:
    file = tmp_path / "local.csv"
    file.write_text("id,at,v\n" + "".join(f"a,2026-01-01 00:00:{n:02},{n}\n" for n in range(10)))
    inferred = infer_file(file)
    with pytest.raises(StreamgaugeError, match="no time zone"):
        event_table("mine.row", inferred)
    assert scaffolded(tmp_path, file).mapping is None
