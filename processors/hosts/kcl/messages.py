"""The messages of the KCL's MultiLangDaemon, one JSON object a line.

Source: the classes of ``software.amazon.kinesis.multilang.messages`` in awslabs/amazon-kinesis-client. Fields that
we do not read are not named: msgspec passes over them.
"""

from __future__ import annotations

from operator import attrgetter

import msgspec

from streamgauge.events.records import UserRecords

__all__ = [
    "Action",
    "Checkpointed",
    "Initialize",
    "LeaseLost",
    "Message",
    "MessageError",
    "ProcessRecords",
    "Record",
    "ShardEnded",
    "ShutdownRequested",
    "checkpoint_line",
    "decode_message",
    "status_line",
    "user_records",
]


class MessageError(ValueError):
    """A line is no message of the protocol."""


class Record(msgspec.Struct, gc=False, rename="camel"):
    """A user record. ``data`` is base64 on the wire, ``approximate_arrival_timestamp`` milliseconds since the epoch."""

    sequence_number: str
    partition_key: str
    approximate_arrival_timestamp: int
    data: bytes
    sub_sequence_number: int = 0


class Initialize(msgspec.Struct, frozen=True, tag_field="action", tag="initialize", rename="camel"):
    """The shard to work on, and the KCL's checkpoint: a number, or a sentinel such as ``TRIM_HORIZON``."""

    shard_id: str
    sequence_number: str | None = None
    sub_sequence_number: int | None = None


class ProcessRecords(msgspec.Struct, frozen=True, tag_field="action", tag="processRecords", rename="camel"):
    """Records in stream order, possibly none."""

    records: list[Record]
    millis_behind_latest: int | None = None


class Checkpointed(msgspec.Struct, frozen=True, tag_field="action", tag="checkpoint", rename="camel"):
    """The answer to a checkpoint. ``error`` is the name of a Java exception; None: it was made."""

    error: str | None = None


class LeaseLost(msgspec.Struct, frozen=True, tag_field="action", tag="leaseLost"):
    """Another worker has the shard: no checkpoint is taken any more."""


class ShardEnded(msgspec.Struct, frozen=True, tag_field="action", tag="shardEnded"):
    """All records of a closed shard have been handed over; the KCL goes on once this is checkpointed."""


class ShutdownRequested(msgspec.Struct, frozen=True, tag_field="action", tag="shutdownRequested"):
    """The daemon is about to stop, or to hand the lease over: a last chance to checkpoint."""


Action = Initialize | ProcessRecords | LeaseLost | ShardEnded | ShutdownRequested
"""What the daemon asks for; it waits for the status of one before it sends another."""

Message = Action | Checkpointed

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_COLUMNS = tuple(
    attrgetter(name)
    for name in ("sequence_number", "partition_key", "approximate_arrival_timestamp", "data", "sub_sequence_number")
)


def decode_message(line: bytes) -> Message:
    """Read one line.

    Raises
    ------
    MessageError
        It is no JSON, or no message that this protocol knows.
    """
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        start = line[:80].decode("utf-8", "replace")
        raise MessageError(f"not a message of the KCL's MultiLangDaemon: {error} in {start!r}") from error


def user_records(message: ProcessRecords) -> UserRecords:
    """The records as the engine takes them."""
    return UserRecords(*(list(map(column, message.records)) for column in _COLUMNS))


def status_line(action: Action) -> bytes:
    """The line that says: done."""
    return msgspec.json.encode({"action": "status", "responseFor": action.__struct_config__.tag})


def checkpoint_line(sequence_number: int | None, sub_sequence_number: int | None) -> bytes:
    """The line that asks for a checkpoint; at the end of what was handed over without a number."""
    number = None if sequence_number is None else str(sequence_number)
    message = {"action": "checkpoint", "sequenceNumber": number, "subSequenceNumber": sub_sequence_number}
    return msgspec.json.encode(message)
