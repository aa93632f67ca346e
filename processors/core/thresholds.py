"""Threshold rules: crossings as a function of a key's pane values in window order.

A rule with `clear_when` is a machine of two states that reads its key's panes in window order; without it every pane
that fulfils `raise_when` is a raise by itself. When a pane that had been read changes, the machine runs again from its
window on, and the difference leaves: what vanished is taken back, newest window first, then what is new, in window
order, each with the state after all of it.

What a rule remembers of a pane (whether its conditions hold, the crossing that it made, how many raises and clears have
been emitted for it) stands in the pane's row and lives as long as the pane may be corrected. Beyond that there is one
flag per key: the state before its oldest such pane.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property, partial
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.container import Columns
from streamgauge.processors.core.definition import Aggregate, Pipeline, Threshold
from streamgauge.processors.core.effects import ThresholdEvent
from streamgauge.processors.core.keys import KeyTable
from streamgauge.processors.core.panes import Emission, Panes
from streamgauge.processors.core.slots import Slots

__all__ = ["RULE_PREFIX", "Crossing", "Rule", "threshold_event_id"]

RULE_PREFIX = "rule("
"""The columns of a rule's memory begin like this; a rule that is added begins from nothing."""

_Kind = Literal["raise", "clear"]

_RAISE, _CLEAR = 1, 2
"""Bits of the column ``truth``, and values of the column ``crossing``."""
_KINDS: dict[int, _Kind] = {_RAISE: "raise", _CLEAR: "clear"}
_OPPOSITE = {_RAISE: _CLEAR, _CLEAR: _RAISE}


class Crossing(NamedTuple):
    """A threshold event but for its number: `row` of the emission decided it; `event` takes the rule_sequence."""

    row: int
    step: int
    event: partial[ThresholdEvent]


def threshold_event_id(  # noqa: PLR0917
    pipeline: str, state_epoch: int, rule: str, key: Sequence[str], window_start_ms: int, kind: str, ordinal: int
) -> str:
    """32 hexadecimal digits: BLAKE2b of the JSON array of what identifies the crossing."""
    identity = msgspec.json.encode([pipeline, state_epoch, rule, list(key), window_start_ms, kind, ordinal])
    return blake2b(identity, digest_size=16).hexdigest()


