"""What the panes of every kind of window have in common: rows that hold them, and how they leave.

`FixedPanes` (tumbling), `HoppingPanes` and `SessionPanes` decide which panes an event belongs to and when they close;
what they emit is the same: panes as they stood at a step, in stream order, which is all that the rules read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.definition import Aggregate
from streamgauge.processors.core.effects import MeasureColumn, PaneBatch
from streamgauge.processors.core.floors import Floors
from streamgauge.processors.core.keys import KeyTable
from streamgauge.processors.core.measures import EVENTS, Accumulators
from streamgauge.processors.core.slots import SlotColumn, Slots
from streamgauge.processors.core.watermark import Timeline

__all__ = ["REVISION", "Emission", "PaneRows", "Panes", "Placed", "TooLate", "WindowEvents", "joined"]

REVISION = "revision"
"""The pane rows' column of the last revision emitted; 0 before the first."""


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

    def take(self, picked: NDArray[np.int64]) -> WindowEvents:
        """The events at `picked`."""
        times_ms, codes, steps, closed_to_ms, rows, fields = self
        return WindowEvents(times_ms[picked], codes[picked], steps[picked], closed_to_ms[picked], rows[picked], fields)


class Placed(NamedTuple):
    """Where the event at `row` of a batch would go, were it the next one."""

    row: int
    time_ms: int
    code: int
    closed_to_ms: int


class TooLate(NamedTuple):
    """Events that some of their windows, or all, have lost for good, n of them in stream order.

    which, start_ms : int64, shape (n,)
        Index of each event, and the last window that has lost it: those before that have, too.
    in_part : bool, shape (n,)
        Whether a later window has taken it.
    """

    which: NDArray[np.int64]
    start_ms: NDArray[np.int64]
    in_part: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PaneRows:
    """n panes as they stood at some step; every array has shape (n,).

    slots, codes, start_ms, end_ms, revision : int64
        The pane rows, the keys' codes, the windows, the revisions.
    tombstone : bool
        Whether the pane has ceased to be.
    gathered
        The accumulators, as `Accumulators.gather` gives them.
    """

    slots: NDArray[np.int64]
    codes: NDArray[np.int64]
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    revision: NDArray[np.int64]
    tombstone: NDArray[np.bool_]
    gathered: Mapping[str, SlotColumn]

    def __len__(self) -> int:
        return len(self.slots)

    def take(self, picked: NDArray[np.int64]) -> PaneRows:
        """The panes at `picked`."""
        return PaneRows(
            slots=self.slots[picked],
            codes=self.codes[picked],
            start_ms=self.start_ms[picked],
            end_ms=self.end_ms[picked],
            revision=self.revision[picked],
            tombstone=self.tombstone[picked],
            gathered={name: column[picked] for name, column in self.gathered.items()},
        )


def joined(parts: Sequence[PaneRows]) -> PaneRows:
    """Panes one part after the other; at least one."""
    if len(parts) == 1:
        return parts[0]
    return PaneRows(
        slots=np.concatenate([part.slots for part in parts]),
        codes=np.concatenate([part.codes for part in parts]),
        start_ms=np.concatenate([part.start_ms for part in parts]),
        end_ms=np.concatenate([part.end_ms for part in parts]),
        revision=np.concatenate([part.revision for part in parts]),
        tombstone=np.concatenate([part.tombstone for part in parts]),
        gathered={name: np.concatenate([part.gathered[name] for part in parts]) for name in parts[0].gathered},
    )


@dataclass(slots=True)
class Emission:
    """Panes emitted by a batch, m of them in stream order, then p rows of how corrected panes stood before it.

    rows
        All m + p.
    measures
        By name, shape (m + p,).
    steps : int64, shape (m,)
        The step of the timeline that emitted each.
    closing : bool, shape (m,)
        Whether it is the first look at its window, at the close.
    early : bool, shape (m,)
        Whether it is no revision but how an open pane stands after an event, for rules that look early.
    """

    rows: PaneRows
    measures: Mapping[str, MeasureColumn]
    steps: NDArray[np.int64]
    closing: NDArray[np.bool_]
    early: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.steps)


