"""Finding the code of a key: in a dictionary, or where keys are many, in arrays.

A dictionary is the fastest while it fits the processor's cache. Beyond that each event waits for memory several times,
one event after the other. `WordIndex` looks a whole batch up at once, so the waiting overlaps: texts become rows of
64-bit words, which are hashed, found by open addressing and compared, all by numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.hashes import mixed, text_words

__all__ = ["DictIndex", "Key", "KeyIndex", "TooLong", "WordIndex"]

Key = tuple[str, ...]

_LONG = 64
# Rounds of probing after which the table is taken to be under attack: with fair hashes a few dozen are the most.
_MAX_PROBES = 256


class KeyIndex(Protocol):
    """Gives keys their codes: their places in `keys`, the list that it was made with and appends to."""

    def codes(self, parts: Sequence[Sequence[str]], n: int) -> NDArray[np.int64]:
        """The codes of n keys, one sequence of texts for each of their fields; unknown keys are appended."""
        ...


class _Codes(dict[str | Key, int]):
    """Gives the next code to a key that is not there, so that looking up a column is one pass in C."""

    def __missing__(self, key: str | Key) -> int:
        code = self[key] = len(self)
        return code


class DictIndex:
    """Keys of one field are held as the text itself: no tuple per event."""

    def __init__(self, keys: list[str | Key]) -> None:
        self._keys = keys
        self._codes = _Codes(zip(keys, range(len(keys)), strict=True))

    def codes(self, parts: Sequence[Sequence[str]], n: int) -> NDArray[np.int64]:
        """The codes of n keys."""
        wanted = parts[0] if len(parts) == 1 else zip(*parts, strict=True)
        codes = np.fromiter(map(self._codes.__getitem__, wanted), dtype=np.int64, count=n)
        fresh = len(self._codes) - len(self._keys)
        if fresh:
            # Dictionaries keep the order of insertion, so the new ones are the last.
            newest = [key for key, _ in zip(reversed(self._codes), range(fresh), strict=False)]
            self._keys += reversed(newest)
        return codes


class TooLong(Exception):
    """A key that words are not the form for, or a table whose hashes are not fair: a dictionary takes over."""


class WordIndex:
    """Keys as rows of words, one after the other by code.

    Raises
    ------
    TooLong
        A text is longer than 64 bytes.
    """

    def __init__(self, keys: list[str | Key]) -> None:
        self._keys = keys
        self._widths: list[int] = []
        self._rows = self._words(_parts_of(keys), len(keys))
        self._build(len(keys))

    def kept(self, codes: NDArray[np.int64], keys: list[str | Key]) -> WordIndex:
        """An index of `keys`, which had `codes` in this one."""
        other = copy(self)
        other._keys, other._widths, other._rows = keys, [*self._widths], self._rows[codes]
        other._build(len(codes))
        return other

    def codes(self, parts: Sequence[Sequence[str]], n: int) -> NDArray[np.int64]:
        """The codes of n keys."""
        before = [*self._widths]
        words = self._words(parts, n)
        if self._widths != before:
            # A text longer than all before it: rows become wider, and hashes others.
            self._rows = self._words(_parts_of(self._keys), len(self._keys))
            self._build(len(self._keys))
        hashed = _hashed(words)
        codes = self._find(words, hashed)
        missing = np.flatnonzero(codes < 0)
        if len(missing):
            codes[missing] = self._add(parts, words, hashed, missing)
        return codes

    def _words(self, parts: Sequence[Sequence[str]], n: int) -> NDArray[np.uint64]:
        """Number of bytes and bytes of each field's text, side by side, shape (n, words)."""
        columns: list[NDArray[np.uint64]] = []
        for place, texts in enumerate(parts):
            content, lengths = text_words(texts)
            if lengths.max(initial=0) > _LONG:
                raise TooLong
            if len(self._widths) == place:
                self._widths.append(0)
            width = self._widths[place] = max(self._widths[place], content.shape[1])
            padded = np.zeros((n, 1 + width), dtype=np.uint64)
            padded[:, 0] = lengths
            padded[:, 1 : 1 + content.shape[1]] = content
            columns.append(padded)
        return np.concatenate(columns, axis=1) if len(columns) > 1 else columns[0]

    def _build(self, n: int) -> None:
        """Make the table for the first `n` rows."""
        size = 1 << max(12, (4 * n).bit_length())
        self._table = np.full(size, -1, dtype=np.int64)
        self._shift = np.uint64(64 - (size.bit_length() - 1))
        self._enter(np.arange(n), _hashed(self._rows[:n]))

    def _enter(self, codes: NDArray[np.int64], hashed: NDArray[np.uint64]) -> None:
        place = (hashed >> self._shift).astype(np.int64)
        mask = len(self._table) - 1
        for _ in range(_MAX_PROBES):
            if not len(codes):
                return
            empty = self._table[place] < 0
            self._table[place[empty]] = codes[empty]
            lost = self._table[place] != codes
            codes, place = codes[lost], (place[lost] + 1) & mask
        raise TooLong

    def _find(self, words: NDArray[np.uint64], hashed: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The code of each row; -1 where there is none."""
        place = (hashed >> self._shift).astype(np.int64)
        codes = self._table[place]
        mask = len(self._table) - 1
        # An entry of -1 is compared with the last row, which does no harm.
        pending = np.flatnonzero((self._rows[codes] != words).any(axis=1) & (codes >= 0))
        for _ in range(_MAX_PROBES):
            if not len(pending):
                return codes
            place[pending] = (place[pending] + 1) & mask
            found = self._table[place[pending]]
            codes[pending] = found
            pending = pending[(self._rows[found] != words[pending]).any(axis=1) & (found >= 0)]
        raise TooLong

    def _add(
        self,
        parts: Sequence[Sequence[str]],
        words: NDArray[np.uint64],
        hashed: NDArray[np.uint64],
        missing: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Append the keys at `missing`, each once; returns the code of each."""
        known = len(self._keys)
        fresh: dict[str | Key, int] = {}
        rows: list[int] = []
        codes: list[int] = []
        for row in missing.tolist():
            key = parts[0][row] if len(parts) == 1 else tuple(texts[row] for texts in parts)
            code = fresh.setdefault(key, known + len(fresh))
            if code == known + len(rows):
                rows.append(row)
            codes.append(code)
        total = known + len(rows)
        if total > len(self._rows):
            grown = np.zeros((2 * total, words.shape[1]), dtype=np.uint64)
            grown[:known] = self._rows[:known]
            self._rows = grown
        self._rows[known:total] = words[rows]
        self._keys += fresh
        if 2 * total > len(self._table):
            self._build(total)
        else:
            self._enter(np.arange(known, total), hashed[rows])
        return np.array(codes, dtype=np.int64)


def _parts_of(keys: Sequence[str | Key]) -> list[list[str]]:
    """Keys field by field."""
    pairs = [(key,) if isinstance(key, str) else key for key in keys]
    return [list(part) for part in zip(*pairs, strict=True)]


def _hashed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = np.zeros(len(words), dtype=np.uint64)
    for place in range(words.shape[1]):
        state = mixed(state, words[:, place])
    return state
