"""Floors: up to where the windows of a part of the hash keys had closed before the shard began.

The child of a merge starts with the lower of its parents' watermarks. In the other parent's hash keys windows beyond it
have been emitted, and the oldest have been let go. So an event is judged by the watermark or by the floor of its
partition key's hash, whichever is higher: a closed window is never opened anew. A floor lives until the watermark has
passed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.events.hash_key import HashRange, hash_key
from streamgauge.processors.core.columns import integers, texts
from streamgauge.processors.core.container import Columns

__all__ = ["NEVER", "Floor", "Floors"]

NEVER = int(np.iinfo(np.int64).min)
"""Stands for no instant yet: before every other."""

_CACHED_KEYS_MAX = 65_536
_HASH_KEY_DIGITS = 32


class Floor(NamedTuple):
    """The windows of the partition keys that hash into `hash_range` have closed up to `closed_to_ms`."""

    hash_range: HashRange
    closed_to_ms: int


class Floors:
    """The floors of one shard, which do not overlap.

    Saved: the floors. Live: the floor of each partition key seen, up to a bound.
    """

    def __init__(self, floors: Iterable[Floor] = ()) -> None:
        self._floors = _joined(floors)
        self._of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._floors)

    def of(self, partition_keys: Sequence[str]) -> NDArray[np.int64]:
        """The floor of each of n partition keys in milliseconds, `NEVER` where it has none; int64, shape (n,)."""
        known = self._of
        unknown = {key for key in partition_keys if key not in known}
        if unknown:
            if len(known) > _CACHED_KEYS_MAX:
                known.clear()
                unknown = set(partition_keys)
            known |= {key: self._find(hash_key(key)) for key in unknown}
        return np.fromiter(map(known.__getitem__, partition_keys), dtype=np.int64, count=len(partition_keys))

    def _find(self, key: int) -> int:
        return next((floor.closed_to_ms for floor in self._floors if key in floor.hash_range), NEVER)

    def closed_to_ms(self) -> list[int]:
        """By subrange, in the order of their keys."""
        return [floor.closed_to_ms for floor in self._floors]

    def copy(self) -> Floors:
        """As they are now."""
        return Floors(self._floors)

    def drop(self, watermark_ms: int) -> None:
        """Let go of the floors that the watermark has passed: they decide nothing any more."""
        kept = [floor for floor in self._floors if floor.closed_to_ms > watermark_ms]
        if len(kept) < len(self._floors):
            self._floors = kept
            self._of.clear()

    def over(self, hash_range: HashRange, watermark_ms: int) -> list[Floor]:
        """The higher of watermark and floor, for every part of `hash_range`."""
        parts: list[Floor] = []
        first = hash_range.first
        for floor in self._floors:
            common = floor.hash_range.intersection(hash_range)
            if common is None:
                continue
            if first < common.first:
                parts.append(Floor(HashRange(first, common.first - 1), watermark_ms))
            parts.append(Floor(common, max(floor.closed_to_ms, watermark_ms)))
            first = common.last + 1
        if first <= hash_range.last:
            parts.append(Floor(HashRange(first, hash_range.last), watermark_ms))
        return parts

    def columns(self) -> Columns:
        """What a snapshot must hold: hash keys as 32 hexadecimal digits, since they have 128 bits."""
        return {
            "floor_first": [f"{floor.hash_range.first:0{_HASH_KEY_DIGITS}x}" for floor in self._floors],
            "floor_last": [f"{floor.hash_range.last:0{_HASH_KEY_DIGITS}x}" for floor in self._floors],
            "floor_closed_to": np.array([floor.closed_to_ms for floor in self._floors], dtype=np.int64),
        }

    @classmethod
    def restore(cls, columns: Columns) -> Floors:
        """The floors that `columns` returned; a state from before there were floors has none."""
        if "floor_first" not in columns:
            return cls()
        ranges = [
            HashRange(int(first, 16), int(last, 16))
            for first, last in zip(texts(columns, "floor_first"), texts(columns, "floor_last"), strict=True)
        ]
        return cls(map(Floor, ranges, integers(columns, "floor_closed_to").tolist()))


def _joined(floors: Iterable[Floor]) -> list[Floor]:
    """In order of their hash keys, adjoining equal ones as one."""
    joined: list[Floor] = []
    for floor in sorted(floors):
        last = joined[-1] if joined else None
        if last and (last.hash_range.last + 1, last.closed_to_ms) == (floor.hash_range.first, floor.closed_to_ms):
            joined[-1] = Floor(HashRange(last.hash_range.first, floor.hash_range.last), floor.closed_to_ms)
        else:
            joined.append(floor)
    return joined