class Panes(ABC):
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
        self._lateness_ms = aggregate.allowed_lateness_ms
        self._keys = keys
        self._slots = slots
        self.accumulators = Accumulators(aggregate.measures, slots)
        # What the maximum length has closed, since the aggregate's counter has taken it over.
        self.cut_sessions = 0
        # Whether a rule looks at open panes after each event.
        self.looks_early = False
        slots.define(REVISION, np.int64)

    @abstractmethod
    def index(self, watermark_ms: int) -> None:
        """Find all rows again, as after a restore."""

    @abstractmethod
    def slots_of(self, code: int) -> NDArray[np.int64]:
        """A key's pane rows in window order."""

    @abstractmethod
    def overflows(self, fields: Mapping[str, FieldColumn], placed: Placed) -> str | None:
        """The field whose sum of integers an event, added next, would take out of 64 bits."""

    @abstractmethod
    def apply(self, events: WindowEvents, timeline: Timeline) -> tuple[Emission | None, TooLate]:
        """Add events, close what the watermark passes, correct what has closed.

        Parameters
        ----------
        events
            Accepted, and passed by the aggregate's filter.
        timeline
            The watermark after each step.

        Returns
        -------
        What was emitted, and the events that are too late for a window.
        """

    @abstractmethod
    def expired(self, watermark_ms: int) -> list[NDArray[np.int64]]:
        """The rows of the panes that nothing can correct any more, in window order; they are let go."""

    @abstractmethod
    def open_rows(self, floors: Floors) -> PaneRows:
        """The panes of open windows that were never emitted, by window and key."""

    @abstractmethod
    def standing(self, slots: NDArray[np.int64]) -> PaneRows:
        """The panes at `slots` as they stand now."""

    def tables(self) -> list[tuple[str, Slots, Accumulators]]:
        """What is saved, each under a prefix of its own."""
        return [("pane", self._slots, self.accumulators)]

    def recode(self, moved: NDArray[np.int64]) -> None:
        """Give every row its key's new code, by old code."""
        for _, slots, _ in self.tables():
            slots.recode(moved)

    def reserve(self, fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]) -> bool:
        """Whether the events at `rows` can be added for certain without a sum of integers leaving 64 bits."""
        return self.accumulators.reserve(fields, rows)

    def emission(
        self, emitted: Sequence[tuple[PaneRows, NDArray[np.int64], bool]], before: PaneRows, early: int = 0
    ) -> Emission:
        """Parts as they leave, each with the steps of its panes and whether it is their close.

        Within a step the order of the parts remains, and what each of them holds. The first `early` panes are no
        revisions.
        """
        steps = np.concatenate([steps for _, steps, _ in emitted])
        closing = np.concatenate([np.full(len(steps), closing) for _, steps, closing in emitted])
        order = np.argsort(steps, kind="stable")
        rows = joined([*(rows for rows, _, _ in emitted), before])
        rows = rows.take(np.concatenate([order, np.arange(len(order), len(rows))]))
        return self.shown(rows, steps[order], closing[order], order < early)

    def shown(
        self,
        rows: PaneRows,
        steps: NDArray[np.int64],
        closing: NDArray[np.bool_],
        early: NDArray[np.bool_] | None = None,
    ) -> Emission:
        """Panes with their measures."""
        if early is None:
            early = np.zeros(len(steps), dtype=np.bool_)
        return Emission(rows, self.accumulators.measures(rows.gathered), steps, closing, early)

    def revisions(self, emission: Emission) -> PaneBatch | None:
        """The panes that have been emitted, as they leave; None if there are none."""
        m = len(emission)
        if not emission.early.any():
            return self.batch(emission.rows, emission.measures, m)
        picked = np.flatnonzero(~emission.early)
        rows = emission.rows.take(picked)
        measures = {
            name: MeasureColumn(column.values[picked], column.present[picked])
            for name, column in emission.measures.items()
        }
        return self.batch(rows, measures, len(picked)) if len(picked) else None

    def batch(self, rows: PaneRows, measures: Mapping[str, MeasureColumn], m: int) -> PaneBatch:
        """The first `m` panes as they leave."""
        keys = self._keys.keys(rows.codes[:m])
        return PaneBatch(
            aggregate=self._aggregate.name,
            key_fields=self._aggregate.key,
            keys=keys,
            partition_keys=list(map(self._keys.partition_key, keys)),
            window_start_ms=rows.start_ms[:m],
            window_end_ms=rows.end_ms[:m],
            revision=rows.revision[:m],
            event_count=rows.gathered[EVENTS][:m].astype(np.int64, copy=False),
            tombstone=rows.tombstone[:m],
            measures={name: MeasureColumn(column.values[:m], column.present[:m]) for name, column in measures.items()},
        )

    def _by_key(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of one window, in the order of their keys."""
        return slots[self._keys.order(self._slots.code[slots])]
