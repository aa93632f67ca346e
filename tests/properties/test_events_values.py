"""Times, positions, ranges and events are read back as they were written."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import md5
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.events.envelope import (
    MAX_SEQUENCE_WINDOW,
    MIN_SEQUENCE_WINDOW,
    Event,
    InvalidEvent,
    OwnSource,
    decode_event,
    encode_event,
    own_source,
    parse_sequence,
)
from streamgauge.events.hash_key import FULL_RANGE, MAX_HASH_KEY, HashRange, hash_key
from streamgauge.events.mapping import parse_time
from streamgauge.events.position import Position
from streamgauge.events.times import duration_ms, format_duration, instant_ms, rfc3339

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
instants = st.integers(instant_ms("0001-01-01T00:00:00Z"), instant_ms("9999-12-31T23:59:59.999Z"))
zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=zones)  # noqa: DTZ001 - zones are drawn
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
range_edges = st.tuples(st.integers(0, MAX_HASH_KEY), st.integers(0, MAX_HASH_KEY)).map(sorted)
ranges = range_edges.map(lambda edges: HashRange(*edges))


@given(instants)
def test_an_instant_is_read_back_from_its_text(instant: int) -> None:
    assert instant_ms(rfc3339(instant)) == instant
    assert len(rfc3339(instant)) == 24


@given(instants, instants)
def test_texts_sort_like_their_instants(one: int, other: int) -> None:
    assert (rfc3339(one) < rfc3339(other)) == (one < other)


@given(moments)
def test_any_offset_gives_the_instant_cut_towards_the_past(moment: datetime) -> None:
    expected = (moment - EPOCH) // timedelta(milliseconds=1)
    assert instant_ms(moment.isoformat()) == expected
    written = f"{moment:%d/%m/}{moment.year:04}{moment: %H:%M:%S.%f %z}"
    assert parse_time(written, "%d/%m/%Y %H:%M:%S.%f %z") == expected


@given(st.decimals(-62_135_596_800, 253_402_300_799, places=6))
def test_epoch_seconds_are_cut_as_they_are_written(seconds: Decimal) -> None:
    # 15 significant digits survive a float.
    written = f"{seconds:.3f}"
    value = json.loads(written)
    assert parse_time(value, "epoch_s") == int(Decimal(written) * 1000)


@given(st.integers(0, 10**15))
def test_a_duration_is_read_back(milliseconds: int) -> None:
    assert duration_ms(format_duration(milliseconds)) == milliseconds


@given(st.integers(0, 10**129 - 1), st.integers(0, 2**40))
def test_a_position_is_read_back(sequence_number: int, sub_sequence_number: int) -> None:
    position = Position(sequence_number, sub_sequence_number)
    assert Position.parse(str(position)) == position


@given(text)
def test_a_hash_key_is_defined_by_md5(key: str) -> None:
    assert hash_key(key) == int.from_bytes(md5(key.encode()).digest(), "big")
    assert hash_key(key) in FULL_RANGE


@given(ranges, st.integers(1, 300))
def test_even_parts_cover_everything_once_and_differ_by_one_key(whole: HashRange, count: int) -> None:
    size = whole.last - whole.first + 1
    parts = whole.even_parts(min(count, size))
    assert parts[0].first == whole.first
    assert parts[-1].last == whole.last
    assert all(part.first <= part.last for part in parts)
    assert all(after.first == before.last + 1 for before, after in itertools.pairwise(parts))
    sizes = {part.last - part.first + 1 for part in parts}
    assert max(sizes) - min(sizes) <= 1


@given(ranges, ranges, st.integers(0, MAX_HASH_KEY))
def test_a_key_is_in_both_ranges_if_it_is_in_what_they_share(one: HashRange, other: HashRange, key: int) -> None:
    shared = one.intersection(other)
    assert (key in one and key in other) == (shared is not None and key in shared)
    assert one.covers(other) == (shared == other)


@given(st.uuids(), st.integers(0, 24))
def test_a_source_of_ours_is_read_back_if_its_window_is_allowed(uuid: UUID, exponent: int) -> None:
    source = OwnSource(uuid, 1 << exponent)
    if MIN_SEQUENCE_WINDOW <= source.window <= MAX_SEQUENCE_WINDOW:
        assert own_source(str(source)) == source
    else:
        with pytest.raises(InvalidEvent, match="power of two"):
            own_source(str(source))


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_sequences_sort_as_text_like_as_numbers(one: int, other: int) -> None:
    assert parse_sequence(f"{one:020}") == one
    assert (f"{one:020}" < f"{other:020}") == (one < other)


foreign_events = st.builds(
    Event,
    specversion=st.just("1.0"),
    id=text,
    # None of these begins with what is reserved.
    source=text.map("/".__add__),
    type=text.map("x.".__add__),
    time=instants.map(rfc3339),
    subject=text,
    partitionkey=st.none() | text,
    sequence=st.none() | text,
    data=st.just(msgspec.Raw(b'{"temp":1.50}')),
)


@given(foreign_events)
def test_a_foreign_event_is_read_back(event: Event) -> None:
    decoded = decode_event(encode_event(event))
    assert msgspec.structs.replace(decoded, data=event.data) == event
    assert bytes(decoded.data) == bytes(event.data)
