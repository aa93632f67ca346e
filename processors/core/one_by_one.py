"""Reading one event exactly, and naming what is wrong with it: the slow path beside the columnar one.

It decides in this order, and the first that does not hold names the reason: JSON, envelope, source and sequence,
catalogue, version, partition key, data. The columnar path hands over every event that it does not fully understand, so
what this module says of an event is what is true of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from streamgauge.events.catalogue import UnknownVersion
from streamgauge.events.control import LEDGER, Ledger
from streamgauge.events.decoders import data_struct
from streamgauge.events.envelope import (
    CONTROL_SOURCE_PREFIX,
    RESERVED_TYPE_PREFIX,
    SOURCE_PREFIX,
    Event,
    InvalidEvent,
    own_source,
    parse_sequence,
)
from streamgauge.events.mapping import EventMapping, Selector, is_own_cloudevent, read_record
from streamgauge.events.position import Position
from streamgauge.events.times import instant_ms
from streamgauge.processors.core.batch import Outcome
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import FailureReason

__all__ = [
    "BAD_JSON",
    "BY_POSITION",
    "MAX_NESTING",
    "DataDecoders",
    "ExactReader",
    "Failure",
    "IsControl",
    "IsLedger",
    "Row",
    "UserRecord",
]

MAX_NESTING = 256
"""Deeper JSON fails. The parser's own limit depends on how deep the caller's stack is: not the same on every host."""

BY_POSITION = -1
"""Window of a source whose events have no id of their own: their position tells them apart."""

_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Failed = tuple[FailureReason, str]


class UserRecord(NamedTuple):
    """What a payload came with. ``is_inside``: its partition key hashes into the shard."""

    payload: bytes
    partition_key: str
    position: Position
    is_plain: bool
    is_inside: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One event with an identity. ``window``: W, 0 for a foreign source, or `BY_POSITION`."""

    source: str
    window: int
    sequence: int
    id: str
    outcome: Outcome
    failure: _Failed | None = None
    time_ms: int = 0
    subject: str = ""
    claimed_key: str = ""
    type: str = ""
    data: msgspec.Struct | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed event that cannot take part in the removal of duplicates."""

    reason: FailureReason
    detail: str
    source: str | None = None
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class IsControl:
    """A control record."""

    event: Event


@dataclass(frozen=True, slots=True)
class IsLedger:
    """A ledger record."""


Reading = Row | Failure | IsControl | IsLedger


class DataDecoders:
    """Decoders of ``data`` by type and ``dataschema``, limited to what the pipeline names; made when asked for."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        paths = [name.removeprefix("data.") for name in pipeline.named_fields if name.startswith("data.")]
        self.fields = {
            event_type: tuple(path for path in paths if path in pipeline.catalogue.fields(event_type))
            for event_type in pipeline.event_types
        }
        self._by_version: dict[tuple[str, int], msgspec.json.Decoder[msgspec.Struct]] = {}

    def find(self, event_type: str, dataschema: str | None) -> msgspec.json.Decoder[msgspec.Struct]:
        """The decoder of one of the pipeline's event types. Raises `UnknownVersion`."""
        version = self._pipeline.catalogue.version_of(dataschema, event_type)
        decoder = self._by_version.get((event_type, version))
        if decoder is None:
            struct = data_struct(self._pipeline.catalogue, event_type, self.fields[event_type], version=version)
            decoder = self._by_version[event_type, version] = msgspec.json.Decoder(struct)
        return decoder


