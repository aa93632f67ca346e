"""Which pipeline a demo runs: the user's own, one with what it lacked, or an inferred one."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgauge.cli.context import DEMO_PIPELINE
from streamgauge.cli.demo_job import DemoJob, FileOptions, prepare
from streamgauge.events.errors import StreamgaugeError

WEATHER = Path(__file__).parents[2] / "data" / "weather-sample.csv"
PIPELINE = """\
[pipeline]
name = "weather"
stream = "observations"
event_types = ["weather.observation"]
{schemas}
out_of_orderness = "2h"

[[aggregate]]
name = "daily"
key = ["subject"]
window = {{ tumbling = "1d" }}
measures = {{ n = "count()", gust = "max(data.wind_gust)" }}
"""


def options(**changes: object) -> FileOptions:
    given: dict[str, object] = {"type": None, "key": None, "time": None, "data": None, "raw": False, **changes}
    return FileOptions(path=WEATHER, **given)  # type: ignore[arg-type]


def prepared(tmp_path: Path, *, schemas: str = 'schemas = "schemas"', **changes: object) -> DemoJob:
    file = tmp_path / "pipeline.toml"
    file.write_text(PIPELINE.format(schemas=schemas))
    return prepare(tmp_path / "work", pipeline=file, file=options(**changes))


def test_without_a_file_the_demos_own_pipeline_runs(tmp_path: Path) -> None:
    job = prepare(tmp_path / "work", pipeline=None, file=None)
    assert job.pipeline_file == DEMO_PIPELINE
    assert job.pipeline.name == "demo"


@pytest.mark.parametrize("schemas", ['schemas = "schemas"', 'schemas = "elsewhere" # none there', ""])
def test_a_type_that_the_catalogue_lacks_is_inferred_and_said(tmp_path: Path, schemas: str) -> None:
    job = prepared(tmp_path, schemas=schemas)
    assert job.pipeline.catalogue.types == ("weather.observation",)
    assert any("inferred" in note for note in job.notes)
    assert job.pipeline.mapping is None


def test_a_raw_run_gets_an_event_table_that_is_shown(tmp_path: Path) -> None:
    job = prepared(tmp_path, raw=True)
    assert job.pipeline.mapping is not None
    assert job.pipeline.mapping.time.path == ("time_hour",)
    assert "[event]" in job.notes


def test_only_the_columns_asked_for_are_required(tmp_path: Path) -> None:
    job = prepared(tmp_path, data="temp, wind_gust")
    schema = job.pipeline.catalogue.newest("weather.observation").schema
    assert set(schema["properties"]) == {"origin", "time_hour", "temp", "wind_gust"}  # type: ignore[call-overload]


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StreamgaugeError, match="'gust'"):
        prepared(tmp_path, data="gust")


def test_a_type_that_the_pipeline_does_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StreamgaugeError, match=r"weather\.other"):
        prepared(tmp_path, type="weather.other")


def test_a_wrong_pipeline_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text("[pipeline]\nname = \n")
    with pytest.raises(StreamgaugeError, match="line 2"):
        prepare(tmp_path / "work", pipeline=file, file=options())


def test_without_a_pipeline_one_is_inferred(tmp_path: Path) -> None:
    job = prepare(tmp_path / "work", pipeline=None, file=options())
    assert job.type == "weather_sample.row"
    assert job.pipeline.aggregates[0].name == "overview"
    again = prepare(tmp_path / "work", pipeline=None, file=options(type="my.type"))
    assert again.type == "my.type"
