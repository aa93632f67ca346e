"""Hash keys: which shard a partition key belongs to.

Source: Amazon Kinesis Data Streams API reference, PutRecord ("an MD5 hash function is used to map partition keys to
128-bit integer values") and Shard.HashKeyRange (both ends inclusive).
"""

from __future__ import annotations

import itertools
from hashlib import md5
from typing import NamedTuple

__all__ = ["FULL_RANGE", "MAX_HASH_KEY", "HashRange", "hash_key"]

MAX_HASH_KEY = 2**128 - 1


def hash_key(partition_key: str) -> int:
    """MD5 of the UTF-8 partition key as an unsigned 128-bit big-endian integer."""
    return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


class HashRange(NamedTuple):
    """A shard's hash keys, ``first`` to ``last``, both included."""

    first: int
    last: int

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and self.first <= key <= self.last

    def intersection(self, other: HashRange) -> HashRange | None:
        """The common part, or None."""
        first, last = max(self.first, other.first), min(self.last, other.last)
        return HashRange(first, last) if first <= last else None

    def covers(self, other: HashRange) -> bool:
        """Whether all of `other` lies inside."""
        return self.first <= other.first and other.last <= self.last

    def even_parts(self, count: int) -> list[HashRange]:
        """Cut into `count` adjoining parts whose sizes differ by one key at most.

        Raises
        ------
        ValueError
            `count` is not positive, or larger than the number of keys.
        """
        size = self.last - self.first + 1
        if not 0 < count <= size:
            raise ValueError(f"cannot cut {size} hash keys into {count} parts")
        edges = [self.first + size * part // count for part in range(count + 1)]
        return [HashRange(first, after - 1) for first, after in itertools.pairwise(edges)]


FULL_RANGE = HashRange(0, MAX_HASH_KEY)
