"""Gathers records that their shards have room for into PutRecords requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Set

from streamgauge.producers.client.limiter import Limiter
from streamgauge.producers.client.out_record import OutRecord

__all__ = ["Collector"]


class Collector:
    """A queue per shard; requests take from each what the limiter lets through.

    Shards in ``busy`` are left alone. With `one_per_shard` a request holds one record for each shard at most.
    """

    def __init__(
        self, limiter: Limiter, *, records_max: int, bytes_max: int, linger_ms: int, one_per_shard: bool
    ) -> None:
        # configuration
        self._limiter = limiter
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._linger_ms = linger_ms
        self._one_per_shard = one_per_shard
        # live
        self.busy: Set[str] = frozenset()
        self._queues: dict[str, deque[OutRecord]] = {}
        self._records = 0
        self._bytes = 0
        self._turn = 0

    def __len__(self) -> int:
        return self._records

    def add(self, record: OutRecord) -> None:
        """Queue a record for its predicted shard."""
        self._queues.setdefault(record.shard_id, deque()).append(record)
        self._records += 1
        self._bytes += record.size

    def add_first(self, record: OutRecord) -> None:
        """Queue a record that is to be sent again: before the others, and without lingering."""
        record.queued_ms -= self._linger_ms
        self._queues.setdefault(record.shard_id, deque()).appendleft(record)
        self._records += 1
        self._bytes += record.size

    def take(self, now_ms: int, *, urgent: bool) -> list[OutRecord]:
        """The records of the next request; none if it is better, or necessary, to wait."""
        if not self._records or not (urgent or self._is_full or self._oldest_ms() + self._linger_ms <= now_ms):
            return []
        batch: list[OutRecord] = []
        size = 0
        # Each request begins with another shard, so that none starves when requests are full.
        order = list(self._queues)
        self._turn += 1
        start = self._turn % len(order)
        for shard_id in order[start:] + order[:start]:
            for record in self._for_shard(shard_id, now_ms):
                if len(batch) == self._records_max or size + record.size > self._bytes_max:
                    break
                self._queues[shard_id].popleft()
                self._limiter.take(shard_id, record.size, now_ms)
                size += record.size
                batch.append(record)
            if not self._queues[shard_id]:
                del self._queues[shard_id]
        self._records -= len(batch)
        self._bytes -= size
        return batch

    def remove(self, unwanted: Callable[[OutRecord], bool]) -> list[OutRecord]:
        """Take out every record that `unwanted` says."""
        removed: list[OutRecord] = []
        for shard_id, queue in list(self._queues.items()):
            kept: deque[OutRecord] = deque()
            for record in queue:
                (removed if unwanted(record) else kept).append(record)
            if kept:
                self._queues[shard_id] = kept
            else:
                del self._queues[shard_id]
        self._records -= len(removed)
        self._bytes -= sum(record.size for record in removed)
        return removed

    def wake_ms(self, now_ms: int, *, urgent: bool) -> int | None:
        """When `take` may give something; None if only an answer can bring that about."""
        free = [
            max(self._limiter.ready_ms(shard_id, queue[0].size, now_ms), queue[0].not_before_ms)
            for shard_id, queue in self._queues.items()
            if shard_id not in self.busy
        ]
        if not free:
            return None
        return min(free) if urgent or self._is_full else max(min(free), self._oldest_ms() + self._linger_ms)

    @property
    def _is_full(self) -> bool:
        return self._records >= self._records_max or self._bytes >= self._bytes_max

    def _oldest_ms(self) -> int:
        return min(queue[0].queued_ms for queue in self._queues.values())

    def _for_shard(self, shard_id: str, now_ms: int) -> Iterator[OutRecord]:
        """The heads of one queue that may go now, each to be popped before the next is asked for."""
        queue = self._queues[shard_id]
        if shard_id in self.busy:
            return
        while queue:
            record = queue[0]
            if record.not_before_ms > now_ms or self._limiter.ready_ms(shard_id, record.size, now_ms) > now_ms:
                return
            yield record
            if self._one_per_shard:
                return
