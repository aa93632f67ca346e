"""A stream: its shards, the routing of hash keys to them, and how they split and merge."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Literal

from streamgauge.events.hash_key import FULL_RANGE, HashRange
from streamgauge.infra.local.kinesis.errors import (
    InvalidArgumentException,
    ResourceNotFoundException,
)
from streamgauge.infra.local.kinesis.limits import DAY_MS, MIN_RECORD_KIB, Limits
from streamgauge.infra.local.kinesis.shards import ShardState

__all__ = ["EncryptionType", "ShardFilter", "ShardFilterType", "Stream", "StreamMode"]

StreamMode = Literal["PROVISIONED", "ON_DEMAND"]
EncryptionType = Literal["NONE", "KMS"]
ShardFilterType = Literal[
    "AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP", "FROM_TIMESTAMP"
]


@dataclass(frozen=True, slots=True)
class ShardFilter:
    """Which shards ListShards gives. Source: API Reference, ShardFilter."""

    type: ShardFilterType = "FROM_TRIM_HORIZON"
    shard_id: str | None = None
    timestamp_ms: int | None = None


class Stream:
    """One stream.

    Configuration: name, ARN, account, creation, limits. Described only: mode, tags, encryption. Live: the shards, open
    ones in order of their ranges beside all unexpired ones by id, and the retention.
    """

    def __init__(
        self, name: str, *, arn: str, account: str, created_ms: int, created_s: int, shard_count: int, limits: Limits
    ) -> None:
        self.name = name
        self.arn = arn
        self.account = account
        self.created_ms = created_ms
        self.limits = limits
        self.mode: StreamMode = "PROVISIONED"
        self.tags: dict[str, str] = {}
        self.encryption: EncryptionType = "NONE"
        self.key_id: str | None = None
        self.max_record_bytes = MIN_RECORD_KIB * 1024
        self.retention_ms = DAY_MS
        self.rescaled_ms: list[int] = []
        self.shards: dict[str, ShardState] = {}
        self.open: list[ShardState] = []
        self._starts: list[int] = []
        # In order of closing, so that parents expire before their children.
        self._closed: deque[ShardState] = deque()
        self._next_index = 0
        for part in FULL_RANGE.even_parts(shard_count):
            self._add(part, (), now_ms=created_ms, created_s=created_s)
        self._reorder()

    @property
    def newest_created_s(self) -> int:
        """The second that leads the sequence numbers of the newest shard."""
        return max(shard.numbers.created_s for shard in self.open)

    def route(self, key: int) -> ShardState:
        """The open shard whose range holds the hash key."""
        return self.open[bisect_right(self._starts, key) - 1]

    def shard(self, shard_id: str, now_ms: int) -> ShardState:
        """An unexpired shard, trimmed.

        Raises
        ------
        ResourceNotFoundException
            There is none of that id.
        """
        self.expire(now_ms)
        shard = self.shards.get(shard_id)
        if shard is None:
            raise ResourceNotFoundException(
                f"Shard {shard_id} in stream {self.name} under account {self.account} does not exist"
            )
        shard.log.trim(now_ms - self.retention_ms)
        return shard

    def expire(self, now_ms: int) -> None:
        """Forget shards that were closed longer ago than the retention; they are the oldest ones."""
        horizon = now_ms - self.retention_ms
        while self._closed and (self._closed[0].closed_ms or 0) <= horizon:
            del self.shards[self._closed.popleft().shard_id]

    def set_retention(self, retention_ms: int, now_ms: int) -> None:
        """Change the retention; what was past the old one stays gone."""
        self.expire(now_ms)
        for shard in self.shards.values():
            shard.log.trim(now_ms - self.retention_ms)
        self.retention_ms = retention_ms

    def listed(self, shard_filter: ShardFilter, now_ms: int) -> list[ShardState]:
        """The unexpired shards that the filter lets through, in order of their ids."""
        self.expire(now_ms)
        shards = list(self.shards.values())
        at = shard_filter.timestamp_ms or 0
        match shard_filter.type:
            case "AFTER_SHARD_ID":
                return [shard for shard in shards if shard.shard_id > (shard_filter.shard_id or "")]
            case "AT_LATEST":
                return [shard for shard in shards if shard.closed_ms is None]
            case "AT_TRIM_HORIZON":
                # Those without an unexpired parent. Comparing times would be ambiguous where a shard was split within
                # the millisecond of its creation; this way they partition the hash keys whatever happened.
                return [shard for shard in shards if not any(parent in self.shards for parent in shard.parents)]
            case "AT_TIMESTAMP":
                return [
                    shard
                    for shard in shards
                    if shard.created_ms <= at and (shard.closed_ms is None or shard.closed_ms >= at)
                ]
            case "FROM_TIMESTAMP":
                return [shard for shard in shards if shard.closed_ms is None or shard.closed_ms >= at]
            case "FROM_TRIM_HORIZON":
                return shards

    def split(self, shard_id: str, new_starting_hash_key: int, now_ms: int) -> None:
        """Close a shard; two children share its range, the upper one beginning at the key given."""
        shard = self._splittable(shard_id, now_ms)
        first, last = shard.hash_range
        if not first + 1 < new_starting_hash_key < last:
            raise InvalidArgumentException(
                f"NewStartingHashKey {new_starting_hash_key} used in SplitShard() on shard {shard_id} in stream "
                f"{self.name} under account {self.account} is not both greater than one plus the shard's "
                f"StartingHashKey {first} and less than the shard's EndingHashKey {last}."
            )
        self._cut(shard, new_starting_hash_key, now_ms)

    def merge(self, shard_id: str, adjacent_shard_id: str, now_ms: int) -> None:
        """Close two adjacent shards; one child takes their ranges."""
        shard, adjacent = self._splittable(shard_id, now_ms), self._splittable(adjacent_shard_id, now_ms)
        lower, upper = sorted((shard, adjacent), key=lambda one: one.hash_range)
        if lower.hash_range.last + 1 != upper.hash_range.first:
            raise InvalidArgumentException(
                f"Shards {shard_id} and {adjacent_shard_id} in stream {self.name} under account {self.account} are "
                "not an adjacent pair of shards eligible for merging"
            )
        self._replace([shard, adjacent], (HashRange(lower.hash_range.first, upper.hash_range.last),), now_ms)

    def scale(self, target: int, now_ms: int) -> None:
        """Bring the open shards to `target` even ranges, through splits and merges as UpdateShardCount does.

        Where a shard straddles the edge of a new range it is split there, and the pieces of a range are merged: that
        leaves short-lived shards in the lineage, as on AWS.
        """
        for part in FULL_RANGE.even_parts(target):
            straddling = self.route(part.first)
            if straddling.hash_range.first != part.first:
                self._cut(straddling, part.first, now_ms)
            straddling = self.route(part.last)
            if straddling.hash_range.last != part.last:
                self._cut(straddling, part.last + 1, now_ms)
            while (piece := self.route(part.first)).hash_range != part:
                self.merge(piece.shard_id, self.route(piece.hash_range.last + 1).shard_id, now_ms)

    def _splittable(self, shard_id: str, now_ms: int) -> ShardState:
        self.expire(now_ms)
        shard = self.shards.get(shard_id)
        if shard is None:
            raise ResourceNotFoundException(
                f"Could not find shard {shard_id} in stream {self.name} under account {self.account}."
            )
        if shard.closed_ms is not None:
            raise InvalidArgumentException(
                f"Shard {shard_id} in stream {self.name} under account {self.account} has already been merged or "
                "split, and thus is not eligible for merging or splitting."
            )
        return shard

    def _cut(self, shard: ShardState, key: int, now_ms: int) -> None:
        first, last = shard.hash_range
        self._replace([shard], (HashRange(first, key - 1), HashRange(key, last)), now_ms)

    def _replace(self, parents: list[ShardState], ranges: tuple[HashRange, ...], now_ms: int) -> None:
        # A clock that went backwards must not close a shard before it was created.
        now_ms = max(now_ms, *(parent.created_ms for parent in parents))
        created_s = max(now_ms // 1000, *(parent.numbers.created_s + 1 for parent in parents))
        names = tuple(parent.shard_id for parent in parents)
        children = [self._add(part, names, now_ms=now_ms, created_s=created_s) for part in ranges]
        for parent in parents:
            parent.closed_ms = now_ms
            parent.children = children
            self._closed.append(parent)
        self._reorder()

    def _add(self, hash_range: HashRange, parents: tuple[str, ...], *, now_ms: int, created_s: int) -> ShardState:
        shard = ShardState(
            self._next_index,
            hash_range,
            parents=parents,
            created_ms=now_ms,
            created_s=created_s,
            limits=self.limits,
        )
        self._next_index += 1
        self.shards[shard.shard_id] = shard
        return shard

    def _reorder(self) -> None:
        self.open = sorted(
            (shard for shard in self.shards.values() if shard.closed_ms is None), key=lambda shard: shard.hash_range
        )
        self._starts = [shard.hash_range.first for shard in self.open]
