"""64-bit hashes of a column's values: the same on every machine and for ever, since saved states depend on them.

A value is taken as little-endian words of 64 bits: an integer, a boolean or a float as its one word (-0.0 as 0.0), a
string as its UTF-8 bytes, filled up with zero bytes, after a word with their number. Each word is mixed into the hash
by ``fmix64(h ^ word) + constant``, ``fmix64`` being the finalizer of MurmurHash3 (Appleby, public domain), which lets
each bit depend on all.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn

__all__ = ["hashes", "mixed", "text_digest", "text_words"]

_SEED = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0x52DCE729DA3ED9E7)
_FIRST, _SECOND = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)
_WORD_BYTES = 8
_LONG = 256


def hashes(column: FieldColumn) -> NDArray[np.uint64]:
    """The hash of each of n values, shape (n,); what a null gives means nothing."""
    values = column.values
    if isinstance(values, list):
        return _of_texts(values)
    if values.dtype == np.float64:
        words = (values + np.float64(0.0)).view(np.uint64)
    else:
        words = values.astype(np.int64).view(np.uint64)
    return mixed(np.full(len(words), _SEED), words)


def text_digest(text: str) -> int:
    """64 bits of a text as a signed integer, for ordering texts without holding them."""
    return int.from_bytes(blake2b(text.encode(), digest_size=_WORD_BYTES).digest(), "little", signed=True)


def mixed(state: NDArray[np.uint64], words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One word more in each of n hashes."""
    result = state ^ words
    result ^= result >> _SHIFT
    result *= _FIRST
    result ^= result >> _SHIFT
    result *= _SECOND
    result ^= result >> _SHIFT
    result += _STEP
    return result


def _of_texts(texts: Sequence[str]) -> NDArray[np.uint64]:
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    long = np.flatnonzero(lengths > _LONG)
    if len(long) and len(texts) > 1:
        # One long text must not make a matrix of its width for all.
        state = _of_texts(["" if len(text) > _LONG else text for text in texts])
        for index in long.tolist():
            state[index] = _of_texts([texts[index]])[0]
        return state
    content, lengths = text_words(texts)
    state = mixed(np.full(len(texts), _SEED), lengths.view(np.uint64))
    for place in range(content.shape[1]):
        longer = np.flatnonzero(lengths > place * _WORD_BYTES)
        state[longer] = mixed(state[longer], content[longer, place])
    return state


def text_words(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The UTF-8 bytes of n texts as words, filled up with zeros, shape (n, words of the longest); and their numbers."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    try:
        return _words(texts, lengths), lengths
    except UnicodeEncodeError:
        encoded = list(map(str.encode, texts))
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        return _words(encoded, lengths), lengths


def _words(texts: Sequence[str] | Sequence[bytes], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    width = max(1, -(-int(lengths.max(initial=0)) // _WORD_BYTES))
    padded = np.array(texts, dtype=f"S{width * _WORD_BYTES}")
    return padded.view("<u8").astype(np.uint64, copy=False).reshape(len(texts), width)
