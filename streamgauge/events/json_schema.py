"""The part of JSON Schema (2020-12) that event types are described in, as plain values.

Supported: an object with ``properties`` and ``required`` at the root; fields of type object, array (``items``), string,
integer, number, boolean, each also as ``[type, "null"]``; ``enum`` of strings or integers; ``format: date-time``;
``minimum`` and ``maximum`` of numbers; ``default``; and whatever only describes (``title``, ``description``,
``examples``, ``x-…`` and so on). Everything else is refused by name: a keyword read over would promise a check that
nobody makes.

Two rules are narrower than JSON Schema's. An integer is written without fraction or exponent (1.0 is a number: most
parsers tell the two apart by how they are written) and fits 64 bits. Fields that the schema does not name are always
allowed, and ignored. A date-time is checked by its form: 30 February passes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import instant_ms

__all__ = ["INT64_MAX", "INT64_MIN", "FieldSchema", "Kind", "SchemaError", "parse_object", "violation"]

Kind = Literal["object", "array", "string", "integer", "number", "boolean"]

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

_DESCRIBING = frozenset({"title", "description", "examples", "deprecated", "readOnly", "writeOnly", "$comment"})
_ROOT_ONLY = frozenset({"$schema", "$id"})
_ALLOWED: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required"}),
    "array": frozenset({"items"}),
    "string": frozenset({"enum", "format"}),
    "integer": frozenset({"enum", "minimum", "maximum"}),
    "number": frozenset({"minimum", "maximum"}),
    "boolean": frozenset(),
}


class SchemaError(StreamgaugeError):
    """A schema outside what is supported, or a catalogue that contradicts itself; says which file and field."""


@dataclass(frozen=True, slots=True)
class FieldSchema:
    """One field. ``minimum`` and ``maximum`` are inclusive. ``default`` counts only with ``has_default``.

    ``required`` is what the enclosing object says of it. ``properties`` belong to objects, ``items`` to arrays.
    """

    kind: Kind
    nullable: bool = False
    required: bool = False
    minimum: int | float | None = None
    maximum: int | float | None = None
    enum: tuple[str, ...] | tuple[int, ...] | None = None
    is_time: bool = False
    has_default: bool = False
    default: object = None
    properties: Mapping[str, FieldSchema] = field(default_factory=dict)
    items: FieldSchema | None = None


def parse_object(schema: Mapping[str, object], *, file: str) -> FieldSchema:
    """Read the schema of an event type's ``data``.

    Raises
    ------
    SchemaError
        A keyword or value that is not supported, with `file` and the field's path.
    """
    parsed = _parse(schema, _Place(file, ()))
    if parsed.kind != "object" or parsed.nullable or parsed.has_default:
        raise SchemaError('the data of an event is an object: "type": "object"', where=file)
    return parsed


def violation(schema: FieldSchema, value: object) -> str | None:
    """What is wrong with a value (as ``json`` reads it), or None. Slow: for defaults and samples, not for events."""
    if value is None:
        return None if schema.nullable else "must not be null"
    if not _is_kind(schema.kind, value):
        return f"must be of type {schema.kind}, not {value!r}"
    if isinstance(value, dict):
        return _object_violation(schema, value)
    if isinstance(value, list) and schema.items is not None:
        items = schema.items
        return next((f"[{i}] {wrong}" for i, item in enumerate(value) if (wrong := violation(items, item))), None)
    return _scalar_violation(schema, value)


def _object_violation(schema: FieldSchema, value: Mapping[str, object]) -> str | None:
    for name, inner in schema.properties.items():
        if name not in value:
            if inner.required:
                return f"lacks the required field {name!r}"
        elif wrong := violation(inner, value[name]):
            return f"{name}: {wrong}"
    return None


def _scalar_violation(schema: FieldSchema, value: object) -> str | None:
    if schema.enum is not None and value not in schema.enum:
        return f"must be one of {list(schema.enum)}, not {value!r}"
    if isinstance(value, int | float):
        if schema.minimum is not None and value < schema.minimum:
            return f"must be at least {schema.minimum}, not {value!r}"
        if schema.maximum is not None and value > schema.maximum:
            return f"must be at most {schema.maximum}, not {value!r}"
    if schema.is_time and isinstance(value, str):
        try:
            instant_ms(value)
        except ValueError as error:
            return str(error)
    return None


def _is_kind(kind: Kind, value: object) -> bool:
    if kind == "integer":
        return type(value) is int and INT64_MIN <= value <= INT64_MAX
    if kind == "number":
        return type(value) is int or (type(value) is float and math.isfinite(value))
    return type(value) is {"object": dict, "array": list, "string": str, "boolean": bool}[kind]


@dataclass(frozen=True, slots=True)
class _Place:
    file: str
    path: tuple[str, ...]

    def __truediv__(self, name: str) -> _Place:
        return _Place(self.file, (*self.path, name))

    def error(self, what: str, remedy: str | None = None) -> SchemaError:
        at = f"{self.file}, field {'.'.join(self.path)}" if self.path else self.file
        return SchemaError(what, where=at, remedy=remedy)


def _parse(schema: object, place: _Place, *, required: bool = False) -> FieldSchema:
    if not isinstance(schema, Mapping):
        raise place.error(f"a schema is an object, not {schema!r}")
    kind, nullable = _kind(schema, place)
    _check_keywords(schema, kind, place)
    minimum, maximum = _bound(schema, "minimum", kind, place), _bound(schema, "maximum", kind, place)
    if minimum is not None and maximum is not None and minimum > maximum:
        raise place.error(f"minimum {minimum} is above maximum {maximum}")
    enum = _enum(schema, kind, nullable=nullable, place=place)
    if enum is not None and (minimum is not None or maximum is not None):
        raise place.error(
            "enum together with minimum or maximum is not supported", "Leave out of enum what is not allowed"
        )
    parsed = FieldSchema(
        kind=kind,
        nullable=nullable,
        required=required,
        minimum=minimum,
        maximum=maximum,
        enum=enum,
        is_time=_is_time(schema, place),
        has_default="default" in schema,
        default=schema.get("default"),
        properties=_properties(schema, place) if kind == "object" else {},
        items=_parse(schema["items"], place / "[]") if "items" in schema else None,
    )
    if parsed.kind == "array" and parsed.items is None:
        raise place.error('an array needs "items"')
    _check_default(parsed, place)
    return parsed


def _kind(schema: Mapping[str, object], place: _Place) -> tuple[Kind, bool]:
    stated = schema.get("type")
    names = stated if isinstance(stated, list) else [stated]
    kinds = [name for name in names if name != "null"]
    if len(kinds) == 1 and len(names) - len(kinds) <= 1:
        for kind in ("object", "array", "string", "integer", "number", "boolean"):
            if kinds[0] == kind:
                return kind, len(names) > 1
    raise place.error(
        f'"type" must be one of {", ".join(_ALLOWED)}, or a list of one of them and "null"; it is {stated!r}'
    )


def _check_keywords(schema: Mapping[str, object], kind: Kind, place: _Place) -> None:
    allowed = _ALLOWED[kind] | _DESCRIBING | {"type", "default"}
    if not place.path:
        allowed |= _ROOT_ONLY
    for keyword in schema:
        if keyword in allowed or keyword.startswith("x-"):
            continue
        if keyword == "additionalProperties" and schema[keyword] is True:
            continue
        raise place.error(
            f"the keyword {keyword!r} is not supported in a schema of type {kind}",
            f"Supported there: {', '.join(sorted(_ALLOWED[kind] | {'default', 'description', 'title'}))}",
        )


def _bound(schema: Mapping[str, object], keyword: str, kind: Kind, place: _Place) -> int | float | None:
    value = schema.get(keyword)
    if keyword not in schema:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise place.error(f"{keyword} must be a number, not {value!r}")
    if kind == "integer":
        value = math.ceil(value) if keyword == "minimum" else math.floor(value)
        if not INT64_MIN <= value <= INT64_MAX:
            raise place.error(f"{keyword} lies outside 64 bits: {schema[keyword]!r}")
    return value


def _enum(
    schema: Mapping[str, object], kind: Kind, *, nullable: bool, place: _Place
) -> tuple[str, ...] | tuple[int, ...] | None:
    if "enum" not in schema:
        return None
    stated = schema["enum"]
    values = [value for value in stated if value is not None] if isinstance(stated, list) else []
    if not isinstance(stated, list) or not values:
        raise place.error(f"enum must be a list of values, not {stated!r}")
    if nullable != (None in stated):
        raise place.error("enum and type must agree on null: both have it, or neither")
    texts = [value for value in values if isinstance(value, str)]
    integers = [value for value in values if _is_kind("integer", value) and isinstance(value, int)]
    if len(set(values)) < len(values) or len(texts if kind == "string" else integers) < len(values):
        raise place.error(f"enum must hold distinct values of type {kind}: {stated!r}")
    return tuple(texts) if kind == "string" else tuple(integers)


def _is_time(schema: Mapping[str, object], place: _Place) -> bool:
    if "format" not in schema:
        return False
    if schema["format"] != "date-time":
        raise place.error(f"the format {schema['format']!r} is not supported", "Supported: date-time")
    if "enum" in schema:
        raise place.error("enum together with format is not supported")
    return True


def _properties(schema: Mapping[str, object], place: _Place) -> dict[str, FieldSchema]:
    stated = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(stated, Mapping):
        raise place.error(f"properties must be an object, not {stated!r}")
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise place.error(f"required must be a list of names, not {required!r}")
    if unknown := [name for name in required if name not in stated]:
        raise place.error(f"required names {unknown[0]!r}, which properties lacks")
    folded: dict[str, str] = {}
    for name in stated:
        if folded.setdefault(name.lower(), name) != name:
            # Parquet keeps them apart, the engines that query it do not.
            raise place.error(f"fields {folded[name.lower()]!r} and {name!r} differ only by case")
        # A path is names joined by dots, so a name with a dot would have no path of its own.
        if not name or "." in name or re.search(r"[\x00-\x1f]", name):
            raise place.error(f"a field cannot be called {name!r}", "Use a name without dots and control characters")
    return {name: _parse(inner, place / name, required=name in required) for name, inner in stated.items()}


def _check_default(parsed: FieldSchema, place: _Place) -> None:
    if not parsed.has_default:
        return
    if parsed.kind in ("object", "array") and parsed.default is not None:
        raise place.error(f"a default other than null is not supported for type {parsed.kind}")
    if wrong := violation(parsed, parsed.default):
        raise place.error(f"its default does not fit: it {wrong}")
