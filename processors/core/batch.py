"""Decoded events as columns: what decoding hands to everything after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from streamgauge.events.envelope import Event
from streamgauge.processors.core.effects import FailedEvent, FailureReason

__all__ = ["ControlRecord", "Decoded", "EventBatch", "FieldColumn", "Outcome"]


@dataclass(frozen=True, slots=True)
class FieldColumn:
    """One field of n events. ``present`` is bool, shape (n,); where it is False the field is null or absent.

    ``values`` has shape (n,): int64 for integers, float64 for numbers, bool for booleans (0 where not present), or a
    list of n strings ("" where not present).
    """

    values: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_] | list[str]
    present: NDArray[np.bool_]


class Outcome(IntEnum):
    """What decoding made of an event whose identity it could read."""

    READ = 0
    TYPE_NOT_READ = 1
    """Of a type that the catalogue has and the pipeline does not name."""
    FAILED = 2
    """To be stored with the reason in ``EventBatch.failures``, unless it is a duplicate."""


@dataclass(slots=True)
class EventBatch:
    """n events whose identity could be read, in stream order; every array and list has length n.

    All of them take part in the removal of duplicates; only those whose ``outcome`` is READ are applied. Of the others
    time and fields may be missing (0 and not present).

    record : int64
        Index into ``Decoded.sequence_numbers`` of the record that held the event.
    sub_sequence : int64
        Place in that record: 0 in a plain one.
    time_ms : int64
        Milliseconds since the epoch.
    source : int64
        Index into ``sources`` (distinct within the batch) and ``source_windows`` (W; 0 for a foreign source; -1 where
        the events have no id but their position, so that no two are ever the same).
    sequence : int64
        Of events of ours; -1 for foreign ones.
    ids
        The CloudEvents id; for mapped records without one, the position as text.
    outcome : uint8
        An `Outcome`.
    failures
        By index, for the rows whose outcome is FAILED: the reason, and a detail that names field and value.
    fields
        By path: ``subject``, ``partitionkey``, ``type``, ``source`` (strings) and ``data.<name>[.<name>…]``; only what
        the pipeline names.
    """

    record: NDArray[np.int64]
    sub_sequence: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    source: NDArray[np.int64]
    sources: list[str]
    source_windows: list[int]
    sequence: NDArray[np.int64]
    ids: list[str]
    partition_keys: list[str]
    outcome: NDArray[np.uint8]
    failures: dict[int, tuple[FailureReason, str]]
    fields: Mapping[str, FieldColumn]
    payloads: list[bytes]

    def __len__(self) -> int:
        return len(self.payloads)


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """A tick or end_of_input, and the record that held it (index as in `EventBatch`)."""

    record: int
    sub_sequence: int
    event: Event


@dataclass(slots=True)
class Decoded:
    """What one batch of records held. ``sequence_numbers`` and ``arrival_ms`` are per record, arrival as it was given.

    ``failed`` are those without a readable identity; ``positions`` counts everything, as `Counters` defines it:
    ``positions = len(batch) + len(failed) + len(controls) + ledger + misrouted``.
    """

    sequence_numbers: Sequence[int]
    arrival_ms: NDArray[np.int64]
    last_sub_sequence: int
    """Sub-sequence number of the last event of the last record; with its sequence number, the position reached."""
    batch: EventBatch
    controls: list[ControlRecord]
    failed: list[FailedEvent]
    positions: int
    ledger: int
    misrouted: int
    redelivered: int
    """Events at or below the position already applied: skipped before anything else, and no positions."""
