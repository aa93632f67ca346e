"""How many distinct values a pane saw, about: HyperLogLog (Flajolet, Fusy, Gandouet and Meunier 2007).

4,096 registers of a byte, held as pages of 64, so a pane that saw few values holds few. A register keeps the highest
rank of the hashes that fall to it, which depends on no order, is the same for a value seen again, and merges by
maximum.

The estimate is Ertl's improved one (2017, arXiv:1702.01284, algorithm 6), which needs neither tables of corrections
nor a switch between ranges. It is computed from how often each rank occurs, in integers, so that it depends on the
registers alone.

Standard error 1.04 / 4096**0.5 = 1.6 %: of 20 estimates 19 lie within 3.3 %, and below a few hundred values most are
exact to one or two.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import EventBatch, FieldColumn
from streamgauge.processors.core.hashes import hashes
from streamgauge.processors.core.pages import Pages
from streamgauge.processors.core.slots import SlotColumn, Slots
from streamgauge.processors.core.summaries import pages_merged

__all__ = ["REGISTERS", "STANDARD_ERROR", "Distinct"]

_INDEX_BITS = 12
REGISTERS = 1 << _INDEX_BITS
"""Registers of a pane, of one byte each."""
STANDARD_ERROR = 1.04 / REGISTERS**0.5
"""Relative, of many distinct values."""

_PAGE = 64
_PAGE_BITS = 6
_RANK_BITS = 64 - _INDEX_BITS
_RANKS = _RANK_BITS + 2
# Panes whose ranks are counted at once: it bounds the counts' memory.
_CHUNK = 8_192


class Distinct:
    """The approximate number of distinct values of a field that are not null.

    Memory per pane: 128 bytes for each of the 64 pages that it touched; so up to 128 bytes per distinct value while
    there are few, and 8 KB at most.
    """

    def __init__(self, field: str, slots: Slots) -> None:
        self.field = field
        self._result = f"approx_distinct({field})"
        self._hash = f"hash({field})"
        self._pages = Pages(_PAGE, np.uint8)
        slots.on_free(self._pages.clear)

    @property
    def columns(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def pages(self) -> Mapping[str, Pages]:
        """The registers."""
        return {self._result: self._pages}

    def prepare(self, batch: EventBatch) -> dict[str, FieldColumn]:
        """The values' hashes."""
        column = batch.fields[self.field]
        return {self._hash: FieldColumn(hashes(column).view(np.int64), column.present)}

    def add(self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]) -> None:
        """Add values, in any order."""
        column = fields[self._hash].values
        assert isinstance(column, np.ndarray), "hashes are an array"
        hashed = column[rows].view(np.uint64)
        register = (hashed >> np.uint64(_RANK_BITS)).astype(np.int64)
        rest = (hashed & np.uint64((1 << _RANK_BITS) - 1)).astype(np.float64)
        # The exponent of an exact float is the number of bits.
        rank = (_RANK_BITS + 1 - np.frexp(rest)[1]).astype(np.uint8)
        pages = self._pages.find_or_create(slots, register >> _PAGE_BITS)
        np.maximum.at(self._pages.flat, (pages << _PAGE_BITS) + (register & (_PAGE - 1)), rank)

    def results(self, slots: NDArray[np.int64]) -> dict[str, SlotColumn]:
        """The estimates, rounded to integers; 0 where there is no value."""
        parts = [self._estimates(slots[first : first + _CHUNK]) for first in range(0, len(slots), _CHUNK)]
        return {self._result: np.concatenate([np.zeros(0, dtype=np.int64), *parts])}

    def _estimates(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        held = self._pages.of(slots)
        places = held.owners[:, np.newaxis] * _RANKS + self._pages.cells(held.pages)
        counts = np.bincount(places.reshape(-1), minlength=len(slots) * _RANKS).reshape(len(slots), _RANKS)
        # Registers of pages that are not there are zero.
        counts[:, 0] += REGISTERS - _PAGE * np.bincount(held.owners, minlength=len(slots))
        sigma, tau = _corrections()
        z = REGISTERS * tau[counts[:, -1]]
        # Ranks that no register has, above all that any has, leave z as it is: zero.
        highest = int(np.flatnonzero(counts.any(axis=0))[-1]) if len(slots) else 0
        for rank in range(min(highest, _RANK_BITS), 0, -1):
            z = 0.5 * (z + counts[:, rank])
        z += REGISTERS * sigma[counts[:, 0]]
        # Infinite where all registers are zero: nothing was seen.
        rounded: NDArray[np.int64] = np.rint(REGISTERS * REGISTERS / (2 * np.log(2.0)) / z).astype(np.int64)
        return rounded

    def merge(self, into: NDArray[np.int64], other: Self, source: NDArray[np.int64]) -> None:
        """The higher of each register."""
        places, cells = pages_merged(self._pages, into, other._pages, source)
        np.maximum.at(self._pages.flat, places, cells)


@cache
def _corrections() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ertl's sigma of the share of zero registers and tau of the share of full ones, by their number."""
    zeros = np.arange(REGISTERS + 1)
    with np.errstate(over="ignore"):
        return np.array([_sigma(n / REGISTERS) for n in zeros]), np.array([_tau(1 - n / REGISTERS) for n in zeros])


def _sigma(x: float) -> float:
    if x == 1.0:
        return float("inf")
    y, z, before = 1.0, x, -1.0
    while z != before:
        x, before = x * x, z
        z, y = z + x * y, y + y
    return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, before = 1.0, 1.0 - x, -1.0
    while z != before:
        x, before = x**0.5, z
        y *= 0.5
        z -= (1.0 - x) * (1.0 - x) * y
    return z / 3.0
