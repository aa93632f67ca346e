"""Foreign JSON as events: what a mapping may say, and what a record must have."""

from __future__ import annotations

import json

import pytest

from streamgauge.events.envelope import Event, InvalidEvent, encode_event
from streamgauge.events.mapping import (
    EventMapping,
    MappingError,
    Selector,
    is_own_cloudevent,
    map_record,
    parse_mapping,
    parse_time,
    read_record,
)
from streamgauge.events.position import Position

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/observations"
WHERE = "pipeline.toml, [event]"
LEAST = {"time": "time_hour", "type": "'weather.observation'", "key": "origin"}
RECORD: dict[str, object] = {"time_hour": "2013-01-01T06:00:00Z", "origin": "JFK", "temp": 39.02}
OURS = "urn:streamgauge:0191d5e0-7b1c-7c3e-9f00-0123456789ab:w1024"


def mapping(**changes: object) -> EventMapping:
    return parse_mapping({**LEAST, **changes}, where=WHERE)


def mapped(record: object, **changes: object) -> Event:
    payload = record if isinstance(record, bytes) else json.dumps(record).encode()
    return map_record(mapping(**changes), payload, stream_arn=ARN, position=Position(42, 3))


def test_paths_and_constants_are_told_apart_by_inner_quotes() -> None:
    parsed = mapping(key="reading.station", id='"no"'.strip('"'), source="'https://example.org'")
    assert parsed.type == Selector(constant="weather.observation")
    assert parsed.key == Selector(("reading", "station"))
    assert parsed.source == Selector(constant="https://example.org")
    assert (str(parsed.key), str(parsed.type), parsed.time_format) == (
        "reading.station",
        "'weather.observation'",
        "rfc3339",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kye": "origin"}, r"pipeline.toml, \[event\]: unknown entry 'kye'. Known: id, time"),
        ({"key": 5}, r"pipeline.toml, \[event\] key: must be text"),
        ({"key": ""}, r"\[event\] key: must be text that is not empty"),
        ({"key": "a..b"}, "not a path"),
        ({"key": ".a"}, "not a path"),
        ({"key": "a. b"}, "not a path"),
        ({"type": "'weather"}, "not a constant in inner quotes"),
        ({"type": "''"}, "not a constant in inner quotes"),
        ({"type": "'a'b'"}, "not a constant in inner quotes"),
        ({"type": "'streamgauge.tick'"}, "reserved"),
        ({"source": f"'{OURS}'"}, "reserved"),
        ({"id": "'1'"}, "must be a field"),
        ({"time": "'2013-01-01T00:00:00Z'"}, "must be a field"),
        ({"time_format": "iso8601"}, "not a time format: 'iso8601'. Use rfc3339, epoch_s, epoch_ms, or a strptime"),
        ({"time_format": "%Y-%m-%d %H:%M:%S"}, "the format has no time zone"),
        ({"time_format": "%Y-%m-%dT%H:%M:%SZ"}, "the format has no time zone"),
        ({"time_format": "%Y-%m-%d %%z"}, "the format has no time zone"),
        ({"time_format": "%H:%M %z"}, "the format has no year"),
        ({"time_format": "%Y %H:%M %z"}, "does not tell one time from another"),
        ({"time_format": "%Y-%m-%d %I:%M %z"}, "does not tell one time from another"),
        ({"time_format": "%Y-%m-%d %Q %z"}, "not a strptime format"),
    ],
)
def test_a_bad_mapping_is_refused_at_loading_and_names_its_entry(changes: dict[str, object], message: str) -> None:
    with pytest.raises(MappingError, match=message):
        mapping(**changes)


@pytest.mark.parametrize("name", ["time", "type", "key"])
def test_a_mapping_without_a_needed_entry_is_refused(name: str) -> None:
    table = {entry: value for entry, value in LEAST.items() if entry != name}
    with pytest.raises(MappingError, match=f"lacks the entry '{name}'"):
        parse_mapping(table, where=WHERE)


def test_the_whole_record_is_data_and_the_key_is_subject() -> None:
    raw = b' {"time_hour": "2013-01-01T06:00:00Z",\n "origin": "JFK", "temp": 39.020} '
    event = mapped(raw)
    assert bytes(event.data) == raw
    assert (event.subject, event.partition_key, event.partitionkey) == ("JFK", "JFK", None)
    assert (event.type, event.time) == ("weather.observation", "2013-01-01T06:00:00.000Z")
    assert event.sequence is None