class Rule:
    """One threshold over the panes of its aggregate.

    Parameters
    ----------
    pipeline, aggregate, threshold
        The definitions.
    keys, slots, panes
        The aggregate's; the rule's memory becomes columns of the first two.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        aggregate: Aggregate,
        threshold: Threshold,
        *,
        keys: KeyTable,
        slots: Slots,
        panes: Panes,
    ) -> None:
        self._pipeline, self._aggregate, self._threshold = pipeline, aggregate, threshold
        self._keys, self._slots, self._panes = keys, slots, panes
        name = f"{RULE_PREFIX}{threshold.name})"
        self._truth, self._crossing = f"{name}.truth", f"{name}.crossing"
        self._counts = {_RAISE: f"{name}.raises", _CLEAR: f"{name}.clears"}
        # The state before the oldest pane that may be corrected, and the one after the newest that has closed.
        self._before, self._state = f"{name}.before", f"{name}.state"
        slots.define(self._truth, np.uint8)
        slots.define(self._crossing, np.uint8)
        for counts in self._counts.values():
            slots.define(counts, np.int64)
        if threshold.clear_when is not None:
            keys.define(self._before)
            keys.define(self._state)

    @property
    def name(self) -> str:
        """The threshold's."""
        return self._threshold.name

    @property
    def is_early(self) -> bool:
        """Whether it looks at open panes after each event."""
        return self._threshold.early

    def is_in(self, columns: Columns) -> bool:
        """Whether an aggregate's saved columns have this rule's."""
        return any(name.endswith(f".{self._truth}") for name in columns)

    def read(self, emission: Emission) -> list[Crossing]:
        """What the emitted panes make of the rule, in order."""
        reading = _Reading(self, emission, self._panes)
        picked = self._changes(reading) if self.is_early else np.flatnonzero(~emission.early)
        # Closing panes of different keys are read at once; corrections an event at a time, and all where rules look
        # early: what a pane is at its close it has been at its last event.
        closing = emission.closing & (not self.is_early)
        for first, after in itertools.pairwise(_runs(emission, picked, closing)):
            which = picked[first:after]
            if closing[which[0]]:
                self._close(reading, which)
            elif (reading.truth[which] != self._slots.column(self._truth)[emission.rows.slots[which]]).any():
                self._correct(reading, which)
        return reading.crossings

    def _changes(self, reading: _Reading) -> NDArray[np.int64]:
        """The rows at which conditions are other than they were for their pane before."""
        slots = reading.emission.rows.slots[: len(reading.emission)]
        order = np.argsort(slots, kind="stable")
        slots, truth = slots[order], reading.truth[order]
        before = self._slots.column(self._truth)[slots]
        before[1:] = np.where(slots[1:] == slots[:-1], truth[:-1], before[1:])
        return np.sort(order[truth != before])

    def _close(self, reading: _Reading, which: NDArray[np.int64]) -> None:
        rows = reading.emission.rows
        slots, codes = rows.slots[which], rows.codes[which]
        truth = reading.truth[which]
        self._slots.column(self._truth)[slots] = truth
        raised = (truth & _RAISE) != 0
        cleared = np.zeros(len(slots), dtype=np.bool_)
        if self._threshold.clear_when is not None:
            flags = self._keys.flags(self._state)
            up = flags[codes] != 0
            raised, cleared = raised & ~up, ((truth & _CLEAR) != 0) & up
            flags[codes[raised]] = 1
            flags[codes[cleared]] = 0
        self._slots.column(self._crossing)[slots] = raised * np.uint8(_RAISE) + cleared * np.uint8(_CLEAR)
        for offset in np.flatnonzero(raised | cleared).tolist():
            crossing = _RAISE if raised[offset] else _CLEAR
            reading.emit(int(which[offset]), int(slots[offset]), crossing, is_raised=crossing == _RAISE)

    def _correct(self, reading: _Reading, which: NDArray[np.int64]) -> None:
        """Run the machine again from the first window on that an event has corrected, and emit the difference."""
        rows = reading.emission.rows
        slots, code = rows.slots[which], int(rows.codes[which[0]])
        self._slots.column(self._truth)[slots] = reading.truth[which]
        if self._threshold.clear_when is None:
            # Each pane is a raise by itself.
            raised = (reading.truth[which] & _RAISE).tolist()
            crossings, is_raised = dict(zip(slots.tolist(), raised, strict=True)), None
        else:
            crossings, is_raised = self._run(code, int(rows.start_ms[which].min()))
            self._keys.flags(self._state)[code] = is_raised
        column = self._slots.column(self._crossing)
        changed = [(slot, int(column[slot]), new) for slot, new in crossings.items() if column[slot] != new]
        row = int(which[-1])
        for at, old, new in reversed(changed):
            if old:
                state = new == _RAISE if is_raised is None else is_raised
                reading.emit(row, at, _OPPOSITE[old], is_raised=state, takes_back=old)
        for at, _, new in changed:
            column[at] = new
            if new:
                reading.emit(row, at, new, is_raised=new == _RAISE if is_raised is None else is_raised)

    def _run(self, code: int, start: int) -> tuple[dict[int, int], bool]:
        """The crossings that the key's closed panes should have, from `start` on, by row; and the state after them.

        Panes that no emission has shown yet have no crossing to change.
        """
        slots = self._panes.slots_of(code)
        split = int(np.searchsorted(self._slots.start[slots], start))
        is_raised = bool(self._keys.flags(self._before)[code])
        crossed = self._slots.column(self._crossing)[slots[:split]]
        if crossed.any():
            is_raised = crossed[np.flatnonzero(crossed)[-1]] == _RAISE
        crossings: dict[int, int] = {}
        for slot, truth in zip(slots[split:].tolist(), self._slots.column(self._truth)[slots[split:]], strict=True):
            crossing = truth & (_CLEAR if is_raised else _RAISE)
            crossings[slot] = int(crossing)
            is_raised = bool(is_raised) != bool(crossing)
        return crossings, bool(is_raised)

    def truth(self, emission: Emission) -> NDArray[np.uint8]:
        """By row that was emitted, which conditions hold, as bits."""
        n = len(emission)
        columns = {name: FieldColumn(c.values[:n], c.present[:n]) for name, c in emission.measures.items()}
        truth: NDArray[np.uint8] = self._threshold.raise_when.evaluate(columns, n) * np.uint8(_RAISE)
        if self._threshold.clear_when is not None:
            truth |= self._threshold.clear_when.evaluate(columns, n) * np.uint8(_CLEAR)
        # A pane that has ceased to be fulfils nothing.
        truth[emission.rows.tombstone[:n]] = 0
        return truth

    def _id(self, key: Sequence[str], slot: int, crossing: int) -> str:
        """The id of the last event of that kind that was emitted for the pane."""
        ordinal = int(self._slots.column(self._counts[crossing])[slot])
        pipeline, start = self._pipeline, int(self._slots.start[slot])
        return threshold_event_id(
            pipeline.name, pipeline.state_epoch, self._threshold.name, key, start, _KINDS[crossing], ordinal
        )

    def event(
        self, emission: Emission, at: int, *, crossing: int, is_raised: bool, takes_back: int | None
    ) -> partial[ThresholdEvent]:
        """One more event for the pane that row `at` of the emission shows; `takes_back` is the crossing it undoes."""
        rows = emission.rows
        slot = int(rows.slots[at])
        key = self._keys.key(int(rows.codes[at]))
        undone = None if takes_back is None else self._id(key, slot, takes_back)
        counts = self._slots.column(self._counts[crossing])
        counts[slot] += 1
        threshold, aggregate = self._threshold, self._aggregate
        return partial(
            ThresholdEvent,
            id=self._id(key, slot, crossing),
            pipeline=self._pipeline.name,
            state_epoch=self._pipeline.state_epoch,
            rule=threshold.name,
            aggregate=aggregate.name,
            detail_type=threshold.detail_type,
            key=tuple(zip(aggregate.key, key, strict=True)),
            partition_key=self._keys.partition_key(key),
            window_start_ms=int(rows.start_ms[at]),
            window_end_ms=int(rows.end_ms[at]),
            revision=int(rows.revision[at]),
            kind=_KINDS[crossing],
            state="raised" if is_raised else "cleared",
            reason="crossed" if takes_back is None else "corrected",
            takes_back=undone,
            crossing_ordinal=int(counts[slot]),
            measures=tuple(
                (name, column.values[at].item() if column.present[at] else None)
                for name, column in emission.measures.items()
            ),
            raise_when=threshold.raise_when.text,
            clear_when=None if threshold.clear_when is None else threshold.clear_when.text,
        )

    def settle(self, slots: NDArray[np.int64]) -> None:
        """Panes are about to be let go, in window order, each the oldest of its key: keep what they led to."""
        if self._threshold.clear_when is None:
            return
        slots = slots[self._slots.column(self._crossing)[slots] != 0]
        # Of several panes of one key the last one holds.
        self._keys.flags(self._before)[self._slots.code[slots]] = self._slots.column(self._crossing)[slots] == _RAISE


