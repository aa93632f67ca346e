"""Whether the owner of a shard lives, by the observer's own clock: nobody compares clocks of two machines."""

from __future__ import annotations

from collections.abc import Callable

from streamgauge.processors.commit.ports import ShardRow

__all__ = ["ClaimWatch"]


class ClaimWatch:
    """Remembers since when each row has had its claim_version.

    Parameters
    ----------
    clock
        Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}
        self._moved: set[str] = set()

    def unchanged_s(self, row: ShardRow) -> float:
        """For how many seconds this observer has seen the row at its version; 0 where the version is new to it."""
        now = self._clock()
        version, since = self._seen.get(row.shard.shard_id, (None, now))
        if version not in (None, row.claim_version):
            self._moved.add(row.shard.shard_id)
        if version != row.claim_version:
            since = now
            self._seen[row.shard.shard_id] = row.claim_version, now
        return now - since

    def has_moved(self, row: ShardRow) -> bool:
        """Whether this observer has ever seen the row change: if not, nobody knows whether its owner lives."""
        return row.shard.shard_id in self._moved
