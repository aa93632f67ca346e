"""Reading ``window = { … }`` of a pipeline file."""

from __future__ import annotations

from collections.abc import Callable

from streamgauge.processors.core.toml_tables import Table
from streamgauge.processors.core.window_kinds import (
    DAY_MS,
    HoppingWindow,
    SessionWindow,
    TimeZone,
    TumblingWindow,
    Window,
)

__all__ = ["HOPS_MAX", "TimeZones", "parse_window"]

TimeZones = Callable[[str], TimeZone | None]
"""Looks up a time zone by its name in the IANA database; None where there is none of that name."""

HOPS_MAX = 1_440
"""The most windows that one event may lie in: those of a day that begin every minute."""

_DEFAULT_MAX_LENGTH = "1d"
_KINDS = ("tumbling", "hopping", "session")
_KEYS = {
    "tumbling": ("tumbling", "time_zone"),
    "hopping": ("hopping", "every", "time_zone"),
    "session": ("session", "max_length"),
}
_LATER = {"offset": "windows with an offset are"}


def parse_window(table: Table, time_zones: TimeZones | None) -> Window:
    """The window that a table describes.

    Raises
    ------
    PipelineFileError
        With file and line: no kind of window or two; a length, gap or hop of zero; a hop that does not divide the size;
        a session that may never end; days in an unknown time zone, or something else than days in one.
    """
    kinds = [kind for kind in _KINDS if kind in table.values]
    if len(kinds) > 1:
        raise table.error(kinds[1], f"a window is {' or '.join(kinds)}, not both")
    if not kinds:
        table.check_keys(sorted({key for keys in _KEYS.values() for key in keys}), _LATER)
        raise table.error(
            None,
            "window: says nothing of its kind",
            'Write { tumbling = "1d" }, { hopping = "1h", every = "5m" } or { session = "30m" }',
        )
    (kind,) = kinds
    table.check_keys(_KEYS[kind], _LATER)
    if kind == "session":
        return _session(table)
    size_ms = table.duration(kind, least_ms=1)
    zone = _zone(table, time_zones)
    if kind == "tumbling":
        _check_days(table, kind, size_ms, zone)
        return TumblingWindow(size_ms, zone)
    every_ms = table.duration("every", least_ms=1)
    if every_ms > size_ms or size_ms % every_ms:
        raise table.error("every", f"must divide the window's {size_ms} ms, and {every_ms} ms does not")
    if size_ms // every_ms > HOPS_MAX:
        raise table.error(
            "every", f"each event would lie in {size_ms // every_ms} windows; at most {HOPS_MAX} are supported"
        )
    _check_days(table, "every", every_ms, zone)
    return HoppingWindow(size_ms, every_ms, zone)


def _session(table: Table) -> SessionWindow:
    gap_ms = table.duration("session", least_ms=1)
    max_length_ms = table.duration("max_length", _DEFAULT_MAX_LENGTH)
    if max_length_ms < gap_ms:
        given = "max_length" in table.values
        raise table.error(
            "max_length" if given else "session",
            f"a session must be bounded by a max_length of at least its gap of {gap_ms} ms, not {max_length_ms} ms",
            None if given else f"Without one it is {_DEFAULT_MAX_LENGTH}; write a longer one",
        )
    return SessionWindow(gap_ms, max_length_ms)


def _zone(table: Table, time_zones: TimeZones | None) -> TimeZone | None:
    if "time_zone" not in table.values:
        return None
    name = table.string("time_zone")
    zone = None if time_zones is None else time_zones(name)
    if zone is None:
        raise table.error(
            "time_zone",
            f"there is no time zone {name!r} on this machine",
            "Use a name of the IANA database such as 'America/New_York'; `pip install tzdata` brings the database",
        )
    return zone


def _check_days(table: Table, key: str, length_ms: int, zone: TimeZone | None) -> None:
    if zone is not None and length_ms % DAY_MS:
        raise table.error(key, "in a time zone windows are of whole days, such as '1d'", "Leave time_zone out")
