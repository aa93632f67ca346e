"""Threshold events on EventBridge.

An entry's ``Source`` is ``streamgauge.<pipeline>`` (a rule takes all pipelines with the pattern
``{"source": [{"prefix": "streamgauge."}]}``), its ``DetailType`` the rule's ``detail_type``, its ``Detail`` a
`ThresholdDetail`. EventBridge delivers at least once and in no order: a responder tells events apart by ``id`` and, of
those of one (pipeline, state_epoch, rule, key), lets the one with the highest ``rule_sequence`` hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.processors.commit.aws_errors import AWS_ERRORS, error_code, reason_of
from streamgauge.processors.commit.ports import Delivery
from streamgauge.processors.commit.threshold_detail import DEFAULT_SEVERITY, threshold_detail
from streamgauge.processors.core.definition import Severity
from streamgauge.processors.core.effects import ThresholdEvent

if TYPE_CHECKING:
    from types_boto3_events import EventBridgeClient
    from types_boto3_events.type_defs import PutEventsRequestEntryTypeDef

__all__ = ["EventBridgeReceiver"]

# Limits of PutEvents (EventBridge API reference): entries of a call, and bytes of all its entries together.
_MAX_ENTRIES = 10
_MAX_CALL_BYTES = 256 * 1024
_NO_SEVERITIES: Mapping[str, Severity] = MappingProxyType({})


class EventBridgeReceiver:
    """Puts threshold events on a bus, ten a call. Entries that the bus does not take come back, one by one.

    Parameters
    ----------
    severities
        By rule. Every other rule has the default.
    """

    def __init__(
        self, client: EventBridgeClient, bus: str, *, severities: Mapping[str, Severity] = _NO_SEVERITIES
    ) -> None:
        self._client = client
        self._bus = bus
        self._severities = severities

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
        if len(undelivered) < len(entries) and self._is_gone():
            return Delivery(entries, f"EventBridge bus {self._bus}: there is no such bus")
        return Delivery(undelivered, reason)

    def _is_gone(self) -> bool:
        """Whether there is no bus: PutEvents takes events for one that does not exist, and loses them (aws-sdk #186).

        A look after the put; one that fails for another reason leaves it at what the put has said.
        """
        try:
            self._client.describe_event_bus(Name=self._bus)
        except ClientError as error:
            return error_code(error) == "ResourceNotFoundException"
        except BotoCoreError:
            return False
        return False

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
        detail = threshold_detail(event, severity=self._severities.get(event.rule, DEFAULT_SEVERITY))
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
