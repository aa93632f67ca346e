"""Random expressions against plain Python over exact integers, one row at a time."""

from __future__ import annotations

import ast
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.expressions import Kind, compile_expression

NAMES: dict[str, Kind] = {
    "i": "integer", "j": "integer", "x": "number", "y": "number", "s": "string", "t": "string", "b": "boolean",
}  # fmt: skip
INT_MAX, INT_MIN = 2**63 - 1, -(2**63)
integers = st.integers(-4, 4) | st.sampled_from([INT_MAX, INT_MIN, INT_MAX - 1, 2**62, -(2**62), 2**32, 2**53 + 1])
numbers = st.integers(-4, 4).map(float) | st.sampled_from([0.1, 1e308, -1e308, 5e-324, 2.0**53, 0.5])
strings = st.sampled_from(["", "a", "b", "é", "ab"])

whole = st.deferred(
    lambda: (
        st.sampled_from(["i", "j"])
        | integers.map(str)
        | st.tuples(whole, st.sampled_from("+-*"), whole).map(" ".join).map("({})".format)
        | whole.map("-({})".format)
    )
)
number = st.deferred(
    lambda: (
        st.sampled_from(["x", "y"])
        | numbers.map(repr)
        | st.tuples(whole | number, st.sampled_from("+-*/"), number | whole).map(" ".join).map("({})".format)
        | number.map("-({})".format)
    )
)
signs = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
text = st.sampled_from(["s", "t"]) | strings.map(repr)
numeric = whole | number
boolean = st.deferred(
    lambda: (
        st.sampled_from(["b", "True", "False"])
        | st.tuples(numeric, signs, numeric).map(" ".join)
        | st.tuples(numeric, signs, numeric, signs, numeric).map(" ".join)
        | st.tuples(text, signs, text).map(" ".join)
        | st.tuples(st.just("b"), st.sampled_from(["==", "!="]), st.sampled_from(["True", "False", "b"])).map(" ".join)
        | st.tuples(numeric | text | st.just("b"), st.sampled_from(["is None", "is not None"])).map(" ".join)
        | st.tuples(whole, st.sampled_from(["in", "not in"]), st.lists(integers, min_size=1).map(str)).map(" ".join)
        | st.tuples(text, st.sampled_from(["in", "not in"]), st.lists(strings, min_size=1).map(str)).map(" ".join)
        | st.tuples(boolean, st.sampled_from(["and", "or"]), boolean).map(" ".join).map("({})".format)
        | boolean.map("not ({})".format)
    )
)

row = st.fixed_dictionaries({
    "i": st.none() | integers, "j": st.none() | integers, "x": st.none() | numbers, "y": st.none() | numbers,
    "s": st.none() | strings, "t": st.none() | strings, "b": st.none() | st.booleans(),
})  # fmt: skip

Row = dict[str, Any]
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip


def computed(value: Any) -> Any:
    if isinstance(value, int):
        return value if INT_MIN <= value <= INT_MAX else None
    return value if math.isfinite(value) else None


def arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    if left is None or right is None:
        return None
    if isinstance(left, float) or isinstance(right, float) or isinstance(op, ast.Div):
        left, right = float(left), float(right)
        if isinstance(op, ast.Div) and right == 0:
            return None
    return computed(_ARITHMETIC[type(op)](left, right))


def compared(op: ast.cmpop, left: Any, right: Any) -> bool:
    if left is None or right is None:
        return False
    if isinstance(op, ast.In | ast.NotIn):
        return (left in right) == isinstance(op, ast.In)
    if isinstance(left, float) or isinstance(right, float):
        left, right = float(left), float(right)
    return _COMPARISONS[type(op)](left, right)


def value_of(node: ast.expr, given: Row) -> Any:
    """What an expression says of one row; a predicate that comes out null does not hold."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return given[name]
        case ast.List(elts=elements):
            return [value_of(element, given) for element in elements]
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not value_of(inner, given)
        case ast.UnaryOp(operand=inner):
            value = value_of(inner, given)
            return None if value is None else computed(-value)
        case ast.BinOp(left=left, op=op, right=right):
            return arithmetic(op, value_of(left, given), value_of(right, given))
        case ast.BoolOp(op=op, values=parts):
            return (all if isinstance(op, ast.And) else any)(bool(value_of(part, given)) for part in parts)
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot() as op]):
            return (value_of(left, given) is None) == isinstance(op, ast.Is)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            values = [value_of(part, given) for part in (left, *rights)]
            return all(compared(op, *pair) for op, pair in zip(ops, itertools.pairwise(values), strict=True))
    raise AssertionError(ast.dump(node))


def columns_of(rows: list[Row]) -> dict[str, FieldColumn]:
    columns: dict[str, FieldColumn] = {}
    for name, kind in NAMES.items():
        present = np.array([row[name] is not None for row in rows], dtype=np.bool_)
        if kind == "string":
            columns[name] = FieldColumn([row[name] or "" for row in rows], present)
        else:
            dtype = {"integer": np.int64, "number": np.float64, "boolean": np.bool_}[kind]
            columns[name] = FieldColumn(np.array([row[name] or 0 for row in rows], dtype=dtype), present)
    return columns


@settings(max_examples=400, deadline=None)
@given(written=boolean.filter(lambda text: len(text) < 1_000), rows=st.lists(row, max_size=8))
def test_an_expression_means_what_python_means_but_for_null_and_numbers_that_do_not_exist(
    written: str, rows: list[Row]
) -> None:
    expression = compile_expression(written, names=NAMES, where="test")
    tree = ast.parse(written, mode="eval").body
    assert expression.evaluate(columns_of(rows), len(rows)).tolist() == [bool(value_of(tree, each)) for each in rows]
