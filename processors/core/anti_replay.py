"""Anti-replay windows of all sources of one shard, kept and judged as arrays. See `dedupe`.

A source's window is a ring of W bits in 64-bit words: the bit of sequence s stands at s modulo W. Only the bits of
(H - W, H] mean something and all others are 0, so the windows of one source in two parents can be joined by clearing
what the higher H has left behind and OR-ing the words.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.container import Columns

__all__ = ["AntiReplayWindows"]

_WORD_SHIFT = 6
_WORD_BITS = 64
_ALL = np.uint64(2**64 - 1)
_ONE = np.uint64(1)
_NONE = -1
"""Highest sequence of a source that was not seen yet."""
# Keys that join group and sequence must stay clear of int64's end.
_KEY_LIMIT = 2**62

_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]


class AntiReplayWindows:
    """Configuration: the largest W, and the silence after which a source is forgotten. Saved: all the rest."""

    def __init__(self, max_w: int, silence_ms: int) -> None:
        self._max_w = max_w
        self._silence_ms = silence_ms
        self._now_ms = 0
        self._slots: dict[str, int] = {}
        # Per slot, in the order of `_slots`.
        self._window: _Ints = np.zeros(0, dtype=np.int64)
        self._highest: _Ints = np.zeros(0, dtype=np.int64)
        self._arrival_ms: _Ints = np.zeros(0, dtype=np.int64)
        self._first_word: _Ints = np.zeros(0, dtype=np.int64)
        # May be longer than what the slots use: it grows by doubling.
        self._words: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)

    def judge(
        self,
        sources: Sequence[str],
        windows: Sequence[int],
        source: _Ints,
        sequence: _Ints,
        arrival_ms: _Ints,
    ) -> tuple[_Bools, _Bools]:
        """Judge n events in stream order, and remember them.

        Parameters
        ----------
        sources, windows
            Distinct sources and the W of each.
        source, sequence, arrival_ms : int64, shape (n,)
            Index into `sources`; 0 to 2**63 - 1; never falling.

        Returns
        -------
        Duplicates in the window, and duplicates below it; bool, shape (n,) each.
        """
        codes = np.flatnonzero(np.bincount(source, minlength=len(sources)))
        slot_of = np.full(len(sources), _NONE, dtype=np.int64)
        assert all(windows[code] <= self._max_w for code in codes.tolist()), "decoding refuses a larger W"
        slot_of[codes] = self._find_slots([(sources[code], windows[code]) for code in codes.tolist()])
        slot = slot_of[source]
        in_window, below = np.zeros(len(slot), dtype=np.bool_), np.zeros(len(slot), dtype=np.bool_)
        for span in self._spans(arrival_ms):
            in_window[span], below[span] = self._judge_span(slot[span], sequence[span], arrival_ms[span])
        return in_window, below

    def _spans(self, arrival_ms: _Ints) -> Iterator[slice]:
        """Parts too short for a source to be forgotten inside one: forgetting is decided at their starts only."""
        first = 0
        while first < len(arrival_ms):
            last = int(np.searchsorted(arrival_ms, arrival_ms[first] + self._silence_ms, side="right"))
            yield slice(first, last)
            first = last

    def _judge_span(self, slot: _Ints, sequence: _Ints, arrival_ms: _Ints) -> tuple[_Bools, _Bools]:
        if slot.min() == slot.max():
            starts = np.zeros(1, dtype=np.int64)
            self._begin(slot[:1], arrival_ms[:1], arrival_ms[-1:])
            return self._judge_groups(slot[:1], starts, sequence)
        order = np.argsort(slot, kind="stable")
        slot, sequence, arrival_ms = slot[order], sequence[order], arrival_ms[order]
        starts = np.flatnonzero(np.concatenate([[True], slot[1:] != slot[:-1]]))
        ends = np.concatenate([starts[1:], [len(slot)]])
        self._begin(slot[starts], arrival_ms[starts], arrival_ms[ends - 1])
        in_window, below = np.empty(len(slot), dtype=np.bool_), np.empty(len(slot), dtype=np.bool_)
        in_window[order], below[order] = self._judge_groups(slot[starts], starts, sequence)
        return in_window, below

    def _begin(self, slots: _Ints, first_ms: _Ints, last_ms: _Ints) -> None:
        """Forget those of `slots` that were silent too long before `first_ms`; note when they were last heard."""
        silent = slots[(first_ms - self._arrival_ms[slots] > self._silence_ms) & (self._highest[slots] != _NONE)]
        for slot in silent.tolist():
            first = self._first_word[slot]
            self._words[first : first + (self._window[slot] >> _WORD_SHIFT)] = 0
            self._highest[slot] = _NONE
        self._arrival_ms[slots] = last_ms

    def _judge_groups(self, slots: _Ints, starts: _Ints, sequence: _Ints) -> tuple[_Bools, _Bools]:
        """Judge adjoining groups of events, one a slot, each in stream order."""
        floor = np.minimum.reduceat(sequence, starts)
        top = np.maximum.reduceat(sequence, starts)
        reach = int((top - floor).max()) + 1
        if len(slots) == 1:
            group = np.zeros(len(sequence), dtype=np.int64)
            shift = np.zeros(1, dtype=np.int64)
        elif reach * len(slots) < _KEY_LIMIT:
            group = np.repeat(np.arange(len(slots)), np.diff(starts, append=len(sequence)))
            # Sequence + shift orders by group first, and by sequence within it.
            shift = np.arange(len(slots)) * reach - floor
        else:
            edges = [*starts.tolist(), len(sequence)]
            parts = [
                self._judge_groups(slots[index : index + 1], np.zeros(1, dtype=np.int64), sequence[first:last])
                for index, (first, last) in enumerate(itertools.pairwise(edges))
            ]
            return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        key = sequence + shift[group] if len(slots) > 1 else sequence
        before = self._highest[slots]
        highest = np.empty(len(sequence), dtype=np.int64)
        highest[1:] = np.maximum.accumulate(key)[:-1] - shift[group[1:]]
        highest[starts] = _NONE
        np.maximum(highest, before[group], out=highest)
        below = sequence <= highest - self._window[slots][group]
        # An event below the window has only events below it as later copies, so the first copy decides for all others.
        in_window = ~below & (_repeated(key) | self._bits(slots, group, sequence, before))
        after = np.maximum(before, top)
        self._advance(slots, before, after)
        self._set(slots, group, sequence, ~below & ~in_window & (sequence > (after - self._window[slots])[group]))
        return in_window, below

    def _places(self, slots: _Ints, group: _Ints, sequence: _Ints) -> _Ints:
        words = (self._window[slots] >> _WORD_SHIFT) - 1
        return self._first_word[slots][group] + ((sequence >> _WORD_SHIFT) & words[group])

    def _bits(self, slots: _Ints, group: _Ints, sequence: _Ints, before: _Ints) -> _Bools:
        """The stored bits; they say nothing of sequences above the highest so far."""
        bits = np.zeros(len(sequence), dtype=np.bool_)
        old = np.flatnonzero(sequence <= before[group])
        if len(old):
            words = self._words[self._places(slots, group[old], sequence[old])]
            bits[old] = (words >> (sequence[old] & (_WORD_BITS - 1)).astype(np.uint64)) & _ONE != 0
        return bits

    def _set(self, slots: _Ints, group: _Ints, sequence: _Ints, chosen: _Bools) -> None:
        group, sequence = group[chosen], sequence[chosen]
        bits = _ONE << (sequence & (_WORD_BITS - 1)).astype(np.uint64)
        np.bitwise_or.at(self._words, self._places(slots, group, sequence), bits)

    def _advance(self, slots: _Ints, before: _Ints, after: _Ints) -> None:
        """Raise the highest sequences, clearing the bits that the windows advance over."""
        moved = np.flatnonzero(after > before)
        slots, before, after = slots[moved], before[moved], after[moved]
        self._highest[slots] = after
        count = self._window[slots] >> _WORD_SHIFT
        base = self._first_word[slots]
        # A jump of W or more clears every word; a shorter one whole words between two edges.
        jumped = before <= after - self._window[slots]
        first, last = (before + 1) >> _WORD_SHIFT, after >> _WORD_SHIFT
        from_first = _ALL << ((before + 1) & (_WORD_BITS - 1)).astype(np.uint64)
        to_last = _ALL >> (_WORD_BITS - 1 - (after & (_WORD_BITS - 1))).astype(np.uint64)
        same = first == last
        # Two steps, since a ring can bend both edges into one word.
        near = np.flatnonzero(~jumped)
        mask = np.where(same, from_first & to_last, from_first)[near]
        self._words[(base + first % count)[near]] &= ~mask
        far = np.flatnonzero(~jumped & ~same)
        self._words[(base + last % count)[far]] &= ~to_last[far]
        inner = np.where(jumped, count, np.maximum(last - first - 1, 0))
        begin = np.repeat(first + 1, inner)
        offset = np.arange(len(begin)) - np.repeat(np.cumsum(inner) - inner, inner)
        self._words[np.repeat(base, inner) + (begin + offset) % np.repeat(count, inner)] = 0

    def _find_slots(self, wanted: Sequence[tuple[str, int]]) -> _Ints:
        unknown = [(source, window) for source, window in wanted if source not in self._slots]
        if unknown:
            used = self._used_words()
            added = np.array([window for _, window in unknown], dtype=np.int64)
            words = added >> _WORD_SHIFT
            needed = used + int(words.sum())
            if needed > len(self._words):
                grown = np.zeros(max(needed, 2 * len(self._words)), dtype=np.uint64)
                grown[:used] = self._words[:used]
                self._words = grown
            self._slots |= {source: slot for slot, (source, _) in enumerate(unknown, len(self._slots))}
            self._window = np.concatenate([self._window, added])
            self._first_word = np.concatenate([self._first_word, used + np.cumsum(words) - words])
            self._highest = np.concatenate([self._highest, np.full(len(added), _NONE, dtype=np.int64)])
            self._arrival_ms = np.concatenate([self._arrival_ms, np.zeros(len(added), dtype=np.int64)])
        return np.array([self._slots[source] for source, _ in wanted], dtype=np.int64)

    def _used_words(self) -> int:
        return int((self._window >> _WORD_SHIFT).sum())

    def forget(self, now_ms: int) -> None:
        """Make room once many sources have been silent too long. No verdict depends on it: look-up decides."""
        self._now_ms = now_ms
        silent = int(np.count_nonzero(self._is_silent()))
        if 4 * silent > len(self._slots):
            self._keep(np.flatnonzero(~self._is_silent()).tolist())

    def _is_silent(self) -> _Bools:
        return self._now_ms - self._arrival_ms > self._silence_ms

    def _keep(self, chosen: Sequence[int]) -> None:
        names = list(self._slots)
        count = self._window >> _WORD_SHIFT
        pieces = [self._words[self._first_word[slot] : self._first_word[slot] + count[slot]] for slot in chosen]
        self._words = np.concatenate([*pieces, np.zeros(0, dtype=np.uint64)])
        self._slots = {names[slot]: index for index, slot in enumerate(chosen)}
        kept = np.array(chosen, dtype=np.int64)
        self._window, self._highest = self._window[kept], self._highest[kept]
        self._arrival_ms = self._arrival_ms[kept]
        self._first_word = np.cumsum(count[kept]) - count[kept]

    def join(self, other: AntiReplayWindows) -> None:
        """Take in what another shard has seen, so that a copy of an event in either is a duplicate; `other` is used up.

        Per source the highest sequence is the higher of both, and a bit is set if either has it. Keeping the window
        with the higher sequence alone would count events again whose copy the other has seen.
        """
        wanted = list(zip(other._slots, other._window.tolist(), strict=True))
        if not wanted:
            return
        mine, theirs = self._find_slots(wanted), np.arange(len(wanted))
        assert (self._window[mine] == other._window).all(), "a source's name states its W"
        highest = np.maximum(self._highest[mine], other._highest)
        # Both rings now hold bits of the same sequences only, each at the same place.
        self._advance(mine, self._highest[mine], highest)
        other._advance(theirs, other._highest.copy(), highest)
        count = self._window[mine] >> _WORD_SHIFT
        offset = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        from_words = other._words[np.repeat(other._first_word, count) + offset]
        self._words[np.repeat(self._first_word[mine], count) + offset] |= from_words
        self._arrival_ms[mine] = np.maximum(self._arrival_ms[mine], other._arrival_ms)
        self._now_ms = max(self._now_ms, other._now_ms)

    def columns(self) -> Columns:
        """Sources in order of their text, and their windows' words one after the other."""
        silent = self._is_silent()
        self._keep([slot for _, slot in sorted(self._slots.items()) if not silent[slot]])
        return {
            "own_sources": list(self._slots),
            "own_window": self._window.copy(),
            "own_highest": self._highest.copy(),
            "own_arrival_ms": self._arrival_ms.copy(),
            "own_words": self._words.copy(),
        }

    def restore(self, columns: Columns) -> None:
        """Replace the memory by what `columns` returned."""
        window, highest = columns["own_window"], columns["own_highest"]
        arrival_ms, words = columns["own_arrival_ms"], columns["own_words"]
        assert isinstance(window, np.ndarray) and isinstance(highest, np.ndarray)
        assert isinstance(arrival_ms, np.ndarray) and isinstance(words, np.ndarray)
        self._slots = {str(source): slot for slot, source in enumerate(columns["own_sources"])}
        self._window, self._highest = window.astype(np.int64), highest.astype(np.int64)
        self._arrival_ms, self._words = arrival_ms.astype(np.int64), words.astype(np.uint64)
        self._first_word = np.cumsum(self._window >> _WORD_SHIFT) - (self._window >> _WORD_SHIFT)
        self._now_ms = int(self._arrival_ms.max(initial=0))


def _repeated(key: _Ints) -> _Bools:
    """Whether an equal key stands before; bool, shape (n,)."""
    repeated = np.zeros(len(key), dtype=np.bool_)
    order = np.argsort(key, kind="stable")
    ranked = key[order]
    repeated[order[1:]] = ranked[1:] == ranked[:-1]
    return repeated
