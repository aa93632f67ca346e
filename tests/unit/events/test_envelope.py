"""The envelope: what is refused, and which attribute the error names."""

from __future__ import annotations

import json
from uuid import UUID

import msgspec
import pytest

from streamgauge.events.envelope import (
    Event,
    InvalidEvent,
    OwnSource,
    decode_event,
    encode_event,
    own_source,
    parse_sequence,
)
from streamgauge.events.json_text import MAX_NESTING

UUID_TEXT = "0191d5e0-7b1c-7c3e-9f00-0123456789ab"
OURS = f"urn:streamgauge:{UUID_TEXT}:w16384"
CONTROL = "urn:streamgauge:control:stack"
GOOD: dict[str, object] = {
    "specversion": "1.0",
    "id": "7",
    "source": OURS,
    "type": "weather.observation",
    "time": "2013-01-01T06:00:00Z",
    "subject": "JFK",
    "sequence": "00000000000000000007",
    "data": {"temp": 1.5},
}


def payload(**changes: object) -> bytes:
    return json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value is not ...}).encode()


def test_an_event_of_ours_is_read() -> None:
    event = decode_event(payload())
    assert (event.subject, event.partition_key, event.sequence) == ("JFK", "JFK", "00000000000000000007")
    assert json.loads(bytes(event.data)) == {"temp": 1.5}


def test_the_partition_key_is_the_partitionkey_where_there_is_one() -> None:
    assert decode_event(payload(partitionkey="north")).partition_key == "north"


def test_attributes_without_a_value_are_not_written() -> None:
    event = Event(specversion="1.0", id="1", source="s", type="t", time="2013-01-01T00:00:00Z", subject="k")
    assert json.loads(encode_event(event)) == {
        "specversion": "1.0",
        "id": "1",
        "source": "s",
        "type": "t",
        "time": "2013-01-01T00:00:00Z",
        "subject": "k",
    }


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type", "time", "subject"])
@pytest.mark.parametrize("value", [..., None, 5, ["a"]], ids=["missing", "null", "a number", "a list"])
def test_an_attribute_that_is_missing_or_of_a_wrong_type_is_named(name: str, value: object) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_event(payload(**{name: value}))
    assert caught.value.attribute == name


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "partitionkey", "time"])
def test_an_empty_attribute_is_named(name: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_event(payload(**{name: ""}))
    assert caught.value.attribute == name


@pytest.mark.parametrize(
    ("changes", "attribute"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2013-01-01T06:00:00"}, "time"),
        ({"sequence": ...}, "sequence"),
        ({"sequence": "7"}, "sequence"),
        ({"sequence": 7}, "sequence"),
        ({"partitionkey": 7}, "partitionkey"),
        ({"source": "urn:streamgauge:nobody"}, "source"),
        ({"type": "streamgauge.tick", "source": "https://elsewhere"}, "type"),
        ({"type": "weather.observation", "source": CONTROL}, "type"),
    ],
)
def test_what_contradicts_the_contract_is_named(changes: dict[str, object], attribute: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_event(payload(**changes))
    assert caught.value.attribute == attribute
    assert attribute in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'{"id": "\xff"}', payload() + b"{}", payload()[:-1]])
def test_bytes_that_are_not_one_json_object_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_event(raw)
    assert caught.value.attribute in ("event", "id")


def nested(depth: int) -> bytes:
    """An event whose own object and data are `depth` deep together."""
    return payload(beside=[[]], data="?").replace(b'"?"', b"[" * (depth - 1) + b"]" * (depth - 1))


def test_json_nested_too_deep_is_refused_at_the_same_depth_everywhere() -> None:
    assert decode_event(nested(MAX_NESTING)).id == "7"
    for depth in (MAX_NESTING + 1, 200_000):
        with pytest.raises(InvalidEvent, match=f"nested deeper than {MAX_NESTING}"):
            decode_event(nested(depth))


def test_brackets_inside_text_and_beside_each_other_are_not_depth() -> None:
    assert decode_event(payload(data={"text": '[{\\"' * 1000})).id == "7"
    assert decode_event(payload(data=[[[]]] * 1000)).id == "7"


def test_a_lone_surrogate_has_no_hash_key_and_is_refused() -> None:
    with pytest.raises(InvalidEvent):
        decode_event(payload().replace(b'"JFK"', rb'"\ud800"'))


def test_a_ledger_record_needs_no_sequence() -> None:
    assert decode_event(payload(type="streamgauge.ledger", sequence=...)).sequence is None


def test_a_foreign_event_needs_no_sequence_and_may_have_any() -> None:
    assert decode_event(payload(source="https://elsewhere", sequence="7")).sequence == "7"


def test_a_source_of_ours_is_taken_apart() -> None:
    assert own_source(OURS) == OwnSource(UUID(UUID_TEXT), 16_384)
    assert str(OwnSource(UUID(UUID_TEXT), 16_384)) == OURS


@pytest.mark.parametrize("window", [1024, 2048, 16_384, 1_048_576])
def test_a_power_of_two_within_the_bounds_is_a_window(window: int) -> None:
    parsed = own_source(f"urn:streamgauge:{UUID_TEXT}:w{window}")
    assert parsed is not None and parsed.window == window


@pytest.mark.parametrize(
    "window", ["1000", "3000", "512", "2097152", "0", "01024", "-1024", "1024.0", "", "1e3", "1024 ", "١٠٢٤"]
)
def test_any_other_window_is_refused(window: str) -> None:
    with pytest.raises(InvalidEvent):
        own_source(f"urn:streamgauge:{UUID_TEXT}:w{window}")


@pytest.mark.parametrize(
    "source",
    [
        f"urn:streamgauge:{UUID_TEXT.upper()}:w1024",
        f"urn:streamgauge:{UUID_TEXT.replace('-', '')}:w1024",
        f"urn:streamgauge:{UUID_TEXT}",
        f"urn:streamgauge:{UUID_TEXT}:w1024:x",
        f"urn:streamgauge:{UUID_TEXT}:w1024\n",
        "urn:streamgauge:",
        "urn:streamgauge:schema:weather.observation:1",
    ],
)
def test_what_begins_like_a_source_of_ours_and_is_none_is_refused(source: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        own_source(source)
    assert caught.value.attribute == "source"


@pytest.mark.parametrize("source", ["https://elsewhere", CONTROL, "URN:STREAMGAUGE:x", f" {OURS}", "urn:streamgauge"])
def test_foreign_and_control_sources_are_not_ours(source: str) -> None:
    assert own_source(source) is None


@pytest.mark.parametrize(
    "text", [None, "", "7", "0" * 19, "0" * 21, "+" + "0" * 19, " " + "0" * 19, "9" * 20, "\u0660" * 20]
)
def test_a_sequence_has_twenty_digits_and_fits_63_bits(text: str | None) -> None:
    with pytest.raises(InvalidEvent):
        parse_sequence(text)
    assert parse_sequence(f"{2**63 - 1:020}") == 2**63 - 1


def test_data_is_kept_byte_for_byte() -> None:
    raw = b'{"temp" :1.50,  "n":[1,2]}'
    event = msgspec.structs.replace(decode_event(payload()), data=msgspec.Raw(raw))
    assert bytes(decode_event(encode_event(event)).data) == raw
