"""Generated decoders: strict types, names that are no identifiers, older versions read as the newest."""

from __future__ import annotations

import json

import msgspec
import pytest

from streamgauge.events.catalogue import Catalogue, EventSchema, SchemaError, UnknownType, UnknownVersion
from streamgauge.events.decoders import attribute_name, data_struct, field_getter


def schema(properties: dict[str, object], required: tuple[str, ...] = ()) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(required)}


def catalogue(*versions: dict[str, object]) -> Catalogue:
    return Catalogue(EventSchema("t", number, version) for number, version in enumerate(versions, start=1))


def read(struct: type[msgspec.Struct], data: object) -> msgspec.Struct:
    return msgspec.json.decode(data if isinstance(data, bytes) else json.dumps(data), type=struct)


def one_field(field: dict[str, object]) -> type[msgspec.Struct]:
    return data_struct(catalogue(schema({"a": field}, ("a",))), "t")


def value(field: dict[str, object], text: str) -> object:
    return field_getter("a")(read(one_field(field), b'{"a":' + text.encode() + b"}"))


INTEGER: dict[str, object] = {"type": "integer"}
NUMBER: dict[str, object] = {"type": "number"}
STRING: dict[str, object] = {"type": "string"}
TIME: dict[str, object] = {"type": "string", "format": "date-time"}


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        (INTEGER, "9223372036854775807", 2**63 - 1),
        (INTEGER, "-9223372036854775808", -(2**63)),
        (NUMBER, "5", 5.0),
        (NUMBER, "1e3", 1000.0),
        (NUMBER, "-0.0", 0.0),
        (NUMBER, "123456789012345678901234567890", 1.2345678901234568e29),
        (STRING, '"1"', "1"),
        (STRING, '""', ""),
        ({"type": "boolean"}, "true", True),
        ({"type": ["integer", "null"]}, "null", None),
        ({"type": ["number", "null"], "minimum": 0}, "null", None),
        ({"type": "number", "minimum": 0, "maximum": 60}, "60", 60.0),
        ({"type": "integer", "minimum": 0.5}, "1", 1),
        ({"type": "string", "enum": ["a", "b"]}, '"b"', "b"),
        ({"type": ["integer", "null"], "enum": [1, 2, None]}, "null", None),
        (TIME, '"2013-01-01T06:00:00.5+01:00"', "2013-01-01T06:00:00.5+01:00"),
        # Its form is checked, not the calendar.
        (TIME, '"2013-02-30T06:00:00Z"', "2013-02-30T06:00:00Z"),
        ({"type": "array", "items": INTEGER}, "[1,2]", [1, 2]),
    ],
)
def test_a_value_that_fits_is_read(field: dict[str, object], text: str, expected: object) -> None:
    got = value(field, text)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (INTEGER, "1.5"),
        # JSON Schema calls it an integer; here an integer is what is written as one (see json_schema).
        (INTEGER, "1.0"),
        (INTEGER, "1e3"),
        (INTEGER, '"1"'),
        (INTEGER, "true"),
        (INTEGER, "null"),
        (INTEGER, "9223372036854775808"),
        (INTEGER, "-9223372036854775809"),
        (INTEGER, "123456789012345678901234567890"),
        (NUMBER, '"1"'),
        (NUMBER, "true"),
        (NUMBER, "1e999"),
        (NUMBER, "NaN"),
        (STRING, "1"),
        (STRING, '"\\ud800"'),
        ({"type": "boolean"}, "1"),
        ({"type": "boolean"}, '"true"'),
        ({"type": "number", "minimum": 0, "maximum": 60}, "60.001"),
        ({"type": "integer", "minimum": 0.5}, "0"),
        ({"type": "integer", "maximum": 5}, "-9223372036854775809"),
        ({"type": "string", "enum": ["a", "b"]}, '"c"'),
        ({"type": "integer", "enum": [1, 2]}, "3"),
        (TIME, '"2013-01-01"'),
        (TIME, '"2013-01-01T06:00:00Z\\n"'),
        (TIME, '"x2013-01-01T06:00:00Z"'),
        ({"type": "array", "items": INTEGER}, "[1,2.5]"),
        ({"type": "array", "items": INTEGER}, "{}"),
        ({"type": "object"}, "[]"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(field: dict[str, object], text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        value(field, text)


def test_the_error_names_the_field_as_it_is_written_in_json() -> None:
    struct = data_struct(catalogue(schema({"wind-speed": schema({"class": INTEGER})})), "t")
    with pytest.raises(msgspec.ValidationError, match=r"Expected `int`, got `str` - at `\$.wind-speed.class`"):
        read(struct, {"wind-speed": {"class": "x"}})


@pytest.mark.parametrize(
    "name", ["wind-speed", "class", "None", "_a", "__init__", "x_61", "a b", "1a", "été", "🌪", "$"]
)
def test_a_field_may_have_any_name(name: str) -> None:
    struct = data_struct(catalogue(schema({name: INTEGER, "a": INTEGER})), "t")
    read_back = read(struct, {name: 5, "a": 6})
    assert (field_getter(name)(read_back), field_getter("a")(read_back)) == (5, 6)


def test_no_two_names_share_an_attribute() -> None:
    struct = data_struct(catalogue(schema({"_a": INTEGER, "x_5f61": INTEGER})), "t")
    got = read(struct, {"_a": 5, "x_5f61": 6})
    assert (field_getter("_a")(got), field_getter("x_5f61")(got)) == (5, 6)


def test_plain_names_stay_attributes() -> None:
    assert attribute_name("wind_speed") == "wind_speed"
    assert attribute_name("a") != attribute_name("x_61") != attribute_name("_a")


def test_fields_that_the_schema_does_not_name_are_ignored() -> None:
    assert field_getter("a")(read(one_field(INTEGER), {"a": 1, "b": [{}], "c": None})) == 1


def test_only_the_fields_asked_for_are_looked_at() -> None:
    found = catalogue(schema({"a": INTEGER, "b": INTEGER, "c": schema({"d": INTEGER, "e": INTEGER})}, ("a", "b", "c")))
    struct = data_struct(found, "t", ["a", "c.e"])
    got = read(struct, {"a": 1, "b": "no integer", "c": {"d": "neither", "e": 2}})
    assert (field_getter("a")(got), field_getter("c.e")(got)) == (1, 2)
    assert len(struct.__struct_fields__) == 2
    assert read(data_struct(found, "t", []), {}) is not None


def test_a_missing_required_field_is_an_error_and_a_missing_optional_one_is_none() -> None:
    struct = data_struct(catalogue(schema({"a": INTEGER, "b": INTEGER}, ("a",))), "t")
    assert field_getter("b")(read(struct, {"a": 1})) is None
    with pytest.raises(msgspec.ValidationError, match="required field `a`"):
        read(struct, {"b": 1})


def test_the_default_of_a_number_is_a_float_however_it_is_written() -> None:
    found = catalogue(schema({}), schema({"a": {**NUMBER, "default": 5}}))
    for version in (1, 2):
        got = field_getter("a")(read(data_struct(found, "t", version=version), {}))
        assert (got, type(got)) == (5.0, float)


def test_an_optional_field_that_is_not_nullable_refuses_null() -> None:
    with pytest.raises(msgspec.ValidationError):
        read(data_struct(catalogue(schema({"a": INTEGER})), "t"), {"a": None})


def test_a_value_inside_an_absent_or_null_object_is_none() -> None:
    inner = {**schema({"b": {**INTEGER, "default": 7}}), "type": ["object", "null"]}
    struct = data_struct(catalogue(schema({"a": inner})), "t", ["a.b"])
    assert [field_getter("a.b")(read(struct, data)) for data in ({}, {"a": None}, {"a": {}}, {"a": {"b": 1}})] == [
        None,
        None,
        7,
        1,
    ]


V1 = schema({"a": INTEGER, "b": STRING}, ("a",))
V2 = schema({"a": NUMBER, "b": {"type": ["string", "null"]}, "c": {**NUMBER, "default": 1.5}}, ("a", "c"))
V2["properties"]["d"] = schema({"e": INTEGER})  # type: ignore[index]


def test_an_event_of_an_older_version_comes_out_as_the_newest() -> None:
    found = catalogue(V1, V2)
    assert found.check_compatibility() == []
    got = read(data_struct(found, "t", version=1), {"a": 1})
    assert [field_getter(path)(got) for path in ("a", "b", "c", "d", "d.e")] == [1, None, 1.5, None, None]


def test_each_version_s_own_rules_are_enforced() -> None:
    found = catalogue(V1, V2)
    old, new = data_struct(found, "t", ["a", "b", "c"], version=1), data_struct(found, "t", ["a", "b", "c"])
    assert read(new, {"a": 1.5, "b": None, "c": 2}) is not None
    for struct, data in [(old, {"a": 1.5}), (old, {"a": 1, "b": None}), (old, {"b": "x"}), (new, {"a": 1.5})]:
        with pytest.raises(msgspec.ValidationError):
            read(struct, data)


def test_what_an_older_version_happens_to_call_like_a_newer_field_is_not_that_field() -> None:
    got = read(data_struct(catalogue(V1, V2), "t", version=1), {"a": 1, "c": "anything", "d": 5})
    assert (field_getter("c")(got), field_getter("d.e")(got)) == (1.5, None)


def test_older_versions_that_mean_something_else_are_not_read_as_the_newest() -> None:
    found = catalogue(schema({"a": STRING}), schema({"a": INTEGER}))
    assert data_struct(found, "t") is not None
    with pytest.raises(SchemaError, match=r"t/2\.json, field a: its type must not change from string to integer"):
        data_struct(found, "t", version=1)


@pytest.mark.parametrize("path", ["nope", "c.nope", "a.b", ""])
def test_a_path_that_the_newest_version_lacks_is_an_error(path: str) -> None:
    with pytest.raises(SchemaError, match=r"t/1\.json"):
        data_struct(catalogue(schema({"a": INTEGER, "c": schema({"d": INTEGER})})), "t", [path])


def test_a_whole_object_may_be_asked_for_beside_one_of_its_fields() -> None:
    found = catalogue(schema({"c": schema({"d": INTEGER, "e": INTEGER})}))
    got = read(data_struct(found, "t", ["c"]), {"c": {"d": 1, "e": 2}})
    assert (field_getter("c.d")(got), field_getter("c.e")(got)) == (1, 2)


def test_an_unknown_type_or_version_has_no_struct() -> None:
    with pytest.raises(UnknownType):
        data_struct(catalogue(V1), "u")
    with pytest.raises(UnknownVersion):
        data_struct(catalogue(V1), "t", version=2)
