"""The keys of one aggregate, each under a small number, its code.

Codes are internal: they are given in order of appearance, numbered anew when most keys have gone, and never leave the
process, so nothing that leaves depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.key_index import DictIndex, Key, KeyIndex, TooLong, WordIndex

__all__ = ["Key", "KeyTable"]

# So many keys that arrays find them faster than a dictionary does.
_MANY = 20_000


class KeyTable:
    """Keys and their codes 0, 1, 2 …, with columns of flags by code.

    Parameters
    ----------
    fields
        The paths that make up the key.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self.fields = tuple(fields)
        self.partition_field = "partitionkey" if "partitionkey" in self.fields else "subject"
        self._partition_place = self.fields.index(self.partition_field)
        # A key of one field is held as the text itself.
        self._keys: list[str | Key] = []
        self._index: KeyIndex = DictIndex(self._keys)
        self._fit_for_words = True
        self._flags: dict[str, NDArray[np.uint8]] = {}
        # The place of the first keys among themselves, by code.
        self._places = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def codes(self, columns: Mapping[str, FieldColumn], n: int) -> NDArray[np.int64]:
        """The code of each of n events; unknown keys get one."""
        return self._codes([_as_texts(columns[field]) for field in self.fields], n)

    def insert(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        """The codes of `keys`."""
        return self._codes([[key[place] for key in keys] for place in range(len(self.fields))], len(keys))

    def _codes(self, parts: Sequence[Sequence[str]], n: int) -> NDArray[np.int64]:
        if isinstance(self._index, DictIndex):
            self._index = self._fitting(self._index)
        try:
            codes = self._index.codes(parts, n)
        except TooLong:
            self._fit_for_words = False
            self._index = DictIndex(self._keys)
            codes = self._index.codes(parts, n)
        self._grow()
        return codes

    def _fitting(self, index: KeyIndex | None, kept: NDArray[np.int64] | None = None) -> KeyIndex:
        """Arrays where keys are many, else `index`, or a new dictionary; `kept` are the old codes of today's keys."""
        if self._fit_for_words and len(self._keys) > _MANY:
            try:
                if kept is not None and isinstance(self._index, WordIndex):
                    return self._index.kept(kept, self._keys)
                return WordIndex(self._keys)
            except TooLong:
                self._fit_for_words = False
        return DictIndex(self._keys) if index is None else index

    def _grow(self) -> None:
        for name, flags in self._flags.items():
            if len(flags) < len(self._keys):
                grown = np.zeros(max(64, 2 * len(self._keys)), dtype=np.uint8)
                grown[: len(flags)] = flags
                self._flags[name] = grown

    def keys(self, codes: NDArray[np.int64]) -> list[Key]:
        """The keys of `codes`."""
        found = map(self._keys.__getitem__, codes.tolist())
        return [(key,) if isinstance(key, str) else key for key in found]

    def order(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """What puts distinct `codes` into the order of their keys."""
        if len(codes) and int(codes.max()) >= len(self._places):
            # Windows that hold most of the keys come one after the other: ordering all of them pays.
            if 4 * len(codes) < len(self):
                keys = self.keys(codes)
                return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
            self._places = np.empty(len(self), dtype=np.int64)
            self._places[sorted(range(len(self)), key=self._keys.__getitem__)] = np.arange(len(self))
        return np.argsort(self._places[codes])

    def key(self, code: int) -> Key:
        """The key of one code."""
        key = self._keys[code]
        return (key,) if isinstance(key, str) else key

    def partition_key(self, key: Key) -> str:
        """The partition key that every event of `key` claims."""
        return key[self._partition_place]

    def define(self, name: str) -> None:
        """Add a column of flags, all 0."""
        assert name not in self._flags, name
        self._flags[name] = np.zeros(max(64, 2 * len(self._keys)), dtype=np.uint8)

    def flags(self, name: str) -> NDArray[np.uint8]:
        """A column of flags, to be read and written; it is valid until the next key comes."""
        return self._flags[name]

    def flag_names(self) -> list[str]:
        """All columns of flags."""
        return list(self._flags)

    def used(self) -> NDArray[np.bool_]:
        """By code, whether any flag is set."""
        used = np.zeros(len(self), dtype=np.bool_)
        for flags in self._flags.values():
            used |= flags[: len(self)] != 0
        return used

    def keep(self, live: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Forget the keys that are not `live`; returns the new code by old code (-1 for the forgotten)."""
        if live.all():
            return np.arange(len(live))
        kept = np.flatnonzero(live)
        moved = np.full(len(live), -1, dtype=np.int64)
        moved[kept] = np.arange(len(kept))
        self._keys = list(map(self._keys.__getitem__, kept.tolist()))
        self._places = self._places[:0]
        self._index = self._fitting(None, kept)
        for name, flags in self._flags.items():
            fewer = np.zeros(max(64, 2 * len(kept)), dtype=np.uint8)
            fewer[: len(kept)] = flags[kept]
            self._flags[name] = fewer
        return moved


def _as_texts(column: FieldColumn) -> Sequence[str]:
    values = column.values
    return values if isinstance(values, list) else list(map(str, values.tolist()))
