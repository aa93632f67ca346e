"""Tumbling windows: which pane an event belongs to, when a pane is emitted, corrected, forgotten.

One pane per window and key. While its window is open (the watermark has not reached its end) events are added to it;
at the event that takes the watermark to the end it is emitted as revision 1. Until the watermark has reached the end
plus the allowed lateness, each late event is a revision of its own; later ones are late events. All that is decided
by an event's place in the stream, whatever the batches: a batch's panes in time are added at once, what closes within
it closes at the step that closes it, and corrections follow one by one.

After a merge of shards a window may be open by the watermark although some of its panes have been emitted: those of the
keys that have a floor above its end (see `floors`). For such a pane the window has closed: events correct it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.definition import Aggregate, HoppingWindow, TumblingWindow
from streamgauge.processors.core.floors import Floors
from streamgauge.processors.core.keys import KeyTable
from streamgauge.processors.core.panes import REVISION, Emission, PaneRows, Panes, Placed, TooLate, WindowEvents, joined
from streamgauge.processors.core.slots import Slots
from streamgauge.processors.core.watermark import NEVER, Timeline

__all__ = ["FixedPanes", "found_or_created", "rows_by_start"]

_NONE = np.zeros(0, dtype=np.int64)


class FixedPanes(Panes):
    """Panes of windows that lie on a grid, one per window and key.

    Parameters
    ----------
    aggregate, keys, slots
        As `Panes` takes them.
    window
        The aggregate's.
    """

    def __init__(
        self, aggregate: Aggregate, keys: KeyTable, slots: Slots, window: TumblingWindow | HoppingWindow
    ) -> None:
        super().__init__(aggregate, keys, slots)
        self._grid, self._cells = window.fixed
        # By window start: the rows of its panes. A start stands in one of the heaps, by whether it has closed.
        self._windows: dict[int, list[NDArray[np.int64]]] = {}
        self._open: list[int] = []
        self._closed: list[int] = []

    def _end(self, start_ms: int) -> int:
        return self._grid.after(start_ms, self._cells)

    def _ends(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._grid.later(starts, self._cells)

    def index(self, watermark_ms: int) -> None:
        """Build the windows from the pane rows, as after a restore."""
        self._windows = rows_by_start(self._slots)
        self._open = [start for start in self._windows if self._end(start) > watermark_ms]
        self._closed = [start for start in self._windows if self._end(start) <= watermark_ms]
        heapq.heapify(self._open)
        heapq.heapify(self._closed)

    def slots_of(self, code: int) -> NDArray[np.int64]:
        """A key's pane rows in window order."""
        starts = np.array(sorted(self._windows), dtype=np.int64)
        slots = self._slots.find(starts, np.full(len(starts), code, dtype=np.int64))
        return slots[np.flatnonzero(slots)]

    def overflows(self, fields: Mapping[str, FieldColumn], placed: Placed) -> str | None:
        """The field whose sum of integers an event, added next, would take out of 64 bits."""
        start = self._grid.start(placed.time_ms)
        if placed.closed_to_ms >= self._end(start) + self._lateness_ms:
            return None
        found = self._slots.find(np.array([start], dtype=np.int64), np.array([placed.code], dtype=np.int64))
        return self.accumulators.overflows(fields, placed.row, found.tolist())

    def apply(self, events: WindowEvents, timeline: Timeline) -> tuple[Emission | None, TooLate]:
        """Add events, close what the watermark passes, correct what has closed: see `Panes.apply`."""
        starts = self._grid.starts(events.times_ms)
        ends = self._ends(starts)
        late = events.closed_to_ms >= ends
        corrections = lost = _NONE
        timely = np.arange(len(starts))
        if late.any():
            timely = np.flatnonzero(~late)
            gone = events.closed_to_ms >= ends + self._lateness_ms
            corrections, lost = np.flatnonzero(late & ~gone), np.flatnonzero(gone)
        looked, looked_before = self._add(events, starts, timely)
        too_late = TooLate(lost, starts[lost], np.zeros(len(lost), dtype=np.bool_))
        closings, closing_steps = self._close(timeline.watermarks)
        if not len(looked) and not len(closings) and not len(corrections):
            return None, too_late
        if not self.looks_early and not len(corrections):
            return self.shown(closings, closing_steps, np.ones(len(closings), dtype=np.bool_)), too_late
        corrected, before = self._correct(events, starts[corrections], corrections, int(timeline.watermarks[-1]))
        if self.looks_early:
            before = self._all_before(looked_before, closings, before)
        # A step that does both closes windows of other keys, below whose floor the event is not: in which order they
        # stand is free, as long as it is always the same.
        parts = [
            (looked, events.steps[timely] if len(looked) else _NONE, False),
            (closings, closing_steps, True),
            (corrected, events.steps[corrections], False),
        ]
        return self.emission(parts, before, early=len(looked)), too_late

    def _add(
        self, events: WindowEvents, starts: NDArray[np.int64], timely: NDArray[np.int64]
    ) -> tuple[PaneRows, PaneRows]:
        """Add events to open panes; where rules look early, how these stood after each event, and before all."""
        if not len(timely):
            nothing = self.standing(_NONE)
            return nothing, nothing
        if len(timely) < len(starts):
            events, starts = events.take(timely), starts[timely]
        slots = self._find_or_create(starts, events.codes, NEVER)
        if not self.looks_early:
            self.accumulators.add(slots, events.fields, events.rows)
            nothing = self.standing(_NONE)
            return nothing, nothing
        before = self.standing(np.unique(slots))
        looked = PaneRows(
            slots=slots,
            codes=events.codes,
            start_ms=starts,
            end_ms=self._ends(starts),
            revision=np.zeros(len(slots), dtype=np.int64),
            tombstone=np.zeros(len(slots), dtype=np.bool_),
            gathered=self.accumulators.running(slots, events.fields, events.rows),
        )
        return looked, before

    def _all_before(self, looked: PaneRows, closings: PaneRows, corrected: PaneRows) -> PaneRows:
        """How the panes that a batch has changed stood before it, each once: rules that look early may read any."""
        opened = replace(closings, revision=np.zeros(len(closings), dtype=np.int64))
        opened = opened.take(np.flatnonzero(~np.isin(opened.slots, looked.slots)))
        both = np.concatenate([looked.slots, opened.slots])
        return joined([looked, opened, corrected.take(np.flatnonzero(~np.isin(corrected.slots, both)))])

    def _find_or_create(
        self, starts: NDArray[np.int64], codes: NDArray[np.int64], watermark_ms: int
    ) -> NDArray[np.int64]:
        """The rows of panes; windows that end by `watermark_ms` have closed."""
        slots, created = found_or_created(self._slots, starts, codes)
        for rows in created:
            self._enter(rows, watermark_ms)
        return slots

    def _enter(self, rows: NDArray[np.int64], watermark_ms: int) -> None:
        """Note new rows of one window."""
        start = int(self._slots.start[rows[0]])
        if start not in self._windows:
            self._windows[start] = []
            heapq.heappush(self._closed if self._end(start) <= watermark_ms else self._open, start)
        self._windows[start].append(rows)

    def _close(self, watermarks: NDArray[np.int64]) -> tuple[PaneRows, NDArray[np.int64]]:
        """The panes whose windows end within the timeline, by window and key, and the step that closes each."""
        last = int(watermarks[-1]) if len(watermarks) else NEVER
        closing: list[NDArray[np.int64]] = []
        while self._open and self._end(self._open[0]) <= last:
            start = heapq.heappop(self._open)
            heapq.heappush(self._closed, start)
            closing.append(self._unemitted(start))
        slots = np.concatenate(closing) if closing else _NONE
        self._slots.column(REVISION)[slots] = 1
        rows = self.standing(slots)
        return rows, np.searchsorted(watermarks, rows.end_ms).astype(np.int64)

    def _unemitted(self, start: int) -> NDArray[np.int64]:
        """The window's panes by key, but for those that have been emitted."""
        slots = np.concatenate(self._windows[start])
        return self._by_key(slots[self._slots.column(REVISION)[slots] == 0])

    def standing(self, slots: NDArray[np.int64]) -> PaneRows:
        """The panes at `slots` as they stand now."""
        starts = self._slots.start[slots]
        return PaneRows(
            slots=slots,
            codes=self._slots.code[slots],
            start_ms=starts,
            end_ms=self._ends(starts),
            revision=self._slots.column(REVISION)[slots].astype(np.int64),
            tombstone=np.zeros(len(slots), dtype=np.bool_),
            gathered=self.accumulators.gather(slots),
        )

    def _correct(
        self, events: WindowEvents, starts: NDArray[np.int64], which: NDArray[np.int64], watermark_ms: int
    ) -> tuple[PaneRows, PaneRows]:
        """One revision for each event at `which`, of the window at `starts`; and how the panes stood before.

        Only panes that had been emitted stood before.
        """
        slots = self._find_or_create(starts, events.codes[which], watermark_ms)
        distinct, inverse = np.unique(slots, return_inverse=True)
        revisions = self._slots.column(REVISION)
        before = self.standing(distinct[revisions[distinct] > 0])
        current: list[int] = revisions[distinct].tolist()
        revision: list[int] = []
        for place in inverse.tolist():
            current[place] += 1
            revision.append(current[place])
        revisions[distinct] = current
        after = self.accumulators.correct(slots, events.fields, events.rows[which])
        corrected = PaneRows(
            slots=slots,
            codes=events.codes[which],
            start_ms=starts,
            end_ms=self._ends(starts),
            revision=np.array(revision, dtype=np.int64),
            tombstone=np.zeros(len(slots), dtype=np.bool_),
            gathered=after,
        )
        return corrected, before

    def open_rows(self, floors: Floors) -> PaneRows:  # noqa: ARG002 - panes that a floor has closed have a revision
        """The panes of open windows that were never emitted, by window and key."""
        return self.standing(np.concatenate([_NONE, *map(self._unemitted, sorted(self._open))]))

    def expired(self, watermark_ms: int) -> list[NDArray[np.int64]]:
        """The rows of the panes that nothing can correct any more, a window at a time in order; they are let go."""
        windows: list[NDArray[np.int64]] = []
        while self._closed and self._end(self._closed[0]) + self._lateness_ms <= watermark_ms:
            windows.append(np.concatenate(self._windows.pop(heapq.heappop(self._closed))))
        return windows


