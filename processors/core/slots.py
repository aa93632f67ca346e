"""Panes as rows of columns, found by (window start, key code) without a Python object per pane or event."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["SlotColumn", "Slots"]

SlotColumn = NDArray[np.int64] | NDArray[np.float64] | NDArray[np.uint8]

_NOTHING = np.iinfo(np.int64).min
# Odd 64-bit numbers; the first is 2**64 divided by the golden ratio (Knuth, TAOCP 3, 6.4, multiplicative hashing).
_START_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_CODE_FACTOR = np.uint64(0xC2B2AE3D27D4EB4F)
_FIRST_CAPACITY = 1024


class Slots:
    """Rows in use and free ones. Row 0 is never used: it stands for "not there".

    Rows are found through an open-addressing hash table of row numbers. An entry is checked against the row itself, so
    entries of rows that were given back may stay until the table is built anew.
    """

    def __init__(self) -> None:
        self.start = np.full(_FIRST_CAPACITY, _NOTHING, dtype=np.int64)
        self.code = np.full(_FIRST_CAPACITY, -1, dtype=np.int64)
        self._columns: dict[str, SlotColumn] = {}
        self._fills: dict[str, float] = {}
        self._on_free: list[Callable[[NDArray[np.int64]], None]] = []
        self._free = np.arange(_FIRST_CAPACITY - 1, 0, -1)
        self._free_count = _FIRST_CAPACITY - 1
        self._table = np.zeros(4 * _FIRST_CAPACITY, dtype=np.int64)
        self._shift = np.uint64(64 - (4 * _FIRST_CAPACITY).bit_length() + 1)
        self._entries = 0

    def __len__(self) -> int:
        """The rows in use."""
        return len(self.start) - 1 - self._free_count

    def define(self, name: str, dtype: type[np.int64 | np.float64 | np.uint8], fill: float = 0) -> None:
        """Add a column, whose value in a new row is `fill`."""
        assert name not in self._columns, name
        self._fills[name] = fill
        column: SlotColumn
        if dtype is np.int64:
            column = np.full(len(self.start), fill, dtype=np.int64)
        elif dtype is np.float64:
            column = np.full(len(self.start), fill, dtype=np.float64)
        else:
            column = np.full(len(self.start), fill, dtype=np.uint8)
        self._columns[name] = column

    def column(self, name: str) -> SlotColumn:
        """A column, to be read and written by row; it is valid until rows are created."""
        return self._columns[name]

    def names(self) -> list[str]:
        """The columns' names."""
        return list(self._columns)

    def used(self) -> NDArray[np.int64]:
        """All rows in use, in no particular order."""
        return np.flatnonzero(self.code >= 0)

    def find(self, starts: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each (start, code); 0 where there is none."""
        place = self._home(starts, codes)
        rows = self._table[place]
        hit = (self.start[rows] == starts) & (self.code[rows] == codes)
        pending = np.flatnonzero(~hit & (rows != 0))
        mask = len(self._table) - 1
        while len(pending):
            place[pending] = (place[pending] + 1) & mask
            candidates = self._table[place[pending]]
            rows[pending] = candidates
            hit = (self.start[candidates] == starts[pending]) & (self.code[candidates] == codes[pending])
            pending = pending[~hit & (candidates != 0)]
        return rows

    def create(self, starts: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """New rows for distinct (start, code) that are not there yet."""
        n = len(starts)
        if self._free_count < n:
            self._grow(len(self) + n)
        self._free_count -= n
        rows = self._free[self._free_count : self._free_count + n].copy()
        self.start[rows], self.code[rows] = starts, codes
        for name, column in self._columns.items():
            column[rows] = self._fills[name]
        if 2 * (self._entries + n) > len(self._table):
            self._index_anew()
        else:
            self._enter(rows)
        return rows

    def free(self, rows: NDArray[np.int64]) -> None:
        """Give rows back."""
        for let_go in self._on_free:
            let_go(rows)
        self.start[rows], self.code[rows] = _NOTHING, -1
        self._free[self._free_count : self._free_count + len(rows)] = rows
        self._free_count += len(rows)

    def on_free(self, let_go: Callable[[NDArray[np.int64]], None]) -> None:
        """Have `let_go` called with the rows that are about to be given back: for what is held beside the columns."""
        self._on_free.append(let_go)

    def recode(self, moved: NDArray[np.int64]) -> None:
        """Give every row its key's new code, by old code."""
        used = self.used()
        self.code[used] = moved[self.code[used]]
        self._index_anew()

    def _home(self, starts: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        mixed = starts.view(np.uint64) * _START_FACTOR + codes.view(np.uint64) * _CODE_FACTOR
        # The high bits: they depend on all bits of both.
        return (mixed >> self._shift).view(np.int64)

    def _enter(self, rows: NDArray[np.int64]) -> None:
        place = self._home(self.start[rows], self.code[rows])
        mask = len(self._table) - 1
        self._entries += len(rows)
        while len(rows):
            empty = self._table[place] == 0
            self._table[place[empty]] = rows[empty]
            lost = self._table[place] != rows
            rows, place = rows[lost], (place[lost] + 1) & mask

    def _index_anew(self) -> None:
        used = self.used()
        size = 1 << max(12, (4 * len(used)).bit_length())
        self._table = np.zeros(size, dtype=np.int64)
        self._shift = np.uint64(64 - (size.bit_length() - 1))
        self._entries = 0
        self._enter(used)

    def _grow(self, needed: int) -> None:
        old, new = len(self.start), len(self.start)
        while new - 1 < needed:
            new *= 2
        self.start = np.concatenate([self.start, np.full(new - old, _NOTHING, dtype=np.int64)])
        self.code = np.concatenate([self.code, np.full(new - old, -1, dtype=np.int64)])
        for name, column in self._columns.items():
            grown = np.full(new, self._fills[name], dtype=column.dtype)
            grown[:old] = column
            self._columns[name] = grown
        free = np.empty(new - 1, dtype=np.int64)
        free[: self._free_count] = self._free[: self._free_count]
        free[self._free_count : self._free_count + new - old] = np.arange(new - 1, old - 1, -1)
        self._free, self._free_count = free, self._free_count + new - old
