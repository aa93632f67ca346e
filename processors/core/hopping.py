"""Hopping windows by slices: an event is added once, however many windows it lies in.

A window is a run of slices as long as the hop. Events are added to their slice; when a window closes, its slices are
merged, in order of time, into a pane. From then on the pane is one of its own, as that of a tumbling window: a late
event is added to the panes of the windows that have closed and may be corrected, and to its slice, for those that are
still open. So a pane is a function of the stream alone: what its slices held when it closed, and the late events in
stream order. See ``docs/adr/0023-hopping-and-session-windows.md``.

A slice is let go with the last window that holds it, a pane after the allowed lateness.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.definition import Aggregate, HoppingWindow
from streamgauge.processors.core.floors import Floors
from streamgauge.processors.core.keys import KeyTable
from streamgauge.processors.core.measures import Accumulators
from streamgauge.processors.core.panes import (
    REVISION,
    Emission,
    PaneRows,
    Placed,
    TooLate,
    WindowEvents,
    joined,
)
from streamgauge.processors.core.slots import Slots
from streamgauge.processors.core.watermark import NEVER, Timeline
from streamgauge.processors.core.windows import FixedPanes, found_or_created, rows_by_start

__all__ = ["HoppingPanes"]

_NONE = np.zeros(0, dtype=np.int64)


class HoppingPanes(FixedPanes):
    """Panes of windows that overlap. Pane rows are those of windows that have closed; open ones are in the slices."""

    def __init__(self, aggregate: Aggregate, keys: KeyTable, slots: Slots, window: HoppingWindow) -> None:
        super().__init__(aggregate, keys, slots, window)
        self._slices = Slots()
        self._parts = Accumulators(aggregate.measures, self._slices)
        # By start: the rows of its slices. Every window that holds one and has not closed stands in `_open`.
        self._slice_rows: dict[int, list[NDArray[np.int64]]] = {}
        self._waiting: set[int] = set()

    def tables(self) -> list[tuple[str, Slots, Accumulators]]:
        """What is saved, each under a prefix of its own."""
        return [*super().tables(), ("slice", self._slices, self._parts)]

    def reserve(self, fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]) -> bool:
        """Whether the events at `rows` can be added for certain without a sum of integers leaving 64 bits."""
        slices_fit = self._parts.reserve(fields, rows, combined=True)
        self.accumulators.cover(self._parts)
        return self.accumulators.reserve(fields, rows) and slices_fit

    def index(self, watermark_ms: int) -> None:
        """Build windows and slices from the rows, as after a restore."""
        super().index(watermark_ms)
        # What a floor had closed may be open by the watermark; it is waited for as everything else that is open.
        self._slice_rows = rows_by_start(self._slices)
        self._open, self._waiting = [], set()
        for start in [*self._slice_rows]:
            self._await(start, watermark_ms)
        for start in [*self._windows]:
            if self._end(start) > watermark_ms:
                self._wait_for(start)

    def _await(self, slice_start: int, watermark_ms: int) -> None:
        """Wait for the end of every window that holds a slice and has not closed."""
        for back in range(self._cells):
            start = self._grid.after(slice_start, -back)
            if self._end(start) <= watermark_ms:
                return
            self._wait_for(start)

    def _wait_for(self, start: int) -> None:
        if start not in self._waiting:
            self._waiting.add(start)
            heapq.heappush(self._open, start)

    def overflows(self, fields: Mapping[str, FieldColumn], placed: Placed) -> str | None:
        """The field whose sum an event, added next, would take out of 64 bits, in its slice or in any window."""
        last = self._grid.start(placed.time_ms)
        if placed.closed_to_ms < self._end(last):
            found = self._slices.find(*_pairs([last], placed.code))
            field = self._parts.overflows(fields, placed.row, found.tolist())
            if field is not None:
                return field
        for back in range(self._cells):
            start = self._grid.after(last, -back)
            if placed.closed_to_ms >= self._end(start) + self._lateness_ms:
                break
            if placed.closed_to_ms >= self._end(start):
                found = self._slots.find(*_pairs([start], placed.code))
                field = self.accumulators.overflows(fields, placed.row, found.tolist())
            else:
                starts = [self._grid.after(start, cell) for cell in range(self._cells)]
                found = self._slices.find(*_pairs(starts, placed.code))
                field = self._parts.overflows(fields, placed.row, found.tolist())
            if field is not None:
                return field
        return None

    def apply(self, events: WindowEvents, timeline: Timeline) -> tuple[Emission | None, TooLate]:
        """Add events, close what the watermark passes, correct what has closed: see `Panes.apply`."""
        starts = self._grid.starts(events.times_ms)
        # The end of the slice is that of the first window that holds it.
        late = np.flatnonzero(events.closed_to_ms >= self._grid.later(starts, 1))
        watermark_ms = int(timeline.watermarks[-1]) if len(timeline.watermarks) else NEVER
        timely = np.ones(len(starts), dtype=np.bool_)
        timely[late] = False
        self._add_to_slices(events, starts, np.flatnonzero(timely), NEVER)
        parts = self._add_late(events, starts, late, timeline)
        parts += self._close_to(watermark_ms, timeline)
        corrections, windows, too_late = self._by_window(events, starts, late)
        before = self.standing(_NONE)
        if len(corrections):
            corrected, before = self._correct(events, windows, corrections, watermark_ms)
            parts.append((corrected, events.steps[corrections], False))
        self._let_slices_go(watermark_ms)
        return (self.emission(parts, before) if parts else None), too_late

    def _add_to_slices(
        self, events: WindowEvents, starts: NDArray[np.int64], which: NDArray[np.int64], watermark_ms: int
    ) -> None:
        if not len(which):
            return
        slots, created = found_or_created(self._slices, starts[which], events.codes[which])
        for rows in created:
            start = int(self._slices.start[rows[0]])
            if start not in self._slice_rows:
                self._slice_rows[start] = []
                self._await(start, watermark_ms)
            self._slice_rows[start].append(rows)
        self._parts.add(slots, events.fields, events.rows[which])

    def _add_late(
        self, events: WindowEvents, starts: NDArray[np.int64], late: NDArray[np.int64], timeline: Timeline
    ) -> list[tuple[PaneRows, NDArray[np.int64], bool]]:
        """Add late events to their slices for the windows that are still open, closing at its step what ends before."""
        parts: list[tuple[PaneRows, NDArray[np.int64], bool]] = []
        for index in late[events.closed_to_ms[late] < self._ends(starts[late])].tolist():
            watermark_ms = int(timeline.watermarks[events.steps[index]])
            parts += self._close_to(watermark_ms, timeline)
            self._add_to_slices(events, starts, np.array([index], dtype=np.int64), watermark_ms)
        return parts

    def _close_to(self, watermark_ms: int, timeline: Timeline) -> list[tuple[PaneRows, NDArray[np.int64], bool]]:
        """Make the panes of the windows that end by `watermark_ms`, by window and key, and the step of each."""
        closed: list[PaneRows] = []
        while self._open and self._end(self._open[0]) <= watermark_ms:
            start = heapq.heappop(self._open)
            self._waiting.discard(start)
            slots = self._close_window(start, timeline.floors)
            # A window that only floors had closed so far: its panes were emitted as corrections.
            if start in self._windows and start not in self._closed:
                heapq.heappush(self._closed, start)
            if len(slots):
                closed.append(self.standing(slots))
        if not closed:
            return []
        rows = joined(closed)
        return [(rows, np.searchsorted(timeline.watermarks, rows.end_ms).astype(np.int64), True)]

    def _close_window(self, start: int, floors: Floors | None) -> NDArray[np.int64]:
        """The rows of a window's new panes, by key."""
        codes, slices = self._unemitted_slices(start, floors)
        if not len(codes):
            return codes
        panes = self._slots.create(np.full(len(codes), start, dtype=np.int64), codes)
        self._windows.setdefault(start, []).append(panes)
        place = np.full(len(self._keys), -1, dtype=np.int64)
        place[codes] = panes
        for rows in slices:
            into = place[self._slices.code[rows]]
            self.accumulators.merge(into[into >= 0], self._parts, rows[into >= 0])
        self._slots.column(REVISION)[panes] = 1
        return panes

    def _unemitted_slices(self, start: int, floors: Floors | None) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
        """The codes of the keys that a window is to be emitted for, by key; its slices' rows in order of time."""
        starts = [self._grid.after(start, cell) for cell in range(self._cells)]
        slices = [np.concatenate(self._slice_rows[at]) for at in starts if at in self._slice_rows]
        holds = np.zeros(len(self._keys), dtype=np.bool_)
        for rows in slices:
            holds[self._slices.code[rows]] = True
        codes = np.flatnonzero(holds)
        if floors and len(codes):
            # Where a floor had closed the window, its pane has been emitted, or a correction will make it.
            keys = map(self._keys.partition_key, self._keys.keys(codes))
            codes = codes[floors.of(list(keys)) < self._end(start)]
        return codes[self._keys.order(codes)], slices

    def _enter(self, rows: NDArray[np.int64], watermark_ms: int) -> None:
        """Note new rows of one window, made by corrections."""
        start = int(self._slots.start[rows[0]])
        if start not in self._windows:
            self._windows[start] = []
            if self._end(start) > watermark_ms:
                # Only a floor has closed it.
                self._wait_for(start)
            else:
                heapq.heappush(self._closed, start)
        self._windows[start].append(rows)

    def _by_window(
        self, events: WindowEvents, starts: NDArray[np.int64], late: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], TooLate]:
        """The late events that correct panes, once for each pane, and the windows; and those that a window has lost.

        Both in stream order, then in the order of time.
        """
        if not len(late):
            return late, late, TooLate(late, late, late.astype(np.bool_))
        windows = np.stack([self._grid.later(starts[late], -back) for back in range(self._cells)][::-1], axis=1)
        ends = self._ends(windows.ravel()).reshape(windows.shape)
        closed_to = events.closed_to_ms[late][:, None]
        gone = closed_to >= ends + self._lateness_ms
        at, cell = np.nonzero((closed_to >= ends) & ~gone)
        lost = np.flatnonzero(gone[:, 0])
        last = np.count_nonzero(gone[lost], axis=1) - 1
        too_late = TooLate(late[lost], windows[lost, last], last < self._cells - 1)
        return late[at], windows[at, cell], too_late

    def _let_slices_go(self, watermark_ms: int) -> None:
        for start in [start for start in self._slice_rows if self._end(start) <= watermark_ms]:
            self._slices.free(np.concatenate(self._slice_rows.pop(start)))

    def open_rows(self, floors: Floors) -> PaneRows:
        """The panes of open windows that were never emitted, by window and key."""
        panes = [self._open_window(start, floors) for start in sorted(self._open)]
        return joined([self.standing(_NONE), *panes])

    def _open_window(self, start: int, floors: Floors) -> PaneRows:
        """A window that has not closed, merged beside the rows that are kept."""
        codes, slices = self._unemitted_slices(start, floors)
        scratch = Slots()
        accumulators = Accumulators(self._aggregate.measures, scratch)
        starts = np.full(len(codes), start, dtype=np.int64)
        panes = scratch.create(starts, codes)
        place = np.zeros(len(self._keys), dtype=np.int64)
        place[codes] = panes
        for rows in slices:
            into = place[self._slices.code[rows]]
            accumulators.merge(into[into > 0], self._parts, rows[into > 0])
        return PaneRows(
            slots=np.zeros(len(codes), dtype=np.int64),
            codes=codes,
            start_ms=starts,
            end_ms=self._ends(starts),
            revision=np.zeros(len(codes), dtype=np.int64),
            tombstone=np.zeros(len(codes), dtype=np.bool_),
            gathered=accumulators.gather(panes),
        )


def _pairs(starts: list[int], codes: NDArray[np.int64] | int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    at = np.array(starts, dtype=np.int64)
    return at, np.broadcast_to(np.asarray(codes, dtype=np.int64), at.shape).copy()
