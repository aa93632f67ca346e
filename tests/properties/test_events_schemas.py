"""Generated decoders against the jsonschema library, on random schemas and values."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.decoders import data_struct, field_getter
from streamgauge.events.json_schema import INT64_MAX, INT64_MIN, violation

NAMES = ["a", "b", "wind-speed", "class", "_x", "x_61"]
small = st.integers(-5, 5)


def nullable(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    with_null = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        with_null["enum"] = [*schema["enum"], None]
    return st.sampled_from([schema, with_null])


bounds = st.fixed_dictionaries({}, optional={"minimum": st.integers(-5, 0), "maximum": st.integers(1, 5)})
scalars = st.one_of(
    bounds.map(lambda bound: {"type": "integer", **bound}),
    bounds.map(lambda bound: {"type": "number", **bound}),
    st.lists(small, min_size=1, unique=True).map(lambda values: {"type": "integer", "enum": values}),
    st.lists(st.sampled_from("abcd"), min_size=1, unique=True).map(lambda values: {"type": "string", "enum": values}),
    st.sampled_from([{"type": "string"}, {"type": "boolean"}]),
)


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(st.sampled_from(NAMES), inner.flatmap(nullable), max_size=4))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    return {"type": "object", "properties": properties, "required": required}


nested = st.recursive(
    scalars, lambda inner: objects(inner) | inner.map(lambda items: {"type": "array", "items": items}), max_leaves=6
)
schemas = objects(nested)
json_scalars = (
    st.none()
    | st.booleans()
    | small
    | st.sampled_from([1.5, -0.5, INT64_MAX, INT64_MIN, INT64_MAX + 1])
    | st.text("abcde")
)
any_json = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def values(draw: st.DrawFn, schema: dict[str, Any]) -> Any:
    """Mostly what fits the schema, so that both answers occur."""
    if draw(st.integers(0, 14)) == 0:
        return draw(any_json)
    kind = schema["type"]
    if isinstance(kind, list):
        if draw(st.integers(0, 4)) == 0:
            return None
        kind = kind[0]
    if kind == "object":
        kept = [name for name in schema["properties"] if name in schema["required"] or draw(st.booleans())]
        return {name: draw(values(schema["properties"][name])) for name in kept}
    if kind == "array":
        return draw(st.lists(values(schema["items"]), max_size=3))
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    plain: dict[str, st.SearchStrategy[Any]] = {
        "integer": small,
        "number": small | st.floats(-5, 5),
        "string": st.text("ab"),
        "boolean": st.booleans(),
    }
    return draw(plain[kind])


def fits_64_bits(value: object, schema: dict[str, Any]) -> bool:
    """The one rule on top of JSON Schema's, for values whose integers are written as such."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "integer" in kinds and isinstance(value, int):
        return INT64_MIN <= value <= INT64_MAX
    if "object" in kinds and isinstance(value, dict):
        return all(fits_64_bits(value[name], inner) for name, inner in schema["properties"].items() if name in value)
    if "array" in kinds and isinstance(value, list):
        return all(fits_64_bits(item, schema["items"]) for item in value)
    return True


@given(st.data())
def test_a_decoder_accepts_exactly_what_the_json_schema_allows(data: st.DataObject) -> None:
    schema = data.draw(schemas)
    value = data.draw(values(schema) | any_json)
    catalogue = Catalogue([EventSchema("t", 1, schema)])
    allowed = Draft202012Validator(schema).is_valid(value) and fits_64_bits(value, schema)
    try:
        decoded = msgspec.json.decode(json.dumps(value), type=data_struct(catalogue, "t"))
    except msgspec.ValidationError:
        assert not allowed
    else:
        assert allowed
        for name in schema["properties"]:
            if not isinstance(value.get(name), dict | list):
                assert field_getter(name)(decoded) == value.get(name)
    assert (violation(catalogue.parsed("t", 1), value) is None) == allowed