class ExactReader:
    """Reads one user record at a time. Configuration only."""

    def __init__(self, pipeline: Pipeline, stream_arn: str, decoders: DataDecoders) -> None:
        self._pipeline = pipeline
        self._stream_arn = stream_arn
        self._decoders = decoders
        self._types = frozenset(pipeline.catalogue.types)
        self.subject_is_partition_key = any(
            "subject" in aggregate.key and "partitionkey" not in aggregate.key for aggregate in pipeline.aggregates
        )

    def read(self, record: UserRecord) -> Reading:
        """What a user record is."""
        wrong = _not_json(record.payload)
        if wrong is not None:
            return Failure(FailureReason.MALFORMED_JSON, wrong)
        is_mapped = self._pipeline.mapping is not None and not is_own_cloudevent(record.payload)
        mapping = self._pipeline.mapping if is_mapped else None
        try:
            event = read_record(mapping, record.payload, stream_arn=self._stream_arn, position=record.position)
        except InvalidEvent as error:
            return self._without_event(record, mapping, error)
        if event.type.startswith(RESERVED_TYPE_PREFIX):
            return self._reserved(record, event)
        try:
            window, sequence = self._numbering(event.source, event.sequence)
        except InvalidEvent as error:
            return Failure(FailureReason.SEQUENCE, str(error), event.source, event.sequence)
        if mapping is not None and mapping.id is None:
            window = BY_POSITION
        return self._row(record, event, window, sequence)

    def _numbering(self, source: str, sequence: str | None) -> tuple[int, int]:
        """W and sequence; 0 and -1 of a foreign source. Raises `InvalidEvent`."""
        own = own_source(source)
        if own is None:
            return 0, -1
        if own.window > self._pipeline.max_w:
            raise InvalidEvent(
                f"W is above max_w, {self._pipeline.max_w}",
                where=f"source {source!r}",
                remedy="Raise max_w in the pipeline file, or send with a smaller W",
            )
        return own.window, parse_sequence(sequence)

    def _row(self, record: UserRecord, event: Event, window: int, sequence: int) -> Row:
        outcome, failure, data = Outcome.READ, None, None
        if event.type not in self._types:
            failure = (FailureReason.UNKNOWN_TYPE, f"the catalogue does not have the type {event.type!r}")
        elif event.type not in self._pipeline.event_types:
            outcome = Outcome.TYPE_NOT_READ
        else:
            failure, data = self._data(record, event)
        return Row(
            source=event.source,
            window=window,
            sequence=sequence,
            id=event.id,
            outcome=outcome if failure is None else Outcome.FAILED,
            failure=failure,
            time_ms=instant_ms(event.time),
            subject=event.subject,
            claimed_key=event.partition_key,
            type=event.type,
            data=data,
        )

    def _data(self, record: UserRecord, event: Event) -> tuple[_Failed | None, msgspec.Struct | None]:
        try:
            decoder = self._decoders.find(event.type, event.dataschema)
        except UnknownVersion as error:
            return (FailureReason.UNKNOWN_VERSION, error.what), None
        wrong = self._partition(record, event)
        if wrong is not None:
            return (FailureReason.PARTITION, wrong), None
        try:
            return None, decoder.decode(event.data)
        except BAD_JSON as error:
            return (FailureReason.DATA, str(error).replace("`$.", "`data.").replace("`$", "`data")), None

    def _partition(self, record: UserRecord, event: Event) -> str | None:
        claimed = event.partition_key
        if record.partition_key != claimed:
            return f"the record's partition key is {record.partition_key!r}, but the event claims {claimed!r}"
        if self.subject_is_partition_key and event.subject != claimed:
            return f"partitionkey is {claimed!r}, but a key of this pipeline takes subject {event.subject!r} for it"
        if not record.is_inside:
            return f"the partition key {record.partition_key!r} does not hash into this shard"
        return None

    def _reserved(self, record: UserRecord, event: Event) -> Reading:
        """A control or ledger record: `decode_event` saw that the source may send such types."""
        if event.source.startswith(CONTROL_SOURCE_PREFIX) and event.type != LEDGER:
            if record.is_plain:
                return IsControl(event)
            return Failure(FailureReason.ENVELOPE, "a control record inside an aggregate", event.source, event.id)
        if event.type != LEDGER or own_source(event.source) is None:
            detail = f"the source {event.source!r} does not send the type {event.type!r}"
            return Failure(FailureReason.ENVELOPE, detail, event.source, event.id)
        try:
            msgspec.json.decode(event.data, type=Ledger)
        except BAD_JSON as error:
            return Failure(FailureReason.DATA, f"ledger record: {error}", event.source, event.id)
        return IsLedger()

    def _without_event(self, record: UserRecord, mapping: EventMapping | None, error: InvalidEvent) -> Reading:
        """A failed event; it takes part in the removal of duplicates if its source and identity can be read."""
        source, event_id, sequence = self._identity(record, mapping)
        reason = _REASONS.get(error.attribute, FailureReason.ENVELOPE)
        if error.attribute in ("source", "sequence") and source is not None and source.startswith(SOURCE_PREFIX):
            reason = FailureReason.SEQUENCE
        detail = str(error)
        if source is None:
            return Failure(reason, detail)
        try:
            window, number = self._numbering(source, sequence)
        except InvalidEvent:
            return Failure(reason, detail, source, sequence)
        if window == 0 and event_id is None:
            return Failure(reason, detail, source)
        if mapping is not None and mapping.id is None:
            window = BY_POSITION
        return Row(source, window, number, event_id or "", Outcome.FAILED, (reason, detail))

    def _identity(self, record: UserRecord, mapping: EventMapping | None) -> tuple[str | None, str | None, str | None]:
        """Source, id and sequence as far as they are texts."""
        try:
            value = msgspec.json.decode(record.payload)
        except BAD_JSON:
            return None, None, None
        if not isinstance(value, dict):
            return None, None, None
        if mapping is None:
            source, event_type = _text(value.get("source")), _text(value.get("type"))
            # A record about a source of ours, whatever is wrong with it, is none of that source's events.
            if (source or "").startswith(SOURCE_PREFIX) and (event_type or "").startswith(RESERVED_TYPE_PREFIX):
                return None, None, None
            return source, _text(value.get("id")), _text(value.get("sequence"))
        source = self._stream_arn if mapping.source is None else _text(_pick(value, mapping.source))
        if source is not None and source.startswith(SOURCE_PREFIX):
            source = None
        if mapping.id is None:
            return source, str(record.position), None
        event_id = _pick(value, mapping.id)
        is_integer = isinstance(event_id, int) and not isinstance(event_id, bool)
        return source, str(event_id) if is_integer else _text(event_id), None


_REASONS = {
    "event": FailureReason.MALFORMED_JSON,
    "record": FailureReason.MALFORMED_JSON,
    "time": FailureReason.TIME,
    "subject": FailureReason.KEY,
    "key": FailureReason.KEY,
}


def _not_json(payload: bytes) -> str | None:
    """What makes bytes no JSON text for us; None leaves the syntax to the parser."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error.reason} at byte {error.start}"
    if payload.count(b"{") + payload.count(b"[") > MAX_NESTING and _nesting(payload) > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING}"
    return None


def _nesting(payload: bytes) -> int:
    """How deep a JSON text is nested, but no more than one above `MAX_NESTING`."""
    depth = deepest = 0
    for match in _STRUCTURE.finditer(payload):
        token = match[0]
        if token in b"{[":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_NESTING:
                break
        elif token in b"}]":
            depth -= 1
    return deepest


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _pick(value: object, selector: Selector) -> object:
    if selector.constant is not None:
        return selector.constant
    for name in selector.path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
