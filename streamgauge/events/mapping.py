"""``[event]`` in a pipeline file: how the fields of any JSON record become an event.

Here is the exact and slow way, one record at a time: for failed records, tools and tests. A columnar decoder must agree
with it.

A record that is a CloudEvent with a source of ours is an event of ours whatever ``[event]`` says: whoever reads records
asks `is_own_cloudevent` first, as `read_record` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from streamgauge.events.envelope import RESERVED_TYPE_PREFIX, SOURCE_PREFIX, Event, InvalidEvent, decode_event
from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.json_text import json_fault
from streamgauge.events.position import Position
from streamgauge.events.time_formats import EPOCH_MS, EPOCH_S, RFC3339, TimeFormatError, check_time_format, parse_time
from streamgauge.events.times import rfc3339

__all__ = [
    "EPOCH_MS",
    "EPOCH_S",
    "RFC3339",
    "EventMapping",
    "MappingError",
    "Selector",
    "is_own_cloudevent",
    "map_record",
    "parse_mapping",
    "parse_time",
    "read_record",
]

_CONSTANT = re.compile(r"'([^']+)'|\"([^\"]+)\"")
_FIELDS = ("id", "time", "time_format", "type", "key", "source")
_NEEDED = ("time", "type", "key")


class MappingError(StreamgaugeError):
    """``[event]`` is wrong; the message names the entry."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Where a value comes from: the field at ``path`` (names from the outside in), or ``constant``."""

    path: tuple[str, ...] = ()
    constant: str | None = None

    def __str__(self) -> str:
        return ".".join(self.path) if self.constant is None else repr(self.constant)


@dataclass(frozen=True, slots=True)
class EventMapping:
    """How a record's fields become the envelope. The whole record is the event's ``data``.

    ``id`` None: the record's position is its identity. ``source`` None: the stream's ARN. ``key`` becomes ``subject``
    and is the partition key that the event claims. ``time_format``: ``rfc3339``, ``epoch_s``, ``epoch_ms`` or a
    strptime format with a time zone.
    """

    time: Selector
    type: Selector
    key: Selector
    time_format: str = RFC3339
    id: Selector | None = None
    source: Selector | None = None


def parse_mapping(table: Mapping[str, object], *, where: str) -> EventMapping:
    """Read the table ``[event]``.

    Parameters
    ----------
    table
        Each value is a path (``reading.station``) or a constant in inner quotes (``'weather.observation'``).
    where
        The place for errors, such as ``pipeline.toml, [event]``.

    Raises
    ------
    MappingError
        An unknown or missing entry, no path, a constant where none can be, a time format without a time zone.
    """
    for name in table:
        if name not in _FIELDS:
            raise MappingError(f"unknown entry {name!r}", where=where, remedy=f"Known: {', '.join(_FIELDS)}")
    texts: dict[str, str] = {}
    for name, value in table.items():
        if not isinstance(value, str) or not value.strip():
            raise MappingError(f"must be text that is not empty, not {value!r}", where=f"{where} {name}")
        texts[name] = value.strip()
    for name in _NEEDED:
        if name not in texts:
            raise MappingError(
                f"lacks the entry {name!r}",
                where=where,
                remedy="Name the field of the record, or give a constant as \"'text'\"",
            )
    time_format = texts.pop("time_format", RFC3339)
    try:
        check_time_format(time_format, where=f"{where} time_format")
    except TimeFormatError as error:
        raise MappingError(error.what, where=error.where, remedy=error.remedy) from error
    selectors = {name: _selector(name, text, f"{where} {name}") for name, text in texts.items()}
    return EventMapping(
        time=selectors["time"],
        type=selectors["type"],
        key=selectors["key"],
        time_format=time_format,
        id=selectors.get("id"),
        source=selectors.get("source"),
    )


