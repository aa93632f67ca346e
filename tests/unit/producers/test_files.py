"""Rows of files as events."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import instant_ms
from streamgauge.producers.load.files import BadRow, FileEvent, FileSpec, InputFileError, read_events, read_rows
from streamgauge.producers.load.infer import CannotInfer, infer_file, infer_schema
from streamgauge.producers.load.ordering import ByTime, FileOrder, Shuffled, ordered

DATA = Path(__file__).parents[2] / "data"
SAMPLE = DATA / "weather-sample.csv"
SCHEMA = {
    "type": "object",
    "properties": {
        "temp": {"type": ["number", "null"]},
        "wind_dir": {"type": ["integer", "null"]},
        "calm": {"type": "boolean"},
        "note": {"type": ["string", "null"]},
    },
    "required": ["temp"],
}
SPEC = FileSpec(key="origin", time="at")


def read(tmp_path: Path, text: str | bytes, *, name: str = "rows.csv", spec: FileSpec = SPEC, schema=SCHEMA):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_events(path, spec, schema))


def test_cells_are_typed_by_the_schema_and_na_and_empty_are_null(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        "origin,at,temp,wind_dir,calm,note\n"
        "EWR,2013-01-01T06:00:00Z,39.02,270,true,12\n"
        "JFK,2013-01-01T07:00:00+01:00,39,,FALSE,NA\n",
    )
    assert [(row.line, row.key, row.time_ms) for row in rows] == [
        (2, "EWR", instant_ms("2013-01-01T06:00:00Z")),
        (3, "JFK", instant_ms("2013-01-01T06:00:00Z")),
    ]
    assert json.loads(rows[0].data) == {"temp": 39.02, "wind_dir": 270, "calm": True, "note": "12"}
    assert json.loads(rows[1].data) == {"temp": 39.0, "wind_dir": None, "calm": False, "note": None}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("EWR,2013-01-01T06:00:00Z,1", "too short: 3 columns instead of 6"),
        ("EWR,2013-01-01T06:00:00Z,1,2,true,x,y", "too long: 7 columns"),
        ("EWR,2013-01-01T06:00:00Z,warm,2,true,x", "temp: must be of type number, not 'warm'"),
        ("EWR,2013-01-01T06:00:00Z,nan,2,true,x", "temp: must be of type number"),
        ("EWR,2013-01-01T06:00:00Z,1,2.5,true,x", "wind_dir: must be of type integer, not '2.5'"),
        ("EWR,2013-01-01T06:00:00Z,1,99999999999999999999,true,x", "wind_dir"),
        ("EWR,2013-01-01T06:00:00Z,1,2,maybe,x", "calm: must be of type boolean"),
        ("EWR,yesterday,1,2,true,x", "at: not an RFC 3339 time"),
        ("EWR,,1,2,true,x", "at: the time is missing"),
        ("NA,2013-01-01T06:00:00Z,1,2,true,x", "origin: the key is missing"),
        (b"EWR,2013-01-01T06:00:00Z,1,2,true,\xff", "not UTF-8"),
    ],
)
def test_a_bad_row_is_reported_with_line_and_reason_and_the_rest_goes_on(
    tmp_path: Path, row: str | bytes, reason: str
) -> None:
    good = b"EWR,2013-01-01T06:00:00Z,1,2,true,x\n"
    row = row if isinstance(row, bytes) else row.encode()
    rows = read(tmp_path, b"origin,at,temp,wind_dir,calm,note\n" + good + row + b"\n\n" + good)
    assert [type(each) for each in rows] == [FileEvent, BadRow, FileEvent]
    assert rows[1].line == 3
    assert reason in rows[1].reason


def test_ndjson_rows_keep_their_types_and_bad_ones_are_reported(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        '{"origin": "EWR", "at": "2013-01-01T06:00:00Z", "temp": 1, "wind_dir": 3}\n'
        "{broken\n"
        "[1, 2]\n"
        "\n"
        '{"origin": "EWR", "at": "2013-01-01T06:00:00Z", "temp": true}\n'
        '{"origin": "EWR", "at": "2013-01-01T06:00:00Z"}\n'
        '{"at": "2013-01-01T06:00:00Z", "temp": 1}\n'
        '{"origin": 7, "at": "2013-01-01T06:00:00Z", "temp": null, "note": 5}\n'
        '{"origin": 7, "at": "2013-01-01T06:00:00Z", "temp": null}\n',
        name="rows.ndjson",
    )
    assert [row.line for row in rows] == [1, 2, 3, 5, 6, 7, 8, 9]
    assert json.loads(rows[0].data) == {"temp": 1, "wind_dir": 3}
    reasons = [row.reason if isinstance(row, BadRow) else "" for row in rows]
    for got, expected in zip(reasons, ["", "JSON", "JSON", "temp", "temp: missing", "origin", "note", ""], strict=True):
        assert expected in got
    assert rows[-1].key == "7"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "cannot be read: No such file"),
        ("empty.csv", b"", "empty"),
        ("empty.ndjson", b"\n", "empty"),
        ("bare.csv", b"origin,at,temp\n", "no rows"),
        ("header.csv", b"a,,c\n1,2,3\n", "header"),
        ("twice.csv", b"a,b,a\n1,2,3\n", "header"),
        ("wrong.csv", b"station,at,temp\n1,2,3\n", "no column 'origin'"),
        ("torn.csv.gz", gzip.compress(b"origin,at,temp\n" * 1000, mtime=0)[:-20], "cannot be read"),
    ],
)
def test_a_file_that_is_no_input_is_a_clear_error(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match=message) as caught:
        list(read_events(path, SPEC, SCHEMA))
    assert name in str(caught.value)
    assert isinstance(caught.value, StreamgaugeError)


def test_only_the_columns_asked_for_become_data(tmp_path: Path) -> None:
    text = "origin,at,temp,wind_dir,calm,note\nEWR,2013-01-01T06:00:00Z,1,2,true,x\n"
    spec = FileSpec(key="origin", time="at", columns=("note", "temp"))
    assert json.loads(read(tmp_path, text, spec=spec)[0].data) == {"note": "x", "temp": 1.0}
    with pytest.raises(InputFileError, match="no field 'rain'"):
        read(tmp_path, text, spec=FileSpec(key="origin", time="at", columns=("rain",)))


@pytest.mark.parametrize(
    ("time_format", "cell"),
    [
        ("epoch_s", "1357020000"),
        ("epoch_s", "1357020000.0"),
        ("epoch_ms", "1357020000000"),
        ("%Y-%m-%d %H:%M:%S", "2013-01-01 06:00:00"),
        ("%Y-%m-%d %H:%M:%S %z", "2013-01-01 07:00:00 +0100"),
    ],
)
def test_times_of_every_format_are_read_and_inferred(tmp_path: Path, time_format: str, cell: str) -> None:
    text = f"origin,at,temp\nEWR,{cell},1\n"
    spec = FileSpec(key="origin", time="at", time_format=time_format)
    assert read(tmp_path, text, spec=spec)[0].time_ms == 1357020000000
    assert infer_file(tmp_path / "rows.csv").time_format == time_format


def test_the_weather_sample_is_inferred_and_read_whole() -> None:
    inferred = infer_file(SAMPLE)
    assert (inferred.key, inferred.time, inferred.time_format) == ("origin", "time_hour", "rfc3339")
    assert inferred.time_has_zone
    properties = inferred.schema["properties"]
    assert properties["temp"]["type"] == "number"
    assert properties["wind_dir"]["type"] == ["integer", "null"]
    assert properties["wind_gust"]["type"] == ["number", "null"]
    assert any("'origin'" in guess for guess in inferred.guesses)
    rows = list(read_events(SAMPLE, FileSpec("origin", "time_hour"), inferred.schema))
    assert len(rows) == 199
    assert not [row for row in rows if isinstance(row, BadRow)]
    assert max(json.loads(row.data)["wind_speed"] for row in rows) > 1_000


def test_the_whole_weather_file_reads_without_a_bad_row() -> None:
    path = DATA / "nyc-weather-2013.csv.gz"
    assert sum(1 for row in read_rows(path) if not isinstance(row, BadRow)) == 26_115


def test_inference_says_what_it_cannot_know() -> None:
    with pytest.raises(CannotInfer, match="no column holds times"):
        infer_schema([{"a": "x", "b": "1"}])
    with pytest.raises(CannotInfer, match="no column 'when'"):
        infer_schema([{"a": "x"}], time="when")
    part = infer_schema([{"t": "2013-01-01T06:00:00Z", "n": "1", "id": "x"}], is_whole=False)
    assert part.schema["properties"]["n"]["type"] == ["number", "null"]
    assert part.schema["required"] == []
    naive = infer_schema([{"t": "2013-01-01 06:00", "n": "1", "id": "x"}])
    assert not naive.time_has_zone
    assert any("UTC" in guess for guess in naive.guesses)


def test_nested_json_is_inferred() -> None:
    rows = [{"at": 1357020000, "dev": "a", "v": {"x": 1, "y": None}, "tags": ["p"]}, {"at": 1357020001, "dev": "b"}]
    inferred = infer_schema(rows)
    assert (inferred.key, inferred.time, inferred.time_format) == ("dev", "at", "epoch_s")
    properties = inferred.schema["properties"]
    assert properties["v"]["type"] == ["object", "null"]
    assert properties["v"]["properties"]["x"]["type"] == "integer"
    assert properties["tags"]["items"]["type"] == ["string", "null"]
    assert inferred.schema["required"] == []


EVENTS = st.lists(
    st.builds(FileEvent, st.integers(1, 9), st.sampled_from("abc"), st.integers(0, 10_000), st.just(b"{}")), max_size=80
)


@given(events=EVENTS, bound_ms=st.integers(0, 5_000), seed=st.integers(0, 99))
def test_shuffled_keeps_every_event_within_the_bound_of_the_highest_time_before_it(
    events: list[FileEvent], bound_ms: int, seed: int
) -> None:
    found = list(ordered(events, Shuffled(bound_ms, seed)))
    assert sorted(found) == sorted(events)
    highest = 0
    for event in found:
        highest = max(highest, event.time_ms)
        assert event.time_ms >= highest - bound_ms
    assert found == list(ordered(events, Shuffled(bound_ms, seed)))


def test_shuffled_does_shuffle() -> None:
    events = [FileEvent(n, "k", n * 10, b"{}") for n in range(100)]
    found = list(ordered(events, Shuffled(200, 1)))
    assert found != events
    assert max(abs(place - event.line) for place, event in enumerate(found)) > 5


@given(events=EVENTS)
def test_by_time_sorts_and_keeps_the_order_of_equal_times(events: list[FileEvent]) -> None:
    numbered = [event._replace(line=line) for line, event in enumerate(events)]
    found = list(ordered(numbered, ByTime()))
    assert found == sorted(numbered, key=lambda event: (event.time_ms, event.line))
    assert list(ordered(numbered, FileOrder())) == numbered
