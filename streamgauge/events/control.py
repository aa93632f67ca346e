"""Control and ledger records: events that speak about the stream itself.

Control records come from ``urn:streamgauge:control:<name>`` and are put as plain records by ExplicitHashKey, one into
each shard they are meant for, so their partition key says nothing about their shard. Ledger records come from the
source whose sequences they account for, and carry no ``sequence`` of their own.
"""

from __future__ import annotations

import msgspec

from streamgauge.events.envelope import CONTROL_SOURCE_PREFIX, Event
from streamgauge.events.times import rfc3339

__all__ = [
    "END_OF_INPUT",
    "LEDGER",
    "TICK",
    "EndOfInput",
    "Ledger",
    "Tick",
    "control_event",
    "ledger_event",
]

TICK = "streamgauge.tick"
END_OF_INPUT = "streamgauge.end_of_input"
LEDGER = "streamgauge.ledger"


class Tick(msgspec.Struct, frozen=True):
    """Idle time reaches ``at_ms`` (milliseconds since the epoch, the scheduler's clock)."""

    at_ms: int


class EndOfInput(msgspec.Struct, frozen=True):
    """Part ``part`` (0 to ``parts`` - 1) of the input has been acknowledged whole. Acts once all parts have arrived."""

    input: str
    part: int
    parts: int


class Ledger(msgspec.Struct, frozen=True):
    """What a producer states about its own source, cumulative since sequence 0.

    ``acknowledged``, ``in_doubt`` and ``given_up`` are disjoint lists of sequence ranges ``[first, last]``, both
    included, in rising order. `in_doubt`: sent, no answer yet, or past the deadline without one. `given_up`: told to
    the caller as failed; it may have landed. `final` marks the last statement of a source.
    """

    acknowledged: list[tuple[int, int]]
    in_doubt: list[tuple[int, int]]
    given_up: list[tuple[int, int]]
    final: bool


def control_event(name: str, body: Tick | EndOfInput, *, id: str, time_ms: int) -> Event:
    """A control record of the scheduler, stack or producer called `name`; `id` is unique within `name`."""
    kind = TICK if isinstance(body, Tick) else END_OF_INPUT
    return Event(
        specversion="1.0",
        id=id,
        source=CONTROL_SOURCE_PREFIX + name,
        type=kind,
        time=rfc3339(time_ms),
        subject=name,
        data=msgspec.Raw(msgspec.json.encode(body)),
    )


def ledger_event(source: str, body: Ledger, *, number: int, time_ms: int) -> Event:
    """The ledger statement `number` (0, 1, 2 …) of `source`; its partition key is the source."""
    return Event(
        specversion="1.0",
        id=f"ledger-{number}",
        source=source,
        type=LEDGER,
        time=rfc3339(time_ms),
        subject=source,
        data=msgspec.Raw(msgspec.json.encode(body)),
    )
