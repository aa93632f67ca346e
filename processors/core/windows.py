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
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.definition import Aggregate
from streamgauge.processors.core.effects import MeasureColumn, PaneBatch
from streamgauge.processors.core.keys import KeyTable
from streamgauge.processors.core.measures import EVENTS, Accumulators
from streamgauge.processors.core.slots import SlotColumn, Slots
from streamgauge.processors.core.watermark import NEVER

__all__ = ["REVISION", "Emission", "Panes", "WindowEvents"]

REVISION = "revision"
"""The pane rows' column of the last revision emitted; 0 while the window is open."""


class WindowEvents(NamedTuple):
    """The events of a batch that an aggregate looks at, n of them in stream order.

    times_ms, codes, steps, closed_to_ms : int64, shape (n,)
        Event time, code of the key, step of the timeline, and up to where the key's windows have closed by then.
    rows : int64, shape (n,)
        Where each stands in the columns of `fields`.
    """

    times_ms: NDArray[np.int64]
    codes: NDArray[np.int64]
    steps: NDArray[np.int64]
    closed_to_ms: NDArray[np.int64]
    rows: NDArray[np.int64]
    fields: Mapping[str, FieldColumn]


@dataclass(slots=True)
class Emission:
    """Panes emitted by a batch, m of them in stream order, then p rows of how corrected panes stood before it.

    slots, codes, start_ms, revision, event_count : int64, shape (m + p,)
        The pane rows, keys' codes, windows, revisions and numbers of events.
    steps : int64, shape (m,)
        The step of the timeline that emitted each.
    closing : bool, shape (m,)
        Whether it is the first look at its window, at the close.
    """

    slots: NDArray[np.int64]
    codes: NDArray[np.int64]
    start_ms: NDArray[np.int64]
    revision: NDArray[np.int64]
    event_count: NDArray[np.int64]
    measures: Mapping[str, MeasureColumn]
    steps: NDArray[np.int64]
    closing: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.steps)


class _Rows(NamedTuple):
    """Panes as they stand at some step."""

    slots: NDArray[np.int64]
    revision: NDArray[np.int64]
    gathered: Mapping[str, SlotColumn]


