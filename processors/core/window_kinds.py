"""The kinds of windows, as plain values, and the grids that fixed windows lie on.

A grid cuts time into cells: multiples of a length since the epoch, or, in a time zone, days from midnight to midnight,
which have 23 or 25 hours where clocks change. A tumbling window is a cell, a hopping window a run of them. Sessions lie
on no grid: events make them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DAY_MS", "Grid", "HoppingWindow", "SessionWindow", "TimeZone", "TumblingWindow", "Window"]

DAY_MS = 86_400_000

_Instants = NDArray[np.int64]


@dataclass(frozen=True)
class TimeZone:
    """The offsets of a zone's local time from UTC: `offsets_ms[i]` from `since_ms[i]` on, `before_ms` before the first.

    They stand in the definition, so that a window is where it is whatever the machine's own database says later.
    """

    name: str
    before_ms: int
    since_ms: tuple[int, ...]
    offsets_ms: tuple[int, ...]

    @cached_property
    def _since(self) -> _Instants:
        return np.array(self.since_ms, dtype=np.int64)

    @cached_property
    def _offsets(self) -> _Instants:
        return np.array([self.before_ms, *self.offsets_ms], dtype=np.int64)

    def days(self, times_ms: _Instants) -> _Instants:
        """The number of the local day, counted from 1 January 1970, that each instant lies in."""
        local = times_ms + self._offsets[np.searchsorted(self._since, times_ms, side="right")]
        days = local // DAY_MS
        # Where clocks are set back over midnight, the day that had begun goes on.
        following: _Instants = days + (self.midnights(days + 1) <= times_ms)
        return following

    def midnights(self, days: _Instants) -> _Instants:
        """The first instant of each local day: midnight, or where the clocks skip it, the instant after."""
        offsets = self._offsets
        # The local time at which the clock that holds up to each change is put away.
        ends = self._since + offsets[:-1]
        holding = np.searchsorted(ends, days * DAY_MS, side="right")
        midnights = days * DAY_MS - offsets[holding]
        changed = holding > 0
        if changed.any():
            midnights[changed] = np.maximum(midnights[changed], self._since[holding[changed] - 1])
        return midnights


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells of `size_ms` since the epoch; in a time zone `size_ms` are whole days, counted from 1 January 1970."""

    size_ms: int
    zone: TimeZone | None = None

    def starts(self, times_ms: _Instants) -> _Instants:
        """The start of the cell that contains each instant."""
        if self.zone is None:
            starts: _Instants = times_ms - times_ms % self.size_ms
            return starts
        days = self.zone.days(times_ms)
        return self.zone.midnights(days - days % (self.size_ms // DAY_MS))

    def later(self, starts: _Instants, cells: int) -> _Instants:
        """The starts of the cells that lie `cells` after those that begin at `starts`."""
        if self.zone is None:
            return starts + cells * self.size_ms
        return self.zone.midnights(self.zone.days(starts) + cells * (self.size_ms // DAY_MS))

    def start(self, time_ms: int) -> int:
        """As `starts`, of one instant."""
        if self.zone is None:
            return time_ms - time_ms % self.size_ms
        return int(self.starts(np.array([time_ms], dtype=np.int64))[0])

    def after(self, start_ms: int, cells: int) -> int:
        """As `later`, of one cell."""
        if self.zone is None:
            return start_ms + cells * self.size_ms
        return int(self.later(np.array([start_ms], dtype=np.int64), cells)[0])


class _Fixed(NamedTuple):
    """How windows lie on a grid: they begin at every cell, and are `cells` long."""

    grid: Grid
    cells: int


@dataclass(frozen=True, slots=True)
class TumblingWindow:
    """Windows of `size_ms`, one after the other: an event at t belongs to the one that starts at t - t % size.

    In a time zone `size_ms` are whole local days.
    """

    size_ms: int
    zone: TimeZone | None = None

    @property
    def fixed(self) -> _Fixed:
        """The grid, and 1."""
        return _Fixed(Grid(self.size_ms, self.zone), 1)

    def latest_end_ms(self, time_ms: int) -> int:
        """The end of the last window that may hold an event at `time_ms`."""
        return _latest_end_ms(self.fixed, time_ms)

    def __str__(self) -> str:
        return f"tumbling {self.size_ms} ms{_in(self.zone)}"


@dataclass(frozen=True, slots=True)
class HoppingWindow:
    """Windows of `size_ms` that begin every `every_ms`, which divides the size: an event belongs to size / every."""

    size_ms: int
    every_ms: int
    zone: TimeZone | None = None

    @property
    def fixed(self) -> _Fixed:
        """The grid, and how many of its cells a window is long."""
        return _Fixed(Grid(self.every_ms, self.zone), self.size_ms // self.every_ms)

    def latest_end_ms(self, time_ms: int) -> int:
        """The end of the last window that may hold an event at `time_ms`."""
        return _latest_end_ms(self.fixed, time_ms)

    def __str__(self) -> str:
        return f"hopping {self.size_ms} ms every {self.every_ms} ms{_in(self.zone)}"


@dataclass(frozen=True, slots=True)
class SessionWindow:
    """Windows of events that follow each other by less than `gap_ms`; none lasts longer than `max_length_ms`.

    A session begins with its first event and ends `gap_ms` after its last.
    """

    gap_ms: int
    max_length_ms: int

    def latest_end_ms(self, time_ms: int) -> int:
        """The end of the last window that may hold an event at `time_ms`."""
        return time_ms + self.gap_ms

    def __str__(self) -> str:
        return f"session of gaps below {self.gap_ms} ms, up to {self.max_length_ms} ms long"


Window = TumblingWindow | HoppingWindow | SessionWindow


def _latest_end_ms(fixed: _Fixed, time_ms: int) -> int:
    return fixed.grid.after(fixed.grid.start(time_ms), fixed.cells)


def _in(zone: TimeZone | None) -> str:
    return "" if zone is None else f" in {zone.name}"
