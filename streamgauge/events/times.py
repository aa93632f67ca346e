"""Instants in integer milliseconds since the epoch, and durations, as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

__all__ = ["RFC3339_PATTERN", "checked_instant", "duration_ms", "format_duration", "instant_ms", "rfc3339"]

# Thousands of panes share a window.
_KEPT_TEXTS = 1_024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_INSTANT = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_MAX_INSTANT = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(?:[0-9]+(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+)(ms|s|m|h|d)")
# RFC 3339, section 5.6. fromisoformat alone takes ISO 8601 at large: week dates, missing offsets, a comma.
RFC3339_PATTERN = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_RFC3339 = re.compile(RFC3339_PATTERN)


@lru_cache(maxsize=_KEPT_TEXTS)
def rfc3339(instant: int) -> str:
    """``2013-01-01T06:00:00.000Z``: always UTC, always three decimals, so that texts sort like instants.

    Raises
    ------
    OverflowError
        The instant lies outside the years 1 to 9999.
    """
    moment = _EPOCH + timedelta(milliseconds=instant)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z".rjust(24, "0")


def instant_ms(text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time; finer parts are cut off towards the past.

    Raises
    ------
    ValueError
        The text is not an RFC 3339 time with an offset, names a leap second (which the epoch's count does not have), or
        lies outside the years 1 to 9999 in UTC.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError(f"not an RFC 3339 time with an offset: {text!r}")
    if text[17:19] == "60":
        raise ValueError(f"leap seconds are not read: {text!r}")
    try:
        # fromisoformat takes the letters in upper case only.
        instant = (datetime.fromisoformat(text.upper()) - _EPOCH) // timedelta(milliseconds=1)
    except ValueError as error:
        raise ValueError(f"no such time: {text!r} ({error})") from error
    return checked_instant(instant)


def checked_instant(instant: int) -> int:
    """The instant (milliseconds since the epoch) itself.

    Raises
    ------
    ValueError
        It lies outside the years 1 to 9999 in UTC, so that it cannot be written as RFC 3339.
    """
    if not _MIN_INSTANT <= instant <= _MAX_INSTANT:
        raise ValueError(f"outside the years 1 to 9999: {instant} ms since the epoch")
    return instant


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as ``90s``, ``2h``, ``1h30m``, ``1d`` (a day is 24 hours), ``250ms``.

    Raises
    ------
    ValueError
        The text is no duration.
    """
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f"not a duration (such as 250ms, 90s, 5m, 2h, 1d, 1h30m): {text!r}")
    return sum(int(count) * _UNITS_MS[unit] for count, unit in _DURATION_PART.findall(text))


def format_duration(milliseconds: int) -> str:
    """The shortest text that `duration_ms` reads back."""
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, milliseconds = divmod(milliseconds, _UNITS_MS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
