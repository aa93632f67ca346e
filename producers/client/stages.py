"""The stages between an event and a request, joined: shard map, aggregator, copies, limiter, collector, retrier."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence, Set

from streamgauge.events.hash_key import hash_key
from streamgauge.events.shard_listing import ListedShard
from streamgauge.producers.client.aggregator import Aggregator
from streamgauge.producers.client.collector import Collector
from streamgauge.producers.client.copies import CopySchedule
from streamgauge.producers.client.delivery import Delivery
from streamgauge.producers.client.limiter import Limiter
from streamgauge.producers.client.out_record import OutRecord
from streamgauge.producers.client.retrier import Retrier
from streamgauge.producers.client.settings import ProducerSettings
from streamgauge.producers.client.shard_map import ShardMap
from streamgauge.producers.client.stats import ProducerStats

__all__ = ["Stages"]

_AGGREGATE_OVERHEAD = 512
"""More than an aggregate of one event needs beside event and key: an event that would not fit with it goes alone."""


class Stages:
    """Where an event is before and between its attempts."""

    def __init__(
        self,
        settings: ProducerSettings,
        shards: Iterable[ListedShard],
        stats: ProducerStats,
        *,
        rng: random.Random,
    ) -> None:
        # configuration
        self._ordered = settings.ordered
        self._plain_only = settings.wire_format == "plain"
        self._aggregated_size_max = settings.aggregate_bytes_max - _AGGREGATE_OVERHEAD
        # live
        self.attention = False
        self.map = ShardMap(shards)
        self.retrier = Retrier(rng, base_ms=settings.backoff_base_ms, max_ms=settings.backoff_max_ms)
        self._stats = stats
        self._aggregator = Aggregator(
            bytes_max=settings.aggregate_bytes_max,
            events_max=settings.aggregate_events_max,
            linger_ms=settings.aggregate_linger_ms,
        )
        self._copies = CopySchedule()
        self._limiter = Limiter(settings.shard_bytes_per_s, settings.shard_records_per_s)
        self._collector = Collector(
            self._limiter,
            records_max=settings.request_records_max,
            bytes_max=settings.request_bytes_max,
            linger_ms=settings.request_linger_ms,
            one_per_shard=settings.ordered and not self._plain_only,
        )

    @property
    def queued(self) -> int:
        """Closed records that wait for their first or next attempt."""
        return len(self._collector) + len(self.retrier)

    def place_new(self, event: Delivery, now_ms: int) -> None:
        """Take in an event that was just put, and the copies that are due now."""
        self.place(event, now_ms)
        if self._copies:
            self._release(self._copies.take(self._stats.put), now_ms)

    def place(self, event: Delivery, now_ms: int) -> None:
        """Put `event` into a record for the shard where the map says that it belongs."""
        event.live += 1
        if event.plain or self._plain_only or event.size > self._aggregated_size_max:
            shard_id = self._predicted(event)
            earlier = self._aggregator.close(shard_id, now_ms) if self._ordered and not event.internal else None
            if earlier is not None:
                self._queue(earlier)
            self._queue(OutRecord.plain(shard_id, event, now_ms))
            return
        open_before = len(self._aggregator)
        closed = self._aggregator.add(self._predicted(event), event, now_ms)
        if closed is not None:
            self._queue(closed)
        elif len(self._aggregator) != open_before:
            self.attention = True

    def place_again(self, events: Sequence[Delivery], now_ms: int) -> None:
        """Events that were in a record take their way from its beginning."""
        for event in events:
            event.live -= 1
            self.place(event, now_ms)

    def turn(self, now_ms: int) -> None:
        """Do what time brings: close what has lingered, queue what is to be tried again."""
        for record in self._aggregator.close_due(now_ms):
            self._queue(record)
        self._release(self._copies.take(self._stats.put), now_ms)
        for record in self.retrier.due(now_ms):
            self._collector.add_first(record)

    def push_out(self, now_ms: int) -> None:
        """Close every aggregate, and those with the copies of its events, and so on."""
        while self._aggregator or self._copies:
            for record in self._aggregator.close_all(now_ms):
                self._queue(record)
            self._release(self._copies.take(None), now_ms)

    def take(self, now_ms: int, *, urgent: bool) -> list[OutRecord]:
        """The records of the next request."""
        return self._collector.take(now_ms, urgent=urgent)

    def retry(self, records: Sequence[OutRecord], due_ms: int) -> None:
        """Send `records`, in their order, again at `due_ms`."""
        self.attention = True
        for record in reversed(records):
            if self._ordered:
                record.not_before_ms = due_ms
                self._collector.add_first(record)
            else:
                self.retrier.add(record, due_ms)

    def set_busy(self, shard_ids: Set[str]) -> None:
        """The shards with something on its way, or whose place in the map is in doubt."""
        self._collector.busy = shard_ids if self._ordered else frozenset()

    def drain_limiter(self, shard_id: str, now_ms: int) -> None:
        """The shard said that it is over its limit."""
        self._limiter.drain(shard_id, now_ms)

    def set_map(self, shards: Iterable[ListedShard]) -> None:
        """Replace the map; `reroute` must follow."""
        self.map = ShardMap(shards, self.map)
        self.attention = True

    def reroute(self, displaced: Sequence[Delivery], now_ms: int) -> None:
        """Place events that were in a record anew, and all that waits for a shard which takes no records any more.

        In the order of their puts, also in the shards where the displaced events belong: what is queued there came
        later.
        """
        joined: Set[str] = {self._predicted(event) for event in displaced} if self._ordered else frozenset()

        def stays(shard_id: str) -> bool:
            return self.map.is_open(shard_id) and shard_id not in joined

        events = [*displaced]
        for stage in (self.retrier, self._collector):
            for record in stage.remove(lambda record: not stays(record.shard_id)):
                events += record.events
        events += self._aggregator.dissolve(stays)
        events.sort(key=lambda event: event.ordinal)
        self.place_again(events, now_ms)

    def remove_all(self) -> list[OutRecord]:
        """Empty every stage; the records hold every event that was in one."""
        for event in self._copies.take(None):
            event.live += 1
            event.copies_left = 0
            self._collector.add(OutRecord.plain("", event, 0))
        for record in self._aggregator.close_all(0):
            self._collector.add(record)
        return self._collector.remove(lambda _: True) + self.retrier.remove(lambda _: True)

    def wake_ms(self, now_ms: int, *, can_request: bool, urgent: bool) -> int | None:
        """When `turn` or `take` may find something to do."""
        wakes = [
            self._aggregator.wake_ms(),
            self.retrier.wake_ms(),
            self._collector.wake_ms(now_ms, urgent=urgent) if can_request else None,
        ]
        return min((wake for wake in wakes if wake is not None), default=None)

    def _predicted(self, event: Delivery) -> str:
        key = event.explicit_hash_key
        return self.map.predict(hash_key(event.partition_key) if key is None else key)

    def _queue(self, record: OutRecord) -> None:
        self.attention = True
        self._collector.add(record)
        for event in record.events:
            if event.copies_left and not event.copy_scheduled:
                event.copy_scheduled = True
                self._copies.add(event, self._stats.put)

    def _release(self, events: Sequence[Delivery], now_ms: int) -> None:
        for event in events:
            event.copy_scheduled = False
            event.copies_left -= 1
            self._stats.copies += 1
            self.place(event, now_ms)
