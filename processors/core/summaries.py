"""What measures that need more than one number per pane have in common.

A summary stands beside the plain accumulators (count, sum, min, max): it takes values event by event in stream order,
can be merged into another pane's, and gives its measures as columns. Its state is columns of the pane rows, or pages of
cells beside them. Not one is a Python object per pane, key or event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import EventBatch, FieldColumn
from streamgauge.processors.core.columns import integers
from streamgauge.processors.core.container import Column, Columns, SnapshotError
from streamgauge.processors.core.pages import Cells, Pages
from streamgauge.processors.core.slots import SlotColumn

__all__ = ["Summary", "in_rounds", "is_page_column", "page_columns", "pages_merged", "pages_within", "restore_pages"]


class Summary(Protocol):
    """The state of some measures of one field, for all panes of an aggregate."""

    @property
    def field(self) -> str:
        """The field that it is of."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the pane rows that it needs to be restored."""
        ...

    @property
    def pages(self) -> Mapping[str, Pages]:
        """What it holds beside the pane rows, by a name for a snapshot."""
        ...

    def prepare(self, batch: EventBatch) -> dict[str, FieldColumn]:
        """What `add` needs of a whole decoded batch beside its fields, computed once."""
        ...

    def add(self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]) -> None:
        """Add the events at `rows`, whose field is not null, in this order, to the panes at `slots`."""
        ...

    def results(self, slots: NDArray[np.int64]) -> dict[str, SlotColumn]:
        """Its measures' values in distinct panes, by the name of their call; what a pane without values has is free."""
        ...

    def merge(self, into: NDArray[np.int64], other: Self, source: NDArray[np.int64]) -> None:
        """Add `other`'s pane `source[i]` to the pane `into[i]`; `into` are distinct. An empty pane changes nothing.

        `other` is of the same field, and may be itself.
        """
        ...


def in_rounds(slots: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Indexes of `slots`, so that each round has distinct slots and a slot's indexes come in their order."""
    order = np.argsort(slots, kind="stable")
    grouped = slots[order]
    begins = np.flatnonzero(np.diff(grouped, prepend=np.int64(-1)))
    rank = np.arange(len(grouped)) - np.repeat(begins, np.diff(begins, append=len(grouped)))
    for number in range(int(rank.max()) + 1 if len(rank) else 0):
        yield order[rank == number]


def pages_merged(
    pages: Pages, into: NDArray[np.int64], other: Pages, source: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Cells]:
    """Where in `pages.flat` each cell of `other`'s panes `source` belongs to be merged into `into`, and its value.

    Pages that `into` lacks are made.
    """
    held = other.of(source)
    cells = other.cells(held.pages).reshape(-1)
    rows = pages.find_or_create(into[held.owners], other.numbers(held.pages))
    return (rows[:, np.newaxis] * pages.width + np.arange(pages.width)).reshape(-1), cells


_PREFIX = "sketch."


def is_page_column(name: str) -> bool:
    """Whether `page_columns` has given it."""
    return name.startswith(_PREFIX)


def page_columns(name: str, pages: Pages, slots: NDArray[np.int64]) -> dict[str, Column]:
    """The pages of the panes at `slots` as columns: which pane, which page, and all cells one after the other."""
    held = pages.of(slots)
    return {
        f"{_PREFIX}{name}.pane": held.owners,
        f"{_PREFIX}{name}.page": pages.numbers(held.pages),
        f"{_PREFIX}{name}.cells": pages.cells(held.pages).reshape(-1),
    }


def restore_pages(name: str, pages: Pages, columns: Columns, slots: NDArray[np.int64]) -> None:
    """Take over what `page_columns` gave.

    Raises
    ------
    SnapshotError
        A column is missing, or they do not fit each other.
    """
    panes, numbers = integers(columns, f"{_PREFIX}{name}.pane"), integers(columns, f"{_PREFIX}{name}.page")
    cells = columns.get(f"{_PREFIX}{name}.cells")
    if not (isinstance(cells, np.ndarray) and cells.dtype == pages.flat.dtype):
        raise SnapshotError(f"the column '{_PREFIX}{name}.cells' is missing", where="snapshot")
    if not len(panes) == len(numbers) == len(cells) // pages.width:
        raise SnapshotError(f"the columns '{_PREFIX}{name}' have lengths that do not fit", where="snapshot")
    rows = pages.find_or_create(slots[panes], numbers)
    places = rows[:, np.newaxis] * pages.width + np.arange(pages.width)
    pages.flat[places.reshape(-1)] = cells


def pages_within(columns: Columns, kept: NDArray[np.bool_]) -> dict[str, Column]:
    """Of an aggregate's columns those that hold pages, without the pages of panes that are not `kept`."""
    chosen: dict[str, Column] = {}
    for name in columns:
        if not (name.startswith(_PREFIX) and name.endswith(".pane")):
            continue
        below = name.removesuffix("pane")
        panes, cells = integers(columns, name), columns[f"{below}cells"]
        assert isinstance(cells, np.ndarray)
        inside = kept[panes]
        chosen[name] = (np.cumsum(kept) - 1)[panes[inside]]
        chosen[f"{below}page"] = integers(columns, f"{below}page")[inside]
        chosen[f"{below}cells"] = cells.reshape(len(panes), -1)[inside].reshape(-1) if len(panes) else cells
    return chosen
