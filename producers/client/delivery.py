"""What became of an event that was put."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from streamgauge.events.position import Position

if TYPE_CHECKING:
    from streamgauge.producers.client.source_log import SourceLog

__all__ = ["Acknowledged", "Delivery", "GivenUp", "Outcome", "Unknown", "Waiter"]


class Acknowledged(NamedTuple):
    """Kinesis has the event, at this place."""

    shard_id: str
    position: Position


class GivenUp(NamedTuple):
    """Every attempt was refused; none is made any more."""

    reason: str


class Unknown(NamedTuple):
    """An attempt got no answer and none may be made any more: the event may be in the stream, or not."""

    reason: str


Outcome = Acknowledged | GivenUp | Unknown


class Waiter(Protocol):
    """Something that can wait until a delivery is done: the threads around the pure producer."""

    def wait_for(self, delivery: Delivery, timeout_s: float | None) -> None:
        """Return when `delivery` has its outcome.

        Raises
        ------
        TimeoutError
            It had none after `timeout_s` seconds.
        """
        ...


class Delivery:
    """One event on its way. Callers read `sequence`, `outcome`, `done` and `result`; the rest belongs to the producer.

    ``sequence`` is -1 for payloads that stand outside a source's numbering. An event with copies is done with its first
    acknowledgement; its place in W and in flight is free when the last copy is settled.
    """

    __slots__ = (
        "copies_behind",
        "copies_left",
        "copy_scheduled",
        "doubtful_ms",
        "explicit_hash_key",
        "first_attempt_ms",
        "internal",
        "live",
        "log",
        "on_done",
        "ordinal",
        "outcome",
        "partition_key",
        "payload",
        "plain",
        "refusal",
        "sequence",
        "size",
        "waiter",
    )

    def __init__(
        self,
        payload: bytes,
        partition_key: str,
        *,
        size: int,
        log: SourceLog | None = None,
        sequence: int = -1,
        copies: int = 1,
        copies_behind: int = 0,
        plain: bool = False,
        internal: bool = False,
        explicit_hash_key: int | None = None,
        on_done: Callable[[Delivery], None] | None = None,
        waiter: Waiter | None = None,
    ) -> None:
        self.payload = payload
        self.partition_key = partition_key
        self.size = size  # bytes that count against the limits: payload and partition key
        self.log = log  # None: outside a numbering
        self.sequence = sequence
        self.copies_left = copies - 1  # to be released yet
        self.copies_behind = copies_behind
        self.copy_scheduled = False
        self.plain = plain  # never to be aggregated
        self.internal = internal  # a ledger or control record, not a caller's event
        self.explicit_hash_key = explicit_hash_key
        self.on_done = on_done
        self.waiter = waiter
        self.ordinal = 0  # how many had been put before
        self.live = 0  # records that hold the event now
        self.first_attempt_ms = -1
        self.doubtful_ms = -1  # start of the last attempt that got no clear answer; -1 without one
        self.refusal = ""
        self.outcome: Outcome | None = None

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self.outcome is not None

    def result(self, timeout_s: float | None = None) -> Outcome:
        """Wait for the outcome.

        Raises
        ------
        TimeoutError
            There was none after `timeout_s` seconds; the event stays on its way.
        """
        if self.outcome is None and self.waiter is not None:
            self.waiter.wait_for(self, timeout_s)
        if self.outcome is None:
            raise TimeoutError("the event has no outcome yet")
        return self.outcome
