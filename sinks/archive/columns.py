"""The archive's columns, frozen: see ``docs/adr/0012-archive-columns-and-delivery.md``.

Every table of raw records ends with the position: ``shard_id, sequence_number, sub_sequence_number, arrival``.
"""

from __future__ import annotations

from typing import TypeAlias

import pyarrow as pa

from streamgauge.events.catalogue import Catalogue
from streamgauge.events.json_schema import FieldSchema
from streamgauge.sinks.archive.layout import CONTROL, LEDGER, MISROUTED, UNARCHIVABLE

__all__ = ["PARTITION_COLUMNS", "TIME", "data_type", "event_columns", "raw_tables"]

TIME = pa.timestamp("ms", tz="UTC")

_TEXT = pa.string()
_Fields: TypeAlias = "list[pa.Field[pa.DataType]]"

_POSITION: _Fields = [
    pa.field("shard_id", _TEXT, nullable=False),
    pa.field("sequence_number", _TEXT, nullable=False),
    pa.field("sub_sequence_number", pa.int64(), nullable=False),
    pa.field("arrival", TIME, nullable=False),
]
_ENVELOPE: _Fields = [
    pa.field("id", _TEXT, nullable=False),
    pa.field("source", _TEXT, nullable=False),
    pa.field("type", _TEXT, nullable=False),
    pa.field("time", TIME, nullable=False),
    pa.field("subject", _TEXT, nullable=False),
    pa.field("dataschema", _TEXT),
    pa.field("datacontenttype", _TEXT),
    pa.field("partitionkey", _TEXT),
    pa.field("sequence", _TEXT),
    pa.field("traceparent", _TEXT),
    pa.field("extensions", _TEXT),
]
PARTITION_COLUMNS: _Fields = [pa.field("dt", _TEXT), pa.field("hour", _TEXT)]
"""In the objects' names, not in the objects."""

_CONTROL_DATA = pa.struct([("at_ms", pa.int64()), ("input", pa.string()), ("part", pa.int64()), ("parts", pa.int64())])
_RANGES = pa.list_(pa.list_(pa.int64()))
_LEDGER_DATA = pa.struct(
    [("acknowledged", _RANGES), ("in_doubt", _RANGES), ("given_up", _RANGES), ("final", pa.bool_())]
)
_MISROUTED: _Fields = [
    pa.field("source", _TEXT),
    pa.field("identity", _TEXT),
    pa.field("partition_key", _TEXT, nullable=False),
    *_POSITION,
]
_UNARCHIVABLE: _Fields = [
    pa.field("reason", _TEXT, nullable=False),
    pa.field("detail", _TEXT, nullable=False),
    pa.field("source", _TEXT),
    pa.field("identity", _TEXT),
    pa.field("partition_key", _TEXT, nullable=False),
    pa.field("payload", pa.binary(), nullable=False),
    *_POSITION,
]
_SCALARS: dict[str, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "string": _TEXT,
}


def data_type(schema: FieldSchema) -> pa.DataType:
    """The Arrow type of a field.

    Names stay as they are. An object without listed properties is JSON text: Parquet has no column for what has no
    fields.
    """
    if schema.kind == "object":
        if not schema.properties:
            return _TEXT
        return pa.struct([pa.field(name, data_type(field)) for name, field in schema.properties.items()])
    if schema.kind == "array":
        assert schema.items is not None, "the catalogue refuses an array without items"
        return pa.list_(data_type(schema.items))
    return _SCALARS[schema.kind]


def event_columns(catalogue: Catalogue, event_type: str) -> pa.Schema:
    """The columns of one event type: envelope, ``data`` as its newest schema has it, position.

    ``data_rest`` is the JSON of what ``data`` holds beyond that schema, null without.
    """
    newest = catalogue.parsed(event_type, catalogue.versions(event_type)[-1])
    data: _Fields = [pa.field("data", data_type(newest)), pa.field("data_rest", _TEXT)]
    return pa.schema([*_ENVELOPE, *data, *_POSITION])


def raw_tables(catalogue: Catalogue) -> dict[str, pa.Schema]:
    """Every table that delivery writes, by event type or own name, without the partition columns."""
    return {
        **{event_type: event_columns(catalogue, event_type) for event_type in catalogue.types},
        CONTROL: pa.schema([*_ENVELOPE, pa.field("data", _CONTROL_DATA), *_POSITION]),
        LEDGER: pa.schema([*_ENVELOPE, pa.field("data", _LEDGER_DATA), *_POSITION]),
        MISROUTED: pa.schema(_MISROUTED),
        UNARCHIVABLE: pa.schema(_UNARCHIVABLE),
    }
