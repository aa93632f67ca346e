"""Session windows: events of a key that follow each other by less than a gap.

What an event does to the sessions of its key is decided event by event in stream order (`session_steps`). On whole
columns the same comes out wherever events only let sessions grow: they are sorted by key and time and cut at the gaps.
Keys for which it might not (an event behind the watermark, sessions that become one, a session that reaches its maximum
length) are treated one event at a time.

A pane is known by its key and the start of its session. Where a session that has been emitted gets an earlier start,
becomes part of another, or is open again, its pane leaves once more as a tombstone. So those that stand are those of
the sessions that have closed. See ``docs/adr/0023-hopping-and-session-windows.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.definition import Aggregate, SessionWindow
from streamgauge.processors.core.floors import Floors
from streamgauge.processors.core.keys import KeyTable
from streamgauge.processors.core.panes import (
    REVISION,
    Emission,
    PaneRows,
    Panes,
    Placed,
    TooLate,
    WindowEvents,
    joined,
)
from streamgauge.processors.core.session_groups import Grown, grown
from streamgauge.processors.core.session_rows import END, LAST, SHOWN, SessionRows, Walked
from streamgauge.processors.core.session_steps import Session, join
from streamgauge.processors.core.slots import Slots
from streamgauge.processors.core.watermark import NEVER, Timeline

__all__ = ["SessionPanes"]

_NONE = np.zeros(0, dtype=np.int64)


class _Changes(NamedTuple):
    """What the events that are treated one by one did: panes emitted, each with its step, and what is to be noted."""

    closed: list[PaneRows]
    changed: list[tuple[PaneRows, int]]
    before: dict[int, PaneRows]
    late: list[int]


class SessionPanes(Panes):
    """The sessions of one aggregate, one row each.

    Parameters
    ----------
    aggregate, keys, slots
        As `Panes` takes them.
    window
        The aggregate's.
    """

    def __init__(self, aggregate: Aggregate, keys: KeyTable, slots: Slots, window: SessionWindow) -> None:
        super().__init__(aggregate, keys, slots)
        self._window = window
        self._rows = SessionRows(slots, window.gap_ms, self._lateness_ms)
        # Rows that have been looked at, and such as became part of others; until the end of the batch.
        self._looked_at = _NONE
        self._dead: list[int] = []

    def index(self, watermark_ms: int) -> None:  # noqa: ARG002 - a row's instants stand in it
        """Find all rows again, as after a restore."""
        self._rows.index()

    def recode(self, moved: NDArray[np.int64]) -> None:
        """Give every row its key's new code, by old code."""
        super().recode(moved)
        self._rows.recode()

    def slots_of(self, code: int) -> NDArray[np.int64]:
        """A key's pane rows in window order."""
        return np.array(self._rows.of(code), dtype=np.int64)

    def reserve(self, fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]) -> bool:
        """Whether the events at `rows` can be added for certain without a sum of integers leaving 64 bits."""
        return self.accumulators.reserve(fields, rows, combined=True)

    def overflows(self, fields: Mapping[str, FieldColumn], placed: Placed) -> str | None:
        """The field whose sum of integers an event, added next, would take out of 64 bits."""
        sessions = self._sessions(placed.code)
        result = join(sessions, placed.time_ms, placed.closed_to_ms, self._window, self._lateness_ms)
        return None if result is None else self.accumulators.overflows(fields, placed.row, result.rows or (0,))

    def _sessions(self, code: int) -> list[Session]:
        last, end, start = self._slots.column(LAST), self._slots.column(END), self._slots.start
        rows = [row for row in self._rows.of(code) if row not in self._dead]
        return [Session(row, int(start[row]), int(last[row]), int(end[row])) for row in rows]

    def apply(self, events: WindowEvents, timeline: Timeline) -> tuple[Emission | None, TooLate]:
        """Add events, close what the watermark passes, correct what has closed: see `Panes.apply`."""
        watermark_ms = int(timeline.watermarks[-1]) if len(timeline.watermarks) else NEVER
        by_code = grown(events, self._rows, self._slots, self._window)
        self._grow(events, by_code)
        changes = _Changes([], [], {}, [])
        for code, which in by_code.others:
            self._one_by_one(code, which, events, timeline, changes)
        looked_at = self._rows.due(watermark_ms)
        self._looked_at = looked_at[~np.isin(looked_at, self._dead)]
        ended = self._looked_at[self._ended(self._looked_at, watermark_ms)]
        closings = joined([*changes.closed, self._close(ended)])
        steps = np.searchsorted(timeline.watermarks, closings.end_ms).astype(np.int64)
        places = np.empty(len(closings), dtype=np.int64)
        places[self._keys.order(closings.codes)] = np.arange(len(closings))
        order = np.lexsort((places, closings.start_ms, steps))
        parts = [(closings.take(order), steps[order], True)]
        parts += [(rows, np.full(len(rows), step, dtype=np.int64), False) for rows, step in changes.changed]
        late = np.array(sorted(changes.late), dtype=np.int64)
        too_late = TooLate(late, events.times_ms[late], np.zeros(len(late), dtype=np.bool_))
        if not len(closings) and not changes.changed:
            return None, too_late
        return self.emission(parts, joined([self.standing(_NONE), *changes.before.values()])), too_late

    def _ended(self, rows: NDArray[np.int64], watermark_ms: int) -> NDArray[np.bool_]:
        ended: NDArray[np.bool_] = self._slots.column(END)[rows] <= watermark_ms
        ended &= self._slots.column(SHOWN)[rows] == 0
        return ended

    def _close(self, rows: NDArray[np.int64]) -> PaneRows:
        """Emit sessions for the first time, or again after a tombstone."""
        self._slots.column(REVISION)[rows] += 1
        self._slots.column(SHOWN)[rows] = 1
        full = self._slots.column(LAST)[rows] + self._window.gap_ms
        self.cut_sessions += int(np.count_nonzero(self._slots.column(END)[rows] < full))
        return self.standing(rows)

    def _grow(self, events: WindowEvents, by_code: Grown) -> None:
        """Let sessions take in the events that only make them longer, or begin one."""
        slots, fresh = by_code.slots, by_code.slots == 0
        slots[fresh] = created = self._slots.create(by_code.first_ms[fresh], by_code.codes[fresh])
        self._slots.start[slots] = by_code.first_ms
        self._slots.column(LAST)[slots] = by_code.last_ms
        self._slots.column(END)[slots] = by_code.last_ms + self._window.gap_ms
        self.accumulators.add(slots[by_code.group_of], events.fields, events.rows[by_code.which])
        walked = by_code.walked
        rows = np.concatenate([walked.rows, created])
        owners = np.concatenate([walked.owners, by_code.owners[fresh]])
        self._rows.link(by_code.distinct, Walked(rows, owners, walked.rest))
        self._rows.wait(created)

    def _one_by_one(
        self, code: int, which: Sequence[int], events: WindowEvents, timeline: Timeline, changes: _Changes
    ) -> None:
        for index in which:
            step, closed_to_ms = int(events.steps[index]), int(events.closed_to_ms[index])
            sessions = self._sessions(code)
            rows = np.array([session.row for session in sessions], dtype=np.int64)
            ended = rows[self._ended(rows, int(timeline.watermarks[step]))]
            if len(ended):
                changes.closed.append(self._close(ended))
            result = join(sessions, int(events.times_ms[index]), closed_to_ms, self._window, self._lateness_ms)
            if result is None:
                changes.late.append(index)
                continue
            for row in result.rows:
                if row not in changes.before and self._slots.column(SHOWN)[row]:
                    changes.before[row] = self.standing(np.array([row], dtype=np.int64))
            row = self._goes_on(code, result.rows, result.start_ms)
            is_open = result.end_ms > closed_to_ms
            gone = [each for each in result.rows if (each != row or is_open) and self._slots.column(SHOWN)[each]]
            if gone:
                changes.changed.append((self._take_back(sorted(gone, key=self._slots.start.__getitem__)), step))
            self._slots.column(LAST)[row], self._slots.column(END)[row] = result.last_ms, result.end_ms
            one = np.array([row], dtype=np.int64)
            self.accumulators.add(one, events.fields, events.rows[index : index + 1])
            if not is_open:
                self._slots.column(REVISION)[row] += 1
                self._slots.column(SHOWN)[row] = 1
                changes.changed.append((self.standing(one), step))
            self._rows.wait(one)

    def _goes_on(self, code: int, rows: Sequence[int], start_ms: int) -> int:
        """The row of what `rows` have become; none of them makes a new one. What it takes in is merged into it."""
        row = rows[0] if rows else 0
        if row and self._slots.start[row] != start_ms and not self._slots.column(REVISION)[row]:
            # Nobody has seen the pane under its old name.
            self._slots.start[row] = start_ms
        elif not row or self._slots.start[row] != start_ms:
            created = self._slots.create(np.array([start_ms], dtype=np.int64), np.array([code], dtype=np.int64))
            row = int(created[0])
            codes = np.array([code], dtype=np.int64)
            walked = self._rows.walk(codes, None)
            everything = np.append(walked.rows, row), np.append(walked.owners, 0)
            self._rows.link(codes, Walked(*everything, walked.rest))
        for other in rows:
            if other != row:
                self.accumulators.merge(
                    np.array([row], dtype=np.int64), self.accumulators, np.array([other], dtype=np.int64)
                )
                self._dead.append(other)
        return row

    def _take_back(self, rows: Sequence[int]) -> PaneRows:
        """Emit tombstones of panes that no longer stand."""
        taken = np.array(rows, dtype=np.int64)
        self._slots.column(REVISION)[taken] += 1
        self._slots.column(SHOWN)[taken] = 0
        nothing = self.accumulators.gather(np.zeros(len(taken), dtype=np.int64))
        return replace(self.standing(taken), tombstone=np.ones(len(taken), dtype=np.bool_), gathered=nothing)

    def standing(self, slots: NDArray[np.int64]) -> PaneRows:
        """The panes at `slots` as they stand now."""
        return PaneRows(
            slots=slots,
            codes=self._slots.code[slots],
            start_ms=self._slots.start[slots],
            end_ms=self._slots.column(END)[slots].astype(np.int64),
            revision=self._slots.column(REVISION)[slots].astype(np.int64),
            tombstone=np.zeros(len(slots), dtype=np.bool_),
            gathered=self.accumulators.gather(slots),
        )

    def open_rows(self, floors: Floors) -> PaneRows:  # noqa: ARG002 - panes that a floor has closed are shown
        """The panes of open windows, by window and key."""
        used = self._slots.used()
        rows = self._by_key(used[self._slots.column(SHOWN)[used] == 0])
        rows = rows[np.argsort(self._slots.start[rows], kind="stable")]
        return replace(self.standing(rows), revision=np.zeros(len(rows), dtype=np.int64))

    def expired(self, watermark_ms: int) -> list[NDArray[np.int64]]:
        """The rows of the panes that nothing can correct any more, in window order; they are let go."""
        dead = np.array(self._dead, dtype=np.int64)
        looked_at = self._looked_at
        over = (self._slots.column(SHOWN)[looked_at] != 0) & (self._rows.kept_to(looked_at) <= watermark_ms)
        self._rows.wait(looked_at[~over])
        gone = looked_at[over]
        gone = gone[np.argsort(self._slots.start[gone], kind="stable")]
        self._dead, self._looked_at = [], _NONE
        parts = [part for part in (gone, dead) if len(part)]
        if parts:
            self._rows.unlink(np.concatenate(parts))
        return parts
