"""The catalogue: one JSON Schema for each event type and version, and how versions may follow one another."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from streamgauge.events.envelope import RESERVED_TYPE_PREFIX
from streamgauge.events.json_schema import FieldSchema, SchemaError, parse_object

__all__ = [
    "SCHEMA_URN_PREFIX",
    "Catalogue",
    "EventSchema",
    "FieldType",
    "Incompatibility",
    "SchemaError",
    "UnknownType",
    "UnknownVersion",
    "schema_urn",
]

SCHEMA_URN_PREFIX = "urn:streamgauge:schema:"

_TYPE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[._-][A-Za-z0-9]+)*")


class UnknownType(SchemaError):
    """The catalogue does not have the type."""


class UnknownVersion(SchemaError):
    """The catalogue has the type, but not the version asked for."""


@dataclass(frozen=True, slots=True)
class EventSchema:
    """The schema of one version of one type, as read from JSON. On disk: ``<type>/<version>.json``."""

    type: str
    version: int
    schema: Mapping[str, object]

    @property
    def file(self) -> str:
        """Its file, below the folder of schemas."""
        return f"{self.type}/{self.version}.json"


class FieldType(NamedTuple):
    """A field's type. ``nullable``: it may be null or absent, or stand inside an object that may be."""

    kind: Literal["integer", "number", "boolean", "string"]
    nullable: bool


class Incompatibility(NamedTuple):
    """A version that breaks a rule against the one before it. ``field`` is a path within ``data``."""

    type: str
    version: int
    field: str
    rule: str

    def __str__(self) -> str:
        return f"{self.type}/{self.version}.json, field {self.field}: {self.rule}"


def schema_urn(type: str, version: int) -> str:
    """The ``dataschema`` that names a version: ``urn:streamgauge:schema:<type>:<version>``."""
    return f"{SCHEMA_URN_PREFIX}{type}:{version}"


class Catalogue:
    """All types and versions of a pipeline. Immutable.

    Parameters
    ----------
    schemas
        In any order; at least one version of each type.

    Raises
    ------
    SchemaError
        A schema outside what is supported (see `json_schema`), a version given twice, two types that would be one
        table, a ``$id`` that names another schema.
    """

    def __init__(self, schemas: Iterable[EventSchema]) -> None:
        self._schemas: dict[str, dict[int, EventSchema]] = {}
        self._parsed: dict[tuple[str, int], FieldSchema] = {}
        self._by_id: dict[str, tuple[str, int]] = {}
        for schema in sorted(schemas, key=lambda schema: (schema.type, schema.version)):
            _check_name(schema)
            versions = self._schemas.setdefault(schema.type, {})
            if schema.version in versions:
                raise SchemaError("the version is given twice", where=schema.file)
            versions[schema.version] = schema
            self._parsed[schema.type, schema.version] = parse_object(schema.schema, file=schema.file)
            self._register_id(schema)
        _check_tables(self._schemas)

    @property
    def types(self) -> tuple[str, ...]:
        """All types, sorted."""
        return tuple(self._schemas)

    def versions(self, type: str) -> tuple[int, ...]:
        """The versions of a type, rising. Raises `UnknownType`."""
        try:
            return tuple(self._schemas[type])
        except KeyError:
            raise UnknownType(
                f"the catalogue does not have the type {type!r}",
                remedy=f"It has: {', '.join(self._schemas) or 'none'}",
            ) from None

    def newest(self, type: str) -> EventSchema:
        """The highest version of a type. Raises `UnknownType`."""
        return self.get(type, self.versions(type)[-1])

    def get(self, type: str, version: int) -> EventSchema:
        """One version. Raises `UnknownType`, `UnknownVersion`."""
        versions = self.versions(type)
        if version not in versions:
            raise UnknownVersion(
                f"the catalogue does not have version {version} of {type!r}",
                remedy=f"It has: {', '.join(map(str, versions))}",
            )
        return self._schemas[type][version]

    def parsed(self, type: str, version: int) -> FieldSchema:
        """The schema of one version as a value. Raises `UnknownType`, `UnknownVersion`."""
        self.get(type, version)
        return self._parsed[type, version]

    def version_of(self, dataschema: str | None, type: str) -> int:
        """The version that an event's ``dataschema`` names; the newest one without it.

        Parameters
        ----------
        dataschema
            ``urn:streamgauge:schema:<type>:<version>``, or a schema's ``$id``.

        Raises
        ------
        UnknownType
            The catalogue does not have `type`.
        UnknownVersion
            ``dataschema`` names no version of `type` that the catalogue has.
        """
        versions = self.versions(type)
        if dataschema is None:
            return versions[-1]
        named = self._by_id.get(dataschema)
        if named is None or named[0] != type:
            raise UnknownVersion(f"dataschema {dataschema!r} names no version of {type!r} in the catalogue")
        return named[1]

    def fields(self, type: str) -> dict[str, FieldType]:
        """The scalar fields of a type's newest version by path within ``data`` (nested objects dotted, no ``data.``).

        Fields inside arrays have no path. Raises `UnknownType`.
        """
        return dict(_leaves(self.parsed(type, self.versions(type)[-1]), "", nullable=False))

    def check_compatibility(self) -> list[Incompatibility]:
        """Every rule that a version breaks against the version before it; empty if all is well.

        A new version may add optional fields or fields with a default, widen integer to number, and make a field
        nullable. Nothing else: an old event read as the newest version must mean what it meant.
        """
        return [
            Incompatibility(name, newer, path, rule)
            for name in self.types
            for older, newer in itertools.pairwise(self.versions(name))
            for path, rule in _broken_rules(self._parsed[name, older], self._parsed[name, newer], "")
        ]

    def _register_id(self, schema: EventSchema) -> None:
        urn = schema_urn(schema.type, schema.version)
        names = {urn, schema.schema.get("$id", urn)}
        for name in names:
            if not isinstance(name, str) or not name:
                raise SchemaError(f"$id must be a URI, not {name!r}", where=schema.file)
            if self._by_id.setdefault(name, (schema.type, schema.version)) != (schema.type, schema.version):
                raise SchemaError(f"{name!r} names another schema already", where=schema.file)
            if name.startswith(SCHEMA_URN_PREFIX) and name != urn:
                raise SchemaError(f"$id must be {urn!r} or a URI of your own, not {name!r}", where=schema.file)


