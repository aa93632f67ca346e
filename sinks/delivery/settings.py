"""When delivery reads and when it writes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DeliverySettings"]


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """Bounds of one range (whichever is reached first ends it; so does the next hour), and the pace of reading.

    A shard gives five reads a second to all its readers together, so reading twice a second leaves the processor three.
    """

    max_rows: int = 50_000
    """A row takes about 2 KB of memory until its range is written, in each shard."""
    max_bytes: int = 32 * 1024 * 1024
    max_age_ms: int = 60_000
    read_interval_ms: int = 1_000
    """At the shard's tip."""
    catch_up_interval_ms: int = 500
    """Behind the shard's tip."""
    list_interval_ms: int = 10_000
    """How often new shards are looked for, beside whenever a shard ends."""
