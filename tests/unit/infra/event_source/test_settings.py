"""What of a mapping is taken, and what is refused by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from event_source_pages import CREATE_MAPPING, FILTERS, OPERATORS, PARAMETERS, says
from event_source_world import FUNCTION_ARN, QUEUE_ARN, STREAM_ARN, mapping, record

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.local.event_source.filters import FilterRefused, parse_filters, passes
from streamgauge.infra.local.event_source.mapping import MappingRefused, StartAt, parse_mapping


@says(PARAMETERS)
def test_without_settings_those_of_aws_hold() -> None:
    plain = mapping()

    assert (plain.batch_size, plain.window_ms, plain.parallelization_factor) == (100, 0, 1)
    assert (plain.retries_max, plain.record_age_ms_max, plain.destination) == (None, None, None)
    assert not plain.is_bisecting
    assert not plain.is_partial_allowed
    assert plain.is_enabled
    assert (plain.stream, plain.region, plain.function) == ("observations", "us-east-1", "processor")


@says(PARAMETERS, CREATE_MAPPING)
def test_limits_and_times_are_read() -> None:
    settings = mapping(
        MaximumRetryAttempts=0,
        MaximumRecordAgeInSeconds=604_800,
        MaximumBatchingWindowInSeconds=300,
        StartingPosition="AT_TIMESTAMP",
        StartingPositionTimestamp=datetime(2026, 1, 1, tzinfo=UTC),
        DestinationConfig={"OnFailure": {"Destination": QUEUE_ARN}},
        State="Disabled",
    )

    assert (settings.retries_max, settings.record_age_ms_max, settings.window_ms) == (0, 604_800_000, 300_000)
    assert settings.start == StartAt("AT_TIMESTAMP", 1_767_225_600_000)
    assert settings.destination == QUEUE_ARN
    assert not settings.is_enabled
    assert mapping(DestinationConfig={"OnFailure": {"Destination": ""}}).destination is None


@says(PARAMETERS, CREATE_MAPPING)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TumblingWindowInSeconds", 60),
        ("BatchSize", 0),
        ("BatchSize", 10_001),
        ("BatchSize", "100"),
        ("MaximumBatchingWindowInSeconds", 301),
        ("MaximumRecordAgeInSeconds", 59),
        ("MaximumRecordAgeInSeconds", 604_801),
        ("MaximumRetryAttempts", -2),
        ("ParallelizationFactor", 11),
        ("StartingPosition", "SOMEWHERE"),
        ("StartingPosition", None),
        ("FunctionResponseTypes", ["Everything"]),
        ("EventSourceArn", f"{STREAM_ARN}/consumer/fast:1700000000"),
        ("EventSourceArn", ""),
        ("DestinationConfig", {"OnFailure": {"Destination": "kafka://topic"}}),
        ("DestinationConfig", {"OnFailure": {"Destination": FUNCTION_ARN}}),
    ],
)
def test_what_aws_refuses_or_the_poller_lacks_is_named(name: str, value: object) -> None:
    with pytest.raises(MappingRefused, match=name):
        mapping(**{name: value})


def test_a_timestamp_that_ministack_has_lost_can_be_given() -> None:
    description = {
        "UUID": "a1b2",
        "EventSourceArn": STREAM_ARN,
        "FunctionArn": FUNCTION_ARN,
        "StartingPosition": "AT_TIMESTAMP",
    }

    assert parse_mapping(description, timestamp_ms=5).start == StartAt("AT_TIMESTAMP", 5)
    with pytest.raises(MappingRefused, match="--starting-timestamp"):
        parse_mapping(description)


DATA = {"city": "Seattle", "temp": 46, "exact": 300.0, "tags": ["a", "b"], "none": None, "in": {"deep": True}, "": ""}
YES = [
    {"city": ["Seattle"]},
    {"city": ["Boston", "Seattle"]},
    {"city": ["Seattle"], "temp": [46]},
    {"none": [None]},
    {"": [""]},
    {"temp": [{"numeric": ["=", 46]}]},
    {"temp": [{"numeric": [">", 40, "<=", 46.0]}]},
    {"exact": [{"numeric": ["=", 300]}]},
    {"exact": [300.0]},
    {"city": [{"prefix": "Sea"}]},
    {"city": [{"prefix": {"equals-ignore-case": "sEA"}}]},
    {"city": [{"suffix": "tle"}]},
    {"city": [{"suffix": {"equals-ignore-case": "TLE"}}]},
    {"city": [{"equals-ignore-case": "SEATTLE"}]},
    {"city": [{"anything-but": "Boston"}]},
    {"city": [{"anything-but": ["Boston", "Austin"]}]},
    {"city": [{"anything-but": {"prefix": "Bos"}}]},
    {"city": [{"exists": True}]},
    {"state": [{"exists": False}]},
    {"in": {"deep": [True]}},
    {"tags": ["b"]},
    {"$or": [{"city": ["Boston"]}, {"temp": [46]}]},
]
NO = [
    {"city": ["seattle"]},
    {"city": ["Seattle"], "temp": [47]},
    {"city": [None]},
    {"state": [None]},
    {"temp": ["46"]},
    {"temp": [{"numeric": [">", 46]}]},
    {"city": [{"numeric": [">", 0]}]},
    {"exact": [300]},
    {"exact": ["300.0"]},
    {"in": {"deep": ["true"]}},
    {"in": {"deeper": [True]}},
    {"in": [{"exists": True}]},
    {"city": {"deep": [True]}},
    {"city": [{"prefix": "sea"}]},
    {"city": [{"suffix": "TLE"}]},
    {"city": [{"anything-but": "Seattle"}]},
    {"city": [{"anything-but": ["Boston", "Seattle"]}]},
    {"city": [{"anything-but": {"prefix": "Sea"}}]},
    {"state": [{"anything-but": "WA"}]},
    {"city": [{"exists": False}]},
    {"state": [{"exists": True}]},
    {"tags": ["c"]},
    {"$or": [{"city": ["Boston"]}, {"temp": [47]}]},
]


@says(OPERATORS, FILTERS)
@pytest.mark.parametrize(("pattern", "expected"), [(one, True) for one in YES] + [(one, False) for one in NO])
def test_patterns_compare_as_eventbridges_do(pattern: dict[str, object], expected: bool) -> None:
    filters = parse_filters({"Filters": [{"Pattern": json.dumps({"data": pattern})}]}, where="here")

    assert passes(filters, record(1, data=json.dumps(DATA).encode())) is expected


@says(FILTERS)
def test_metadata_and_data_are_joined_by_and() -> None:
    pattern = {"partitionKey": ["k"], "data": {"city": ["Seattle"]}}
    filters = parse_filters({"Filters": [{"Pattern": json.dumps(pattern)}]}, where="here")
    data = json.dumps(DATA).encode()

    assert passes(filters, record(1, "k", data))
    assert not passes(filters, record(1, "other", data))
    assert not passes(filters, record(1, "k", b'{"city":"Boston"}'))


@pytest.mark.parametrize(
    "pattern",
    [
        "no JSON",
        "[]",
        "{}",
        '{"data": "text"}',
        '{"data": ["text"]}',
        '{"data": {"city": "Seattle"}}',
        '{"data": {"city": []}}',
        '{"data": {"city": [{"like": "Sea"}]}}',
        '{"data": {"city": [{"prefix": 1}]}}',
        '{"data": {"city": [{"exists": "yes"}]}}',
        '{"data": {"city": [{"prefix": "a", "suffix": "b"}]}}',
        '{"data": {"city": [{"numeric": ["~", 1]}]}}',
        '{"data": {"city": [{"numeric": [">"]}]}}',
        '{"data": {"$or": {"city": ["Seattle"]}}}',
    ],
)
def test_a_pattern_that_is_not_understood_is_refused(pattern: str) -> None:
    with pytest.raises(FilterRefused, match=r"Filters\[0\]"):
        parse_filters({"Filters": [{"Pattern": pattern}]}, where="here")


def test_more_than_ten_filters_are_refused() -> None:
    with pytest.raises(StreamgaugeError, match="more than 10"):
        parse_filters({"Filters": [{"Pattern": '{"partitionKey": ["k"]}'}] * 11}, where="here")


def test_mappings_are_equal_if_their_filters_are_written_alike() -> None:
    criteria = {"Filters": [{"Pattern": '{"data": {"city": ["Seattle"]}}'}]}

    assert mapping(FilterCriteria=criteria) == mapping(FilterCriteria=criteria)
    assert mapping(FilterCriteria=criteria) != mapping()
