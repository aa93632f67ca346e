"""Which shard a hash key belongs to, as far as the last ListShards told."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable

from streamgauge.events.hash_key import HashRange
from streamgauge.events.records import Shard
from streamgauge.events.shard_listing import ListedShard

__all__ = ["ShardMap"]


class ShardMap:
    """An immutable view of the stream's shards, open and closed ones with their lineage.

    It remembers the ranges that an `earlier` view knew: a listing may be older than the one before it.
    """

    def __init__(self, listed: Iterable[ListedShard], earlier: ShardMap | None = None) -> None:
        self._shards = {entry.shard.shard_id: entry for entry in listed}
        self._ranges: dict[str, HashRange] = dict(earlier._ranges) if earlier else {}
        self._ranges.update((shard_id, entry.shard.hash_range) for shard_id, entry in self._shards.items())
        self.open_shards = sorted(
            (entry.shard for entry in self._shards.values() if entry.is_open), key=lambda shard: shard.hash_range
        )
        self._firsts = [shard.hash_range.first for shard in self.open_shards]
        self._ids = [shard.shard_id for shard in self.open_shards]

    def predict(self, key: int) -> str:
        """The id of the open shard whose range holds `key`.

        While a reshard is under way the listing may have a hole; the nearest shard below is taken then, since the
        answer to the put tells where the record landed.
        """
        return self._ids[max(bisect_right(self._firsts, key) - 1, 0)]

    def is_open(self, shard_id: str) -> bool:
        """Whether the shard is known and takes records."""
        entry = self._shards.get(shard_id)
        return entry is not None and entry.is_open

    def hash_range(self, shard_id: str) -> HashRange | None:
        """The range of a shard, open or closed; None if this view does not know it."""
        entry = self._shards.get(shard_id)
        return None if entry is None else entry.shard.hash_range

    def heirs(self, shard_id: str) -> set[str]:
        """The open shards that take what the shard took: itself, or those whose range overlaps its own.

        Where an older listing has followed a newer one, those are the shard's parents.
        """
        if self.is_open(shard_id):
            return {shard_id}
        hash_range = self._ranges.get(shard_id)
        if hash_range is None:
            return set()
        return {shard.shard_id for shard in self.open_shards if shard.hash_range.intersection(hash_range)}

    def uncovered(self, holders: Collection[str]) -> list[Shard]:
        """The open shards that are not among `holders` and have a parent line without one among them.

        After a merge both parents must hold one: the child inherits from each only for its part of the hash keys.
        """
        return [shard for shard in self.open_shards if not self._covered(shard.shard_id, holders)]

    def _covered(self, shard_id: str, holders: Collection[str]) -> bool:
        if shard_id in holders:
            return True
        entry = self._shards.get(shard_id)
        parents = entry.shard.parents if entry else ()
        return bool(parents) and all(self._covered(parent, holders) for parent in parents)
