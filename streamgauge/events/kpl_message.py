"""The protobuf message inside an aggregated record, in proto2::

    message AggregatedRecord {
      repeated string partition_key_table     = 1;
      repeated string explicit_hash_key_table = 2;
      repeated Record records                 = 3;
    }
    message Record {
      required uint64 partition_key_index     = 1;
      optional uint64 explicit_hash_key_index = 2;
      required bytes  data                    = 3;
      repeated Tag    tags                    = 4;
    }
    message Tag { required string key = 1; optional string value = 2; }

The class is made from a descriptor at import, so that no generated code is tied to one version of the runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = ["ABSENT", "AggregatedRecord", "Record", "parse_message", "serialize_message"]

ABSENT = 2**64 - 1
"""What ``explicit_hash_key_index`` reads as where it is not set."""


class Record(Protocol):
    """One user record, as the protobuf runtime's class has it; ``explicit_hash_key_index`` is `ABSENT` without one."""

    partition_key_index: int
    explicit_hash_key_index: int
    data: bytes


class AggregatedRecord(Protocol):
    """The whole message. Keys are bytes here: see `_message_class`."""

    partition_key_table: Iterable[bytes]
    explicit_hash_key_table: Iterable[bytes]
    records: Sequence[Record]

    def IsInitialized(self) -> bool:  # noqa: N802 - protobuf's name
        """Whether all required fields are set."""
        ...


def _message_class() -> Any:
    """The class of AggregatedRecord, from a descriptor pool of its own.

    In the default pool it would clash with the same message of the KPL's and the KCL's own libraries. Keys are declared
    as bytes, which is the same on the wire, so that bad UTF-8 is ours to report.
    """
    proto = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="streamgauge/kpl.proto", package="streamgauge.kpl", syntax="proto2")

    def message(name: str, *fields: tuple[str, int, int, str | None]) -> None:
        made = file.message_type.add(name=name)
        for number, (field, label, kind, type_name) in enumerate(fields, start=1):
            made.field.add(name=field, number=number, label=label, type=kind, type_name=type_name)

    optional, required, repeated = proto.LABEL_OPTIONAL, proto.LABEL_REQUIRED, proto.LABEL_REPEATED
    message("Tag", ("key", required, proto.TYPE_BYTES, None), ("value", optional, proto.TYPE_BYTES, None))
    message(
        "Record",
        ("partition_key_index", required, proto.TYPE_UINT64, None),
        ("explicit_hash_key_index", optional, proto.TYPE_UINT64, None),
        ("data", required, proto.TYPE_BYTES, None),
        ("tags", repeated, proto.TYPE_MESSAGE, ".streamgauge.kpl.Tag"),
    )
    message(
        "AggregatedRecord",
        ("partition_key_table", repeated, proto.TYPE_BYTES, None),
        ("explicit_hash_key_table", repeated, proto.TYPE_BYTES, None),
        ("records", repeated, proto.TYPE_MESSAGE, ".streamgauge.kpl.Record"),
    )
    # As a default an absent index shows in the same pass as the others; HasField would take a second one.
    file.message_type[1].field[1].default_value = str(ABSENT)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("streamgauge.kpl.AggregatedRecord"))


_message = _message_class()


def parse_message(body: bytes) -> AggregatedRecord:
    """Read a message.

    Raises
    ------
    ValueError
        The bytes are no such message, or a required field is not set.
    """
    try:
        message: AggregatedRecord = _message.FromString(body)
    except DecodeError as error:
        raise ValueError(f"no protobuf message AggregatedRecord: {error}") from error
    if not message.IsInitialized():
        raise ValueError("a user record or tag lacks a required field")
    return message


def serialize_message(
    partition_keys: Iterable[bytes], hash_keys: Iterable[bytes], records: Iterable[Mapping[str, int | bytes]]
) -> bytes:
    """Write a message; each of `records` has the fields of `Record` by name. Equal arguments give equal bytes."""
    message = _message(partition_key_table=partition_keys, explicit_hash_key_table=hash_keys, records=records)
    body: bytes = message.SerializeToString(deterministic=True)
    return body
