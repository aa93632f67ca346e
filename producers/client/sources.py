"""The producer's sources, one after the other, and their ledger records."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from streamgauge.events.control import ledger_event
from streamgauge.events.envelope import encode_event
from streamgauge.producers.client.delivery import Delivery
from streamgauge.producers.client.encoding import EnvelopeEncoder
from streamgauge.producers.client.source_log import SourceLog

__all__ = ["Sources"]


class Sources:
    """The source that numbers events now, and retired ones whose last events are still on their way."""

    def __init__(self, new_uuid: Callable[[], UUID], *, window: int, ledger_interval_ms: int, now_ms: int) -> None:
        # configuration
        self._new_uuid = new_uuid
        self._window = window
        self._interval_ms = ledger_interval_ms
        # live
        self.begun = 0
        self.log = self._new_log()
        self.encoder = EnvelopeEncoder(self.log.source)
        self._retired: list[SourceLog] = []
        self._due_ms = now_ms + ledger_interval_ms
        self._is_news = False

    def renew(self) -> None:
        """End the source: the next event begins a new one."""
        self._retired.append(self.log)
        self.log = self._new_log()
        self.encoder = EnvelopeEncoder(self.log.source)

    def assign(self) -> int:
        """The next sequence of the current source."""
        self._is_news = True
        return self.log.assign()

    def settled(self, now_ms: int) -> list[Delivery]:
        """The final ledger records of retired sources whose events all have their outcome."""
        if not self._retired:
            return []
        done = [log for log in self._retired if not log.unresolved]
        self._retired = [log for log in self._retired if log.unresolved]
        return [_ledger(log, now_ms, final=True) for log in done]

    def due(self, now_ms: int) -> list[Delivery]:
        """The ledger record of the current source, if it is time for one and there is anything new."""
        if not self._is_news or now_ms < self._due_ms:
            return []
        self._due_ms = now_ms + self._interval_ms
        # While something is on its way, the next statement will say more.
        self._is_news = self.log.unresolved > 0
        return [_ledger(self.log, now_ms, final=False)]

    def final(self, now_ms: int) -> list[Delivery]:
        """The last statement of the current source; none if it never numbered an event."""
        self._is_news = False
        return [_ledger(self.log, now_ms, final=True)] if self.log.next_sequence else []

    def wake_ms(self) -> int | None:
        """When the next ledger record is due."""
        return self._due_ms if self._is_news else None

    def _new_log(self) -> SourceLog:
        self.begun += 1
        return SourceLog(self._new_uuid(), self._window)


def _ledger(log: SourceLog, now_ms: int, *, final: bool) -> Delivery:
    event = ledger_event(log.source, log.statement(final=final), number=log.ledger_number, time_ms=now_ms)
    log.ledger_number += 1
    payload = encode_event(event)
    return Delivery(payload, log.source, size=len(payload) + len(log.source), plain=True, internal=True)
