"""Threshold events on EventBridge.

An entry's ``Source`` is ``streamgauge.<pipeline>`` (a rule takes all pipelines with the pattern
``{"source": [{"prefix": "streamgauge."}]}``), its ``DetailType`` the rule's ``detail_type``, its ``Detail`` a
`ThresholdDetail`. EventBridge delivers at least once and in no order: a responder tells events apart by ``id`` and, of
those of one (pipeline, state_epoch, rule, key), lets the one with the highest ``rule_sequence`` hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from streamgauge.events.times import rfc3339
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, reason_of
from streamgauge.processors.commit.commit_objects import rule_sequence_text
from streamgauge.processors.commit.ports import Delivery
from streamgauge.processors.core.effects import ThresholdEvent

if TYPE_CHECKING:
    from types_boto3_events import EventBridgeClient
    from types_boto3_events.type_defs import PutEventsRequestEntryTypeDef

__all__ = ["EventBridgeReceiver", "ThresholdDetail"]

# Limits of PutEvents (EventBridge API reference): entries of a call, and bytes of all its entries together.
_MAX_ENTRIES = 10
_MAX_CALL_BYTES = 256 * 1024


class ThresholdDetail(msgspec.Struct, frozen=True, kw_only=True):
    """The detail of an entry: one threshold event. Times are RFC 3339 UTC, ``rule_sequence`` texts compare.

    `oversize`: the event is larger than EventBridge takes, so it comes without its key; its row in
    ``streamgauge_threshold_events`` of the archive has the same id and is whole.
    """

    id: str
    pipeline: str
    state_epoch: int
    rule: str
    aggregate: str
    key: dict[str, str]
    window_start: str
    window_end: str
    revision: int
    kind: str
    state: str
    reason: str
    takes_back: str | None
    crossing_ordinal: int
    rule_sequence: str
    measures: dict[str, int | float | None]
    raise_when: str
    clear_when: str | None
    oversize: bool = False


class EventBridgeReceiver:
    """Puts threshold events on a bus, ten a call. Entries that the bus does not take come back, one by one."""

    def __init__(self, client: EventBridgeClient, bus: str) -> None:
        self._client = client
        self._bus = bus

    def deliver(self, entries: Sequence[ThresholdEvent]) -> Delivery[ThresholdEvent]:
        """Put the events; after a call that failed, whole or in part, the rest waits for the next time."""
        undelivered: list[ThresholdEvent] = []
        reason: str | None = None
        for batch in _batches([(event, self._entry(event)) for event in entries]):
            if reason is not None:
                undelivered += [event for event, _ in batch]
                continue
            failed, reason = self._put(batch)
            undelivered += failed
        return Delivery(undelivered, reason)

    def _put(
        self, batch: Sequence[tuple[ThresholdEvent, PutEventsRequestEntryTypeDef]]
    ) -> tuple[list[ThresholdEvent], str | None]:
        where = f"EventBridge bus {self._bus}"
        try:
            answer = self._client.put_events(Entries=[entry for _, entry in batch])
        except AWS_ERRORS as error:
            return [event for event, _ in batch], f"{where}: {reason_of(error)}"
        failed: list[ThresholdEvent] = []
        reason: str | None = None
        for (event, _), result in zip(batch, answer["Entries"], strict=True):
            if "ErrorCode" in result:
                failed.append(event)
                reason = reason or f"{where}: {result['ErrorCode']}: {result.get('ErrorMessage', '')}"
        return failed, reason

    def _entry(self, event: ThresholdEvent) -> PutEventsRequestEntryTypeDef:
        detail = _detail(event)
        entry: PutEventsRequestEntryTypeDef = {
            "EventBusName": self._bus,
            "Source": f"streamgauge.{event.pipeline}",
            "DetailType": event.detail_type,
            "Detail": msgspec.json.encode(detail).decode(),
        }
        if _size_bytes(entry) > _MAX_CALL_BYTES:
            # It could never be delivered, and would hold up its shard for ever.
            reduced = msgspec.structs.replace(detail, key={}, oversize=True)
            entry["Detail"] = msgspec.json.encode(reduced).decode()
        return entry


def _batches(
    entries: Sequence[tuple[ThresholdEvent, PutEventsRequestEntryTypeDef]],
) -> Iterator[list[tuple[ThresholdEvent, PutEventsRequestEntryTypeDef]]]:
    batch: list[tuple[ThresholdEvent, PutEventsRequestEntryTypeDef]] = []
    total = 0
    for event, entry in entries:
        size = _size_bytes(entry)
        if batch and (len(batch) == _MAX_ENTRIES or total + size > _MAX_CALL_BYTES):
            yield batch
            batch, total = [], 0
        batch.append((event, entry))
        total += size
    if batch:
        yield batch


def _size_bytes(entry: PutEventsRequestEntryTypeDef) -> int:
    """As EventBridge counts: source, detail type and detail in UTF-8, and 14 bytes for a time."""
    texts = (entry.get("Source", ""), entry.get("DetailType", ""), entry.get("Detail", ""))
    return 14 + sum(len(text.encode()) for text in texts)


def _detail(event: ThresholdEvent) -> ThresholdDetail:
    return ThresholdDetail(
        id=event.id,
        pipeline=event.pipeline,
        state_epoch=event.state_epoch,
        rule=event.rule,
        aggregate=event.aggregate,
        key=dict(event.key),
        window_start=rfc3339(event.window_start_ms),
        window_end=rfc3339(event.window_end_ms),
        revision=event.revision,
        kind=event.kind,
        state=event.state,
        reason=event.reason,
        takes_back=event.takes_back,
        crossing_ordinal=event.crossing_ordinal,
        rule_sequence=rule_sequence_text(event.rule_sequence),
        measures=dict(event.measures),
        raise_when=event.raise_when,
        clear_when=event.clear_when,
    )
