"""What a session holds between the engine and the receivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streamgauge.events.records import StreamRecord
from streamgauge.processors.commit.ports import Receivers
from streamgauge.processors.commit.snapshots import outbox_bytes
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import Effects, FailedEvent, LateEvent, Outbox, PaneBatch, ThresholdEvent

__all__ = ["Fresh", "OutboxLimits", "PendingOutbox"]


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """How much may wait for delivery before the shard does. A batch that begins below them is applied whole."""

    max_entries: int = 100_000
    max_bytes: int = 32 * 1024 * 1024

    def allow(self, *, entries: int, size_bytes: int) -> bool:
        """Whether one more batch may be applied."""
        return entries < self.max_entries and size_bytes < self.max_bytes


@dataclass(slots=True)
class Fresh:
    """What the engine handed out since the last commit began: in no snapshot yet, so nothing of it may leave."""

    panes: list[PaneBatch] = field(default_factory=list)
    served: list[PaneBatch] = field(default_factory=list)
    threshold_events: list[ThresholdEvent] = field(default_factory=list)
    failed: list[FailedEvent] = field(default_factory=list)
    late: list[LateEvent] = field(default_factory=list)
    arrival_ms: int | None = None
    """The latest arrival of the records applied."""
    size_bytes: int = 0

    def add(self, effects: Effects, records: Sequence[StreamRecord], pipeline: Pipeline) -> None:
        """Take over what one batch of records brought."""
        served_names = {aggregate.name for aggregate in pipeline.aggregates if aggregate.serve}
        panes = [batch for batch in effects.panes if len(batch)]
        served = [batch for batch in panes if batch.aggregate in served_names]
        self.panes += panes
        self.served += served
        self.threshold_events += effects.threshold_events
        self.failed += effects.failed
        self.late += effects.late
        self.size_bytes += outbox_bytes(
            Outbox(threshold_events=tuple(effects.threshold_events), served_panes=(*panes, *served))
        )
        for record in records:
            self.arrival_ms = max(self.arrival_ms or 0, record.arrival_ms)

    @property
    def entries(self) -> int:
        """How many outbox entries a commit would make of this, its own row aside."""
        objects = bool(self.panes) + bool(self.threshold_events)
        return objects + len(self.threshold_events) + sum(map(len, self.served))


class PendingOutbox:
    """Entries of a saved snapshot that have not been delivered yet, and the receivers that they go to."""

    def __init__(self, receivers: Receivers, entries: Outbox) -> None:
        self._receivers = receivers
        self.replace(entries)

    def __len__(self) -> int:
        return len(self.entries)

    def replace(self, entries: Outbox) -> None:
        """Hold `entries`, which a snapshot now holds too, instead of what was there."""
        self.entries = entries
        self.size_bytes = outbox_bytes(entries)
        self.reason: str | None = None

    def deliver(self) -> None:
        """Hand everything to its receiver once. A receiver that is down does not hold up the others."""
        reasons: list[str] = []
        entries = self.entries
        if entries.archive_objects:
            objects = self._receivers.archive.deliver(entries.archive_objects)
            entries = self._keep(Outbox(tuple(objects.undelivered), entries.threshold_events, entries.served_panes))
            reasons += [objects.reason] if objects.reason else []
        if entries.threshold_events:
            events = self._receivers.threshold_events.deliver(entries.threshold_events)
            entries = self._keep(Outbox(entries.archive_objects, tuple(events.undelivered), entries.served_panes))
            reasons += [events.reason] if events.reason else []
        if entries.served_panes:
            panes = self._receivers.served_panes.deliver(entries.served_panes)
            entries = self._keep(Outbox(entries.archive_objects, entries.threshold_events, tuple(panes.undelivered)))
            reasons += [panes.reason] if panes.reason else []
        self.reason = "; ".join(reasons) if len(entries) else None

    def _keep(self, entries: Outbox) -> Outbox:
        self.entries = entries
        self.size_bytes = outbox_bytes(entries)
        return entries
