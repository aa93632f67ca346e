"""One record as the rows of the archive's tables. Every position of a shard becomes exactly one row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from streamgauge.events.catalogue import Catalogue, UnknownType, UnknownVersion
from streamgauge.events.control import LEDGER, EndOfInput, Ledger
from streamgauge.events.envelope import (
    CONTROL_SOURCE_PREFIX,
    SEQUENCE_DIGITS,
    SOURCE_PREFIX,
    Event,
    InvalidEvent,
    own_source,
)
from streamgauge.events.kpl import decode_aggregate, is_aggregate
from streamgauge.events.mapping import EventMapping, Selector, is_own_cloudevent, read_record
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.events.times import instant_ms
from streamgauge.processors.core.effects import FailureReason
from streamgauge.processors.core.unpack import RangeCheck, unpack
from streamgauge.processors.core.watermark import parse_control
from streamgauge.sinks.archive import layout
from streamgauge.sinks.delivery.data import DataReader, UnfitData

__all__ = ["Identity", "RecordReader", "Row", "readable_identity"]

_ATTRIBUTES = frozenset(Event.__struct_fields__)
_HEAD_BYTES = 65_536
_HEAD_SOURCE = re.compile(rb'"source"\s*:\s*"(urn:streamgauge:[0-9a-f-]{36}:w[0-9]{4,7})"')
_HEAD_SEQUENCE = re.compile(rb'"sequence"\s*:\s*"([0-9]{%d})"' % SEQUENCE_DIGITS)

_REASONS = {
    "event": FailureReason.MALFORMED_JSON,
    "record": FailureReason.MALFORMED_JSON,
    "time": FailureReason.TIME,
    "subject": FailureReason.KEY,
    "key": FailureReason.KEY,
    "sequence": FailureReason.SEQUENCE,
}

_any_decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(object)
_attributes: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ledger = msgspec.json.Decoder(Ledger)


Identity = tuple[str | None, str | None]
"""Source, and the sequence (20 digits) of an event of ours or the id of a foreign one; None where unreadable."""


class Row(NamedTuple):
    """One row: its table (an event type or one of our own), its columns by name, and what delivery itself reads."""

    table: str
    columns: Mapping[str, object]
    end_of_input: EndOfInput | None = None


class _UserRecord(NamedTuple):
    """One user record: its Kinesis record, its place in it, its own partition key and bytes."""

    record: StreamRecord
    shard: Shard
    place: int
    key: str
    payload: bytes
    is_plain: bool

    @property
    def position(self) -> dict[str, object]:
        return {
            "shard_id": self.shard.shard_id,
            "sequence_number": self.record.sequence_number,
            "sub_sequence_number": self.place,
            "arrival": self.record.arrival_ms,
        }


class RecordReader:
    """Turns records into rows.

    Parameters
    ----------
    mapping
        How records that are no CloudEvents are read; None if all are CloudEvents.
    stream_arn
        The source of mapped events without one.
    """

    def __init__(self, catalogue: Catalogue, mapping: EventMapping | None, stream_arn: str) -> None:
        self._catalogue = catalogue
        self._mapping = mapping
        self._stream_arn = stream_arn
        self._data = DataReader(catalogue)
        self._range_checks: dict[str, RangeCheck] = {}

    def read(self, record: StreamRecord, shard: Shard) -> list[Row]:
        """The record's rows, in order of their sub-sequence numbers."""
        # The processor's own de-aggregation, so that both agree on what is a position.
        unpacked = unpack([record], self._range_check(shard), None)
        for failed in unpacked.failed:
            whole = _UserRecord(record, shard, 0, record.partition_key, record.data, is_plain=False)
            return [_unarchivable(whole, failed.reason, failed.detail)]
        is_plain = not is_aggregate(record.data)
        if not unpacked.misrouted:
            records = zip(unpacked.partition_keys, unpacked.payloads, strict=True)
            users = [_UserRecord(record, shard, place, *user, is_plain) for place, user in enumerate(records)]
            return [self._read(user) for user in users]
        aggregate = decode_aggregate(record.data)
        records = zip(map(aggregate.partition_keys.__getitem__, aggregate.key_index), aggregate.payloads, strict=True)
        users = [_UserRecord(record, shard, place, *user, is_plain) for place, user in enumerate(records)]
        return [_misrouted(user) for user in users]

    def _range_check(self, shard: Shard) -> RangeCheck:
        check = self._range_checks.get(shard.shard_id)
        if check is None:
            check = self._range_checks[shard.shard_id] = RangeCheck(shard.hash_range)
        return check

    def _read(self, user: _UserRecord) -> Row:
        position = Position(int(user.record.sequence_number), user.place)
        try:
            event = read_record(self._mapping, user.payload, stream_arn=self._stream_arn, position=position)
        except InvalidEvent as error:
            return _unarchivable(user, _reason(error), str(error), self._identity(user, position))
        columns = {**_envelope(event, user.payload), **user.position}
        try:
            if event.source.startswith(CONTROL_SOURCE_PREFIX) and event.type != LEDGER and user.is_plain:
                return _control(event, columns)
            if event.type == LEDGER and own_source(event.source) is not None:
                columns["data"] = msgspec.to_builtins(_ledger.decode(event.data))
                return Row(layout.LEDGER, columns)
            version = self._catalogue.version_of(event.dataschema, event.type)
            columns["data"], columns["data_rest"] = self._data.read(event.type, version, bytes(event.data))
        except UnknownType as error:
            reason, detail = FailureReason.UNKNOWN_TYPE, str(error)
        except UnknownVersion as error:
            reason, detail = FailureReason.UNKNOWN_VERSION, str(error)
        except (UnfitData, InvalidEvent, msgspec.DecodeError, UnicodeDecodeError) as error:
            reason, detail = FailureReason.DATA, str(error)
        else:
            return Row(event.type, columns)
        identity = event.sequence if event.source.startswith(SOURCE_PREFIX) else event.id
        return _unarchivable(user, reason, detail, (event.source, identity))

    def _identity(self, user: _UserRecord, position: Position) -> Identity:
        mapping = self._mapping
        if mapping is None or is_own_cloudevent(user.payload):
            return readable_identity(user.payload)
        try:
            record = _any_decoder.decode(user.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return readable_identity(user.payload)
        source = self._stream_arn if mapping.source is None else _text_at(record, mapping.source)
        return source, str(position) if mapping.id is None else _text_at(record, mapping.id)


def _control(event: Event, columns: dict[str, object]) -> Row:
    body = parse_control(event)
    columns["data"] = msgspec.to_builtins(body)
    return Row(layout.CONTROL, columns, body if isinstance(body, EndOfInput) else None)


def readable_identity(payload: bytes) -> Identity:
    """Source and identity of an event that is none; None where unreadable.

    Of a damaged event of ours they can usually still be told although its JSON is broken: the envelope stands in front.
    """
    try:
        value = _any_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        head = payload[:_HEAD_BYTES]
        found, number = _HEAD_SOURCE.search(head), _HEAD_SEQUENCE.search(head)
        return (found[1].decode(), number[1].decode()) if found and number else (None, None)
    if not isinstance(value, dict):
        return None, None
    source = value.get("source")
    if not isinstance(source, str):
        return None, None
    identity = value.get("sequence" if source.startswith(SOURCE_PREFIX) else "id")
    return source, identity if isinstance(identity, str) else None


def _misrouted(user: _UserRecord) -> Row:
    source, identity = readable_identity(user.payload)
    columns = {"source": source, "identity": identity, "partition_key": user.key, **user.position}
    return Row(layout.MISROUTED, columns)


def _envelope(event: Event, payload: bytes) -> dict[str, object]:
    return {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "time": instant_ms(event.time),
        "subject": event.subject,
        "dataschema": event.dataschema,
        "datacontenttype": event.datacontenttype,
        "partitionkey": event.partitionkey,
        "sequence": event.sequence,
        "traceparent": event.traceparent,
        # A mapped record is its event's data as a whole, and has no attributes beside it.
        "extensions": None if bytes(event.data) == payload else _extensions(payload),
    }


def _extensions(payload: bytes) -> str | None:
    attributes = _attributes.decode(payload)
    unnamed = {name: value for name, value in attributes.items() if name not in _ATTRIBUTES}
    return msgspec.json.encode(unnamed).decode() if unnamed else None


def _unarchivable(user: _UserRecord, reason: FailureReason, detail: str, identity: Identity = (None, None)) -> Row:
    columns: dict[str, object] = {
        "reason": reason.value,
        "detail": detail,
        "source": identity[0],
        "identity": identity[1],
        "partition_key": user.key,
        "payload": user.payload,
        **user.position,
    }
    return Row(layout.UNARCHIVABLE, columns)


def _text_at(record: object, selector: Selector) -> str | None:
    if selector.constant is not None:
        return selector.constant
    value = record
    for name in selector.path:
        value = value.get(name) if isinstance(value, dict) else None
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_integer or (isinstance(value, str) and value) else None


def _reason(error: InvalidEvent) -> FailureReason:
    return _REASONS.get(error.attribute, FailureReason.ENVELOPE)
