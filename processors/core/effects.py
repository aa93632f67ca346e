"""What the core hands out: panes, threshold events, failed and late events. Values only.

Everything that leaves the system travels in an `Outbox`, which is saved with the snapshot before it is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamgauge.events.position import Position

__all__ = [
    "ArchiveObject",
    "Effects",
    "FailedEvent",
    "FailureReason",
    "LateEvent",
    "MeasureColumn",
    "Outbox",
    "PaneBatch",
    "ThresholdEvent",
]


class FailureReason(StrEnum):
    """Why an event is a failed event. The values are written to stores: never rename one."""

    CORRUPT_AGGREGATE = "corrupt_aggregate"
    """The record has the KPL magic, but its digest or its protobuf is wrong."""
    MISROUTED_AGGREGATE = "misrouted_aggregate"
    """A foreign aggregate with an event outside the shard's range: nobody is known to send it again."""
    MALFORMED_JSON = "malformed_json"
    """Not one JSON object in UTF-8."""
    ENVELOPE = "envelope"
    """An envelope attribute is missing, empty or of a wrong type; or the mapping found no such field."""
    TIME = "time"
    """The event's time is no time of the stated format."""
    KEY = "key"
    """The event has no key."""
    SEQUENCE = "sequence"
    """An event of ours without a sequence of 20 digits, or whose W is malformed or above the processor's maximum."""
    UNKNOWN_TYPE = "unknown_type"
    """The catalogue does not have the event's type."""
    UNKNOWN_VERSION = "unknown_version"
    """The catalogue has the type, but not the version that ``dataschema`` names."""
    DATA = "data"
    """``data`` does not fit the schema: a field missing, of a wrong type, or out of its range."""
    PARTITION = "partition"
    """The record's partition key is not the one that the event claims, or lies outside the shard's range."""
    FUTURE = "future"
    """The event's time is further past its arrival than ``future_bound`` allows."""
    OVERFLOW = "overflow"
    """Adding the event would take an integer sum out of 64 bits."""


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """An event, or a whole record, that could not be applied. `source` and `identity` are None where unreadable.

    `identity` is the sequence (20 digits) of an event of ours, the id of a foreign one.
    """

    position: Position
    arrival_ms: int
    partition_key: str
    reason: FailureReason
    detail: str
    payload: bytes
    source: str | None = None
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class LateEvent:
    """An accepted event past the allowed lateness of `aggregate`: counted, kept, not applied.

    Of hopping windows it may have missed the earlier ones only: the last of these begins at `window_start_ms`, and to
    the later ones it was applied.
    """

    position: Position
    aggregate: str
    source: str
    identity: str
    partition_key: str
    key: tuple[str, ...]
    time_ms: int
    window_start_ms: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class MeasureColumn:
    """One measure of a batch of panes: ``values`` int64 or float64, shape (n,); ``present`` bool, shape (n,).

    Where `present` is False the measure has no value (null) and ``values`` holds 0.
    """

    values: NDArray[np.int64] | NDArray[np.float64]
    present: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PaneBatch:
    """Panes of one aggregate at one revision each, in the order in which they were emitted; n of them, columnar.

    ``event_count`` is the number of events applied to the pane: every pane carries it, whatever its measures, so that
    the audit can count. ``tombstone`` marks a pane that ceased to be (a session that merged into another).
    """

    aggregate: str
    key_fields: tuple[str, ...]
    keys: Sequence[tuple[str, ...]]
    partition_keys: Sequence[str]
    window_start_ms: NDArray[np.int64]
    window_end_ms: NDArray[np.int64]
    revision: NDArray[np.int64]
    event_count: NDArray[np.int64]
    tombstone: NDArray[np.bool_]
    measures: Mapping[str, MeasureColumn]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, indices: Sequence[int]) -> PaneBatch:
        """The panes at `indices` as a batch of their own."""
        picked = np.asarray(indices, dtype=np.int64)
        return PaneBatch(
            aggregate=self.aggregate,
            key_fields=self.key_fields,
            keys=[self.keys[index] for index in indices],
            partition_keys=[self.partition_keys[index] for index in indices],
            window_start_ms=self.window_start_ms[picked],
            window_end_ms=self.window_end_ms[picked],
            revision=self.revision[picked],
            event_count=self.event_count[picked],
            tombstone=self.tombstone[picked],
            measures={
                name: MeasureColumn(column.values[picked], column.present[picked])
                for name, column in self.measures.items()
            },
        )


@dataclass(frozen=True, slots=True)
class ThresholdEvent:
    """One crossing of a rule, or the correction of one.

    `id` is derived from (pipeline, state_epoch, rule, key, window start, kind, crossing_ordinal), so a crossing keeps
    its id however often it is computed. `rule_sequence` is the position of the deciding record and an index within it:
    of two events of one (pipeline, state_epoch, rule, key) the one with the higher `rule_sequence` holds.
    `takes_back` is the id of the crossing that a correction takes back.

    `kind` says what happened in the window, `state` what holds after it. They differ only where a correction moved
    several crossings at once: each of its events carries the state after all of them, so that whichever a responder
    takes for the last one is right.
    """

    id: str
    pipeline: str
    state_epoch: int
    rule: str
    aggregate: str
    detail_type: str
    key: tuple[tuple[str, str], ...]
    partition_key: str
    window_start_ms: int
    window_end_ms: int
    revision: int
    kind: Literal["raise", "clear"]
    state: Literal["raised", "cleared"]
    reason: Literal["crossed", "corrected"]
    takes_back: str | None
    crossing_ordinal: int
    rule_sequence: tuple[int, int, int]
    """(sequence number, sub-sequence number, index) of the deciding record."""
    measures: tuple[tuple[str, int | float | None], ...]
    raise_when: str
    clear_when: str | None
    traceparent: str | None = None
    """W3C trace context of the event at `rule_sequence`; None where it has none, or where time decided (a tick)."""


@dataclass(frozen=True, slots=True)
class ArchiveObject:
    """One object for the archive: `body` is written as it is, `name` is its key below the archive's root.

    The name stands here and not in whoever delivers it, so that a second delivery overwrites the first.
    """

    name: str
    body: bytes


@dataclass(slots=True)
class Effects:
    """What one call of the engine produced, in stream order."""

    panes: list[PaneBatch] = field(default_factory=list)
    threshold_events: list[ThresholdEvent] = field(default_factory=list)
    failed: list[FailedEvent] = field(default_factory=list)
    late: list[LateEvent] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outbox:
    """What waits for delivery. Saved inside the snapshot; nothing in it leaves before that snapshot is saved."""

    archive_objects: tuple[ArchiveObject, ...] = ()
    threshold_events: tuple[ThresholdEvent, ...] = ()
    served_panes: tuple[PaneBatch, ...] = ()

    def __len__(self) -> int:
        return len(self.archive_objects) + len(self.threshold_events) + sum(map(len, self.served_panes))
