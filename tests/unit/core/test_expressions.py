"""Expressions hold for what they say, and refuse everything outside their grammar."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.expressions import Expression, ExpressionError, Kind, compile_expression

NAMES: dict[str, Kind] = {
    "data.whole": "integer",
    "data.part": "number",
    "subject": "string",
    "wet": "boolean",
    "data.inner.deep": "integer",
}
INT_MAX, INT_MIN = 2**63 - 1, -(2**63)


def column(kind: Kind, values: list[Any]) -> FieldColumn:
    present = np.array([value is not None for value in values], dtype=np.bool_)
    if kind == "string":
        return FieldColumn([value or "" for value in values], present)
    dtype = {"integer": np.int64, "number": np.float64, "boolean": np.bool_}[kind]
    return FieldColumn(np.array([value or 0 for value in values], dtype=dtype), present)


def compiled(text: str) -> Expression:
    return compile_expression(text, names=NAMES, where="p.toml, line 3, where")


def holds(text: str, **values: Any) -> bool:
    row = {"data.whole": 3, "data.part": 1.5, "subject": "k", "wet": True, "data.inner.deep": 7}
    row |= {{"whole": "data.whole", "part": "data.part"}.get(name, name): value for name, value in values.items()}
    result = compiled(text).evaluate({name: column(kind, [row[name]]) for name, kind in NAMES.items()}, 1)
    assert result.dtype == np.bool_ and result.shape == (1,)
    return bool(result[0])


@pytest.mark.parametrize(
    "text",
    [
        "data.whole == 3",
        "data.whole + 1 == 4",
        "-data.whole == -3",
        "data.whole * data.part == 4.5",
        "data.whole - 1 == 2 and data.whole / 2 == 1.5",
        "2 < data.whole <= 3 < 4",
        "not (data.whole < 3)",
        "data.whole != 3 or wet",
        "wet == True and wet != False and wet in (True,)",
        "subject in ('a', 'k')",
        "subject not in ['a']",
        "'j' < subject <= 'k'",
        "data.whole in (1, 3) and data.whole not in (-3, 4)",
        "data.part in (1.5, 2)",
        "data.whole is not None",
        "data.inner.deep > 6",
        "  wet",
        "True",
        "9223372036854775807 > -9223372036854775808",
    ],
)
def test_what_is_true_holds(text: str) -> None:
    assert holds(text)
    assert not holds(f"not ({text.strip()})")


@pytest.mark.parametrize(
    "text",
    [
        "data.whole == 3",
        "data.whole != 3",
        "data.whole + 1 > 0",
        "0 - data.whole < 1",
        "data.whole in (3, 0)",
        "data.whole not in (5,)",
        "data.whole is not None",
        "0 <= data.whole",
        "data.whole == data.whole",
        "data.whole * 0 == 0",
    ],
)
def test_a_comparison_with_null_is_false(text: str) -> None:
    assert not holds(text, whole=None)
    assert holds(f"not ({text})", whole=None)


def test_null_strings_and_booleans_hold_for_nothing() -> None:
    assert not holds("subject == ''", subject=None)
    assert not holds("subject in ('',)", subject=None)
    assert not holds("wet", wet=None)
    assert not holds("wet == False", wet=None)
    assert holds("subject is None and wet is None", subject=None, wet=None)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("data.whole + 1 is None", {"whole": INT_MAX}),
        ("data.whole - 1 is None", {"whole": INT_MIN}),
        ("data.whole * 2 is None", {"whole": 2**62}),
        ("data.whole * -1 is None", {"whole": INT_MIN}),
        ("-1 * data.whole is None", {"whole": INT_MIN}),
        ("-data.whole is None", {"whole": INT_MIN}),
        ("data.whole / 0 is None", {}),
        ("data.part / 0 is None", {"part": 0.0}),
        ("data.part * 1e300 is None", {"part": 1e300}),
        ("data.whole + 1 is not None", {"whole": INT_MAX - 1}),
        ("data.whole * -1 is not None", {"whole": INT_MIN + 1}),
    ],
)
def test_what_fits_no_64_bits_or_is_no_finite_number_is_null(text: str, values: dict[str, Any]) -> None:
    assert holds(text, **values)


def test_integers_are_compared_as_integers() -> None:
    assert not holds("data.whole == 9007199254740992", whole=2**53 + 1)
    assert not holds("data.whole in (9007199254740992,)", whole=2**53 + 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(-5, 5), st.none() | st.floats(-5, 5)), max_size=8))
def test_rows_are_judged_one_as_the_other(rows: list[tuple[int | None, float | None]]) -> None:
    columns = {
        "data.whole": column("integer", [row[0] for row in rows]),
        "data.part": column("number", [row[1] for row in rows]),
    }
    got = compiled("data.whole * 2 - 1 > data.part or data.part / data.whole < 0").evaluate(columns, len(rows))
    for (whole, part), held in zip(rows, got.tolist(), strict=True):
        known = whole is not None and part is not None
        first = known and whole * 2 - 1 > part  # type: ignore[operator]
        second = known and whole != 0 and part / whole < 0  # type: ignore[operator]
        assert held == (first or second)


def test_an_expression_says_what_it_uses_and_equals_one_of_equal_text() -> None:
    expression = compiled("wet and data.whole > 1 or data.whole is None")
    assert expression.names == ("wet", "data.whole")
    assert expression == compiled(expression.text) and hash(expression) == hash(compiled(expression.text))
    assert expression != compiled("wet")


def test_the_columns_stay_as_they_were() -> None:
    columns = {"wet": column("boolean", [True, None])}
    compiled("wet").evaluate(columns, 2)[:] = False
    assert columns["wet"].values[0]


REFUSED = {
    "": "empty",
    "   ": "empty",
    "data.whole": "true or false",
    "'text'": "true or false",
    "data.whol > 1": "column 1: .*unknown name 'data.whol'.*Did you mean data.whole",
    "nothing > 1": "unknown name 'nothing'.*Known are data.inner.deep",
    "wet and data.missing > 1": "column 9",
    "data.whole = 1": "column 12.*not an expression",
    "data.whole > 'a'": "column 14.*expected integer to compare with, found string",
    "'é' == data.part": "column 8",
    "subject + 1 > 2": "expected a number, found kind string",
    "-subject == 'a'": "expected a number",
    "wet < True": "does not order",
    "wet + 1 > 0": "expected a number",
    "data.whole and wet": "expected something true or false",
    "not data.whole": "expected something true or false",
    "data.whole == None": "is None",
    "data.whole is 3": "only None may follow",
    "data.whole in (1, None)": "is None",
    "data.whole in (1, 'a')": "expected integer",
    "data.whole in (1, data.whole)": "expected a constant",
    "data.whole in ()": "list of constants",
    "data.whole in {1}": "list of constants",
    "subject in 'abc'": "list of constants",
    "9223372036854775808 > data.whole": "64 bits",
    "1e999 > data.part": "finite",
    "data.whole % 2 == 0": "Mod",
    "data.whole ** 9 > 1": "Pow",
    "data.whole // 2 == 1": "FloorDiv",
    "+data.whole > 1": "not allowed",
    "~data.whole > 1": "not allowed",
    "max(data.whole) > 1": "Call is not allowed",
    "__import__('os').system('true')": "Call is not allowed",
    "data['whole'] > 1": "Subscript",
    "(lambda: True)": "Lambda",
    "[wet for wet in (1,)]": "ListComp",
    "(x := 1) > 0": "NamedExpr",
    "1 if wet else 2": "IfExp",
    "f'{wet}' == 'a'": "JoinedStr",
    "b'a' == subject": "bytes",
    "1j == data.whole": "complex",
    "... == data.whole": "ellipsis",
    "subject == '\\d'": "escape",
    "wet\x00": "not an expression",
    "wet) or (wet": "not an expression",
    "wet; wet": "not an expression",
    "(" * 250 + "wet" + ")" * 250: "not an expression",
    "not " * 200 + "wet": "nested deeper",
    "wet or " * 900 + "wet": "longer than",
    "subject.upper() == 'K'": "Call",
    "'a'.b > 1": "a dot may stand only in a path",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items())
def test_what_is_outside_the_grammar_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=f"(?s){said}") as refusal:
        compiled(text)
    assert str(refusal.value).startswith("p.toml, line 3, where")


def test_a_result_is_never_infinite_or_wrapped() -> None:
    assert not holds("data.part * 1e308 > 0", part=1e308)
    assert not holds("data.whole + data.whole < 0", whole=INT_MAX)