def test_without_a_source_the_stream_is_the_source_and_without_an_id_the_position_is() -> None:
    assert (mapped(RECORD).source, mapped(RECORD).id) == (ARN, "42/3")


def test_a_mapped_id_and_source_are_taken() -> None:
    event = mapped({**RECORD, "meta": {"n": 7, "from": "roof"}}, id="meta.n", source="meta.from")
    assert (event.id, event.source) == ("7", "roof")


@pytest.mark.parametrize(("value", "subject"), [("JFK", "JFK"), (7, "7"), (-7, "-7"), (2**70, str(2**70)), (" ", " ")])
def test_a_key_is_text_or_an_integer(value: object, subject: str) -> None:
    assert mapped({**RECORD, "origin": value}).subject == subject


@pytest.mark.parametrize("value", [None, "", 1.0, True, [], {}])
@pytest.mark.parametrize("entry", ["key", "id"])
def test_anything_else_is_no_key_and_no_id(entry: str, value: object) -> None:
    changes = {"id": "n"} if entry == "id" else {}
    with pytest.raises(InvalidEvent) as caught:
        mapped({**RECORD, ("n" if entry == "id" else "origin"): value}, **changes)
    assert caught.value.attribute == entry


@pytest.mark.parametrize(
    ("record", "attribute"),
    [
        ({"time_hour": "2013-01-01T06:00:00Z"}, "key"),
        ({"origin": "JFK"}, "time"),
        ({**RECORD, "time_hour": 5}, "time"),
        ({**RECORD, "time_hour": "2013-01-01 06:00"}, "time"),
        ({**RECORD, "time_hour": "2016-12-31T23:59:60Z"}, "time"),
        (b"", "record"),
        (b"{", "record"),
        (b"[]", "record"),
        (b"5", "record"),
        (b'{"a": "\xff"}', "record"),
        (b"{}{}", "record"),
        (b'{"time_hour": "2013-01-01T06:00:00Z", "origin": ' + b"9" * 5000 + b"}", "record"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "record"),
    ],
)
def test_a_record_that_does_not_fit_the_mapping_says_what_is_wrong(record: object, attribute: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        mapped(record)
    assert caught.value.attribute == attribute


def test_the_error_names_the_record_s_field_too() -> None:
    with pytest.raises(InvalidEvent, match=r"key \(field reading.station\): is missing or null"):
        mapped({**RECORD, "reading": {}}, key="reading.station")


def test_a_path_through_something_that_is_no_object_finds_nothing() -> None:
    with pytest.raises(InvalidEvent, match="is missing or null"):
        mapped({**RECORD, "reading": [{"station": "JFK"}]}, key="reading.station")


@pytest.mark.parametrize("kind", ["streamgauge.tick", "streamgauge.end_of_input"])
def test_a_foreign_record_cannot_be_a_control_record(kind: str) -> None:
    with pytest.raises(InvalidEvent, match="reserved"):
        mapped({**RECORD, "kind": kind}, type="kind")


def test_a_foreign_record_cannot_be_of_a_source_of_ours() -> None:
    with pytest.raises(InvalidEvent, match="reserved"):
        mapped({**RECORD, "from": OURS}, source="from")


@pytest.mark.parametrize(
    ("value", "time_format", "instant"),
    [
        ("2013-01-01T06:00:00.5Z", "rfc3339", 1_357_020_000_500),
        (1_357_020_000, "epoch_s", 1_357_020_000_000),
        # As binary fractions these lie just below the millisecond that they are written as.
        (1356998400.123, "epoch_s", 1_356_998_400_123),
        (0.057, "epoch_s", 57),
        (-0.0001, "epoch_s", -1),
        (-1.5, "epoch_s", -1_500),
        (1e9, "epoch_s", 1_000_000_000_000),
        (1_357_020_000_123, "epoch_ms", 1_357_020_000_123),
        (123.9, "epoch_ms", 123),
        (-123.1, "epoch_ms", -124),
        (0, "epoch_ms", 0),
        ("01/02/2013 06:00 +0100", "%d/%m/%Y %H:%M %z", 1_359_694_800_000),
        ("2013-02-01 05:00:00.0019Z", "%Y-%m-%d %H:%M:%S.%f%z", 1_359_694_800_001),
        ("1969-12-31 23:59:59.9999 UTC", "%Y-%m-%d %H:%M:%S.%f %Z", -1),
        ("Fri Feb  1 05:00:00 GMT 2013", "%a %b %d %H:%M:%S %Z %Y", 1_359_694_800_000),
        ("2013-02-01 +0000", "%Y-%m-%d %z", 1_359_676_800_000),
        ("2013 032 +0000", "%Y %j %z", 1_359_676_800_000),
        ("02/01/13 05 AM utc", "%m/%d/%y %I %p %Z", 1_359_694_800_000),
    ],
)
def test_a_time_is_read_in_the_stated_format(value: object, time_format: str, instant: int) -> None:
    assert mapping(time_format=time_format).time_format == time_format
    assert parse_time(value, time_format) == instant


@pytest.mark.parametrize(
    ("value", "time_format"),
    [
        ("1357020000", "epoch_s"),
        (True, "epoch_s"),
        (None, "epoch_s"),
        ([], "epoch_ms"),
        (float("inf"), "epoch_s"),
        (float("nan"), "epoch_ms"),
        (1e308, "epoch_s"),
        (10**30, "epoch_ms"),
        # Milliseconds given as seconds.
        (1_357_020_000_000, "epoch_s"),
        (1_357_020_000, "rfc3339"),
        ("2013-02-01", "%Y-%m-%d %z"),
        ("2013-02-30 +0000", "%Y-%m-%d %z"),
        ("2013-02-01 CET", "%Y-%m-%d %Z"),
        ("0001-01-01 +1400", "%Y-%m-%d %z"),
        (20130201, "%Y%m%d %z"),
    ],
)
def test_a_time_of_another_format_is_refused(value: object, time_format: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_time(value, time_format)


def test_a_zone_that_only_this_machine_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    with monkeypatch.context() as changed:
        changed.setenv("TZ", "CET-1CEST")
        time.tzset()
        with pytest.raises(ValueError, match="neither UTC nor GMT"):
            parse_time("2013-02-01 CET", "%Y-%m-%d %Z")
    time.tzset()


def own(**changes: str) -> bytes:
    event = {
        "specversion": "1.0",
        "id": "0",
        "source": OURS,
        "type": "weather.observation",
        "time": "2013-01-01T06:00:00Z",
        "subject": "LGA",
        "sequence": "0" * 20,
        **changes,
    }
    return encode_event(Event(**event))


def test_an_event_of_ours_is_never_mapped() -> None:
    event = read_record(mapping(), own(), stream_arn=ARN, position=Position(42, 3))
    assert (event.source, event.subject, event.id) == (OURS, "LGA", "0")


def test_control_and_broken_sources_of_ours_are_not_mapped_either() -> None:
    assert is_own_cloudevent(own(source="urn:streamgauge:control:stack", type="streamgauge.tick"))
    assert is_own_cloudevent(b'{"specversion": 5, "source": "urn:streamgauge:nobody"}')
    with pytest.raises(InvalidEvent, match="source"):
        read_record(mapping(), own(source="urn:streamgauge:nobody"), stream_arn=ARN, position=Position(1, 0))


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(RECORD).encode(),
        b'{"source": "urn:streamgauge:x"}',
        b'{"specversion": "1.0", "source": "https://elsewhere"}',
        b'{"specversion": "1.0", "source": 5}',
        b'{"specversion": "1.0", "data": {"source": "urn:streamgauge:x"}}',
        b'{"specversion": "1.0", "source": "urn:streamgauge:x"',
        b'[{"specversion": "1.0", "source": "urn:streamgauge:x"}]',
        b"\xff",
    ],
)
def test_every_other_record_is_left_to_the_mapping(payload: bytes) -> None:
    assert not is_own_cloudevent(payload)


def test_without_a_mapping_every_record_is_a_cloudevent() -> None:
    with pytest.raises(InvalidEvent):
        read_record(None, json.dumps(RECORD).encode(), stream_arn=ARN, position=Position(1, 0))
    elsewhere = own(source="https://elsewhere")
    assert read_record(None, elsewhere, stream_arn=ARN, position=Position(1, 0)).source == "https://elsewhere"