class Panes:
    """The panes of one aggregate that are open or may still be corrected.

    Parameters
    ----------
    aggregate
        The definition.
    keys
        The aggregate's keys.
    slots
        Where the panes are held; their columns become part of a snapshot.
    """

    def __init__(self, aggregate: Aggregate, keys: KeyTable, slots: Slots) -> None:
        self._aggregate = aggregate
        self._size_ms = aggregate.window.size_ms
        self._lateness_ms = aggregate.allowed_lateness_ms
        self._keys = keys
        self._slots = slots
        self.accumulators = Accumulators(aggregate.measures, slots)
        slots.define(REVISION, np.int64)
        # By window start: the rows of its panes. A start stands in one of the heaps, by whether it has closed.
        self._windows: dict[int, list[NDArray[np.int64]]] = {}
        self._open: list[int] = []
        self._closed: list[int] = []

    def index(self, watermark_ms: int) -> None:
        """Build the windows from the pane rows, as after a restore."""
        used = self._slots.used()
        starts = self._slots.start[used]
        order = np.argsort(starts, kind="stable")
        edges = np.flatnonzero(np.diff(starts[order], prepend=NEVER))
        for rows in np.split(used[order], edges[1:]) if len(used) else []:
            self._windows[int(self._slots.start[rows[0]])] = [rows]
        self._open = [start for start in self._windows if start + self._size_ms > watermark_ms]
        self._closed = [start for start in self._windows if start + self._size_ms <= watermark_ms]
        heapq.heapify(self._open)
        heapq.heapify(self._closed)

    def starts_of(self, times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """The start of the window that contains each instant."""
        starts: NDArray[np.int64] = times_ms - times_ms % self._size_ms
        return starts

    def starts(self) -> NDArray[np.int64]:
        """The windows that have panes, in order."""
        return np.array(sorted(self._windows), dtype=np.int64)

    def slot_for(self, time_ms: int, code: int, closed_to_ms: int) -> int | None:
        """The row that an event would be added to: 0 for a pane to be made, None if the event would be late."""
        start = time_ms - time_ms % self._size_ms
        if closed_to_ms >= start + self._size_ms + self._lateness_ms:
            return None
        found = self._slots.find(np.array([start], dtype=np.int64), np.array([code], dtype=np.int64))
        return int(found[0])

    def apply(self, events: WindowEvents, watermarks: NDArray[np.int64]) -> tuple[Emission | None, NDArray[np.int64]]:
        """Add events, close what the watermark passes, correct what has closed.

        Parameters
        ----------
        events
            Accepted, and passed by the aggregate's filter.
        watermarks : int64, shape (steps,)
            After each step of the timeline.

        Returns
        -------
        What was emitted, and the indexes of the events that are too late for any pane.
        """
        starts = self.starts_of(events.times_ms)
        behind = events.closed_to_ms - starts
        late = behind >= self._size_ms
        corrections = np.zeros(0, dtype=np.int64)
        too_late = corrections
        if late.any():
            timely = np.flatnonzero(~late)
            lost = behind >= self._size_ms + self._lateness_ms
            corrections, too_late = np.flatnonzero(late & ~lost), np.flatnonzero(lost)
            self._add(events, starts, timely)
        else:
            self._add(events, starts, None)
        closings, closing_steps = self._close(watermarks)
        if not len(closings.slots) and not len(corrections):
            return None, too_late
        if not len(corrections):
            return self._emission(closings, closing_steps, None, None, closing_steps[:0]), too_late
        corrected, before = self._correct(events, starts, corrections, int(watermarks[-1]))
        return self._emission(closings, closing_steps, corrected, before, events.steps[corrections]), too_late

    def _add(self, events: WindowEvents, starts: NDArray[np.int64], timely: NDArray[np.int64] | None) -> None:
        codes, rows = events.codes, events.rows
        if timely is not None:
            starts, codes, rows = starts[timely], codes[timely], rows[timely]
        if len(rows):
            slots = self._find_or_create(starts, codes, NEVER)
            self.accumulators.add(slots, events.fields, rows)

    def _find_or_create(
        self, starts: NDArray[np.int64], codes: NDArray[np.int64], watermark_ms: int
    ) -> NDArray[np.int64]:
        """The rows of panes; windows that end by `watermark_ms` have closed."""
        slots = self._slots.find(starts, codes)
        missing = np.flatnonzero(slots == 0)
        if len(missing):
            absent = np.stack([starts[missing], codes[missing]], axis=1)
            order = np.lexsort((absent[:, 1], absent[:, 0]))
            distinct = absent[order]
            fresh = np.ones(len(distinct), dtype=np.bool_)
            fresh[1:] = (distinct[1:] != distinct[:-1]).any(axis=1)
            pairs = distinct[fresh]
            created = self._slots.create(pairs[:, 0].copy(), pairs[:, 1].copy())
            edges = np.flatnonzero(np.diff(pairs[:, 0], prepend=NEVER))
            for rows in np.split(created, edges[1:]):
                start = int(self._slots.start[rows[0]])
                if start not in self._windows:
                    self._windows[start] = []
                    is_closed = start + self._size_ms <= watermark_ms
                    heapq.heappush(self._closed if is_closed else self._open, start)
                self._windows[start].append(rows)
            slots[missing] = created[(np.cumsum(fresh) - 1)[np.argsort(order)]]
        return slots

    def _close(self, watermarks: NDArray[np.int64]) -> tuple[_Rows, NDArray[np.int64]]:
        """The panes whose windows end within the timeline, by window and key, and the step that closes each."""
        last = int(watermarks[-1]) if len(watermarks) else NEVER
        closing: list[NDArray[np.int64]] = []
        while self._open and self._open[0] + self._size_ms <= last:
            start = heapq.heappop(self._open)
            heapq.heappush(self._closed, start)
            closing.append(self._unemitted(start))
        slots = np.concatenate(closing) if closing else np.zeros(0, dtype=np.int64)
        self._slots.column(REVISION)[slots] = 1
        steps = np.searchsorted(watermarks, self._slots.start[slots] + self._size_ms)
        return self._rows(slots), steps.astype(np.int64)

    def _unemitted(self, start: int) -> NDArray[np.int64]:
        """The window's panes by key, but for those that have been emitted."""
        slots = np.concatenate(self._windows[start])
        slots = slots[self._slots.column(REVISION)[slots] == 0]
        keys = self._keys.keys(self._slots.code[slots])
        in_order: NDArray[np.int64] = slots[sorted(range(len(keys)), key=keys.__getitem__)]
        return in_order

    def _rows(self, slots: NDArray[np.int64]) -> _Rows:
        revision = self._slots.column(REVISION)[slots].astype(np.int64)
        return _Rows(slots, revision, self.accumulators.gather(slots))

    def _correct(
        self, events: WindowEvents, starts: NDArray[np.int64], which: NDArray[np.int64], watermark_ms: int
    ) -> tuple[_Rows, _Rows]:
        """One revision per late event; and how the panes that had been emitted stood before."""
        slots = self._find_or_create(starts[which], events.codes[which], watermark_ms)
        distinct, inverse = np.unique(slots, return_inverse=True)
        revisions = self._slots.column(REVISION)
        before = self._rows(distinct[revisions[distinct] > 0])
        current: list[int] = revisions[distinct].tolist()
        revision: list[int] = []
        for place in inverse.tolist():
            current[place] += 1
            revision.append(current[place])
        revisions[distinct] = current
        after = self.accumulators.correct(slots, events.fields, events.rows[which])
        return _Rows(slots, np.array(revision, dtype=np.int64), after), before

    def _emission(
        self,
        closings: _Rows,
        closing_steps: NDArray[np.int64],
        corrected: _Rows | None,
        before: _Rows | None,
        correcting_steps: NDArray[np.int64],
    ) -> Emission:
        steps, rows = closing_steps, closings
        closing = np.ones(len(steps), dtype=np.bool_)
        if corrected is not None and before is not None:
            steps = np.concatenate([closing_steps, correcting_steps])
            # A step that does both closes windows of other keys, below whose floor the event is not: in which order
            # they stand is free, as long as it is always the same.
            order = np.argsort(steps, kind="stable")
            steps, closing = steps[order], order < len(closing_steps)
            whole = np.concatenate([order, np.arange(len(order), len(order) + len(before.slots))])
            rows = _join([closings, corrected, before], whole)
        return Emission(
            slots=rows.slots,
            codes=self._slots.code[rows.slots],
            start_ms=self._slots.start[rows.slots],
            revision=rows.revision,
            event_count=rows.gathered[EVENTS].astype(np.int64, copy=False),
            measures=self.accumulators.measures(rows.gathered),
            steps=steps,
            closing=closing,
        )

    def standing(self, slots: NDArray[np.int64]) -> Emission:
        """The panes at `slots` as they stand now, emitted by no step."""
        nobody = np.zeros(len(slots), dtype=np.int64)
        return self._emission(self._rows(slots), nobody, None, None, nobody[:0])

    def open_slots(self) -> NDArray[np.int64]:
        """The panes of open windows that were never emitted, by window and key."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *map(self._unemitted, sorted(self._open))])

    def batch(self, emission: Emission) -> PaneBatch:
        """What was emitted, as it leaves."""
        m = len(emission)
        keys = self._keys.keys(emission.codes[:m])
        return PaneBatch(
            aggregate=self._aggregate.name,
            key_fields=self._aggregate.key,
            keys=keys,
            partition_keys=list(map(self._keys.partition_key, keys)),
            window_start_ms=emission.start_ms[:m],
            window_end_ms=emission.start_ms[:m] + self._size_ms,
            revision=emission.revision[:m],
            event_count=emission.event_count[:m],
            tombstone=np.zeros(m, dtype=np.bool_),
            measures={
                name: MeasureColumn(column.values[:m], column.present[:m]) for name, column in emission.measures.items()
            },
        )

    def expired(self, watermark_ms: int) -> list[NDArray[np.int64]]:
        """The rows of the panes that nothing can correct any more, a window at a time in order; they are let go."""
        windows: list[NDArray[np.int64]] = []
        while self._closed and self._closed[0] + self._size_ms + self._lateness_ms <= watermark_ms:
            windows.append(np.concatenate(self._windows.pop(heapq.heappop(self._closed))))
        return windows


def _join(parts: list[_Rows], order: NDArray[np.int64]) -> _Rows:
    return _Rows(
        np.concatenate([part.slots for part in parts])[order],
        np.concatenate([part.revision for part in parts])[order],
        {name: np.concatenate([part.gathered[name] for part in parts])[order] for name in parts[0].gathered},
    )
