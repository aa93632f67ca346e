"""Token buckets that keep a producer within the limits of each shard."""

from __future__ import annotations

import math

__all__ = ["Limiter", "TokenBucket"]

_BURST_S = 0.03
"""A bucket holds what flows in during this time. In any second at most the rate, the bucket and one overdraft pass."""


class TokenBucket:
    """A bucket that may be overdrawn by one item, so that an item larger than the bucket passes too."""

    __slots__ = ("_capacity", "_rate_per_ms", "_tokens", "_updated_ms")

    def __init__(self, rate_per_s: float, now_ms: int) -> None:
        self._rate_per_ms = rate_per_s / 1000
        self._capacity = max(rate_per_s * _BURST_S, 1.0)
        self._tokens = self._capacity
        self._updated_ms = now_ms

    def ready_ms(self, cost: float, now_ms: int) -> int:
        """The earliest time, from now on, at which `cost` may be taken."""
        self._refill(now_ms)
        lacking = min(cost, self._capacity) - self._tokens
        return now_ms if lacking <= 0 else now_ms + math.ceil(lacking / self._rate_per_ms)

    def take(self, cost: float, now_ms: int) -> None:
        """Take `cost`, into debt if need be."""
        self._refill(now_ms)
        self._tokens -= cost

    def drain(self, now_ms: int) -> None:
        """The shard said that it is over its limit: start again from empty."""
        self._refill(now_ms)
        self._tokens = min(self._tokens, 0.0)

    def _refill(self, now_ms: int) -> None:
        if now_ms > self._updated_ms:
            self._tokens = min(self._capacity, self._tokens + (now_ms - self._updated_ms) * self._rate_per_ms)
            self._updated_ms = now_ms


class Limiter:
    """Bytes and records per second, per shard."""

    def __init__(self, bytes_per_s: int, records_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._records_per_s = records_per_s
        self._buckets: dict[str, tuple[TokenBucket, TokenBucket]] = {}

    def ready_ms(self, shard_id: str, size: int, now_ms: int) -> int:
        """The earliest time, from now on, at which one record of `size` bytes may go to the shard."""
        size_bucket, count_bucket = self._of(shard_id, now_ms)
        return max(size_bucket.ready_ms(size, now_ms), count_bucket.ready_ms(1, now_ms))

    def take(self, shard_id: str, size: int, now_ms: int) -> None:
        """One record of `size` bytes goes to the shard now."""
        size_bucket, count_bucket = self._of(shard_id, now_ms)
        size_bucket.take(size, now_ms)
        count_bucket.take(1, now_ms)

    def drain(self, shard_id: str, now_ms: int) -> None:
        """The shard throttled a record: what we believed to be free is used by others."""
        for bucket in self._of(shard_id, now_ms):
            bucket.drain(now_ms)

    def _of(self, shard_id: str, now_ms: int) -> tuple[TokenBucket, TokenBucket]:
        buckets = self._buckets.get(shard_id)
        if buckets is None:
            buckets = (TokenBucket(self._bytes_per_s, now_ms), TokenBucket(self._records_per_s, now_ms))
            self._buckets[shard_id] = buckets
        return buckets