def _selector(name: str, text: str, where: str) -> Selector:
    if text[0] not in "'\"":
        path = tuple(text.split("."))
        if not all(path) or any(part != part.strip() for part in path):
            raise MappingError(f"not a path of field names joined by dots: {text!r}", where=where)
        return Selector(path)
    match = _CONSTANT.fullmatch(text)
    if match is None:
        raise MappingError(f"not a constant in inner quotes: {text!r}", where=where)
    constant = match[1] or match[2]
    if name in ("id", "time"):
        raise MappingError("must be a field: a constant would be the same for every event", where=where)
    if name == "type" and constant.startswith(RESERVED_TYPE_PREFIX):
        raise MappingError(f"types beginning with {RESERVED_TYPE_PREFIX!r} are reserved", where=where)
    if name == "source" and constant.startswith(SOURCE_PREFIX):
        raise MappingError(f"sources beginning with {SOURCE_PREFIX!r} are reserved", where=where)
    return Selector(constant=constant)


_any_decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(object)


def is_own_cloudevent(payload: bytes) -> bool:
    """Whether a record is a CloudEvent whose source begins with ``urn:streamgauge:``: ours, and never mapped.

    Bytes that are no JSON object are none.
    """
    try:
        record = _parsed(payload)
    except InvalidEvent:
        return False
    source = record.get("source")
    return "specversion" in record and isinstance(source, str) and source.startswith(SOURCE_PREFIX)


def read_record(mapping: EventMapping | None, payload: bytes, *, stream_arn: str, position: Position) -> Event:
    """Any record as an event: mapped where there is a mapping and the record is not of ours, else as a CloudEvent.

    Raises
    ------
    InvalidEvent
        As `decode_event` and `map_record` raise it.
    """
    if mapping is None or is_own_cloudevent(payload):
        return decode_event(payload)
    return map_record(mapping, payload, stream_arn=stream_arn, position=position)


def map_record(mapping: EventMapping, payload: bytes, *, stream_arn: str, position: Position) -> Event:
    """The event that a record stands for. The caller has asked `is_own_cloudevent`.

    Parameters
    ----------
    payload
        One JSON object; becomes ``data`` as it is.
    stream_arn
        The source, where none is mapped.
    position
        Its text is the id, where none is mapped.

    Raises
    ------
    InvalidEvent
        Not a JSON object, or a mapped field is missing or unfit. ``attribute`` says which of the envelope's.
    """
    record = _parsed(payload)
    try:
        time_ms = parse_time(_pick(record, mapping.time), mapping.time_format)
    except (ValueError, OverflowError) as error:
        raise InvalidEvent(str(error), where=f"time (field {mapping.time})") from error
    source = stream_arn if mapping.source is None else _text(record, mapping.source, "source")
    event_type = _text(record, mapping.type, "type")
    if source.startswith(SOURCE_PREFIX):
        raise InvalidEvent(f"sources beginning with {SOURCE_PREFIX!r} are reserved", where="source")
    if event_type.startswith(RESERVED_TYPE_PREFIX):
        raise InvalidEvent(f"types beginning with {RESERVED_TYPE_PREFIX!r} are reserved", where="type")
    return Event(
        specversion="1.0",
        id=str(position) if mapping.id is None else _text(record, mapping.id, "id", integers=True),
        source=source,
        type=event_type,
        time=rfc3339(time_ms),
        subject=_text(record, mapping.key, "key", integers=True),
        data=msgspec.Raw(payload),
    )


def _parsed(payload: bytes) -> dict[object, object]:
    if fault := json_fault(payload):
        raise InvalidEvent(fault, where="record")
    try:
        record = _any_decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise InvalidEvent(str(error), where="record") from error
    if not isinstance(record, dict):
        raise InvalidEvent("must be one JSON object", where="record")
    return record


def _pick(record: object, selector: Selector) -> object:
    if selector.constant is not None:
        return selector.constant
    for name in selector.path:
        if not isinstance(record, dict):
            return None
        record = record.get(name)
    return record


def _text(record: dict[object, object], selector: Selector, attribute: str, *, integers: bool = False) -> str:
    value = _pick(record, selector)
    where = f"{attribute} (field {selector})"
    if value is None:
        raise InvalidEvent("is missing or null", where=where)
    if integers and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InvalidEvent(f"must be a string{' or an integer' if integers else ''}, not {value!r}", where=where)
    if not value:
        raise InvalidEvent("must not be empty", where=where)
    return value
