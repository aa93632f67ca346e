"""Every row of the tables in docs/expressions.md is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.expressions import ExpressionError, Kind, compile_expression

PAGE = (Path(__file__).parents[3] / "docs" / "expressions.md").read_text()
NAMES: dict[str, Kind] = {
    "subject": "string",
    "data.count": "integer",
    "data.temp": "number",
    "data.city": "string",
    "data.wet": "boolean",
}
WHERE = "pipeline.toml, line 20, where"


def tables(header: str) -> list[list[str]]:
    """The cells of all tables with that header, without the quotes of code."""
    found = re.findall(rf"^{re.escape(header)}\n\| ---.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for table in found for line in table.splitlines()]
    return [[re.sub(r"^`(.*)`$", r"\1", cell) for cell in row] for row in rows]


HOLDS = tables("| written | with | holds |")
REFUSED = tables("| written | is refused with |")


def test_the_tables_are_found() -> None:
    assert len(HOLDS) > 50 and len(REFUSED) > 20
    assert {holds for _, _, holds in HOLDS} == {"yes", "no"}


def columns_of(given: str) -> dict[str, FieldColumn]:
    """One row: what is not given is null."""
    values: dict[str, Any] = {}
    for part in filter(None, given.split(", ")):
        name, text = part.split(" = ")
        values[name] = None if text == "null" else tomllib.loads(f"x = {text}")["x"]
    columns: dict[str, FieldColumn] = {}
    for name, kind in NAMES.items():
        value = values.pop(name, None)
        present = np.array([value is not None])
        if kind == "string":
            columns[name] = FieldColumn([value or ""], present)
        else:
            dtype = {"integer": np.int64, "number": np.float64, "boolean": np.bool_}[kind]
            columns[name] = FieldColumn(np.array([value or 0], dtype=dtype), present)
    assert not values, f"no such field: {values}"
    return columns


@pytest.mark.parametrize(("written", "given", "holds"), HOLDS)
def test_what_is_said_to_hold_holds_and_nothing_else(written: str, given: str, holds: str) -> None:
    expression = compile_expression(written, names=NAMES, where=WHERE)
    assert expression.evaluate(columns_of(given), 1).tolist() == [holds == "yes"]


@pytest.mark.parametrize(("written", "said"), REFUSED)
def test_what_is_said_to_be_refused_is_refused_in_these_words(written: str, said: str) -> None:
    with pytest.raises(ExpressionError) as refusal:
        compile_expression(written, names=NAMES, where=WHERE)
    assert said in str(refusal.value)
    message, shown, marks = str(refusal.value).splitlines()
    column = re.search(r", column (\d+): ", message)
    assert shown == f"    {written}" and set(marks.strip()) == {"^"}
    assert column is not None and marks.index("^") - 4 == int(column[1]) - 1


def test_the_error_that_is_shown_is_the_one_that_comes() -> None:
    shown = re.search(r"```\n(pipeline\.toml.*?)\n```", PAGE, re.DOTALL)
    assert shown is not None
    written = shown[1].splitlines()[1].strip()
    with pytest.raises(ExpressionError) as refusal:
        compile_expression(written, names=NAMES, where=WHERE)
    assert str(refusal.value) == shown[1]


def test_every_operator_that_is_allowed_is_documented() -> None:
    from streamgauge.processors.core import expressions

    written = " ".join(row[0] for row in HOLDS)
    signs = {sign for _, _, sign in expressions._COMPARISONS.values()} | set("+-*/")
    signs |= {"and", "or", "not", "in", "not in", "is None", "is not None", "True", "False"}
    assert {sign for sign in signs if f" {sign} " not in f" {written} "} == set()
