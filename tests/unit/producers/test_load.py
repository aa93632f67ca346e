"""Load profiles, what they plan, and how it is measured."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.events.envelope import InvalidEvent, decode_event
from streamgauge.events.json_schema import parse_object, violation
from streamgauge.events.times import instant_ms
from streamgauge.producers.load.pacing import NO_LATENCY, Latencies
from streamgauge.producers.load.plan import plan
from streamgauge.producers.load.profile import LoadProfile, ProfileError, parse_load_profile
from streamgauge.producers.load.values import ValueMaker, data_fields

SCHEMA = {
    "type": "object",
    "properties": {
        "temp": {"type": "number", "minimum": -20, "maximum": 45},
        "hits": {"type": "integer", "minimum": 3, "maximum": 7},
        "humidity": {"type": ["number", "null"], "examples": [30.0, 55.5, 90.0]},
        "sky": {"type": "string", "enum": ["clear", "cloudy"]},
        "name": {"type": "string"},
        "ok": {"type": "boolean"},
        "seen": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "place": {
            "type": "object",
            "properties": {"x": {"type": "number", "minimum": 0, "maximum": 1}},
            "required": ["x"],
        },
        "level": {"type": "integer", "enum": [1, 5]},
    },
    "required": ["temp", "sky"],
}
START = instant_ms("2024-01-01T00:00:00Z")
PROFILE = """
type = "weather.observation"
rate = 200
count = 5000
seed = 7
[keys]
count = 50
distribution = "zipf"
exponent = 1.2
[duplicates]
share = 0.05
copies = 3
behind = 10
[disorder]
share = 0.2
by = "5s"
[late]
share = 0.02
by = "1h"
[malformed]
broken_json = 0.01
missing_key = 0.01
wrong_type = 0.01
unknown_type = 0.01
unknown_version = 0.01
bad_time = 0.01
future = 0.01
"""


def planned(profile: LoadProfile):
    return list(plan(profile, SCHEMA, start_ms=START, run="r"))


def test_the_same_seed_plans_the_same_and_another_seed_another() -> None:
    profile = parse_load_profile(PROFILE, file="p.toml")
    assert planned(profile) == planned(profile)
    assert planned(profile) != planned(parse_load_profile(PROFILE.replace("seed = 7", "seed = 8"), file="p.toml"))


def test_every_share_is_kept_and_due_times_are_even() -> None:
    everything = planned(parse_load_profile(PROFILE, file="p.toml"))
    events = [each for each in everything if each.malformed is None]
    assert len(events) == 5_000
    assert [event.due_ms for event in events] == [n * 5.0 for n in range(5_000)]
    assert 180 < sum(event.copies == 3 for event in events) < 330
    assert 60 < sum(event.is_late for event in events) < 150
    assert 850 < sum(event.is_disordered for event in events) < 1_150
    kinds = Counter(each.malformed for each in everything if each.malformed)
    assert set(kinds) == set(parse_load_profile(PROFILE, file="p.toml").malformed)
    assert all(20 < count < 90 for count in kinds.values())
    for event in events:
        age = START + event.due_ms - event.time_ms
        if event.is_late:
            assert 3_600_000 <= age < 3_600_001
        elif event.is_disordered:
            assert 0 < age <= 5_001
        else:
            assert 0 <= age < 1


def test_zipf_prefers_the_first_keys_and_uniform_none() -> None:
    zipf = Counter(each.key for each in planned(parse_load_profile(PROFILE, file="p.toml")))
    assert zipf["key-01"] > 3 * zipf["key-05"] > 0
    even = Counter(each.key for each in planned(LoadProfile("t", count=10_000)))
    assert len(even) == 100
    assert max(even.values()) < 2 * min(even.values())


def test_values_fit_the_schema_and_walk_smoothly_per_key() -> None:
    parsed = parse_object(SCHEMA, file="s")
    temps: dict[str, list[float]] = {}
    for each in planned(LoadProfile("t", count=3_000)):
        data = json.loads(each.payload)
        assert violation(parsed, data) is None
        temps.setdefault(each.key, []).append(data["temp"])
        assert data["humidity"] is None or 30 <= data["humidity"] <= 90
    steps = [abs(b - a) for walk in temps.values() for a, b in itertools.pairwise(walk)]
    assert max(steps) <= 65 * 0.08 + 0.1
    assert len({temp for walk in temps.values() for temp in walk}) > 500


NUMBERS = st.floats(-1e6, 1e6)


@given(low=NUMBERS, size=st.floats(0, 1e6), seed=st.integers(0, 9), is_integer=st.booleans())
def test_numbers_never_leave_their_bounds(low: float, size: float, seed: int, is_integer: bool) -> None:
    bounds = (
        {"minimum": int(low), "maximum": int(low + size)} if is_integer else {"minimum": low, "maximum": low + size}
    )
    schema = {"type": "object", "properties": {"n": {"type": "integer" if is_integer else "number", **bounds}}}
    maker = ValueMaker(schema, data_fields(schema, None, file="s"), random.Random(seed))
    for _ in range(50):
        value = maker.values("k", 0)["n"]
        assert bounds["minimum"] <= value <= bounds["maximum"]
        assert isinstance(value, int) is is_integer


def test_malformed_events_have_exactly_their_fault() -> None:
    known = parse_object(SCHEMA, file="s")
    found = {each.malformed: each for each in planned(parse_load_profile(PROFILE, file="p.toml")) if each.malformed}
    with pytest.raises(json.JSONDecodeError):
        json.loads(found["broken_json"].payload)
    with pytest.raises(InvalidEvent, match="subject"):
        decode_event(found["missing_key"].payload)
    with pytest.raises(InvalidEvent, match="time"):
        decode_event(found["bad_time"].payload)
    wrong = decode_event(found["wrong_type"].payload)
    assert violation(known, json.loads(bytes(wrong.data)))
    assert decode_event(found["unknown_type"].payload).type == "weather.observation.unknown"
    assert (
        decode_event(found["unknown_version"].payload).dataschema == "urn:streamgauge:schema:weather.observation:999999"
    )
    assert instant_ms(decode_event(found["future"].payload).time) > START + 9 * 365 * 86_400_000
    for kind in ("unknown_type", "unknown_version", "future"):
        event = decode_event(found[kind].payload)
        assert violation(known, json.loads(bytes(event.data))) is None
        assert event.partition_key == found[kind].key


def test_faster_event_time_ends_now_and_not_in_the_future() -> None:
    events = planned(LoadProfile("t", rate=100, count=1_000, speedup=60))
    assert events[0].time_ms == START - 590_000
    assert events[-1].time_ms <= START + 10_000
    fixed = planned(LoadProfile("t", rate=100, count=10, start_ms=5, speedup=60))
    assert [event.time_ms for event in fixed[:2]] == [5, 605]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate = 5", "type"),
        ("type = 3", "type"),
        ('type = "t"\nrat = 5', "rat"),
        ('type = "t"\nrate = 0', "rate: must be above 0"),
        ('type = "t"\nrate = fast\nseed = 1', "not TOML.*line 2"),
        ('type = "t"\nduration = "fast"', "duration: not a duration"),
        ('type = "t"\nduration = "1s"\ncount = 3', "not both"),
        ('type = "t"\n[late]\nshare = 2\nby = "1h"', "late.share: a share"),
        ('type = "t"\n[late]\nshare = 0.1', "by"),
        ('type = "t"\n[malformed]\nodd = 0.1', "odd.*broken_json"),
        ('type = "t"\n[keys]\nnames = ["a", "a"]', "keys.names"),
        ('type = "t"\n[keys]\ndistribution = "normal"', "normal"),
        ('type = "t"\n[duplicates]\nshare = 0.1\ncopies = 1', "duplicates"),
        ('type = "t"\nstart = "noon"', "start"),
    ],
)
def test_a_bad_profile_is_an_error_with_file_and_key(text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=f"(?s)p.toml.*{message}"):
        parse_load_profile(text, file="p.toml")


def test_a_profile_without_more_than_a_type_runs() -> None:
    profile = parse_load_profile('type = "t"', file="p.toml")
    assert profile == LoadProfile("t")
    assert profile.event_count is None
    assert len(list(itertools.islice(plan(profile, SCHEMA, start_ms=0, run="r"), 10))) == 10


@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=300))
def test_percentiles_are_exact(values: list[int]) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    values.sort()
    for share in (0.5, 0.95, 0.99):
        exact = values[-(-int(share * 100) * len(values) // 100) - 1]
        assert latencies.percentile(share) == (exact if exact < 60_000 else values[-1])
    assert latencies.summary().max == values[-1]
    assert Latencies().summary() == NO_LATENCY
