"""The event: CloudEvents 1.0 in JSON, and who it is.

Sources: CloudEvents 1.0.2 (required attributes, JSON format), its documented extensions `partitioning`
(``partitionkey``), `sequence` (``sequence``) and `distributed tracing` (``traceparent``).

An event of a *source of ours*, ``urn:streamgauge:<uuid>:w<W>``, is told apart by (source, sequence); every other by
(source, id). See ``docs/adr/0001-envelope-and-identity.md``.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from uuid import UUID

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.json_text import json_fault
from streamgauge.events.times import instant_ms

__all__ = [
    "CONTROL_SOURCE_PREFIX",
    "DEFAULT_SEQUENCE_WINDOW",
    "MAX_SEQUENCE_WINDOW",
    "MIN_SEQUENCE_WINDOW",
    "RESERVED_TYPE_PREFIX",
    "SEQUENCE_DIGITS",
    "SOURCE_PREFIX",
    "Event",
    "InvalidEvent",
    "OwnSource",
    "decode_event",
    "encode_event",
    "own_source",
    "parse_sequence",
]

SOURCE_PREFIX = "urn:streamgauge:"
CONTROL_SOURCE_PREFIX = "urn:streamgauge:control:"
RESERVED_TYPE_PREFIX = "streamgauge"

SEQUENCE_DIGITS = 20
"""Sequences are zero-padded to this width: the extension demands lexicographic order."""

MIN_SEQUENCE_WINDOW = 1_024
DEFAULT_SEQUENCE_WINDOW = 16_384
MAX_SEQUENCE_WINDOW = 1_048_576

_OWN_SOURCE = re.compile(r"urn:streamgauge:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):w([1-9][0-9]*)")
_SEQUENCE = re.compile(r"[0-9]{20}")


class InvalidEvent(StreamgaugeError):
    """Bytes that are no event of this contract; the message names the field."""

    @property
    def attribute(self) -> str:
        """What is wrong: an attribute (``time``), ``key``, or ``event`` or ``record`` for the whole."""
        return (self.where or "event").split(" ", 1)[0]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One CloudEvent.

    ``time`` is RFC 3339 text, ``data`` the JSON bytes of an object, ``partitionkey`` absent where it equals
    ``subject``.
    Extension attributes that are not named here are not kept by this type; the archive keeps them.
    """

    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str
    dataschema: str | None = None
    datacontenttype: str | None = None
    partitionkey: str | None = None
    sequence: str | None = None
    traceparent: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def partition_key(self) -> str:
        """The partition key that the event claims: ``partitionkey``, or ``subject`` without one."""
        return self.subject if self.partitionkey is None else self.partitionkey


class OwnSource(NamedTuple):
    """A source of ours: one numbered log. ``window`` is W, see `DEFAULT_SEQUENCE_WINDOW`."""

    uuid: UUID
    window: int

    def __str__(self) -> str:
        return f"{SOURCE_PREFIX}{self.uuid}:w{self.window}"


def own_source(source: str) -> OwnSource | None:
    """The parts of a source of ours; None for a foreign or a control source.

    Raises
    ------
    InvalidEvent
        The source begins like one of ours but is malformed, or W is not a power of two from 1,024 to 1,048,576.
    """
    if not source.startswith(SOURCE_PREFIX) or source.startswith(CONTROL_SOURCE_PREFIX):
        return None
    match = _OWN_SOURCE.fullmatch(source)
    if match is None:
        raise InvalidEvent("not urn:streamgauge:<uuid>:w<W>", where=f"source {source!r}")
    window = int(match[2])
    if window & (window - 1) or not MIN_SEQUENCE_WINDOW <= window <= MAX_SEQUENCE_WINDOW:
        raise InvalidEvent(
            f"W must be a power of two from {MIN_SEQUENCE_WINDOW} to {MAX_SEQUENCE_WINDOW}", where=f"source {source!r}"
        )
    return OwnSource(UUID(match[1]), window)


def parse_sequence(text: str | None) -> int:
    """The number in the ``sequence`` attribute of an event of ours.

    Raises
    ------
    InvalidEvent
        It is absent, or not 20 decimal digits below 2**63.
    """
    if text is None or _SEQUENCE.fullmatch(text) is None or int(text) >= 2**63:
        raise InvalidEvent(f"must be {SEQUENCE_DIGITS} decimal digits below 2**63", where=f"sequence {text!r}")
    return int(text)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """The event as one JSON object without line breaks outside ``data``."""
    return _encoder.encode(event)


def decode_event(payload: bytes) -> Event:
    """Read one CloudEvent and check the attributes that every event must have.

    Raises
    ------
    InvalidEvent
        Not JSON, not UTF-8, nested too deep, an attribute missing, empty or of a wrong type, a time that is no time, a
        source of ours without a sequence, a reserved type from elsewhere. ``attribute`` says which.
    """
    if fault := json_fault(payload):
        raise InvalidEvent(fault, where="event")
    try:
        event = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise InvalidEvent(str(error), where=_attribute_named(str(error))) from error
    if event.specversion != "1.0":
        raise InvalidEvent("only CloudEvents 1.0 is read", where=f"specversion {event.specversion!r}")
    for name in ("id", "source", "type", "subject"):
        if not getattr(event, name):
            raise InvalidEvent("must not be empty", where=name)
    if event.partitionkey == "":
        raise InvalidEvent("must not be empty", where="partitionkey")
    try:
        instant_ms(event.time)
    except ValueError as error:
        raise InvalidEvent(str(error), where="time") from error
    _check_numbering(event)
    return event


def _check_numbering(event: Event) -> None:
    is_reserved = event.type.startswith(RESERVED_TYPE_PREFIX)
    if is_reserved and not event.source.startswith(SOURCE_PREFIX):
        raise InvalidEvent(f"reserved for sources beginning with {SOURCE_PREFIX!r}", where=f"type {event.type!r}")
    if event.source.startswith(CONTROL_SOURCE_PREFIX) and not is_reserved:
        raise InvalidEvent(f"a control source sends only types of {RESERVED_TYPE_PREFIX}", where=f"type {event.type!r}")
    # Ledger records speak for a source of ours and stand outside its numbering.
    if own_source(event.source) is not None and not is_reserved:
        parse_sequence(event.sequence)


def _attribute_named(error: str) -> str:
    """The attribute in msgspec's "… missing required field `id`" and "… - at `$.id`"."""
    match = re.search(r"required field `([^`]+)`$|at `\$\.([a-z]+)", error)
    return "event" if match is None else match[1] or match[2]
