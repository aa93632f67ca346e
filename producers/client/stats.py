"""What a producer has done so far."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ProducerStats"]


@dataclass(slots=True)
class ProducerStats:
    """Counters, since the start. Events are distinct ones; copies and resends have counters of their own.

    ``put`` = ``acknowledged`` + ``given_up`` + ``unknown`` + what is on its way; payloads put with `put_raw` count like
    events. ``resent_events`` were sent again because an attempt was refused or unanswered or landed in a wrong shard.
    """

    put: int = 0
    put_bytes: int = 0
    acknowledged: int = 0
    given_up: int = 0
    unknown: int = 0
    copies: int = 0
    copies_acknowledged: int = 0
    too_large: int = 0
    requests: int = 0
    requests_failed: int = 0
    records: int = 0
    records_throttled: int = 0
    resent_events: int = 0
    misrouted_events: int = 0
    shard_lists: int = 0
    ledgers: int = 0
    sources: int = 0
    last_error: str = ""
