"""The first and the last value of a pane, whatever the order in which they came.

Values are ordered by the time of their event, then by its source, then by its sequence; sources by a 64-bit digest of
their text, so that none needs to be held. Foreign events have no sequence: those of one source and one millisecond are
ordered by value. So equal events give equal results, in any order and over any cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import EventBatch, FieldColumn
from streamgauge.processors.core.hashes import text_digest
from streamgauge.processors.core.pages import Pages
from streamgauge.processors.core.slots import SlotColumn, Slots

__all__ = ["Ends"]

_INT64 = np.iinfo(np.int64)
_ORDER = ("order(time)", "order(source)", "order(sequence)")
_PARTS = ("time", "source", "sequence", "value")

# A source that is seen again is not hashed again; a shard reads some thousands of them.
_digest = lru_cache(maxsize=65_536)(text_digest)


class Ends:
    """The first or the last value of a field that is not null: 32 bytes per pane.

    Parameters
    ----------
    end
        Which of the two.
    field
        A field of numbers.
    is_integer
        Whether they are kept as int64, else as float64.
    slots
        The pane rows.
    """

    def __init__(self, end: Literal["first", "last"], field: str, slots: Slots, *, is_integer: bool) -> None:
        self.field = field
        self._slots = slots
        self._is_integer = is_integer
        self._result = f"{end}({field})"
        self._names = tuple(f"{self._result}.{part}" for part in _PARTS)
        self._further: np.ufunc = np.minimum if end == "first" else np.maximum
        nowhere = int(_INT64.max if end == "first" else _INT64.min)
        unset = nowhere if is_integer else float("inf") if end == "first" else float("-inf")
        self._starts: tuple[float, ...] = (nowhere, nowhere, nowhere, unset)
        for name, start in zip(self._names[:-1], self._starts, strict=False):
            slots.define(name, np.int64, start)
        slots.define(self._names[-1], np.int64 if is_integer else np.float64, unset)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the pane rows that it needs to be restored."""
        return self._names

    @property
    def pages(self) -> Mapping[str, Pages]:
        """None."""
        return {}

    def prepare(self, batch: EventBatch) -> dict[str, FieldColumn]:
        """Where each event stands in the order."""
        digests = np.array([_digest(source) for source in batch.sources], dtype=np.int64)
        there = np.ones(len(batch), dtype=np.bool_)
        keys = (batch.time_ms, digests[batch.source], batch.sequence)
        return {name: FieldColumn(key, there) for name, key in zip(_ORDER, keys, strict=True)}

    def add(self, slots: NDArray[np.int64], fields: Mapping[str, FieldColumn], rows: NDArray[np.int64]) -> None:
        """Add values, in any order."""
        keys: list[SlotColumn] = []
        for name in _ORDER:
            column = fields[name].values
            assert isinstance(column, np.ndarray), name
            keys.append(column[rows].astype(np.int64, copy=False))
        values = fields[self.field].values
        assert isinstance(values, np.ndarray), "only numbers are measured"
        # Adding 0.0 turns -0.0 into 0.0, as for every measure.
        keys.append(values[rows].astype(np.int64) if self._is_integer else values[rows] + np.float64(0.0))
        self._take(slots, keys)

    def _take(self, slots: NDArray[np.int64], keys: list[SlotColumn]) -> None:
        """Let each pane have the extreme of (time, source, sequence, value): part by part, among those that tie."""
        for place, name in enumerate(self._names):
            target, key = self._slots.column(name), keys[place]
            before = target[slots]
            self._further.at(target, slots, key)
            after = target[slots]
            moved = slots[after != before]
            for later, start in zip(self._names[place + 1 :], self._starts[place + 1 :], strict=True):
                self._slots.column(later)[moved] = start
            ties = key == after
            slots, keys = slots[ties], [part[ties] for part in keys]

    def results(self, slots: NDArray[np.int64]) -> dict[str, SlotColumn]:
        """The value."""
        return {self._result: self._slots.column(self._names[-1])[slots]}

    def merge(self, into: NDArray[np.int64], other: Self, source: NDArray[np.int64]) -> None:
        """The further of two."""
        self._take(into, [other._slots.column(name)[source] for name in self._names])
