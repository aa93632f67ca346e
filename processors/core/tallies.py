"""Number of values, sum, min and max of fields: accumulators of one number per pane, shared by the measures of a field.

Floats are added one by one in stream order into the pane itself (never batch sums to each other), so a result does not
depend on how the stream was cut. Sums of integers are exact: `Tallies.reserve` and `Tallies.overflows` tell of an event
that would take one out of 64 bits before anything is added.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.definition import Measure
from streamgauge.processors.core.slots import SlotColumn, Slots

__all__ = ["EVENTS", "Tallies"]

EVENTS = "events"
"""The accumulator that every pane has: the number of events applied."""

_INT64 = np.iinfo(np.int64)
_UNKNOWN = int(_INT64.max)
_Operation = Literal["count", "sum", "min", "max"]
_UFUNCS: dict[_Operation, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum}
# What a measure needs besides the number of values.
_NEEDED: dict[str, _Operation] = {"sum": "sum", "mean": "sum", "min": "min", "max": "max"}


class _Accumulator(NamedTuple):
    name: str
    operation: _Operation
    field: str
    is_integer: bool


class Tallies:
    """The accumulators of some measures, as columns of the pane rows: 8 bytes each.

    Parameters
    ----------
    measures
        As the aggregate defines them.
    slots
        The pane rows.
    """

    def __init__(self, measures: Sequence[Measure], slots: Slots) -> None:
        self._slots = slots
        self._accumulators = _accumulators(measures)
        # By sum of integers, what the sums of the panes do not exceed.
        self._peaks = {a.name: 0 for a in self._accumulators if a.operation == "sum" and a.is_integer}
        slots.define(EVENTS, np.int64)
        for accumulator in self._accumulators:
            dtype = np.int64 if accumulator.is_integer else np.float64
            slots.define(accumulator.name, dtype, _start_value(accumulator))

    @property
    def names(self) -> list[str]:
        """The columns that hold the accumulators."""
        return [EVENTS, *(accumulator.name for accumulator in self._accumulators)]

    def reserve(self, fields: Mapping[str, FieldColumn], rows: NDArray[np.int64], *, combined: bool) -> bool:
        """Whether the events at `rows` can be added for certain without a sum of integers leaving 64 bits.

        An upper bound is kept per sum, so this costs a minimum and a maximum per batch. With `combined` it bounds the
        sums of any panes together, so that they can be merged, too.
        """
        bounds: dict[str, int] = {}
        for accumulator in self._accumulators:
            if accumulator.name not in self._peaks:
                continue
            values = _values(fields[accumulator.field])[rows]
            largest = max(abs(int(values.max())), abs(int(values.min()))) if len(values) else 0
            added = largest * len(rows)
            if self._peaks[accumulator.name] + added > _INT64.max:
                self._peaks[accumulator.name] = self._highest(accumulator.name, combined=combined)
            bounds[accumulator.name] = self._peaks[accumulator.name] + added
        # Where the answer is no, events are added one by one, and those that do not fit are left out.
        self._peaks.update({name: min(bound, _UNKNOWN) for name, bound in bounds.items()})
        return all(bound <= _INT64.max for bound in bounds.values())

    def measure_peaks(self) -> None:
        """Take the bounds of `reserve` from the pane rows when it is next called, as after a restore."""
        self._peaks = dict.fromkeys(self._peaks, _UNKNOWN)

    def cover(self, other: Tallies) -> None:
        """Let the bounds of `reserve` hold for panes made of the rows of `other`, too."""
        self._peaks = {name: max(peak, other._peaks[name]) for name, peak in self._peaks.items()}

    def _highest(self, name: str, *, combined: bool) -> int:
        sums = self._slots.column(name)[self._slots.used()]
        if combined:
            # Floats may be one part in 2**53 too low for each addition.
            return int(np.abs(sums.astype(np.float64)).sum() * (1 + 1e-9)) + 1 if sums.any() else 0
        return max(abs(int(sums.max())), abs(int(sums.min()))) if len(sums) else 0

    def overflows(self, fields: Mapping[str, FieldColumn], row: int, slots: Sequence[int]) -> str | None:
        """The field whose sum of integers would leave 64 bits if `slots` were merged and the event at `row` added.

        Row 0 stands for a pane to be made.
        """
        for accumulator in self._accumulators:
            if accumulator.name in self._peaks:
                held = self._slots.column(accumulator.name)[list(slots)].tolist()
                total = sum(held) + int(_values(fields[accumulator.field])[row])
                if not _INT64.min <= total <= _INT64.max:
                    return accumulator.field
        return None

    def add(self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]) -> None:
        """Add the events at `rows`, in this order, to the panes at `slots` (same length, repeats allowed)."""
        np.add.at(self._slots.column(EVENTS), slots, 1)
        for field, accumulators in itertools.groupby(self._accumulators, key=lambda a: a.field):
            column = fields[field]
            present = column.present[rows]
            whole = bool(present.all())
            where = slots if whole else slots[present]
            for accumulator in accumulators:
                target = self._slots.column(accumulator.name)
                if accumulator.operation == "count":
                    np.add.at(target, where, 1)
                    continue
                values = _cast(_values(column)[rows], accumulator)
                # A float sum past the largest float is infinite, as IEEE 754 has it.
                with np.errstate(over="ignore", invalid="ignore"):
                    _UFUNCS[accumulator.operation].at(target, where, values if whole else values[present])

    def correct(
        self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]
    ) -> dict[str, SlotColumn]:
        """As `add`, and returns every accumulator of each event's pane as it stood right after the event."""
        distinct, inverse = np.unique(slots, return_inverse=True)
        places: list[int] = inverse.tolist()
        after = {
            EVENTS: self._scan(EVENTS, distinct, _counted(self._state(EVENTS, distinct), places, [True] * len(places)))
        }
        for accumulator in self._accumulators:
            column = fields[accumulator.field]
            present: list[bool] = column.present[rows].tolist()
            state = self._state(accumulator.name, distinct)
            if accumulator.operation == "count":
                steps = _counted(state, places, present)
            else:
                values: list[float] = _cast(_values(column)[rows], accumulator).tolist()
                steps = _scanned(accumulator.operation, state, places, values, present)
            after[accumulator.name] = self._scan(accumulator.name, distinct, steps)
        return after

    def running(
        self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]
    ) -> dict[str, SlotColumn]:
        """As `correct`, on whole columns; not for sums of floats, which must be added up one by one."""
        order = np.argsort(slots, kind="stable")
        slots, rows = slots[order], rows[order]
        places = _Segments(slots)
        ones = np.ones(len(slots), dtype=np.int64)
        after: dict[str, SlotColumn] = {EVENTS: places.sums(self._slots.column(EVENTS), ones)}
        for accumulator in self._accumulators:
            target, column = self._slots.column(accumulator.name), fields[accumulator.field]
            present = column.present[rows]
            if accumulator.operation == "count":
                after[accumulator.name] = places.sums(target, present.astype(np.int64))
                continue
            values = _cast(_values(column)[rows], accumulator)
            if accumulator.operation == "sum":
                assert accumulator.is_integer, "the parser refuses sums of floats"
                after[accumulator.name] = places.sums(target, np.where(present, values, 0))
                continue
            nothing = np.full(len(values), _start_value(accumulator), dtype=target.dtype)
            values = np.where(present, values, nothing)
            after[accumulator.name] = places.extremes(target, values, highest=accumulator.operation == "max")
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return {name: column[back] for name, column in after.items()}

    def _state(self, name: str, distinct: NDArray[np.int64]) -> list[float]:
        state: list[float] = self._slots.column(name)[distinct].tolist()
        return state

    def _scan(self, name: str, distinct: NDArray[np.int64], steps: tuple[list[float], list[float]]) -> SlotColumn:
        column = self._slots.column(name)
        state, after = steps
        column[distinct] = state
        return np.array(after, dtype=np.int64) if column.dtype == np.int64 else np.array(after, dtype=np.float64)

    def merge(self, into: NDArray[np.int64], other: Tallies, source: NDArray[np.int64]) -> None:
        """Add `other`'s pane `source[i]` to the pane `into[i]`; `into` are distinct. An empty pane changes nothing.

        That sums of integers stay within 64 bits is for the caller to know.
        """
        operations = {EVENTS: np.add} | {a.name: _UFUNCS.get(a.operation, np.add) for a in self._accumulators}
        for name, operation in operations.items():
            target, added = self._slots.column(name), other._slots.column(name)[source]
            with np.errstate(over="ignore", invalid="ignore"):
                target[into] = operation(target[into], added)