class _Reading:
    """One emission as a rule reads it, and the crossings found so far."""

    def __init__(self, rule: Rule, emission: Emission, panes: Panes) -> None:
        self._rule = rule
        self._panes = panes
        self.emission = emission
        self.truth = rule.truth(emission)
        self.crossings: list[Crossing] = []

    @cached_property
    def _rows_of(self) -> dict[int, list[int]]:
        """By pane row: the rows of the emission that show it, the one from before the batch first."""
        m = len(self.emission)
        rows_of: dict[int, list[int]] = {}
        slots = self.emission.rows.slots.tolist()
        for row in [*range(m, len(slots)), *range(m)]:
            rows_of.setdefault(slots[row], []).append(row)
        return rows_of

    def emit(self, row: int, slot: int, crossing: int, *, is_raised: bool, takes_back: int | None = None) -> None:
        """Note an event for the pane at `slot`, decided by `row` of the emission."""
        emission, at = self.emission, row
        if emission.rows.slots[row] != slot:
            emission, at = self._standing(row, slot)
        event = self._rule.event(emission, at, crossing=crossing, is_raised=is_raised, takes_back=takes_back)
        self.crossings.append(Crossing(row, int(self.emission.steps[row]), event))

    def _standing(self, row: int, slot: int) -> tuple[Emission, int]:
        """How another pane stood when `row` was emitted."""
        m = len(self.emission)
        shown = [at for at in self._rows_of.get(slot, []) if at >= m or at <= row]
        if shown:
            return self.emission, shown[-1]
        rows, nobody = self._panes.standing(np.array([slot], dtype=np.int64)), np.zeros(0, dtype=np.int64)
        return self._panes.shown(rows, nobody, nobody.astype(np.bool_)), 0


def _runs(emission: Emission, picked: NDArray[np.int64], closing: NDArray[np.bool_]) -> list[int]:
    """Where runs of the `picked` rows begin, and the end: rows that close panes of different keys, or one event's.

    What one event changes is one decision; where it also closes windows, each key's is.
    """
    closing, steps, codes = closing[picked], emission.steps[picked], emission.rows.codes[picked]
    m = len(picked)
    other = (steps[1:] != steps[:-1]) | (codes[1:] != codes[:-1])
    changes = (closing[1:] != closing[:-1]) | (~closing[1:] & other)
    edges = {0, m, *(np.flatnonzero(changes) + 1).tolist()}
    # Of each row the one before it of the same key.
    order = np.argsort(codes, kind="stable")
    before = np.full(m, -1, dtype=np.int64)
    again = codes[order[1:]] == codes[order[:-1]]
    before[order[1:][again]] = order[:-1][again]
    first = 0
    for row in np.flatnonzero((before >= 0) & closing).tolist():
        if before[row] >= first:
            edges.add(row)
            first = row
    return sorted(edges)
