"""The counters that live in a shard's snapshot, per state_epoch. Their names are written to stores: never rename one.

The audit holds, for every shard::

    positions = accepted + duplicate_in_window + duplicate_below_window + duplicate_foreign
              + type_not_read + sum(failed) + control + ledger + misrouted

and for every aggregate ``accepted = accepted_before + applied + filtered + late``. A corrupt or foreign misrouted
aggregate is one position (its record); an own misrouted aggregate counts each of its events under ``misrouted``.
"""

from __future__ import annotations

import msgspec

__all__ = ["AggregateCounters", "Counters"]


class AggregateCounters(msgspec.Struct):
    """Events of one aggregate. ``corrections`` are applied events that changed a pane already emitted.

    ``late`` are events that all their windows have lost; ``late_in_part`` are applied ones that some of their hopping
    windows have lost. Both are stored as late events. ``cut_sessions`` were closed by their maximum length and not by a
    gap.

    ``accepted_before`` is what the shard had accepted when the aggregate was added to the pipeline: 0 for those that
    were there from the beginning. ``rules_since`` has the rules that were added later, each with the instant (event
    time, ms) up to which windows had closed by then: of those it knows nothing.
    """

    accepted_before: int = 0
    applied: int = 0
    filtered: int = 0
    late: int = 0
    corrections: int = 0
    late_in_part: int = 0
    cut_sessions: int = 0
    rules_since: dict[str, int] = msgspec.field(default_factory=dict)


class Counters(msgspec.Struct):
    """Positions of one shard by what became of them, and what a host's redeliveries cost.

    ``redelivered`` counts events at or below the last applied position: they are no new positions, and the number
    depends on the host's luck, not on the stream.
    """

    positions: int = 0
    accepted: int = 0
    duplicate_in_window: int = 0
    duplicate_below_window: int = 0
    duplicate_foreign: int = 0
    type_not_read: int = 0
    control: int = 0
    ledger: int = 0
    misrouted: int = 0
    failed: dict[str, int] = msgspec.field(default_factory=dict)
    redelivered: int = 0
    aggregates: dict[str, AggregateCounters] = msgspec.field(default_factory=dict)
    threshold_events_raised: int = 0
    threshold_events_cleared: int = 0
