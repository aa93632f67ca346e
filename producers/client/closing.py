"""How a producer ends: everything acknowledged, the final ledger, then the end of the input in every shard."""

from __future__ import annotations

from enum import Enum

from streamgauge.events.control import EndOfInput
from streamgauge.producers.client.delivery import Acknowledged, Delivery

__all__ = ["Closing", "Phase"]


class Phase(Enum):
    """What closing waits for."""

    OPEN = "open"
    DRAINING = "draining"
    LEDGER = "ledger"
    MISSING = "missing"
    END_OF_INPUT = "end_of_input"
    LISTING = "listing"
    CLOSED = "closed"


class Closing:
    """The state of closing.

    After the last acknowledgement one end_of_input is put into every open shard, the shards are listed anew, and shards
    that have none, themselves or in their parents, get one, until none is missing: a reshard may run all the while.
    """

    def __init__(self) -> None:
        self.phase = Phase.OPEN
        self.failure = ""
        self.end_of_input: EndOfInput | None = None
        self.records_put = 0

    def begin(self, end_of_input: EndOfInput | None) -> None:
        """Start closing; a second call changes nothing."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.DRAINING
            self.end_of_input = end_of_input

    def map_refreshed(self) -> None:
        """The shards were listed after the last end_of_input was acknowledged."""
        if self.phase is Phase.LISTING:
            self.phase = Phase.MISSING

    def finish(self, failure: str = "") -> None:
        """Closed; `failure` says what could not be done."""
        self.phase = Phase.CLOSED
        self.failure = failure

    def record_done(self, record: Delivery) -> None:
        """An end_of_input record has its outcome: if Kinesis refused it for good, closing cannot do its work."""
        if not isinstance(record.outcome, Acknowledged):
            self.finish(f"an end_of_input record was not put: {record.refusal}")
