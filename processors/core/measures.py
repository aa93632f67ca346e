"""Measures of an aggregate over its panes: accumulators that events are added to in stream order.

Measures of a field share what they accumulate: the number of values, sum, min and max (`tallies`), and the summaries
of those that need more (`moments`, `ends`, `distinct`, `quantiles`). A mean is a sum and a number of values.

A pane's measure is null where it has no value: no event's field was there, a variance of one value, a result that is no
finite number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import EventBatch, FieldColumn
from streamgauge.processors.core.container import Column, Columns
from streamgauge.processors.core.definition import Measure
from streamgauge.processors.core.distinct import Distinct
from streamgauge.processors.core.effects import MeasureColumn
from streamgauge.processors.core.ends import Ends
from streamgauge.processors.core.moments import Moments
from streamgauge.processors.core.quantiles import Quantiles
from streamgauge.processors.core.slots import SlotColumn, Slots
from streamgauge.processors.core.summaries import Summary, in_rounds, page_columns, restore_pages
from streamgauge.processors.core.tallies import EVENTS, Tallies

__all__ = ["EVENTS", "Accumulators"]


class Accumulators:
    """The measures of one aggregate over its pane rows.

    Parameters
    ----------
    measures
        As the aggregate defines them.
    slots
        The pane rows; the accumulators become columns of it, or stand beside it and go when its rows go.
    """

    def __init__(self, measures: Sequence[Measure], slots: Slots) -> None:
        self._measures = tuple(measures)
        self._slots = slots
        self._tallies = Tallies(measures, slots)
        self._summaries = _summaries(measures, slots)

    @property
    def names(self) -> list[str]:
        """The columns of the pane rows that hold the accumulators."""
        return [*self._tallies.names, *(name for summary in self._summaries for name in summary.columns)]

    def prepare(self, batch: EventBatch) -> Mapping[str, FieldColumn]:
        """The fields of a decoded batch, and what else `add` and `correct` need of it: they take its result."""
        fields = dict(batch.fields)
        for summary in self._summaries:
            fields |= summary.prepare(batch)
        return fields

    def reserve(self, fields: Mapping[str, FieldColumn], rows: NDArray[np.int64], *, combined: bool = False) -> bool:
        """Whether the events at `rows` can be added for certain without a sum of integers leaving 64 bits.

        With `combined` neither can any merge of panes after that.
        """
        return self._tallies.reserve(fields, rows, combined=combined)

    def cover(self, other: Accumulators) -> None:
        """Let the bounds of `reserve` hold for panes made of the rows of `other`, too."""
        self._tallies.cover(other._tallies)

    def measure_peaks(self) -> None:
        """Have `reserve` look at the pane rows anew, as after a restore."""
        self._tallies.measure_peaks()

    def overflows(self, fields: Mapping[str, FieldColumn], row: int, slots: Sequence[int]) -> str | None:
        """The field whose sum of integers would leave 64 bits if `slots` were merged and the event at `row` added.

        Row 0 stands for a pane to be made.
        """
        return self._tallies.overflows(fields, row, slots)

    def add(self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]) -> None:
        """Add the events at `rows`, in this order, to the panes at `slots` (same length, repeats allowed)."""
        self._tallies.add(slots, fields, rows)
        for summary in self._summaries:
            present = fields[summary.field].present[rows]
            if present.all():
                summary.add(slots, fields, rows)
            else:
                summary.add(slots[present], fields, rows[present])

    def correct(
        self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]
    ) -> dict[str, SlotColumn]:
        """As `add`, and returns what `gather` would give for each event's pane right after the event."""
        after = self._tallies.correct(slots, fields, rows)
        # One without an event gives the columns their names where there are none at all.
        rounds = [slots[:0], *in_rounds(slots)]
        for summary in self._summaries:
            present = fields[summary.field].present[rows]
            parts: list[dict[str, SlotColumn]] = []
            for picked in rounds:
                there = picked[present[picked]]
                summary.add(slots[there], fields, rows[there])
                parts.append(summary.results(slots[picked]))
            order = np.argsort(np.concatenate(rounds))
            after |= {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
        return after

    def running(
        self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]
    ) -> dict[str, SlotColumn]:
        """As `correct`, on whole columns, where all measures have running values (`Measure.has_running_values`)."""
        assert not self._summaries, "the parser refuses them"
        return self._tallies.running(slots, fields, rows)

    def gather(self, slots: NDArray[np.int64]) -> dict[str, SlotColumn]:
        """What the measures of the panes at `slots` are made from, by name; row 0 gives those of an empty pane."""
        gathered = {name: self._slots.column(name)[slots] for name in self._tallies.names}
        for summary in self._summaries:
            gathered |= summary.results(slots)
        return gathered

    def merge(self, into: NDArray[np.int64], other: Accumulators, source: NDArray[np.int64]) -> None:
        """Add `other`'s pane `source[i]`, which stays as it is, to the pane `into[i]`.

        `other` has the same measures, and may be this one itself; `into` are distinct, and none is in `source`. An
        empty pane changes nothing, on neither side. Floats depend on the order of merges in their last bits.
        """
        self._tallies.merge(into, other._tallies, source)
        for summary, others in zip(self._summaries, other._summaries, strict=True):
            summary.merge(into, others, source)

    def measures(self, gathered: Mapping[str, SlotColumn]) -> dict[str, MeasureColumn]:
        """The measures by name, from what `gather` and `correct` give."""
        return {measure.name: _measure(measure, gathered) for measure in self._measures}

    def columns(self, slots: NDArray[np.int64]) -> dict[str, Column]:
        """What a snapshot must hold beside the pane rows, which it has in the order of `slots`."""
        columns: dict[str, Column] = {}
        for summary in self._summaries:
            for name, pages in summary.pages.items():
                columns |= page_columns(name, pages, slots)
        return columns

    def restore(self, columns: Columns, slots: NDArray[np.int64]) -> None:
        """Take over what `columns` gave, the panes now standing at `slots`.

        Raises
        ------
        SnapshotError
            A column is missing, or they do not fit each other.
        """
        for summary in self._summaries:
            for name, pages in summary.pages.items():
                restore_pages(name, pages, columns, slots)
        self.measure_peaks()


