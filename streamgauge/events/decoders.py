"""Decoders generated from the catalogue: a msgspec struct for the ``data`` of a type, limited to what is asked for.

One struct for each version, all with the attributes of the newest: an event of an older version is read by the rules of
its own version (its required fields, its types) and comes out with the newest version's fields, defaults filled in.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec

from streamgauge.events.catalogue import Catalogue
from streamgauge.events.json_schema import INT64_MAX, INT64_MIN, FieldSchema, SchemaError
from streamgauge.events.times import RFC3339_PATTERN

__all__ = ["attribute_name", "data_struct", "field_getter"]


def attribute_name(name: str) -> str:
    """The struct's attribute for a field: its name, or ``x_<hex>`` where that is no plain Python identifier.

    ``wind_speed`` stays; ``wind-speed``, ``class`` and ``_a`` become attributes of their UTF-8 in hex. Different names
    have different attributes.
    """
    if name.isidentifier() and not keyword.iskeyword(name) and not name.startswith(("_", "x_")):
        return name
    return f"x_{name.encode().hex()}"


def field_getter(path: str) -> Callable[[object], object]:
    """A function from a struct of `data_struct` to the value at a dotted path; None where it has none."""
    names = [attribute_name(name) for name in path.split(".")]
    if len(names) == 1:
        return attrgetter(names[0])

    def get(value: object) -> object:
        for name in names:
            if value is None:
                return None
            value = getattr(value, name)
        return value

    return get


def data_struct(
    catalogue: Catalogue, type: str, fields: Collection[str] | None = None, *, version: int | None = None
) -> type[msgspec.Struct]:
    """A struct that reads the ``data`` of events of one type and version.

    Parameters
    ----------
    catalogue
        Its versions must be compatible (`Catalogue.check_compatibility`).
    type, version
        What the events are; the newest version by default.
    fields
        Paths within ``data`` of the newest version, as in `Catalogue.fields`; None for all fields, arrays included.
        What is not named is not looked at: neither its type nor whether it is there.

    Returns
    -------
    type
        A struct with one attribute for each field (`attribute_name`), for objects a struct again. Absent optional
        fields have their default, or None. An explicit null is refused unless the field is nullable. Integers are
        written without fraction or exponent and fit 64 bits; numbers accept integers. Read it with `field_getter`.

    Raises
    ------
    UnknownType, UnknownVersion
        The catalogue does not have it.
    SchemaError
        A path that the newest version does not have, or an older version of a type whose versions are incompatible.
    """
    versions = catalogue.versions(type)
    newest = catalogue.parsed(type, versions[-1])
    own = catalogue.parsed(type, versions[-1] if version is None else version)
    if own is not newest:
        _check_compatible(catalogue, type)
    tree = None if fields is None else _tree(fields)
    return _struct(f"{type}_{version or versions[-1]}", newest, own, tree, where=f"{type}/{versions[-1]}.json")


def _check_compatible(catalogue: Catalogue, type: str) -> None:
    for broken in catalogue.check_compatibility():
        if broken.type == type:
            raise SchemaError(
                f"{broken.rule}, so older events cannot be read as the newest version",
                where=f"{type}/{broken.version}.json, field {broken.field}",
                remedy="Mend the version, or give the new meaning a new type",
            )


_Tree = dict[str, "_Tree"]


def _tree(paths: Collection[str]) -> _Tree:
    root: _Tree = {}
    for path in paths:
        node = root
        for name in path.split("."):
            node = node.setdefault(name, {})
    return root


def _struct(
    name: str, newest: FieldSchema, own: FieldSchema, tree: _Tree | None, *, where: str
) -> type[msgspec.Struct]:
    names = newest.properties if tree is None else tree
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    absent: dict[str, object] = {}
    rename: dict[str, str] = {}
    for field_name in names:
        if field_name not in newest.properties:
            raise SchemaError(f"has no field {field_name!r}", where=where)
        newest_field = newest.properties[field_name]
        subtree = None if tree is None else tree[field_name] or None
        attribute = attribute_name(field_name)
        field = own.properties.get(field_name)
        if field is None:
            # What an older version calls like a field of the newest is not that field: it is not read.
            absent[attribute] = _default(newest_field)
            continue
        rename[attribute] = field_name
        annotation = _annotation(f"{name}_{field_name}", newest_field, field, subtree, where=where)
        if field.required:
            fields.append((attribute, annotation))
        else:
            # msgspec does not check defaults: absence reads as None while an explicit null is still refused.
            fields.append((attribute, annotation, _default(newest_field)))
    return msgspec.defstruct(
        "".join(c if c.isalnum() else "_" for c in name),
        fields,
        rename=rename,
        namespace=absent,
        kw_only=True,
        frozen=True,
        # They hold no containers that could refer back, and the collector's visits would cost.
        gc=False,
    )


def _annotation(name: str, newest: FieldSchema, own: FieldSchema, tree: _Tree | None, *, where: str) -> Any:
    annotation: Any
    if own.kind == "object":
        annotation = _struct(name, newest, own, tree, where=where)
    elif tree is not None:
        raise SchemaError(f"{', '.join(tree)!r} is asked for inside a field of type {own.kind}", where=where)
    elif own.kind == "array":
        assert own.items is not None and newest.items is not None
        annotation = list[_annotation(name, newest.items, own.items, None, where=where)]  # type: ignore[misc]
    else:
        annotation = _scalar(own)
    return annotation | None if own.nullable else annotation


def _default(field: FieldSchema) -> object:
    # 5 is a fine default of a number; what is read has one type nevertheless.
    return float(field.default) if field.kind == "number" and isinstance(field.default, int) else field.default


def _scalar(field: FieldSchema) -> Any:
    if field.enum is not None:
        return Literal[field.enum]
    if field.kind == "integer":
        low = INT64_MIN if field.minimum is None else field.minimum
        high = INT64_MAX if field.maximum is None else field.maximum
        return Annotated[int, msgspec.Meta(ge=low, le=high)]
    if field.kind == "number":
        return Annotated[float, msgspec.Meta(ge=field.minimum, le=field.maximum)]
    if field.is_time:
        return Annotated[str, msgspec.Meta(pattern=rf"\A(?:{RFC3339_PATTERN})\Z")]
    return {"string": str, "boolean": bool}[field.kind]
