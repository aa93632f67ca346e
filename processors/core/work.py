"""One decoded batch on its way through the engine."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamgauge.events.control import EndOfInput, Tick
from streamgauge.events.envelope import SEQUENCE_DIGITS, encode_event
from streamgauge.events.position import Position
from streamgauge.processors.core.aggregate_state import Selection
from streamgauge.processors.core.batch import ControlRecord, Decoded, EventBatch
from streamgauge.processors.core.effects import Effects, FailedEvent, FailureReason, LateEvent
from streamgauge.processors.core.keys import Key

__all__ = ["Control", "Work"]


class _Traced(msgspec.Struct, gc=False):
    traceparent: object = None


_TRACED = msgspec.json.Decoder(_Traced)
# W3C Trace Context, "traceparent Header Field Values", version 00.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Control(NamedTuple):
    """A control record that could be read, and where it stands."""

    record: int
    sub_sequence: int
    body: Tick | EndOfInput


class Work(NamedTuple):
    """One decoded batch on its way through the engine. ``arrival_ms`` is per record, the running maximum."""

    decoded: Decoded
    arrival_ms: NDArray[np.int64]
    selections: list[Selection]
    effects: Effects

    @property
    def batch(self) -> EventBatch:
        """Its events."""
        return self.decoded.batch

    def position(self, row: int) -> Position:
        """Where the event at `row` stands."""
        batch = self.batch
        return Position(self.decoded.sequence_numbers[batch.record[row]], int(batch.sub_sequence[row]))

    def identity(self, row: int) -> str:
        """The sequence (20 digits) of an event of ours, the id of a foreign one."""
        sequence = int(self.batch.sequence[row])
        return self.batch.ids[row] if sequence < 0 else str(sequence).zfill(SEQUENCE_DIGITS)

    def traceparent(self, row: int) -> str | None:
        """The trace context of the event at `row`; None where it has none, or one that W3C does not know."""
        try:
            found = _TRACED.decode(self.batch.payloads[row]).traceparent
        except msgspec.DecodeError:
            return None
        return found if isinstance(found, str) and _TRACEPARENT.fullmatch(found) else None

    def failed(self, row: int, reason: FailureReason, detail: str) -> FailedEvent:
        """The event at `row`, as it leaves."""
        batch = self.batch
        return FailedEvent(
            position=self.position(row),
            arrival_ms=int(self.decoded.arrival_ms[batch.record[row]]),
            partition_key=batch.partition_keys[row],
            reason=reason,
            detail=detail,
            payload=batch.payloads[row],
            source=batch.sources[batch.source[row]],
            identity=self.identity(row),
        )

    def failed_control(self, control: ControlRecord, detail: str) -> FailedEvent:
        """A control record that says nothing this release understands, as it leaves."""
        return FailedEvent(
            position=Position(self.decoded.sequence_numbers[control.record], control.sub_sequence),
            arrival_ms=int(self.decoded.arrival_ms[control.record]),
            partition_key=control.event.partition_key,
            reason=FailureReason.DATA,
            detail=detail,
            payload=encode_event(control.event),
            source=control.event.source,
            identity=control.event.id,
        )

    def late(self, row: int, aggregate: str, key: Key, start_ms: int) -> LateEvent:
        """The event at `row`, which is too late for its window, as it leaves."""
        batch = self.batch
        return LateEvent(
            position=self.position(row),
            aggregate=aggregate,
            source=batch.sources[batch.source[row]],
            identity=self.identity(row),
            partition_key=batch.partition_keys[row],
            key=key,
            time_ms=int(batch.time_ms[row]),
            window_start_ms=start_ms,
            payload=batch.payloads[row],
        )
