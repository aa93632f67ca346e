"""What a session holds between the engine and the receivers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from streamgauge.events.records import StreamRecord, arrivals_ms
from streamgauge.processors.commit.ports import Receiver, Receivers
from streamgauge.processors.commit.snapshots import outbox_bytes
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import Effects, FailedEvent, LateEvent, Outbox, PaneBatch, ThresholdEvent

__all__ = ["Fresh", "OutboxLimits", "PendingOutbox"]

Entry = TypeVar("Entry")

# About a second's work for a receiver that answers slowly.
_SLICE_EVENTS = 100
_SLICE_PANES = 250


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
        if records:
            self.arrival_ms = max(self.arrival_ms or 0, *arrivals_ms(records))

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

    def deliver(self, between: Callable[[], None] = lambda: None) -> None:
        """Hand everything to its receiver once. A receiver that is down does not hold up the others.

        Parameters
        ----------
        between
            Called after every slice: ten thousand panes take longer than an owner may be silent.
        """
        waiting = self.entries
        reasons = [
            self._slices(
                self._receivers.archive,
                [[entry] for entry in waiting.archive_objects],
                lambda left: replace(self.entries, archive_objects=tuple(left)),
                between,
            ),
            self._slices(
                self._receivers.threshold_events,
                [
                    waiting.threshold_events[first : first + _SLICE_EVENTS]
                    for first in range(0, len(waiting.threshold_events), _SLICE_EVENTS)
                ],
                lambda left: replace(self.entries, threshold_events=tuple(left)),
                between,
            ),
            self._slices(
                self._receivers.served_panes,
                [
                    [batch.take(range(first, min(first + _SLICE_PANES, len(batch))))]
                    for batch in waiting.served_panes
                    for first in range(0, len(batch), _SLICE_PANES)
                ],
                lambda left: replace(self.entries, served_panes=tuple(left)),
                between,
            ),
        ]
        self.reason = "; ".join(reason for reason in reasons if reason) if len(self.entries) else None

    def _slices(
        self,
        receiver: Receiver[Entry],
        slices: Sequence[Sequence[Entry]],
        keeping: Callable[[Sequence[Entry]], Outbox],
        between: Callable[[], None],
    ) -> str | None:
        """Deliver slice after slice, until one comes back whole; why something was left."""
        undelivered: list[Entry] = []
        reason: str | None = None
        for number, entries in enumerate(slices, start=1):
            delivery = receiver.deliver(entries)
            undelivered += delivery.undelivered
            reason = delivery.reason or reason
            self._keep(keeping([*undelivered, *(entry for later in slices[number:] for entry in later)]))
            if len(delivery.undelivered) == len(entries):
                break
            between()
        return reason

    def _keep(self, entries: Outbox) -> None:
        self.entries = entries
        self.size_bytes = outbox_bytes(entries)