def rows_by_start(slots: Slots) -> dict[int, list[NDArray[np.int64]]]:
    """All rows in use, by their start."""
    used = slots.used()
    starts = slots.start[used]
    order = np.argsort(starts, kind="stable")
    edges = np.flatnonzero(np.diff(starts[order], prepend=NEVER))
    groups = np.split(used[order], edges[1:]) if len(used) else []
    return {int(slots.start[rows[0]]): [rows] for rows in groups}


def found_or_created(
    table: Slots, starts: NDArray[np.int64], codes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The row of each (start, code), and those of them that are new, by start."""
    slots = table.find(starts, codes)
    missing = np.flatnonzero(slots == 0)
    if not len(missing):
        return slots, []
    absent = np.stack([starts[missing], codes[missing]], axis=1)
    order = np.lexsort((absent[:, 1], absent[:, 0]))
    distinct = absent[order]
    fresh = np.ones(len(distinct), dtype=np.bool_)
    fresh[1:] = (distinct[1:] != distinct[:-1]).any(axis=1)
    pairs = distinct[fresh]
    created = table.create(pairs[:, 0].copy(), pairs[:, 1].copy())
    slots[missing] = created[(np.cumsum(fresh) - 1)[np.argsort(order)]]
    edges = np.flatnonzero(np.diff(pairs[:, 0], prepend=NEVER))
    return slots, np.split(created, edges[1:])
