"""A Kinesis record on its way out, and the request that carries it."""

from __future__ import annotations

from typing import NamedTuple

from streamgauge.producers.client.delivery import Delivery

__all__ = ["EntryAnswer", "ListShards", "OutRecord", "PutRequest"]


class OutRecord:
    """One record: an aggregate of several events, or one event as it is.

    ``shard_id`` is the predicted shard. ``size`` counts data and partition key, as AWS does.
    """

    __slots__ = (
        "aggregated",
        "attempts",
        "data",
        "events",
        "explicit_hash_key",
        "not_before_ms",
        "partition_key",
        "queued_ms",
        "shard_id",
        "size",
    )

    def __init__(
        self,
        shard_id: str,
        events: list[Delivery],
        data: bytes,
        partition_key: str,
        *,
        explicit_hash_key: int | None,
        aggregated: bool,
        now_ms: int,
    ) -> None:
        self.shard_id = shard_id
        self.events = events
        self.data = data
        self.partition_key = partition_key
        self.explicit_hash_key = explicit_hash_key
        self.aggregated = aggregated
        self.size = len(data) + (len(partition_key) if partition_key.isascii() else len(partition_key.encode()))
        self.attempts = 0
        self.queued_ms = now_ms
        self.not_before_ms = now_ms

    @classmethod
    def plain(cls, shard_id: str, event: Delivery, now_ms: int) -> OutRecord:
        """`event` alone, under its own partition key."""
        return cls(
            shard_id,
            [event],
            event.payload,
            event.partition_key,
            explicit_hash_key=event.explicit_hash_key,
            aggregated=False,
            now_ms=now_ms,
        )

    def first_attempt_ms(self) -> int | None:
        """The earliest first attempt of any event in it, in an earlier record perhaps; None before one."""
        return min((event.first_attempt_ms for event in self.events if event.first_attempt_ms >= 0), default=None)


class EntryAnswer(NamedTuple):
    """PutRecords' answer for one record: shard and sequence number, or an error code with its message."""

    shard_id: str | None
    sequence_number: str | None
    error_code: str | None = None
    error_message: str | None = None


class PutRequest(NamedTuple):
    """One PutRecords call to make. Its answer goes to `answered` or `failed` under ``request_id``."""

    request_id: int
    started_ms: int
    records: list[OutRecord]
    shard_ids: frozenset[str]


class ListShards(NamedTuple):
    """One ListShards call, with all its pages, to make. Its answer goes to `listed` or `list_failed`."""
