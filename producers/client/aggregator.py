"""Gathers events into aggregated records, one open aggregate per predicted shard."""

from __future__ import annotations

from collections.abc import Callable

from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.producers.client.delivery import Delivery
from streamgauge.producers.client.out_record import OutRecord

__all__ = ["Aggregator"]


_OVERHEAD_MAX = 64
"""More than what one event adds to an aggregate beside its own bytes and its partition key's."""


class _Open:
    __slots__ = ("builder", "events", "opened_ms")

    def __init__(self, now_ms: int) -> None:
        self.builder = AggregateBuilder()
        self.events: list[Delivery] = []
        self.opened_ms = now_ms


class Aggregator:
    """Open aggregates, in the order in which they were opened."""

    def __init__(self, *, bytes_max: int, events_max: int, linger_ms: int) -> None:
        # configuration
        self._bytes_max = bytes_max
        self._events_max = events_max
        self._linger_ms = linger_ms
        # live
        self._open: dict[str, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, shard_id: str, event: Delivery, now_ms: int) -> OutRecord | None:
        """Add `event`; return the aggregate that was closed because the event did not fit in."""
        record = UserRecord(event.partition_key, None, event.payload)
        current = self._open.get(shard_id)
        closed = None
        if current is not None and (
            len(current.events) >= self._events_max
            # The exact size costs; most events fit by far.
            or (
                current.builder.size_bytes + event.size + _OVERHEAD_MAX > self._bytes_max
                and current.builder.size_after(record) > self._bytes_max
            )
        ):
            closed = self._close(shard_id, now_ms)
            current = None
        if current is None:
            current = self._open[shard_id] = _Open(now_ms)
        current.builder.add(record)
        current.events.append(event)
        return closed

    def close(self, shard_id: str, now_ms: int) -> OutRecord | None:
        """Close the shard's aggregate, if there is one."""
        return self._close(shard_id, now_ms) if shard_id in self._open else None

    def close_due(self, now_ms: int) -> list[OutRecord]:
        """Close what has lingered long enough."""
        due = []
        for shard_id, current in self._open.items():
            if current.opened_ms + self._linger_ms > now_ms:
                break
            due.append(shard_id)
        return [self._close(shard_id, now_ms) for shard_id in due]

    def close_all(self, now_ms: int) -> list[OutRecord]:
        """Close everything."""
        return [self._close(shard_id, now_ms) for shard_id in list(self._open)]

    def dissolve(self, is_open: Callable[[str], bool]) -> list[Delivery]:
        """Take the events back out of the aggregates for shards that `is_open` denies."""
        gone = [shard_id for shard_id in self._open if not is_open(shard_id)]
        return [event for shard_id in gone for event in self._open.pop(shard_id).events]

    def wake_ms(self) -> int | None:
        """When the oldest aggregate has lingered long enough."""
        for current in self._open.values():
            return current.opened_ms + self._linger_ms
        return None

    def _close(self, shard_id: str, now_ms: int) -> OutRecord:
        current = self._open.pop(shard_id)
        if len(current.events) == 1:
            # Alone it is smaller as it is, and lands in its own shard whatever the map says.
            return OutRecord.plain(shard_id, current.events[0], now_ms)
        builder = current.builder
        return OutRecord(
            shard_id,
            current.events,
            builder.encode(),
            builder.partition_key,
            explicit_hash_key=builder.hash_key,
            aggregated=True,
            now_ms=now_ms,
        )
