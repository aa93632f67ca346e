"""Arrays of cells by pane, of which most are zero: only pages that hold something are there.

A pane has cells numbered by any integers; `width` neighbours make a page. So a pane that saw few values costs a few
pages, and one that saw many costs hardly more than a plain array. Pages are rows of one numpy array, found by (page,
pane) as panes are found by (window, key), and chained by pane: no Python object per pane, page or cell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.slots import Slots

__all__ = ["PAGE_OVERHEAD_BYTES", "Cells", "Held", "Pages"]

Cells = NDArray[np.uint8] | NDArray[np.int64]

PAGE_OVERHEAD_BYTES = 64
"""What a page costs beside its cells, about: number, pane, link, and its share of the table that finds it."""

_NEXT = "next"
# Page numbers lie within 16 bits; panes are below 2**47.
_NUMBER_BITS, _NUMBER_BIAS = 16, 1 << 15
# How far chains are followed before those that have ended are left out.
_STEPS = 8


class Held(NamedTuple):
    """Pages of some panes. ``owners``: index of the pane; ``pages``: rows; all int64, shape (number of pages,)."""

    owners: NDArray[np.int64]
    pages: NDArray[np.int64]


class Pages:
    """The pages of all panes of one aggregate.

    Parameters
    ----------
    width
        The cells of a page.
    dtype
        uint8 or int64.
    """

    def __init__(self, width: int, dtype: type[np.uint8 | np.int64]) -> None:
        self.width = width
        self._dtype = dtype
        self._index = Slots()
        self._index.define(_NEXT, np.int64)
        self._cells = self._zeros(len(self._index.start))
        # By pane row: its first page, 0 for none, and how many there are.
        self._first = np.zeros(0, dtype=np.int64)
        self._held = np.zeros(0, dtype=np.int64)

    def _zeros(self, pages: int) -> Cells:
        shape = pages, self.width
        return np.zeros(shape, dtype=np.uint8) if self._dtype is np.uint8 else np.zeros(shape, dtype=np.int64)

    def __len__(self) -> int:
        """The pages in use."""
        return len(self._index)

    @property
    def flat(self) -> Cells:
        """All cells in one row, to be read and written: cell c of page row p is at ``p * width + c``."""
        return self._cells.reshape(-1)

    def cells(self, pages: NDArray[np.int64]) -> Cells:
        """The cells of page rows, shape (pages, width): a copy."""
        return self._cells[pages]

    def numbers(self, pages: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of page rows."""
        return self._index.start[pages]

    def held(self, panes: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many pages each pane has."""
        self._cover(panes)
        return self._held[panes]

    def find_or_create(self, panes: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The page row of each (pane, page number), repeats allowed; new pages are zero."""
        rows = self._index.find(numbers, panes)
        missing = np.flatnonzero(rows == 0)
        if len(missing):
            pairs = (panes[missing] << _NUMBER_BITS) + (numbers[missing] + _NUMBER_BIAS)
            distinct, inverse = np.unique(pairs, return_inverse=True)
            owners = distinct >> _NUMBER_BITS
            created = self._create(owners, (distinct & ((1 << _NUMBER_BITS) - 1)) - _NUMBER_BIAS)
            rows[missing] = created[inverse]
        return rows

    def _create(self, panes: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Distinct new pages; those of a pane stand together."""
        rows = self._index.create(numbers, panes)
        if len(self._index.start) > len(self._cells):
            grown = self._zeros(len(self._index.start))
            grown[: len(self._cells)] = self._cells
            self._cells = grown
        self._cells[rows] = 0
        self._cover(panes)
        self._link(panes, rows)
        return rows

    def _link(self, panes: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Put pages, those of a pane together, before those that their panes have."""
        ends = np.ones(len(panes), dtype=np.bool_)
        ends[:-1] = panes[1:] != panes[:-1]
        following = np.empty(len(rows), dtype=np.int64)
        following[:-1] = rows[1:]
        following[ends] = self._first[panes[ends]]
        self._index.column(_NEXT)[rows] = following
        begins = np.ones(len(panes), dtype=np.bool_)
        begins[1:] = ends[:-1]
        self._first[panes[begins]] = rows[begins]
        np.add.at(self._held, panes, 1)

    def _cover(self, panes: NDArray[np.int64]) -> None:
        needed = int(panes.max()) + 1 if len(panes) else 0
        if needed > len(self._first):
            more = np.zeros(max(needed, 2 * len(self._first)) - len(self._first), dtype=np.int64)
            self._first = np.concatenate([self._first, more])
            self._held = np.concatenate([self._held, more])

    def of(self, panes: NDArray[np.int64]) -> Held:
        """All pages of panes: by pane, and in each by page number."""
        self._cover(panes)
        following = self._index.column(_NEXT).astype(np.int64, copy=False)
        owners, pages = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        owner = np.flatnonzero(self._first[panes])
        page = self._first[panes[owner]]
        while len(page):
            # Some steps along all chains at once; where one has ended, row 0 leads to itself.
            steps = np.empty((_STEPS, len(page)), dtype=np.int64)
            for step in range(_STEPS):
                steps[step] = page
                page = following[page]
            there = steps != 0
            owners.append(np.broadcast_to(owner, steps.shape)[there])
            pages.append(steps[there])
            owner, page = owner[page != 0], page[page != 0]
        all_owners, all_pages = np.concatenate(owners), np.concatenate(pages)
        order = np.argsort((all_owners << _NUMBER_BITS) + self._index.start[all_pages])
        return Held(all_owners[order], all_pages[order])

    def clear(self, panes: NDArray[np.int64]) -> None:
        """Let all pages of distinct panes go."""
        held = self.of(panes)
        self._index.free(held.pages)
        self._first[panes] = 0
        self._held[panes] = 0

    def keep(self, panes: NDArray[np.int64], held: Held, kept: NDArray[np.bool_]) -> None:
        """Of the pages that `of` found for `panes`, let those go that are not `kept`."""
        self._index.free(held.pages[~kept])
        self._first[panes] = 0
        self._held[panes] = 0
        self._link(panes[held.owners[kept]], held.pages[kept])
