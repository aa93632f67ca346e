"""What every decoder must make of records, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from decode_world import (
    ARN,
    ARRIVAL_MS,
    BASE,
    BY_PARTITION_KEY,
    MAPPED,
    OWN,
    SHARD,
    TWO_TYPES,
    WEATHER,
    Told,
    aggregate,
    event,
    mapped,
    plain,
    tell,
)

from streamgauge.events.control import Ledger, Tick, control_event, ledger_event
from streamgauge.events.envelope import encode_event
from streamgauge.events.hash_key import FULL_RANGE, HashRange, hash_key
from streamgauge.events.kpl import KPL_MAGIC
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.events.times import instant_ms
from streamgauge.processors.core.decode import Decoder, MsgspecDecoder
from streamgauge.processors.core.definition import Pipeline

MakeDecoder = Callable[[Pipeline], Decoder]

FOREIGN = {"source": "https://example.org/a", "id": "x", "sequence": "whatever"}
RECORD = {"n": 7, "at": "2024-01-02T03:04:05Z", "station": "k", "temp": 2.5, "count": 4, "wet": False}


@pytest.fixture(params=[MsgspecDecoder])
def make(request: pytest.FixtureRequest) -> MakeDecoder:
    implementation = request.param
    return lambda pipeline: implementation(pipeline, ARN)


def record(**changes: object) -> bytes:
    return json.dumps(RECORD | changes, ensure_ascii=False).encode()


def one_of(make: MakeDecoder, payload: bytes, pipeline: Pipeline = WEATHER, good: bytes | None = None) -> Told | None:
    """What becomes of a payload among good ones, which it must not disturb, plain and in an aggregate alike."""
    first, last = (event(5), event(6)) if good is None else (good, good)
    alone = tell(make(pipeline).decode(plain([payload]), SHARD, None))
    among = tell(make(pipeline).decode(plain([first, payload, last]), SHARD, None))
    within = tell(make(pipeline).decode([aggregate([first, payload, last])], SHARD, None))
    assert among[0, 0].what == among[2, 0].what == within[0, 0].what == within[0, 2].what == "read"
    if pipeline.mapping is None or pipeline.mapping.id is not None:
        assert alone.get((0, 0)) == among.get((1, 0)) == within.get((0, 1))
    return alone.get((0, 0))


def without(name: str) -> bytes:
    return event(drop=[name])


def raw(old: str, new: str) -> bytes:
    text = event().decode()
    assert old in text
    return text.replace(old, new, 1).encode()


NOT_JSON = {
    "nothing": b"",
    "blanks": b" \n",
    "half an object": event()[:-1],
    "two objects": event() + event(),
    "two objects on two lines": event() + b"\n" + event(),
    "an array": b"[" + event() + b"]",
    "a text": b'"event"',
    "null": b"null",
    "a byte order mark": b"\xef\xbb\xbf" + event(),
    "UTF-16": event().decode().encode("utf-16"),
    "bad UTF-8 in a field that is read": event(subject="k").replace(b'"k"', b'"k\xff"'),
    "bad UTF-8 in a field that is not read": event(note="~").replace(b"~", b"\xc3"),
    "an encoded surrogate": event(note="~").replace(b"~", b"\xed\xa0\x80"),
    "a trailing comma": event()[:-1] + b",}",
    "NaN": raw("1.5", "NaN"),
    "a leading zero": raw('"count": 3', '"count": 03'),
    "a raw line break in a text": raw('"s"', '"s\n"'),
    "a NUL after the object": event() + b"\0",
    "deep arrays": event(deep="~").replace(b'"~"', b"[" * 300 + b"]" * 300),
    "deep objects": event(deep="~").replace(b'"~"', b'{"a":' * 300 + b"1" + b"}" * 300),
    "very deep arrays": event(deep="~").replace(b'"~"', b"[" * 200_000 + b"]" * 200_000),
    "an unclosed deep array": event()[:-1] + b',"a":' + b"[" * 100_000,
}


@pytest.mark.parametrize("payload", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_json_object_fails_alone(make: MakeDecoder, payload: bytes) -> None:
    told = one_of(make, payload)
    assert told is not None
    assert told.what == "malformed_json"
    assert told.detail


FAILING = {
    "another specversion": (event(specversion="0.3"), "envelope"),
    "no specversion": (without("specversion"), "envelope"),
    "no id": (without("id"), "envelope"),
    "an empty id": (event(id=""), "envelope"),
    "a number as id": (event(id=1), "envelope"),
    "no source": (without("source"), "envelope"),
    "an empty source": (event(source=""), "envelope"),
    "no type": (without("type"), "envelope"),
    "an empty type": (event(type=""), "envelope"),
    "an empty partitionkey": (event(partitionkey=""), "envelope"),
    "a content type that is no text": (event(datacontenttype=1), "envelope"),
    "a traceparent that is no text": (event(traceparent={}), "envelope"),
    "a foreign reserved type": (event(type="streamgauge.tick", **FOREIGN), "envelope"),
    "an unknown reserved type": (event(type="streamgauge.more"), "envelope"),
    "a control source with another type": (event(source="urn:streamgauge:control:x"), "envelope"),
    "no subject": (without("subject"), "key"),
    "an empty subject": (event(subject=""), "key"),
    "a null subject": (event(subject=None), "key"),
    "no time": (without("time"), "time"),
    "a time that is no time": (event(time="yesterday"), "time"),
    "an empty time": (event(time=""), "time"),
    "a number as time": (event(time=5), "time"),
    "a month 13": (event(time="2024-13-01T00:00:00Z"), "time"),
    "a 30th of February": (event(time="2024-02-30T00:00:00.000Z"), "time"),
    "a 29th of February without one": (event(time="2023-02-29T00:00:00.000Z"), "time"),
    "the year 0": (event(time="0000-01-01T00:00:00Z"), "time"),
    "hour 24": (event(time="2024-01-01T24:00:00Z"), "time"),
    "second 60": (event(time="2016-12-31T23:59:60Z"), "time"),
    "a time without an offset": (event(time="2024-01-01T00:00:00.000"), "time"),
    "other digits in a time": (event(time="٢024-01-01T00:00:00.000Z"), "time"),
    "a slash in a time": (event(time="2024/01/01T00:00:00.000Z"), "time"),
    "a colon beyond nine": (event(time="2024-01-0:T00:00:00.000Z"), "time"),
    "ours without a sequence": (without("sequence"), "sequence"),
    "a sequence of 19 digits": (event(sequence="0" * 19), "sequence"),
    "a sequence of 21 digits": (event(sequence="0" * 21), "sequence"),
    "a sequence of other digits": (event(sequence="0" * 19 + "٢"), "sequence"),
    "a letter in a sequence": (event(sequence="0" * 19 + "a"), "sequence"),
    "a blank in a sequence": (event(sequence="0" * 10 + " " + "0" * 9), "sequence"),
    "a sequence with a sign": (event(sequence="+" + "0" * 19), "sequence"),
    "a sequence of 2**63": (event(sequence=f"{2**63:020}"), "sequence"),
    "a sequence of 10**19": (event(sequence=str(10**19)), "sequence"),
    "a number as sequence": (event(sequence=1), "sequence"),
    "W that is no power of two": (event(source=OWN.replace("w1024", "w1025")), "sequence"),
    "W below the least": (event(source=OWN.replace("w1024", "w512")), "sequence"),
    "W above max_w": (event(source=OWN.replace("w1024", "w32768")), "sequence"),
    "an odd urn": (event(source="urn:streamgauge:me"), "sequence"),
    "an unknown type": (event(type="storm"), "unknown_type"),
    "an unknown version": (event(dataschema="urn:streamgauge:schema:weather:9"), "unknown_version"),
    "another type's version": (event(dataschema="urn:streamgauge:schema:tide:1"), "unknown_version"),
    "an empty dataschema": (event(dataschema=""), "unknown_version"),
    "no data": (without("data"), "data"),
    "null as data": (raw('{"temp": 1.5, "count": 3, "wet": true, "station": "s", "unused": 1}', "null"), "data"),
    "an array as data": (event(data=[1]), "data"),
    "a required field missing": (event(data={"temp": 1}), "data"),
    "a text for a number": (event(data={"count": 1, "temp": "1"}), "data"),
    "a text for an integer": (event(data={"count": "1"}), "data"),
    "true for an integer": (event(data={"count": True}), "data"),
    "true for a number": (event(data={"count": 1, "temp": True}), "data"),
    "a fraction for an integer": (event(data={"count": 1.5}), "data"),
    "an exponent for an integer": (raw('"count": 3', '"count": 1e2'), "data"),
    "null for an integer": (event(data={"count": None}), "data"),
    "null for a boolean": (event(data={"count": 1, "wet": None}), "data"),
    "one for a boolean": (event(data={"count": 1, "wet": 1}), "data"),
    "above the maximum": (event(data={"count": 1, "temp": 60.5}), "data"),
    "an integer of 2**63": (event(data={"count": 2**63}), "data"),
    "an integer below -2**63": (event(data={"count": -(2**63) - 1}), "data"),
    "an integer of 100 digits": (event(data={"count": 10**100}), "data"),
    "a number of 1e400": (raw("1.5", "1e400"), "data"),
    "a wrong type inside an object": (event(data={"count": 1, "inner": {"level": "high"}}), "data"),
    "a wrong copy before a good one": (raw('"count": 3', '"count": "x", "count": 3'), "data"),
    "a text for an object": (event(data={"count": 1, "inner": "x"}), "data"),
    "null for an object": (event(data={"count": 1, "inner": None}), "data"),
    "a partitionkey that the record lacks": (event(partitionkey="other"), "partition"),
    "a subject that the record's key is not": (event(subject="other"), "partition"),
}


@pytest.mark.parametrize(("payload", "reason"), FAILING.values(), ids=FAILING)
def test_a_failed_event_has_its_reason_and_fails_alone(make: MakeDecoder, payload: bytes, reason: str) -> None:
    told = one_of(make, payload)
    assert told is not None
    assert told.what == reason
    assert told.detail


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": {"temp": 1}}, "count"),
        ({"data": {"count": 1, "temp": "x"}}, "data.temp"),
        ({"data": {"count": 1, "inner": {"level": "x"}}}, "data.inner.level"),
        ({"time": "noon"}, "time"),
        ({"datacontenttype": 1}, "datacontenttype"),
        ({"type": "storm"}, "storm"),
        ({"dataschema": "x:9"}, "x:9"),
        ({"subject": "elsewhere"}, "elsewhere"),
        ({"source": OWN.replace("w1024", "w65536")}, "max_w"),
    ],
)
def test_the_detail_names_field_or_value(make: MakeDecoder, changes: dict[str, object], named: str) -> None:
    told = one_of(make, event(**changes))  # type: ignore[arg-type]
    assert told is not None
    assert named in told.detail


@pytest.mark.parametrize("payload", [event(time="noon"), event(data=1), event(subject=""), event(datacontenttype=1)])
def test_a_failed_event_of_ours_keeps_its_identity(make: MakeDecoder, payload: bytes) -> None:
    told = one_of(make, payload)
    assert told is not None
    assert (told.source, told.identity) == (OWN, f"{0:020}")


@pytest.mark.parametrize("changes", [{"time": "noon"}, {"type": "storm"}, {"subject": ""}])
def test_a_failed_foreign_event_keeps_its_identity(make: MakeDecoder, changes: dict[str, object]) -> None:
    told = one_of(make, event(**(FOREIGN | changes)))  # type: ignore[arg-type]
    assert told is not None
    assert (told.source, told.identity) == ("https://example.org/a", "x")


def test_a_w_above_the_maximum_takes_no_part_in_the_removal_of_duplicates(make: MakeDecoder) -> None:
    decoded = make(WEATHER).decode(plain([event(source=OWN.replace("w1024", "w32768"))] * 2), SHARD, None)
    assert len(decoded.batch) == 0
    assert [failed.reason for failed in decoded.failed] == ["sequence", "sequence"]


READ = {
    "as it is": (event(), {}),
    "blanks around it": (b" \r\n" + event() + b"\n\t", {}),
    "an unknown extension": (event(mood="good"), {}),
    "a partitionkey equal to subject": (event(partitionkey="k"), {}),
    "the newest version by urn": (event(dataschema="urn:streamgauge:schema:weather:2"), {}),
    "the newest version by $id": (event(dataschema="https://example.org/weather/2"), {}),
    "an older version": (event(dataschema="urn:streamgauge:schema:weather:1"), {}),
    "an escape": (raw('"s"', '"\\u0073"'), {}),
    "an escaped surrogate pair": (raw('"s"', '"\\ud83d\\ude00"'), {"data.station": "😀"}),
    "a later copy of a field wins": (raw('"count": 3', '"count": 9, "count": 3'), {}),
    "a later copy of data wins over a wrong one": (raw('"data": ', '"data": 5, "data": '), {}),
    "a later copy of an attribute wins": (raw('"type": ', '"type": "storm", "type": '), {}),
    "an integer for a number": (event(data={"count": 3, "temp": 2}), {"data.temp": 2.0}),
    "minus zero": (raw("1.5", "-0.0"), {"data.temp": 0.0}),
    "an exponent for a number": (raw("1.5", "15e-1"), {}),
    "null where it may be": (raw("1.5", "null"), {"data.temp": None}),
    "the largest integer": (event(data={"count": 2**63 - 1}), {"data.count": 2**63 - 1}),
    "the least integer": (event(data={"count": -(2**63)}), {"data.count": -(2**63)}),
    "an empty text": (event(data={"count": 1, "station": ""}), {"data.station": ""}),
    "absent fields": (
        event(data={"count": 1}),
        {"data.temp": None, "data.wet": None, "data.station": None, "data.inner.level": None},
    ),
    "a field in an object": (event(data={"count": 1, "inner": {"level": 4}}), {"data.inner.level": 4}),
    "a null in an object": (event(data={"count": 1, "inner": {"level": None}}), {"data.inner.level": None}),
    "a default": (event(data={"count": 1}), {"data.quality": "unknown"}),
    "a stated value in place of the default": (event(data={"count": 1, "quality": "bad"}), {"data.quality": "bad"}),
    "a later field in an older version": (
        event(data={"count": 1, "quality": "bad"}, dataschema="urn:streamgauge:schema:weather:1"),
        {"data.quality": "unknown"},
    ),
    "a wrong type in a field that nobody names": (event(data={"count": 3, "unused": "x"}), {"data.count": 3}),
    "a huge number in a field that nobody names": (event(data={"count": 3, "more": 10**400}), {"data.count": 3}),
    "nesting within the limit": (event(data={"count": 3}, deep="~").replace(b'"~"', b"[" * 250 + b"]" * 250), {}),
    "many brackets inside a text": (event(data={"count": 3}, note="[{" * 500), {}),
    "many flat arrays": (event(data={"count": 3}, note=[[]] * 500), {}),
    "the highest sequence": (event(2**63 - 1), {}),
    "the largest W": (event(source=OWN.replace("w1024", "w16384")), {}),
    "a foreign event": (event(**FOREIGN), {}),  # type: ignore[arg-type]
    "a foreign event without a sequence": (event(source="s", drop=["sequence"]), {}),
}


@pytest.mark.parametrize(("payload", "values"), READ.values(), ids=READ)
def test_a_good_event_is_read(make: MakeDecoder, payload: bytes, values: dict[str, object]) -> None:
    told = one_of(make, payload)
    assert told is not None
    assert told.what == "read", told.detail
    fields = dict(told.fields)
    assert fields["subject"] == "k"
    assert {name: fields[name] for name in values} == values
    assert {name: type(fields[name]) for name in values} == {name: type(value) for name, value in values.items()}


TIMES = [
    "2024-02-29T23:59:59Z",
    "2024-12-31T00:00:00.001Z",
    "1969-12-31T23:59:59.999Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999Z",
    "1900-03-01T00:00:00Z",
    "2000-02-29T12:00:00.500Z",
    "2024-01-01T00:00:00+01:00",
    "2024-01-01t00:00:00.5z",
    "2024-01-01 00:00:00.123456789-09:30",
]


@pytest.mark.parametrize("time", TIMES)
def test_times_are_read_to_the_millisecond(make: MakeDecoder, time: str) -> None:
    told = one_of(make, event(time=time))
    assert told is not None
    assert told.time_ms == instant_ms(time)


def test_times_whose_texts_only_together_look_right_are_no_times(make: MakeDecoder) -> None:
    whole = "2024-01-01T00:00:00.000Z"
    payloads = [event(0, time=whole[:-1]), event(1, time="Z" + whole)]
    assert [told.what for told in tell(make(WEATHER).decode(plain(payloads), SHARD, None)).values()] == ["time"] * 2


def test_sequences_whose_texts_only_together_look_right_are_no_sequences(make: MakeDecoder) -> None:
    payloads = [event(0, sequence="0" * 19), event(1, sequence="0" * 21)]
    assert [told.what for told in tell(make(WEATHER).decode(plain(payloads), SHARD, None)).values()] == ["sequence"] * 2


def test_a_forged_boundary_inside_a_text_makes_no_second_event(make: MakeDecoder) -> None:
    forged = event(1, data={"count": 1, "station": '"}}\n' + event(2).decode() + "\n"})
    told = tell(make(WEATHER).decode([aggregate([event(0), forged, event(3)])], SHARD, None))
    assert [outcome.identity for outcome in told.values()] == [f"{number:020}" for number in (0, 1, 3)]


def test_a_boundary_across_two_records_joins_nothing(make: MakeDecoder) -> None:
    whole = event(1)
    told = tell(make(WEATHER).decode([aggregate([whole[:80], whole[80:], event(2)])], SHARD, None))
    assert [outcome.what for outcome in told.values()] == ["malformed_json", "malformed_json", "read"]


def test_nothing_gives_nothing(make: MakeDecoder) -> None:
    decoded = make(WEATHER).decode([], SHARD, None)
    assert (len(decoded.batch), decoded.positions, decoded.sequence_numbers) == (0, 0, [])
    assert set(decoded.batch.fields) == set(WEATHER.named_fields)


def test_a_batch_of_nothing_but_failures_is_read(make: MakeDecoder) -> None:
    told = tell(make(WEATHER).decode(plain([b"", event(time="x"), b"{}"]), SHARD, None))
    assert [outcome.what for outcome in told.values()] == ["malformed_json", "time", "envelope"]


def test_types_of_the_catalogue_that_the_pipeline_does_not_name_are_counted_apart(make: MakeDecoder) -> None:
    told = one_of(make, event(3, type="tide", data={"anything": []}))
    assert told == Told("type_not_read", "", OWN, f"{3:020}")


def test_two_types_are_read_side_by_side(make: MakeDecoder) -> None:
    payloads = [event(0), event(1, type="tide", data={"count": 0.5, "wet": False}), event(2, type="noise"), event(3)]
    told = list(tell(make(TWO_TYPES).decode(plain(payloads), SHARD, None)).values())
    assert [outcome.what for outcome in told] == ["read", "read", "type_not_read", "read"]
    weather, tide = dict(told[0].fields), dict(told[1].fields)
    assert (weather["type"], weather["data.count"], weather["data.temp"]) == ("weather", 3.0, 1.5)
    assert (tide["type"], tide["data.count"], tide["data.temp"], tide["data.wet"]) == ("tide", 0.5, None, False)
    assert weather["source"] == OWN


def test_an_event_that_is_read_one_by_one_lacks_the_other_types_fields_too(make: MakeDecoder) -> None:
    # Many brackets look like deep nesting, even inside a text.
    odd = event(1, type="tide", data={"count": 2}, note="[" * 600)
    (outcome,) = tell(make(TWO_TYPES).decode(plain([odd]), SHARD, None)).values()
    assert outcome.what == "read"
    assert dict(outcome.fields)["data.temp"] is None
    assert dict(outcome.fields)["data.count"] == 2.0


def test_a_stream_of_mostly_other_types_reads_as_one_of_few(make: MakeDecoder) -> None:
    decoder = make(WEATHER)
    other = [event(number, type="tide", data={}) for number in range(9)]
    for round_ in range(3):
        payloads = [*other, event(9, dataschema="urn:streamgauge:schema:weather:1"), event(10), event(11, data={})]
        told = list(tell(decoder.decode(plain(payloads, base=BASE + 100 * round_), SHARD, None)).values())
        assert [outcome.what for outcome in told] == ["type_not_read"] * 9 + ["read", "read", "data"]
    assert [outcome.what for outcome in tell(decoder.decode(plain([event()] * 9), SHARD, None)).values()] == [
        "read"
    ] * 9


# Partition keys and shards.

HALF = hash_key("k")
OUTSIDE = Shard("s", HashRange(HALF + 1, FULL_RANGE.last))
INSIDE = Shard("s", HashRange(0, HALF))
NEAR = next(f"n{number}" for number in range(99) if hash_key(f"n{number}") <= HALF)
FAR = next(f"n{number}" for number in range(99) if hash_key(f"n{number}") > HALF)


def test_a_plain_record_outside_the_shards_range_fails(make: MakeDecoder) -> None:
    (told,) = tell(make(WEATHER).decode(plain([event()]), OUTSIDE, None)).values()
    assert (told.what, told.identity) == ("partition", f"{0:020}")
    (told,) = tell(make(WEATHER).decode(plain([event()]), INSIDE, None)).values()
    assert told.what == "read"


def test_a_misrouted_aggregate_of_ours_is_ignored_whole(make: MakeDecoder) -> None:
    shard = Shard("s", HashRange(0, max(hash_key("k"), hash_key(NEAR)) - 1))
    keys = ["k", NEAR]
    decoded = make(WEATHER).decode(
        [aggregate([event(0), event(1, subject=NEAR)], keys=keys), *plain([b"{}"], key=NEAR, base=BASE + 1)],
        shard,
        None,
    )
    assert (decoded.misrouted, len(decoded.batch), len(decoded.failed), decoded.positions) == (2, 0, 1, 3)


def test_a_misrouted_aggregate_with_anything_foreign_is_one_failed_event(make: MakeDecoder) -> None:
    for other in (event(1, source="elsewhere"), b"no json"):
        decoded = make(WEATHER).decode([aggregate([event(0), other])], OUTSIDE, None)
        (failed,) = decoded.failed
        assert (failed.reason, failed.position.sub_sequence_number, decoded.positions) == ("misrouted_aggregate", 0, 1)
        assert failed.payload.startswith(KPL_MAGIC)
        assert decoded.last_sub_sequence == 0


def test_explicit_hash_keys_decide_where_an_aggregates_event_belongs(make: MakeDecoder) -> None:
    from streamgauge.events.kpl import AggregateBuilder, UserRecord

    builder = AggregateBuilder()
    builder.add(UserRecord("k", FULL_RANGE.last, event(0)))
    stream_record = StreamRecord(str(BASE), "k", ARRIVAL_MS, builder.encode())
    assert make(WEATHER).decode([stream_record], OUTSIDE, None).misrouted == 0
    assert make(WEATHER).decode([stream_record], INSIDE, None).misrouted == 1


def test_an_aggregates_event_fails_whose_partition_key_is_counted_in_another_shard(make: MakeDecoder) -> None:
    from streamgauge.events.kpl import AggregateBuilder, UserRecord

    builder = AggregateBuilder()
    for number, (key, hashed) in enumerate((("k", None), (NEAR, 5), (FAR, 5), (NEAR, None), (FAR, 6))):
        builder.add(UserRecord(key, hashed, event(number, subject=key)))
    records = [*plain([event(9)]), StreamRecord(str(BASE + 1), "k", ARRIVAL_MS, builder.encode())]
    told = tell(make(WEATHER).decode(records, INSIDE, None))
    assert [what.what for what in told.values()] == ["read", "read", "read", "partition", "read", "partition"]
    told = tell(make(WEATHER).decode(records, INSIDE, Position(BASE + 1, 1)))
    assert [what.what for what in told.values()] == ["partition", "read", "partition"]


def test_the_answer_about_a_key_does_not_outlive_the_shard(make: MakeDecoder) -> None:
    decoder = make(WEATHER)
    for shard, what in ((INSIDE, "read"), (OUTSIDE, "partition"), (INSIDE, "read")):
        (told,) = tell(decoder.decode(plain([event()]), shard, None)).values()
        assert told.what == what


def test_a_key_that_takes_subject_for_the_partition_key_refuses_another_one(make: MakeDecoder) -> None:
    payload = event(subject="finer", partitionkey="k")
    (told,) = tell(make(WEATHER).decode(plain([payload]), SHARD, None)).values()
    assert told.what == "partition"
    (told,) = tell(make(BY_PARTITION_KEY).decode(plain([payload]), SHARD, None)).values()
    assert told.what == "read"
    assert dict(told.fields)["subject"] == "finer"
    assert dict(told.fields)["partitionkey"] == "k"


# Control and ledger records.


def test_ticks_and_ledgers_are_told_apart_and_exempt_from_the_range(make: MakeDecoder) -> None:
    tick = encode_event(control_event("clock", Tick(5), id="1", time_ms=0))
    ledger = encode_event(ledger_event(OWN, Ledger([(0, 1)], [], [], final=False), number=0, time_ms=0))
    records = plain([event(), tick, ledger, event(1)])
    for pipeline in (WEATHER, TWO_TYPES):
        decoded = make(pipeline).decode(records, SHARD, None)
        assert [told.what for told in tell(decoded).values()] == ["read", "control", "read"]
        assert (decoded.ledger, decoded.positions, decoded.controls[0].record) == (1, 4, 1)
        assert decoded.batch.record.tolist() == [0, 3]
    assert tell(make(WEATHER).decode(plain([tick]), OUTSIDE, None))[0, 0].what == "control"


def test_a_control_record_inside_an_aggregate_and_a_broken_ledger_fail(make: MakeDecoder) -> None:
    tick = encode_event(control_event("clock", Tick(5), id="1", time_ms=0))
    assert tell(make(WEATHER).decode([aggregate([event(), tick])], SHARD, None))[0, 1].what == "envelope"
    ledger = encode_event(ledger_event(OWN, Ledger([(0, 1)], [], [], final=False), number=0, time_ms=0))
    broken = ledger.replace(b"[[0,1]]", b"[[0]]")
    assert broken != ledger
    assert tell(make(WEATHER).decode(plain([broken]), SHARD, None))[0, 0].what == "data"


# Aggregates, and where reading goes on.


def corrupt(data: bytes) -> bytes:
    return data[:30] + bytes([data[30] ^ 1]) + data[31:]


def test_a_corrupt_aggregate_is_one_failed_event_and_its_neighbours_are_read(make: MakeDecoder) -> None:
    bad = aggregate([event(1), event(2)], number=BASE + 1)
    records = [
        *plain([event(0)]),
        bad._replace(data=corrupt(bad.data)),
        StreamRecord(str(BASE + 2), "k", ARRIVAL_MS, KPL_MAGIC),
        aggregate([event(3), event(4)], number=BASE + 3),
    ]
    decoded = make(WEATHER).decode(records, SHARD, None)
    told = tell(decoded)
    assert {place: outcome.what for place, outcome in told.items()} == {
        (0, 0): "read",
        (1, 0): "corrupt_aggregate",
        (2, 0): "corrupt_aggregate",
        (3, 0): "read",
        (3, 1): "read",
    }
    assert decoded.last_sub_sequence == 1
    assert decoded.positions == 5


def test_reading_goes_on_in_the_middle_of_an_aggregate(make: MakeDecoder) -> None:
    records = [
        *plain([event(0)]),
        aggregate([event(1), b"bad", event(2), b"bad too", event(3)], number=BASE + 1),
        *plain([event(4)], base=BASE + 2),
    ]
    whole = tell(make(WEATHER).decode(records, SHARD, None))
    for after in [(-1, 0), (0, 0), (1, 0), (1, 1), (1, 2), (1, 4), (2, 0), (3, 0)]:
        position = Position(BASE + after[0], after[1])
        decoded = make(WEATHER).decode(records, SHARD, position)
        assert tell(decoded) == {place: told for place, told in whole.items() if place > after}
        assert decoded.redelivered == len(whole) - decoded.positions
        assert (decoded.sequence_numbers[-1], decoded.last_sub_sequence) == (BASE + 2, 0)


def test_what_was_failed_or_misrouted_as_a_whole_is_skipped_as_a_whole(make: MakeDecoder) -> None:
    bad = aggregate([event(1), event(2)])
    bad = bad._replace(data=corrupt(bad.data))
    misrouted = aggregate([event(1), event(2)])
    for stream_record, last, count in ((bad, 0, 1), (misrouted, 1, 2)):
        first = make(WEATHER).decode([stream_record], OUTSIDE, None)
        assert (first.last_sub_sequence, first.positions) == (last, count)
        again = make(WEATHER).decode([stream_record], OUTSIDE, Position(BASE, first.last_sub_sequence))
        assert (again.positions, again.redelivered) == (0, count)


# Mapped records.


def test_a_mapped_record_becomes_an_event(make: MakeDecoder) -> None:
    told = one_of(make, record(), MAPPED, record(n=1))
    assert told is not None
    assert (told.what, told.source, told.identity) == ("read", ARN, "7")
    assert told.time_ms == instant_ms("2024-01-02T03:04:05Z")
    fields = dict(told.fields)
    assert (fields["subject"], fields["data.temp"], fields["data.count"], fields["data.wet"]) == ("k", 2.5, 4, False)


MAPPED_FAILING = {
    "no json": (b"{", "malformed_json"),
    "an array": (b"[]", "malformed_json"),
    "bad UTF-8 in a field that is not read": (record(note="~").replace(b"~", b"\xff"), "malformed_json"),
    "no time": (record(at=None), "time"),
    "a number as time": (record(at=5), "time"),
    "a bad time": (record(at="x"), "time"),
    "no key": (record(station=None), "key"),
    "an empty key": (record(station=""), "key"),
    "true as a key": (record(station=True), "key"),
    "another key": (record(station="other"), "partition"),
    "a text for a number": (record(temp="x"), "data"),
    "a missing field": (record(count=None), "data"),
    "no id": (record(n=None), "envelope"),
    "an empty id": (record(n=""), "envelope"),
    "a fraction as id": (record(n=1.5), "envelope"),
}


@pytest.mark.parametrize(("payload", "reason"), MAPPED_FAILING.values(), ids=MAPPED_FAILING)
def test_a_mapped_record_that_fails_has_its_reason(make: MakeDecoder, payload: bytes, reason: str) -> None:
    told = one_of(make, payload, MAPPED, record())
    assert told is not None
    assert told.what == reason, told.detail
    assert told.detail


def test_a_mapped_record_without_an_id_is_told_apart_by_its_position(make: MakeDecoder) -> None:
    pipeline = mapped('time = "at"\ntype = "\'weather\'"\nkey = "station"\n')
    assert pipeline.warnings == ("without an id the producers' own retries are not removed",)
    records = [aggregate([record(), record(at="x")]), *plain([record()], base=BASE + 1)]
    decoded = make(pipeline).decode(records, SHARD, None)
    told = tell(decoded)
    assert {place: outcome.identity for place, outcome in told.items()} == {
        (0, 0): f"{BASE}/0",
        (0, 1): f"{BASE}/1",
        (1, 0): f"{BASE + 1}/0",
    }
    assert decoded.batch.source_windows == [-1]
    escaped = record(note="~").replace(b"~", b"\\u00e9")
    decoded = make(pipeline).decode(plain([record(), escaped]), SHARD, None)
    assert [outcome.what for outcome in tell(decoded).values()] == ["read", "read"]
    assert decoded.batch.source_windows == [-1]


@pytest.mark.parametrize(
    ("time_format", "value", "time_ms"),
    [
        ("epoch_s", 1_700_000_000, 1_700_000_000_000),
        ("epoch_s", -1, -1_000),
        ("epoch_s", 0.123, 123),
        ("epoch_ms", 1_700_000_000_123, 1_700_000_000_123),
        ("epoch_ms", 1.9, 1),
        ("%d.%m.%Y %H:%M %z", "31.12.2023 23:30 +0100", instant_ms("2023-12-31T22:30:00Z")),
    ],
)
def test_mapped_times_of_every_format_are_read(
    make: MakeDecoder, time_format: str, value: object, time_ms: int
) -> None:
    pipeline = mapped(f'id = "n"\ntime = "at"\ntime_format = "{time_format}"\ntype = "\'weather\'"\nkey = "station"\n')
    told = one_of(make, record(at=value), pipeline, record(at=value, n="other"))
    assert told is not None
    assert (told.what, told.time_ms) == ("read", time_ms)


@pytest.mark.parametrize(
    ("time_format", "value"),
    [("epoch_s", 10**12), ("epoch_ms", 10**30), ("epoch_ms", True), ("epoch_ms", "5"), ("epoch_s", -(10**11))],
)
def test_mapped_times_outside_the_calendar_fail(make: MakeDecoder, time_format: str, value: object) -> None:
    pipeline = mapped(f'id = "n"\ntime = "at"\ntime_format = "{time_format}"\ntype = "\'weather\'"\nkey = "station"\n')
    told = one_of(make, record(at=value), pipeline, record(at=0))
    assert told is not None
    assert told.what == "time"


NESTED = mapped('id = "meta.id"\ntime = "meta.at"\ntype = "meta.kind"\nkey = "inner.name"\nsource = "meta.from"\n')


def nested(**changes: object) -> bytes:
    meta = {"id": "a", "at": "2024-01-02T03:04:05Z", "kind": "weather", "from": "gateway"} | changes
    return json.dumps({"meta": meta, "inner": {"name": "k", "level": 3}, "count": 1, "class": 1}).encode()


def test_paths_reach_into_objects_that_data_reads_too(make: MakeDecoder) -> None:
    told = one_of(make, nested(), NESTED, nested(id="b"))
    assert told is not None
    assert (told.what, told.source, told.identity) == ("read", "gateway", "a")
    assert dict(told.fields)["data.inner.level"] == 3


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"kind": "tide"}, "type_not_read"),
        ({"kind": "storm"}, "unknown_type"),
        ({"kind": 5}, "envelope"),
        ({"from": 5}, "envelope"),
        ({"from": "urn:streamgauge:control:x"}, "envelope"),
        ({"from": OWN}, "envelope"),
        ({"kind": "streamgauge.tick"}, "envelope"),
    ],
)
def test_a_type_or_source_out_of_the_record_is_checked(
    make: MakeDecoder, changes: dict[str, object], what: str
) -> None:
    told = one_of(make, nested(**changes), NESTED, nested(id="b"))
    assert told is not None
    assert told.what == what


def test_mapped_records_of_two_types_are_read_side_by_side(make: MakeDecoder) -> None:
    pipeline = mapped('id = "n"\ntime = "at"\ntype = "kind"\nkey = "station"\n', '"weather", "tide"')
    payloads = [record(kind="weather"), record(kind="tide", count=0.5), record(kind="noise"), record(kind=None)]
    told = list(tell(make(pipeline).decode(plain(payloads), SHARD, None)).values())
    assert [outcome.what for outcome in told] == ["read", "read", "type_not_read", "envelope"]
    assert [dict(outcome.fields)["data.count"] for outcome in told[:2]] == [4.0, 0.5]


def test_a_cloudevent_of_ours_is_ours_in_a_mapped_stream(make: MakeDecoder) -> None:
    tick = encode_event(control_event("clock", Tick(5), id="1", time_ms=0))
    hidden = event(4).replace(b"urn:", b"\\u0075rn:")
    for pipeline in (MAPPED, mapped('time = "at"\ntype = "\'weather\'"\nkey = "station"\n')):
        decoded = make(pipeline).decode(plain([record(), event(3), tick, hidden, event(5, time="x")]), SHARD, None)
        told = tell(decoded)
        assert [outcome.what for outcome in told.values()] == ["read", "read", "control", "read", "time"]
        assert [told[place, 0].identity for place in (1, 3, 4)] == [f"{number:020}" for number in (3, 4, 5)]
        assert told[1, 0].source == OWN
        assert dict(told[1, 0].fields)["data.station"] == "s"


def test_a_cloudevent_of_ours_is_ours_even_where_the_mapping_would_fit(make: MakeDecoder) -> None:
    payload = event(3, **RECORD)  # type: ignore[arg-type]
    for copy in (payload, payload.replace(b"urn:", b"\\u0075rn:"), payload.replace(b"source", b"sour\\u0063e")):
        told = one_of(make, copy, MAPPED, record())
        assert told is not None
        assert (told.what, told.source, told.identity) == ("read", OWN, f"{3:020}")


def test_a_mapped_record_that_only_mentions_us_stays_mapped(make: MakeDecoder) -> None:
    for changes in ({"source": OWN}, {"specversion": "1.0", "source": "x"}, {"note": OWN}):
        told = one_of(make, record(**changes), MAPPED, record(n=1))
        assert told is not None
        assert (told.what, told.source) == ("read", ARN)
