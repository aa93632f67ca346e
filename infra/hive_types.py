"""Hive types, as the Glue Data Catalog and Athena read them, of what a JSON Schema describes.

Source: Athena user guide, "Data types in Amazon Athena"; the archive's Parquet columns are of the matching types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamgauge.events.errors import StreamgaugeError

__all__ = ["hive_type"]

_SCALARS = {"integer": "bigint", "number": "double", "boolean": "boolean", "string": "string"}


def hive_type(schema: Mapping[str, object], *, where: str) -> str:
    """The Hive type of a value that fits the schema; names are in lower case, as Glue keeps them.

    Parameters
    ----------
    where
        The place that an error names.

    Raises
    ------
    StreamgaugeError
        The schema states no type, or one that a column cannot have.
    """
    kind = _kind(schema, where)
    if kind == "object":
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            raise StreamgaugeError("an object needs properties to become a column", where=where)
        fields = (f"{name.lower()}:{_member(inner, f'{where}.{name}')}" for name, inner in properties.items())
        return f"struct<{','.join(fields)}>"
    if kind == "array":
        return f"array<{_member(schema.get('items'), f'{where}[]')}>"
    if kind not in _SCALARS:
        raise StreamgaugeError(f"type {kind!r} cannot become a column", where=where)
    return _SCALARS[kind]


def _member(schema: object, where: str) -> str:
    if not isinstance(schema, Mapping):
        raise StreamgaugeError("no schema stands here", where=where)
    return hive_type(schema, where=where)


def _kind(schema: Mapping[str, object], where: str) -> str:
    stated = schema.get("type")
    # A union with null is a nullable column; every column is nullable.
    kinds = [stated] if isinstance(stated, str) else list(stated) if isinstance(stated, Sequence) else []
    kinds = [kind for kind in kinds if kind != "null"]
    if set(kinds) == {"integer", "number"}:
        kinds = ["number"]
    if not kinds and "enum" in schema:
        kinds = ["string"]
    if len(kinds) != 1:
        raise StreamgaugeError(f"a column has one type, this has {len(kinds)}", where=where)
    return str(kinds[0])
