"""Quantiles with a bounded relative error: DDSketch (Masson, Rim and Lee 2019, VLDB 12, 12), buckets of counts by pane.

A value falls into the bucket of its leading bits: sign, exponent, and the first 6 bits of the mantissa, so there are 64
buckets between a power of two and the next (the paper's "linear interpolation" of the logarithm). No logarithm is
taken, whose last bit differs from one machine to another. A bucket stands for one value, whose relative error is

    1 / 129 < 0.8 %

at most. Zero has a bucket of its own, which takes the subnormal numbers (below 2.3e-308) too. Counts do not depend on
the order of the values, and merge by addition.

Buckets are bounded: a pane holds 128 pages of 16 neighbours. Where values spread wider (over more than 32 powers of
two, both signs together, if they are dense), those closest to zero count as zero. Which pages are kept depends on all
values together, not on their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import EventBatch, FieldColumn
from streamgauge.processors.core.pages import Pages
from streamgauge.processors.core.slots import SlotColumn, Slots
from streamgauge.processors.core.summaries import pages_merged

__all__ = ["MAX_PAGES", "RELATIVE_ERROR", "Quantiles", "bucket_of", "value_of"]

RELATIVE_ERROR = 1 / 129
"""The largest relative difference of an estimate to the exact quantile."""
MAX_PAGES = 128
"""Pages of a pane, beside that of zero."""

_MANTISSA_BITS = 6
_SUBBUCKETS = 1 << _MANTISSA_BITS
_PAGE_BITS = 4
_PAGE = 1 << _PAGE_BITS
_SHIFT = 52 - _MANTISSA_BITS
_EXPONENT_BIAS = 1023


def bucket_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The buckets of values, in the values' order; 0 is zero's."""
    magnitude = np.abs(values).view(np.int64) >> _SHIFT
    magnitude[magnitude < _SUBBUCKETS] = 0
    return np.where(values < 0, -magnitude, magnitude)


def value_of(buckets: NDArray[np.int64]) -> NDArray[np.float64]:
    """What a bucket [a, b) stands for: 2ab / (a + b), from which both ends have the same relative distance."""
    magnitude = np.abs(buckets)
    step = magnitude & (_SUBBUCKETS - 1)
    mantissa = 2.0 * (_SUBBUCKETS + step) * (_SUBBUCKETS + 1 + step) / (_SUBBUCKETS * (2 * _SUBBUCKETS + 1 + 2 * step))
    value = np.ldexp(mantissa, (magnitude >> _MANTISSA_BITS) - _EXPONENT_BIAS)
    return np.where(buckets == 0, 0.0, np.where(buckets < 0, -value, value))


class Quantiles:
    """Quantiles of a field: the value of rank ceil(q * n) of n, as SQL's ``percentile_disc`` has it.

    Memory per pane: 192 bytes for each page that it touched. Values that differ by a factor of 1,000 at most touch 40
    pages (8 KB); the bound is 25 KB.

    Parameters
    ----------
    field
        A field of numbers.
    wanted
        The quantiles as they are written, such as ``0.99``: between 0 and 1.
    slots
        The pane rows.
    """

    def __init__(self, field: str, wanted: Sequence[str], slots: Slots) -> None:
        self.field = field
        self._name = f"quantile({field})"
        self._bucket = f"bucket({field})"
        self._wanted = {f"quantile({field}, {text})": Fraction(text) for text in wanted}
        self._pages = Pages(_PAGE, np.int64)
        slots.on_free(self._pages.clear)

    @property
    def columns(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def pages(self) -> Mapping[str, Pages]:
        """The counts."""
        return {self._name: self._pages}

    def prepare(self, batch: EventBatch) -> dict[str, FieldColumn]:
        """The values' buckets."""
        column = batch.fields[self.field]
        assert isinstance(column.values, np.ndarray), "only numbers are measured"
        return {self._bucket: FieldColumn(bucket_of(column.values.astype(np.float64)), column.present)}

    def add(self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]) -> None:
        """Add values, in any order."""
        column = fields[self._bucket].values
        assert isinstance(column, np.ndarray), "buckets are an array"
        buckets = column[rows].astype(np.int64, copy=False)
        pages = self._pages.find_or_create(slots, buckets >> _PAGE_BITS)
        np.add.at(self._pages.flat, (pages << _PAGE_BITS) + (buckets & (_PAGE - 1)), 1)
        self._bound(slots)

    def _bound(self, slots: NDArray[np.int64]) -> None:
        # Zero's page does not count; to look for it is left to the few panes that are this full.
        full = slots[self._pages.held(slots) > MAX_PAGES]
        if not len(full):
            return
        full = np.unique(full)
        held = self._pages.of(full)
        numbers = self._pages.numbers(held.pages)
        # From zero outwards; of two pages at one distance the negative one reaches further.
        distance = np.where(numbers < 0, -2 * numbers + 1, 2 * numbers)
        order = np.lexsort((-distance, held.owners))
        begins = np.flatnonzero(np.diff(held.owners[order], prepend=np.int64(-1)))
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
        kept = (rank < MAX_PAGES) | (numbers == 0)
        if kept.all():
            return
        lost, owners = held.pages[~kept], full[held.owners[~kept]]
        counts = self._pages.cells(lost).sum(axis=1)
        self._pages.keep(full, held, kept)
        zero = self._pages.find_or_create(owners, np.zeros(len(owners), dtype=np.int64))
        np.add.at(self._pages.flat, zero << _PAGE_BITS, counts)

    def results(self, slots: NDArray[np.int64]) -> dict[str, SlotColumn]:
        """The estimates; NaN where there is no value."""
        held = self._pages.of(slots)
        cells = self._pages.cells(held.pages).astype(np.int64, copy=False)
        numbers = self._pages.numbers(held.pages)
        counted = np.cumsum(cells.sum(axis=1))
        last = np.searchsorted(held.owners, np.arange(len(slots)), side="right")
        total_to = np.concatenate([np.zeros(1, dtype=np.int64), counted])
        before = total_to[np.searchsorted(held.owners, np.arange(len(slots)), side="left")]
        total = total_to[last] - before
        some = np.flatnonzero(total)
        found: dict[str, SlotColumn] = {}
        for name, quantile in self._wanted.items():
            rank = np.maximum(-(-quantile.numerator * total[some] // quantile.denominator), 1)
            page = np.searchsorted(counted, before[some] + rank, side="left")
            inside = before[some] + rank - total_to[page]
            place = (np.cumsum(cells[page], axis=1) >= inside[:, np.newaxis]).argmax(axis=1)
            estimates = np.full(len(slots), np.nan)
            estimates[some] = value_of((numbers[page] << _PAGE_BITS) + place)
            found[name] = estimates
        return found

    def merge(self, into: NDArray[np.int64], other: Self, source: NDArray[np.int64]) -> None:
        """The sums of the counts."""
        places, cells = pages_merged(self._pages, into, other._pages, source)
        np.add.at(self._pages.flat, places, cells)
        self._bound(into)
