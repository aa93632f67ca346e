"""Instants and durations as text."""

from __future__ import annotations

import pytest

from streamgauge.events.times import duration_ms, format_duration, instant_ms, rfc3339


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2013-01-01T06:00:00.5+01:00", 1_357_016_400_500),
        ("2013-01-01t06:00:00z", 1_357_020_000_000),
        ("2013-01-01 06:00:00-00:30", 1_357_021_800_000),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("1970-01-01T00:00:00.0009999999Z", 0),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("1969-12-31T23:59:59.9991Z", -1),
        ("1969-12-31T23:59:59.998999999999Z", -2),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999),
    ],
)
def test_parts_finer_than_a_millisecond_are_cut_off_towards_the_past(text: str, instant: int) -> None:
    assert instant_ms(text) == instant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2016-12-31T23:59:60Z", "leap seconds are not read: '2016-12-31T23:59:60Z'"),
        ("2013-02-29T00:00:00Z", "no such time: '2013-02-29T00:00:00Z'"),
        ("0001-01-01T00:00:00+14:00", "outside the years 1 to 9999"),
        ("9999-12-31T23:59:59-00:01", "outside the years 1 to 9999"),
        ("2013-01-01T00:00:00", "not an RFC 3339 time with an offset"),
        ("2013-01-01", "not an RFC 3339 time with an offset"),
        ("2013-W01-1T00:00:00Z", "not an RFC 3339 time with an offset"),
        ("2013-01-01T24:00:00Z", "not an RFC 3339 time with an offset"),
        ("2013-13-01T00:00:00Z", "not an RFC 3339 time with an offset"),
        ("2013-01-01T00:00:00,5Z", "not an RFC 3339 time with an offset"),
        ("2013-01-01T00:00:00.Z", "not an RFC 3339 time with an offset"),
        ("2013-01-01T00:00:00+0100", "not an RFC 3339 time with an offset"),
        ("2013-01-01T00:00:00+99:00", "not an RFC 3339 time with an offset"),
        ("2013-01-01T00:00:00Z\n", "not an RFC 3339 time with an offset"),
        ("٢٠١٣-01-01T00:00:00Z", "not an RFC 3339 time with an offset"),
        ("", "not an RFC 3339 time with an offset"),
    ],
)
def test_text_that_is_no_time_is_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instant_ms(text)


def test_times_are_written_in_utc_with_three_decimals_and_a_year_of_four_digits() -> None:
    assert rfc3339(1_357_020_000_000) == "2013-01-01T06:00:00.000Z"
    assert rfc3339(-1) == "1969-12-31T23:59:59.999Z"
    assert rfc3339(-62_135_596_800_000) == "0001-01-01T00:00:00.000Z"


def test_an_instant_outside_the_years_1_to_9999_cannot_be_written() -> None:
    with pytest.raises(OverflowError):
        rfc3339(253_402_300_800_000)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("250ms", 250), ("90s", 90_000), ("1h30m", 5_400_000), ("1d", 86_400_000), ("0s", 0), ("2s500ms", 2_500)],
)
def test_a_duration_is_a_sum_of_its_parts(text: str, milliseconds: int) -> None:
    assert duration_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "5", "s", "1 h", "-1s", "1.5h", "1w", "1H", "1h ", "٣s"])
def test_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration_ms(text)


def test_a_duration_is_written_in_its_largest_units() -> None:
    assert format_duration(86_400_000 + 90_000 + 1) == "1d1m30s1ms"
    assert format_duration(0) == "0s"
