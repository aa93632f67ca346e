"""The catalogue: what schemas may say, which version an event is of, and how versions may follow one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamgauge.events.catalogue import (
    Catalogue,
    EventSchema,
    FieldType,
    SchemaError,
    UnknownType,
    UnknownVersion,
    schema_urn,
)

TYPE = "weather.observation"
DEMO = Path(__file__).parents[3] / "streamgauge/cli/demo_pipeline/schemas" / TYPE / "1.json"


def schema(properties: dict[str, object], required: tuple[str, ...] = (), **more: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def catalogue(*versions: dict[str, object]) -> Catalogue:
    return Catalogue(EventSchema(TYPE, number, version) for number, version in enumerate(versions, start=1))


def test_the_demo_s_schema_is_within_what_is_supported() -> None:
    fields = Catalogue([EventSchema(TYPE, 1, json.loads(DEMO.read_text()))]).fields(TYPE)
    assert fields["wind_speed"] == FieldType("number", nullable=False)
    assert fields["wind_dir"] == FieldType("integer", nullable=True)


def test_nested_objects_are_dotted_and_arrays_have_no_path() -> None:
    found = catalogue(
        schema(
            {
                "wind": schema({"speed": {"type": "number"}, "gust": {"type": "number"}}, ("speed",)),
                "site": schema({"id": {"type": "integer"}}, ("id",)),
                "name": {"type": "string", "default": "none"},
                "note": {"type": "string", "default": None, "title": "free text"} | {"type": ["string", "null"]},
                "ok": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            ("site", "ok"),
        )
    ).fields(TYPE)
    assert found == {
        # wind may be absent, and its speed with it.
        "wind.speed": FieldType("number", nullable=True),
        "wind.gust": FieldType("number", nullable=True),
        "site.id": FieldType("integer", nullable=False),
        "name": FieldType("string", nullable=False),
        "note": FieldType("string", nullable=True),
        "ok": FieldType("boolean", nullable=False),
    }


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"type": "string", "pattern": "^a"}, "the keyword 'pattern' is not supported in a schema of type string"),
        ({"type": "string", "minLength": 1}, "keyword 'minLength'"),
        ({"type": "string", "minimum": 1}, "keyword 'minimum'"),
        ({"type": "string", "format": "email"}, "the format 'email' is not supported"),
        ({"type": "number", "exclusiveMinimum": 0}, "keyword 'exclusiveMinimum'"),
        ({"type": "number", "multipleOf": 0.1}, "keyword 'multipleOf'"),
        ({"type": "number", "enum": [1.5]}, "keyword 'enum'"),
        ({"$ref": "#/$defs/x"}, '"type" must be one of'),
        ({"type": "string", "$ref": "#/$defs/x"}, "keyword '\\$ref'"),
        ({"type": "string", "$id": "urn:x"}, "keyword '\\$id'"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, '"type" must be one of'),
        ({"type": ["string", "integer"]}, '"type" must be one of'),
        ({"type": "null"}, '"type" must be one of'),
        ({"type": []}, '"type" must be one of'),
        ({"const": 1}, '"type" must be one of'),
        ({"type": "object", "additionalProperties": False}, "keyword 'additionalProperties'"),
        ({"type": "object", "required": ["x"]}, "required names 'x', which properties lacks"),
        ({"type": "object", "required": "x"}, "required must be a list of names"),
        ({"type": "object", "properties": []}, "properties must be an object"),
        (
            {"type": "object", "properties": {"Ab": {"type": "string"}, "aB": {"type": "string"}}},
            "'Ab' and 'aB' differ only",
        ),
        ({"type": "object", "default": {}}, "a default other than null"),
        ({"type": "array"}, 'an array needs "items"'),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "keyword 'uniqueItems'"),
        ({"type": "integer", "minimum": "1"}, "minimum must be a number"),
        ({"type": "integer", "minimum": True}, "minimum must be a number"),
        ({"type": "integer", "maximum": 2**63}, "maximum lies outside 64 bits"),
        ({"type": "number", "minimum": 2, "maximum": 1}, "minimum 2 is above maximum 1"),
        ({"type": "integer", "minimum": 1.2, "maximum": 1.8}, "minimum 2 is above maximum 1"),
        ({"type": "string", "enum": []}, "enum must be a list of values"),
        ({"type": "string", "enum": ["a", "a"]}, "distinct values"),
        ({"type": "string", "enum": ["a", 1]}, "distinct values of type string"),
        ({"type": "integer", "enum": [1, True]}, "distinct values of type integer"),
        ({"type": "string", "enum": ["a", None]}, "agree on null"),
        ({"type": ["string", "null"], "enum": ["a"]}, "agree on null"),
        ({"type": "integer", "enum": [1], "minimum": 0}, "enum together with minimum"),
        ({"type": "integer", "default": 1.0}, "its default does not fit: it must be of type integer"),
        ({"type": "integer", "default": True}, "must be of type integer"),
        ({"type": "number", "default": False}, "must be of type number"),
        ({"type": "integer", "default": 5, "maximum": 4}, "must be at most 4"),
        ({"type": "string", "default": None}, "must not be null"),
        ({"type": "string", "format": "date-time", "default": "today"}, "not an RFC 3339 time"),
        ("string", "a schema is an object"),
    ],
)
def test_what_is_not_supported_is_refused_with_file_and_field(field: object, message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        catalogue(schema({"outer": schema({"inner": field})}))
    assert caught.value.where == f"{TYPE}/1.json, field outer.inner"


def test_the_place_of_an_array_s_items_is_named_too() -> None:
    with pytest.raises(SchemaError, match="a schema is an object") as caught:
        catalogue(schema({"tags": {"type": "array", "items": [{"type": "string"}]}}))
    assert caught.value.where == f"{TYPE}/1.json, field tags.[]"


@pytest.mark.parametrize("name", ["", "a.b", "a\nb"])
def test_a_field_name_without_a_path_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="a field cannot be called"):
        catalogue(schema({name: {"type": "string"}}))


@pytest.mark.parametrize("root", [{"type": "array", "items": {"type": "string"}}, {"type": ["object", "null"]}])
def test_the_data_of_an_event_is_an_object(root: dict[str, object]) -> None:
    with pytest.raises(SchemaError, match="the data of an event is an object"):
        catalogue(root)


def test_what_only_describes_is_allowed() -> None:
    described = {"type": "string", "title": "t", "description": "d", "examples": ["a"], "x-unit": "K", "$comment": "c"}
    assert "name" in catalogue(
        schema({"name": described}, additionalProperties=True, **{"$schema": "https://json-schema.org/x"})
    ).fields(TYPE)


@pytest.mark.parametrize("name", ["", "a b", "streamgauge.tick", "streamgauge", "a/b", ".a", "a.", "été", "1a"])
def test_a_name_that_is_no_type_is_refused(name: str) -> None:
    with pytest.raises(SchemaError):
        Catalogue([EventSchema(name, 1, schema({}))])


def test_two_types_that_would_be_one_table_are_refused() -> None:
    with pytest.raises(SchemaError, match="would be one table"):
        Catalogue([EventSchema("a.b", 1, schema({})), EventSchema("A_b", 1, schema({}))])


def test_a_version_given_twice_or_below_one_is_refused() -> None:
    with pytest.raises(SchemaError, match="given twice"):
        Catalogue([EventSchema("a", 1, schema({})), EventSchema("a", 1, schema({}))])
    with pytest.raises(SchemaError, match="numbered from 1"):
        Catalogue([EventSchema("a", 0, schema({}))])


def test_versions_are_in_order_of_their_numbers() -> None:
    found = Catalogue(EventSchema("a", version, schema({})) for version in (10, 2, 1))
    assert (found.types, found.versions("a"), found.newest("a").version) == (("a",), (1, 2, 10), 10)
    assert found.get("a", 2).file == "a/2.json"


def test_an_event_without_dataschema_is_of_the_newest_version() -> None:
    found = catalogue(schema({}), schema({}))
    assert found.version_of(None, TYPE) == 2
    assert found.version_of(schema_urn(TYPE, 1), TYPE) == 1
    assert found.version_of("urn:streamgauge:schema:weather.observation:2", TYPE) == 2


def test_a_schema_s_own_id_names_its_version_too() -> None:
    found = catalogue(schema({}, **{"$id": "https://example.org/v1"}), schema({}))
    assert found.version_of("https://example.org/v1", TYPE) == 1
    assert found.version_of(schema_urn(TYPE, 1), TYPE) == 1


@pytest.mark.parametrize("named", ["", "urn:streamgauge:schema:weather.observation:3", "urn:x", schema_urn("b", 1)])
def test_a_dataschema_that_names_no_version_of_the_type_is_unknown(named: str) -> None:
    found = Catalogue([EventSchema(TYPE, 1, schema({})), EventSchema("b", 1, schema({}))])
    with pytest.raises(UnknownVersion):
        found.version_of(named, TYPE)


def test_a_type_that_is_not_in_the_catalogue_is_unknown() -> None:
    found = catalogue(schema({}))
    for ask in (found.versions, found.newest, found.fields, lambda name: found.version_of(None, name)):
        with pytest.raises(UnknownType, match=r"It has: weather\.observation"):
            ask("weather.forecast")
    with pytest.raises(UnknownVersion, match="It has: 1"):
        found.get(TYPE, 2)


@pytest.mark.parametrize("own", [schema_urn(TYPE, 2), schema_urn("b", 1), "", 5])
def test_an_id_that_names_another_schema_is_refused(own: object) -> None:
    with pytest.raises(SchemaError):
        catalogue(schema({}, **{"$id": own}))


def test_an_id_used_twice_is_refused() -> None:
    with pytest.raises(SchemaError, match="names another schema already"):
        catalogue(schema({}, **{"$id": "urn:x"}), schema({}, **{"$id": "urn:x"}))


OLD = schema(
    {
        "temp": {"type": "integer", "minimum": -60, "maximum": 60},
        "wind": schema({"speed": {"type": "number"}}, ("speed",)),
        "sky": {"type": "string", "enum": ["clear", "cloudy"]},
        "note": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "integer"}},
    },
    ("temp", "wind"),
)


def changed(path: str, field: object, **required: list[str]) -> dict[str, object]:
    new = json.loads(json.dumps(OLD))
    *outer, name = path.split(".")
    place = new
    for part in outer:
        place = place["properties"][part]
    if field is None:
        del place["properties"][name]
    else:
        place["properties"][name] = field
    place.update(required)
    return dict(new)


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        changed("humid", {"type": "number"}),
        changed("wind.gust", {"type": "number"}),
        changed("humid", {"type": "number", "default": 50}, required=["temp", "wind", "humid"]),
        changed("temp", {"type": "number", "minimum": -60, "maximum": 60}),
        changed("temp", {"type": ["integer", "null"], "minimum": -60, "maximum": 60}),
        changed("note", {"type": "string", "title": "free text"}),
        changed("tags", {"type": "array", "items": {"type": ["number", "null"]}}),
    ],
)
def test_a_version_that_only_adds_or_widens_is_compatible(new: dict[str, object]) -> None:
    assert catalogue(OLD, new).check_compatibility() == []


@pytest.mark.parametrize(
    ("new", "field", "rule"),
    [
        (changed("note", None), "note", "removed"),
        (changed("wind.speed", None, required=[]), "wind.speed", "removed"),
        (changed("note", {"type": "integer"}), "note", "its type must not change from string to integer"),
        (changed("wind.speed", {"type": "integer"}), "wind.speed", "from number to integer"),
        (
            changed("humid", {"type": "number"}, required=["temp", "wind", "humid"]),
            "humid",
            "optional or have a default",
        ),
        (changed("note", {"type": "string"}, required=["temp", "wind", "note"]), "note", "stay required, or stay opt"),
        (changed("note", {"type": "string"}, required=["temp"]), "wind", "stay required, or stay optional"),
        (changed("temp", {"type": "integer", "minimum": -70, "maximum": 60}), "temp", "minimum must not change"),
        (changed("temp", {"type": "integer", "minimum": -60}), "temp", "maximum must not change"),
        (changed("sky", {"type": "string", "enum": ["clear"]}), "sky", "enum must not change"),
        (changed("note", {"type": "string", "format": "date-time"}), "note", "format must not change"),
        (changed("note", {"type": "string", "default": "x"}), "note", "default must not change"),
        (changed("tags", {"type": "array", "items": {"type": "string"}}), "tags.[]", "from integer to string"),
    ],
)
def test_anything_else_is_named_by_type_version_field_and_rule(new: dict[str, object], field: str, rule: str) -> None:
    (broken,) = catalogue(OLD, new).check_compatibility()
    assert (broken.type, broken.version, broken.field) == (TYPE, 2, field)
    assert rule in broken.rule
    assert f"{TYPE}/2.json, field {field}: " in str(broken)


def test_a_nullable_field_stays_nullable() -> None:
    before, after = schema({"a": {"type": ["integer", "null"]}}), schema({"a": {"type": "integer"}})
    (broken,) = catalogue(before, after).check_compatibility()
    assert broken.rule == "a nullable field must stay nullable"


def test_each_version_is_held_against_the_one_before_it() -> None:
    integer, number = schema({"a": {"type": "integer"}}), schema({"a": {"type": "number"}})
    assert catalogue(integer, number, number).check_compatibility() == []
    (broken,) = catalogue(integer, number, integer).check_compatibility()
    assert broken.version == 3
