"""The rows of sessions: found by key in the order of time, and by the instant at which they are to be looked at.

A key's sessions are a chain of rows, the newest first; there is no Python object per key or session. Rows wait in
buckets of time for their end, then for the end of their allowed lateness. A row's bucket may be too early, since
sessions grow: whoever is looked at too early is put into a later one.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.slots import Slots

__all__ = ["END", "LAST", "SHOWN", "SessionRows", "Walked"]

LAST = "last"
"""The column of the time of the last event."""
END = "end"
"""The column of the window's end."""
SHOWN = "shown"
"""The column of whether the last revision emitted stands: 0 before the first, and after a tombstone."""

_Rows = NDArray[np.int64]


class Walked(NamedTuple):
    """The newest sessions of n keys. ``rows`` and ``owners`` (index of the key): shape (found,); ``rest``: shape (n,).

    ``rest`` is where each key's chain goes on, 0 where it ends.
    """

    rows: _Rows
    owners: _Rows
    rest: _Rows


class SessionRows:
    """Chains and buckets over the rows of `slots`. Live only: `index` builds them from the rows.

    Parameters
    ----------
    slots
        The rows; columns are added to it.
    gap_ms, lateness_ms
        Of the aggregate.
    """

    def __init__(self, slots: Slots, gap_ms: int, lateness_ms: int) -> None:
        self._slots = slots
        self._gap_ms = gap_ms
        self._lateness_ms = lateness_ms
        slots.define(LAST, np.int64)
        slots.define(END, np.int64)
        slots.define(SHOWN, np.uint8)
        self._newest = np.zeros(0, dtype=np.int64)
        self._older = np.zeros(0, dtype=np.int64)
        self._buckets: dict[int, list[_Rows]] = {}
        self._due: list[int] = []

    def index(self) -> None:
        """Build chains and buckets from the rows, as after a restore."""
        used = self._slots.used()
        self._newest, self._older = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self._buckets, self._due = {}, []
        codes, owners = np.unique(self._slots.code[used], return_inverse=True)
        self.link(codes, Walked(used, owners.astype(np.int64), np.zeros(len(codes), dtype=np.int64)))
        self.wait(used)

    def recode(self) -> None:
        """Find the keys again after they have been given new codes."""
        used = self._slots.used()
        codes, owners = np.unique(self._slots.code[used], return_inverse=True)
        self._newest = np.zeros(0, dtype=np.int64)
        self.link(codes, Walked(used, owners.astype(np.int64), np.zeros(len(codes), dtype=np.int64)))

    def _reach(self, codes: _Rows) -> None:
        """Make the arrays long enough."""
        most = int(codes.max()) + 1 if len(codes) else 0
        if len(self._newest) < most:
            self._newest = np.concatenate([self._newest, np.zeros(2 * most - len(self._newest), dtype=np.int64)])
        if len(self._older) < len(self._slots.start):
            added = len(self._slots.start) - len(self._older)
            self._older = np.concatenate([self._older, np.zeros(added, dtype=np.int64)])

    def of(self, code: int) -> list[int]:
        """A key's rows in the order of time."""
        rows: list[int] = []
        row = int(self._newest[code]) if code < len(self._newest) else 0
        while row:
            rows.append(row)
            row = int(self._older[row])
        return rows[::-1]

    def walk(self, codes: _Rows, from_ms: _Rows | None) -> Walked:
        """The sessions of distinct `codes` that an event at `from_ms` or later could belong to; None for all."""
        self._reach(codes)
        found: list[_Rows] = []
        owners: list[_Rows] = []
        rest = self._newest[codes]
        at = np.arange(len(codes))
        while len(at):
            rows = rest[at]
            near = rows > 0
            if from_ms is not None:
                near &= self._slots.column(LAST)[rows] > from_ms[at] - self._gap_ms
            at, rows = at[near], rows[near]
            found.append(rows)
            owners.append(at)
            rest[at] = self._older[rows]
        none = np.zeros(0, dtype=np.int64)
        return Walked(np.concatenate([none, *found]), np.concatenate([none, *owners]), rest)

    def link(self, codes: _Rows, walked: Walked) -> None:
        """Chain rows of distinct `codes`, in any order, before the rest of their chains."""
        self._reach(codes)
        order = np.lexsort((-self._slots.start[walked.rows], walked.owners))
        rows, owners = walked.rows[order], walked.owners[order]
        first = np.ones(len(rows), dtype=np.bool_)
        first[1:] = owners[1:] != owners[:-1]
        self._newest[codes] = walked.rest
        self._newest[codes[owners[first]]] = rows[first]
        self._older[rows[:-1]] = rows[1:]
        last = np.roll(first, -1)
        self._older[rows[last]] = walked.rest[owners[last]]

    def unlink(self, rows: _Rows) -> None:
        """Take rows out of their chains."""
        codes = np.unique(self._slots.code[rows])
        walked = self.walk(codes, None)
        doomed = np.zeros(len(self._slots.start), dtype=np.bool_)
        doomed[rows] = True
        kept = ~doomed[walked.rows]
        self.link(codes, Walked(walked.rows[kept], walked.owners[kept], walked.rest))

    def kept_to(self, rows: _Rows) -> _Rows:
        """The watermark from which on nothing can join each session: later than its end where that was cut."""
        kept_to: _Rows = self._slots.column(LAST)[rows].astype(np.int64) + (self._gap_ms + self._lateness_ms)
        return kept_to

    def wait(self, rows: _Rows) -> None:
        """Put rows into the buckets of their next instants."""
        if not len(rows):
            return
        shown = self._slots.column(SHOWN)[rows] != 0
        instants = np.where(shown, self.kept_to(rows), self._slots.column(END)[rows]).astype(np.int64)
        order = np.argsort(instants, kind="stable")
        buckets = instants[order] // self._gap_ms
        edges = np.flatnonzero(np.diff(buckets)) + 1
        for part, bucket in zip(np.split(rows[order], edges), buckets[[0, *edges.tolist()]].tolist(), strict=True):
            if bucket not in self._buckets:
                self._buckets[bucket] = []
                heapq.heappush(self._due, bucket)
            self._buckets[bucket].append(part)

    def due(self, watermark_ms: int) -> _Rows:
        """Rows in use whose instant may have come, each once; they must be put back by `wait`, or let go."""
        parts: list[_Rows] = []
        while self._due and self._due[0] * self._gap_ms <= watermark_ms:
            parts += self._buckets.pop(heapq.heappop(self._due))
        rows = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))
        return rows[np.flatnonzero(self._slots.code[rows] >= 0)]
