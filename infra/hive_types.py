"""Hive types, as the Glue Data Catalog and Athena read them, of what a JSON Schema describes.

Source: Athena user guide, "Data types in Amazon Athena". They are those of the Parquet columns that the archive makes
of the same schema (``sinks/archive/columns.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["hive_type"]

_SCALARS = {"integer": "bigint", "number": "double", "boolean": "boolean", "string": "string"}


def hive_type(schema: Mapping[str, object]) -> str:
    """The Hive type of a value that fits the schema; names are in lower case, as Glue keeps them.

    What has no fields of its own to describe (an object whose properties are not listed, an array without ``items``, a
    value of several types) is JSON text.
    """
    stated = schema.get("type")
    kinds = [kind for kind in stated if kind != "null"] if isinstance(stated, list) else [stated]
    kind = kinds[0] if len(kinds) == 1 else None
    properties, items = schema.get("properties"), schema.get("items")
    if kind == "object" and isinstance(properties, Mapping) and properties:
        return f"struct<{','.join(f'{name.lower()}:{hive_type(part)}' for name, part in properties.items())}>"
    if kind == "array" and isinstance(items, Mapping):
        return f"array<{hive_type(items)}>"
    return _SCALARS.get(kind, "string") if isinstance(kind, str) else "string"
