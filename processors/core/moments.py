"""Variance as columns: numerically stable, mergeable, and the same bytes however the stream was cut.

Everything is kept as a difference to the first value, so that a large mean costs no digits. Values are taken in blocks.
A block sums the differences to the mean of all before it, and their squares, one by one in stream order; when it has as
many values as came before it, it is folded into the mean and the sum of squared deviations (Chan, Golub and LeVeque
1983, "Algorithms for Computing the Sample Variance", equation 1.5). Where a block ends depends on the number of values
alone, so a batch is added with few numpy calls, and its cut leaves no trace. As a block is never longer than what is
before it, a block far from the old mean adds as much to the result as its differences lose.

The relative error against the exact variance of the values does not depend on their mean, and grows like the rounding
errors of a sum: below 1e-13 for a million values, below n * 2**-52 * n**0.5 in the worst case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import EventBatch, FieldColumn
from streamgauge.processors.core.pages import Pages
from streamgauge.processors.core.slots import SlotColumn, Slots

__all__ = ["Moments"]


class _Moments(NamedTuple):
    """Number of values, their mean less the first value, and the sum of their squared deviations from the mean."""

    n: NDArray[np.int64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]


class Moments:
    """The sample variance of a field: 56 bytes per pane.

    The result is the sum of squared deviations divided by n - 1, as SQL's ``variance`` and ``var_samp`` have it; one
    value has none. It is no finite number where squares leave float64.
    """

    def __init__(self, field: str, slots: Slots) -> None:
        self.field = field
        self._slots = slots
        name = f"variance({field})"
        self._result, self._numbers = name, f"number({field})"
        # Values in folded blocks and in the running one; the first value; the folded ones' mean, relative to it, and
        # squared deviations; the running block's sums of differences to that mean and of their squares.
        self._folded, self._running = f"{name}.folded", f"{name}.running"
        self._first, self._mean, self._squares = f"{name}.first", f"{name}.mean", f"{name}.squares"
        self._sum, self._sum_squares = f"{name}.block_sum", f"{name}.block_squares"
        slots.define(self._folded, np.int64)
        slots.define(self._running, np.int64)
        for column in (self._first, self._mean, self._squares, self._sum, self._sum_squares):
            slots.define(column, np.float64)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the pane rows that it needs to be restored."""
        floats = (self._first, self._mean, self._squares, self._sum, self._sum_squares)
        return (self._folded, self._running, *floats)

    @property
    def pages(self) -> Mapping[str, Pages]:
        """None."""
        return {}

    def prepare(self, batch: EventBatch) -> dict[str, FieldColumn]:
        """The values as floats."""
        column = batch.fields[self.field]
        assert isinstance(column.values, np.ndarray), "only numbers are measured"
        return {self._numbers: FieldColumn(column.values.astype(np.float64, copy=False), column.present)}

    def add(self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]) -> None:
        """Add values in stream order."""
        numbers = fields[self._numbers].values
        assert isinstance(numbers, np.ndarray), "numbers are an array"
        values = numbers[rows].astype(np.float64, copy=False)
        running = self._slots.column(self._running)
        np.add.at(running, slots, 1)
        beyond = running[slots] > self._capacity(slots)
        with np.errstate(over="ignore", invalid="ignore"):
            if beyond.any():
                crowded = slots[beyond]
                np.subtract.at(running, crowded, 1)
                self._fill_blocks(crowded, values[beyond])
                slots, values = slots[~beyond], values[~beyond]
            self._sum_up(slots, values)
            self._fold(slots)

    def _capacity(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """The length of the running block."""
        length: NDArray[np.int64] = np.maximum(self._slots.column(self._folded)[slots], 1)
        return length

    def _fill_blocks(self, slots: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Add more values than the running blocks take: a round for each block that ends, so few."""
        running = self._slots.column(self._running)
        order = np.argsort(slots, kind="stable")
        slots, values = slots[order], values[order]
        while len(slots):
            begins = np.flatnonzero(np.diff(slots, prepend=np.int64(-1)))
            rank = np.arange(len(slots)) - np.repeat(begins, np.diff(begins, append=len(slots)))
            fits = rank < self._capacity(slots) - running[slots]
            np.add.at(running, slots[fits], 1)
            self._sum_up(slots[fits], values[fits])
            self._fold(slots[fits])
            slots, values = slots[~fits], values[~fits]

    def _sum_up(self, slots: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        is_first = self._slots.column(self._folded)[slots] == 0
        if is_first.any():
            self._slots.column(self._first)[slots[is_first]] = values[is_first]
        differences = (values - self._slots.column(self._first)[slots]) - self._slots.column(self._mean)[slots]
        np.add.at(self._slots.column(self._sum), slots, differences)
        np.add.at(self._slots.column(self._sum_squares), slots, differences * differences)

    def _fold(self, slots: NDArray[np.int64]) -> None:
        full = slots[self._slots.column(self._running)[slots] >= self._capacity(slots)]
        if len(full):
            full = np.unique(full)
            self._set(full, self._all(full))

    def _set(self, slots: NDArray[np.int64], moments: _Moments) -> None:
        column = self._slots.column
        column(self._folded)[slots] = moments.n
        column(self._mean)[slots], column(self._squares)[slots] = moments.mean, moments.squares
        column(self._running)[slots] = 0
        column(self._sum)[slots], column(self._sum_squares)[slots] = 0.0, 0.0

    def _all(self, slots: NDArray[np.int64]) -> _Moments:
        """The moments of folded and running blocks together."""
        column = self._slots.column
        running = column(self._running)[slots].astype(np.int64)
        total, of_squares = column(self._sum)[slots].astype(np.float64), column(self._sum_squares)[slots]
        offset = total / np.maximum(running, 1)
        inside = np.maximum(of_squares - total * offset, 0.0)
        mean = column(self._mean)[slots].astype(np.float64)
        folded = _Moments(
            column(self._folded)[slots].astype(np.int64), mean, column(self._squares)[slots].astype(np.float64)
        )
        return _joined(folded, _Moments(running, mean + offset, inside), offset)

    def results(self, slots: NDArray[np.int64]) -> dict[str, SlotColumn]:
        """The variance; NaN where there are fewer than two values."""
        with np.errstate(over="ignore", invalid="ignore"):
            moments = self._all(slots)
            variance = moments.squares / np.maximum(moments.n - 1, 1)
        return {self._result: np.where(moments.n > 1, variance, np.nan)}

    def merge(self, into: NDArray[np.int64], other: Self, source: NDArray[np.int64]) -> None:
        """What is merged counts as folded; an empty pane on either side leaves the other as it is."""
        with np.errstate(over="ignore", invalid="ignore"):
            left, right = self._all(into), other._all(source)
            both = (left.n > 0) & (right.n > 0)
            left, right = _at(left, both), _at(right, both)
            apart = other._slots.column(self._first)[source[both]] - self._slots.column(self._first)[into[both]]
            self._set(into[both], _joined(left, right, apart + (right.mean - left.mean)))
        fresh = (self._slots.column(self._folded)[into] == 0) & ~both
        for name in self.columns:
            self._slots.column(name)[into[fresh]] = other._slots.column(name)[source[fresh]]


def _at(moments: _Moments, which: NDArray[np.bool_]) -> _Moments:
    return _Moments(moments.n[which], moments.mean[which], moments.squares[which])


def _joined(left: _Moments, right: _Moments, difference: NDArray[np.float64]) -> _Moments:
    n = left.n + right.n
    share = right.n / np.maximum(n, 1)
    squares = left.squares + right.squares + difference * difference * (left.n * share)
    return _Moments(n, left.mean + difference * share, squares)