class _Segments:
    """Runs of equal slots, and what a column of theirs is after each event; the column is left as the last ones are."""

    def __init__(self, slots: NDArray[np.int64]) -> None:
        self._begins = np.flatnonzero(np.diff(slots, prepend=-1))
        self._ends = np.append(self._begins[1:], len(slots)) - 1
        self._of = np.repeat(np.arange(len(self._begins)), self._ends - self._begins + 1)
        self._slots = slots[self._begins]

    def sums(self, target: SlotColumn, values: NDArray[np.int64]) -> NDArray[np.int64]:
        # What the differences of the running sums are does not depend on whether those wrap.
        total = np.cumsum(values)
        before = total[self._begins] - values[self._begins]
        after: NDArray[np.int64] = target[self._slots].astype(np.int64)[self._of] + total - before[self._of]
        target[self._slots] = after[self._ends]
        return after

    def extremes(self, target: SlotColumn, values: SlotColumn, *, highest: bool) -> SlotColumn:
        held = target[self._slots]
        values[self._begins] = (np.maximum if highest else np.minimum)(values[self._begins], held)
        # By rank within the run: ranks of a later run are above those of all earlier ones.
        order = np.lexsort((values, self._of))
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        turned = rank if highest else (self._begins + self._ends)[self._of] - rank
        reached = np.maximum.accumulate(turned)
        after = values[order[reached if highest else (self._begins + self._ends)[self._of] - reached]]
        target[self._slots] = after[self._ends]
        return after


