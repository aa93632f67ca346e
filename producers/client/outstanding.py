"""The events on their way: what they take up, and what their end means for the caller and for W."""

from __future__ import annotations

import heapq

from streamgauge.events.position import Position
from streamgauge.producers.client.delivery import Acknowledged, Delivery, GivenUp, Unknown
from streamgauge.producers.client.source_log import SourceLog
from streamgauge.producers.client.stats import ProducerStats

__all__ = ["Outstanding"]


class Outstanding:
    """Counts what is on its way and settles it.

    An event that is given up or unknown holds its place in W until `landing_bound_ms` after the start of the last
    attempt that got no clear answer: until then it may land for the first time, and must not be taken for a duplicate.
    """

    def __init__(self, stats: ProducerStats, landing_bound_ms: int) -> None:
        # configuration
        self._landing_bound_ms = landing_bound_ms
        # live
        self.events = 0
        self.bytes = 0
        self.internal = 0
        self.changes = 0
        self._stats = stats
        self._holds: list[tuple[int, int, str, SourceLog]] = []

    def add(self, event: Delivery) -> None:
        """`event` sets out."""
        event.ordinal = self._stats.put
        if event.internal:
            self.internal += 1
        else:
            self.events += 1
            self.bytes += event.size
            self._stats.put += 1
            self._stats.put_bytes += event.size

    def acknowledge(self, event: Delivery, shard_id: str, position: Position) -> None:
        """A record with `event` is in the stream."""
        self.changes += 1
        event.live -= 1
        if event.outcome is not None:
            self._stats.copies_acknowledged += 1
        else:
            event.outcome = Acknowledged(shard_id, position)
            if not event.internal:
                self._stats.acknowledged += 1
            if event.log is not None:
                event.log.acknowledge(event.sequence)
            if event.on_done is not None:
                event.on_done(event)
        if not event.live and not event.copies_left:
            self._settle(event)

    def drop(self, event: Delivery, reason: str) -> None:
        """A record with `event` is not sent again."""
        self.changes += 1
        event.live -= 1
        if event.live or event.copies_left:
            return
        if event.outcome is None:
            if event.doubtful_ms >= 0:
                event.outcome = Unknown(reason)
            else:
                event.outcome = GivenUp(reason)
            if not event.internal:
                if event.doubtful_ms >= 0:
                    self._stats.unknown += 1
                else:
                    self._stats.given_up += 1
            if event.on_done is not None:
                event.on_done(event)
        self._settle(event)

    def release_holds(self, now_ms: int) -> None:
        """Free the places in W of what can no longer land."""
        while self._holds and self._holds[0][0] <= now_ms:
            _, sequence, _, log = heapq.heappop(self._holds)
            log.release(sequence)
            self.changes += 1

    def wake_ms(self) -> int | None:
        """When the next place is freed by time."""
        return self._holds[0][0] if self._holds else None

    def _settle(self, event: Delivery) -> None:
        if event.internal:
            self.internal -= 1
        else:
            self.events -= 1
            self.bytes -= event.size
        event.payload = b""
        log = event.log
        if log is None:
            return
        if isinstance(event.outcome, Acknowledged):
            log.settle(event.sequence)
            return
        log.abandon(event.sequence, known_refused=event.doubtful_ms < 0)
        if event.doubtful_ms < 0:
            log.release(event.sequence)
        else:
            until_ms = event.doubtful_ms + self._landing_bound_ms
            heapq.heappush(self._holds, (until_ms, event.sequence, log.source, log))
