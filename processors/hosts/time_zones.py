"""Time zones from the machine's database, or from the package tzdata where the machine has none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from streamgauge.processors.core.window_kinds import TimeZone

__all__ = ["load_time_zone"]

_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
# No zone has changed its clocks there and back within so short a time.
_STEP = timedelta(days=4)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@cache
def load_time_zone(name: str) -> TimeZone | None:
    """The offsets of a zone from 1900 to 2199; before and after them the first and the last hold.

    ``zoneinfo`` tells no transitions, so they are found by looking every few days and halving the time between.
    """
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
    since_ms: list[int] = []
    offsets_ms: list[int] = []
    before, offset = _FIRST, _offset(zone, _FIRST)
    before_ms = offset // timedelta(milliseconds=1)
    while before < _LAST:
        after = before + _STEP
        if _offset(zone, after) != offset:
            changed = _change(zone, before, after)
            offset = _offset(zone, changed)
            since_ms.append((changed - _EPOCH) // timedelta(milliseconds=1))
            offsets_ms.append(offset // timedelta(milliseconds=1))
            after = changed
        before = after
    return TimeZone(name, before_ms, tuple(since_ms), tuple(offsets_ms))


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None, "a zone has an offset at any time"
    return offset


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second after `before` at which the offset is another."""
    offset = _offset(zone, before)
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, before + timedelta(seconds=middle)) == offset:
            low = middle
        else:
            high = middle
    return before + timedelta(seconds=high)