def _summaries(measures: Sequence[Measure], slots: Slots) -> list[Summary]:
    """One for all measures that share it."""
    summaries: dict[tuple[str, str], Summary] = {}
    quantiles: dict[str, list[str]] = {}
    for measure in measures:
        if measure.kind == "quantile" and measure.field is not None and measure.parameter is not None:
            quantiles.setdefault(measure.field, []).append(measure.parameter)
    for measure in measures:
        field, kind = measure.field, measure.kind
        # A standard deviation is the root of a variance.
        name = "variance" if kind == "stddev" else kind
        if field is None or (name, field) in summaries:
            continue
        match kind:
            case "variance" | "stddev":
                summaries[name, field] = Moments(field, slots)
            case "first" | "last":
                summaries[name, field] = Ends(kind, field, slots, is_integer=measure.is_integer)
            case "approx_distinct":
                summaries[name, field] = Distinct(field, slots)
            case "quantile":
                summaries[name, field] = Quantiles(field, quantiles[field], slots)
            case _:
                pass
    return list(summaries.values())


def _measure(measure: Measure, gathered: Mapping[str, SlotColumn]) -> MeasureColumn:
    field, kind = measure.field, measure.kind
    if field is None or kind in {"count", "approx_distinct"}:
        number = gathered[EVENTS if field is None else measure.call].astype(np.int64)
        return MeasureColumn(number, np.ones(len(number), dtype=np.bool_))
    count = gathered[f"count({field})"]
    present = count > 0
    if measure.is_integer:
        return MeasureColumn(np.where(present, gathered[measure.call], 0).astype(np.int64), present)
    with np.errstate(invalid="ignore"):
        if kind == "mean":
            values = gathered[f"sum({field})"] / np.maximum(count, 1)
        elif kind == "stddev":
            values = np.sqrt(gathered[f"variance({field})"])
        else:
            values = gathered[measure.call].astype(np.float64)
    present &= np.isfinite(values)
    return MeasureColumn(np.where(present, values, 0.0), present)