def _accumulators(measures: Iterable[Measure]) -> list[_Accumulator]:
    whole: dict[str, bool] = {}
    operations: dict[str, set[_Operation]] = {}
    for measure in measures:
        if measure.field is None:
            continue
        # A count and a mean say nothing about the field's kind.
        is_whole = measure.is_integer and measure.kind in _UFUNCS
        whole[measure.field] = whole.get(measure.field, False) or is_whole
        operations.setdefault(measure.field, {"count"}).add(_NEEDED.get(measure.kind, "count"))
    return [
        _Accumulator(f"{operation}({field})", operation, field, operation == "count" or whole[field])
        for field, wanted in operations.items()
        for operation in ("count", *_UFUNCS)
        if operation in wanted
    ]


def _start_value(accumulator: _Accumulator) -> float:
    if accumulator.operation == "min":
        return int(_INT64.max) if accumulator.is_integer else float("inf")
    if accumulator.operation == "max":
        return int(_INT64.min) if accumulator.is_integer else float("-inf")
    return 0


def _values(column: FieldColumn) -> NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_]:
    assert isinstance(column.values, np.ndarray), "only numbers are measured"
    return column.values


def _cast(
    values: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_], accumulator: _Accumulator
) -> NDArray[np.int64] | NDArray[np.float64]:
    if accumulator.is_integer:
        return values.astype(np.int64, copy=False)
    # Adding 0.0 turns -0.0 into 0.0: which of the two a min or max kept would be numpy's choice.
    return values + np.float64(0.0)


def _counted(state: list[float], places: list[int], present: list[bool]) -> tuple[list[float], list[float]]:
    after: list[float] = []
    for place, counts in zip(places, present, strict=True):
        state[place] += counts
        after.append(state[place])
    return state, after


def _scanned(
    operation: _Operation, state: list[float], places: list[int], values: list[float], present: list[bool]
) -> tuple[list[float], list[float]]:
    # Python's integers and floats compute exactly as int64 (no sum overflows here) and float64 do.
    after: list[float] = []
    for place, value, is_there in zip(places, values, present, strict=True):
        if is_there:
            before = state[place]
            if operation == "sum":
                state[place] = before + value
            elif (value < before) if operation == "min" else (value > before):
                state[place] = value
        after.append(state[place])
    return state, after