def _check_name(schema: EventSchema) -> None:
    if _TYPE_NAME.fullmatch(schema.type) is None:
        raise SchemaError(
            f"not a type name: {schema.type!r}",
            where=schema.file,
            remedy="Use letters and digits, in parts joined by . _ or -, such as weather.observation",
        )
    if schema.type.startswith(RESERVED_TYPE_PREFIX):
        raise SchemaError(f"types beginning with {RESERVED_TYPE_PREFIX!r} are reserved", where=schema.file)
    if schema.version < 1:
        raise SchemaError("versions are numbered from 1", where=schema.file)


def _check_tables(types: Iterable[str]) -> None:
    tables: dict[str, str] = {}
    for name in types:
        other = tables.setdefault(re.sub(r"[^a-z0-9]", "_", name.lower()), name)
        if other != name:
            raise SchemaError(f"types {other!r} and {name!r} would be one table of the archive", where="catalogue")


def _leaves(schema: FieldSchema, prefix: str, *, nullable: bool) -> Iterator[tuple[str, FieldType]]:
    for name, field in schema.properties.items():
        absent = not field.required and (not field.has_default or field.default is None)
        may_lack = nullable or field.nullable or absent
        if field.kind == "object":
            yield from _leaves(field, f"{prefix}{name}.", nullable=may_lack)
        elif field.kind != "array":
            yield prefix + name, FieldType(field.kind, may_lack)


def _broken_rules(older: FieldSchema, newer: FieldSchema, prefix: str) -> Iterator[tuple[str, str]]:
    for name, old in older.properties.items():
        path = prefix + name
        new = newer.properties.get(name)
        if new is None:
            yield path, "a field must not be removed"
            continue
        if old.required != new.required:
            yield path, "a field must stay required, or stay optional"
        yield from _broken_field_rules(old, new, path)
    for name in newer.properties.keys() - older.properties.keys():
        new = newer.properties[name]
        if new.required and not new.has_default:
            yield prefix + name, "a new field must be optional or have a default"


def _broken_field_rules(old: FieldSchema, new: FieldSchema, path: str) -> Iterator[tuple[str, str]]:
    if old.kind != new.kind and (old.kind, new.kind) != ("integer", "number"):
        yield path, f"its type must not change from {old.kind} to {new.kind}"
        return
    if old.nullable and not new.nullable:
        yield path, "a nullable field must stay nullable"
    for what, before, after in (
        ("minimum", old.minimum, new.minimum),
        ("maximum", old.maximum, new.maximum),
        ("enum", old.enum, new.enum),
        ("format", old.is_time, new.is_time),
        ("default", (old.has_default, old.default), (new.has_default, new.default)),
    ):
        if before != after:
            yield path, f"its {what} must not change"
    yield from _broken_rules(old, new, f"{path}.")
    if old.items is not None and new.items is not None:
        yield from _broken_field_rules(old.items, new.items, f"{path}.[]")
