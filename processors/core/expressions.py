"""Expressions of a pipeline file: Python's grammar with an allow-list, compiled once to numpy operations.

Nothing is ever evaluated as Python. What may be written, and what null does, is in
``docs/expressions.md``; in short: a comparison with null is false, arithmetic with null is null,
``is None`` asks for null, and a predicate that comes out null does not hold.
"""

from __future__ import annotations

import ast
import difflib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.expression_source import ExpressionError, Source
from streamgauge.processors.core.expression_terms import (
    Kind,
    Run,
    Term,
    Values,
    all_or_any,
    calculation,
    comparison,
    integer_term,
    membership,
    negation,
    null_free,
    null_test,
    string_comparison,
)

__all__ = ["Expression", "ExpressionError", "Kind", "compile_expression"]

# Bounds the recursion of the compiled operations.
_MAX_DEPTH = 100
_INT64 = np.iinfo(np.int64)

_COMPARISONS: dict[type[ast.cmpop], tuple[Callable[[str, str], bool], np.ufunc, str]] = {
    ast.Eq: (str.__eq__, np.equal, "=="),
    ast.NotEq: (str.__ne__, np.not_equal, "!="),
    ast.Lt: (str.__lt__, np.less, "<"),
    ast.LtE: (str.__le__, np.less_equal, "<="),
    ast.Gt: (str.__gt__, np.greater, ">"),
    ast.GtE: (str.__ge__, np.greater_equal, ">="),
}
_ARITHMETIC: dict[type[ast.operator], np.ufunc] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
}


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled predicate. Equal if written equally.

    Attributes
    ----------
    text
        As it was written.
    names
        The names and dotted paths that it uses, each once, in order of their first use.
    """

    text: str
    names: tuple[str, ...]
    _run: Run = field(compare=False, repr=False)

    def evaluate(self, columns: Mapping[str, FieldColumn], n: int) -> NDArray[np.bool_]:
        """Whether the predicate holds, for each of n rows.

        Parameters
        ----------
        columns
            At least those in `names`, of the kinds they were compiled with, n values each.
        n
            The number of rows.

        Returns
        -------
        bool, shape (n,), the caller's to change; False where the result is null.
        """
        with np.errstate(all="ignore"):
            result = self._run(columns, n)
        return np.logical_and(result.array(), result.present)


def compile_expression(text: str, *, names: Mapping[str, Kind], where: str) -> Expression:
    """Compile a predicate.

    Parameters
    ----------
    text
        The expression.
    names
        What it may name, and of what kind each is.
    where
        File, line and key, for errors.

    Raises
    ------
    ExpressionError
        With the column inside the expression, and what was expected there.
    """
    return _Compiler(text, names, where).compile()


class _Compiler:
    def __init__(self, text: str, names: Mapping[str, Kind], where: str) -> None:
        self._text = text
        self._names = names
        self._used: dict[str, None] = {}
        self._source = Source(text, where)

    def compile(self) -> Expression:
        node = self._source.parse()
        term = self._term(node, 0)
        if term.kind != "boolean":
            raise self._source.error(
                node, f"must be true or false, but is of kind {term.kind}", "Compare it with something"
            )
        return Expression(self._text, tuple(self._used), term.run)

    def _term(self, node: ast.expr, depth: int) -> Term:
        if depth > _MAX_DEPTH:
            raise self._source.error(node, f"nested deeper than {_MAX_DEPTH}")
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name() | ast.Attribute():
                return self._name(node)
            case ast.UnaryOp(op=ast.Not()):
                return negation(self._boolean(node.operand, depth))
            case ast.UnaryOp(op=ast.USub()):
                return self._negative(node, depth)
            case ast.BoolOp():
                return all_or_any(
                    [self._boolean(part, depth) for part in node.values], any_of=isinstance(node.op, ast.Or)
                )
            case ast.BinOp():
                return self._arithmetic(node, depth)
            case ast.Compare():
                return self._comparison(node, depth)
            case _:
                raise self._source.error(
                    node,
                    f"{type(node).__name__} is not allowed",
                    "Allowed are numbers, strings, True, False, names, + - * /, comparisons, and, or, not, "
                    "in (…), is None, is not None",
                )

    def _constant(self, node: ast.Constant) -> Term:
        value = node.value
        if isinstance(value, bool):
            truth = np.bool_(value)
            return Term("boolean", lambda _, n: null_free(np.broadcast_to(truth, n), n))
        if isinstance(value, int):
            return integer_term(self._int64(node, value))
        if isinstance(value, float):
            if not np.isfinite(value):
                raise self._source.error(node, "not a finite number")
            number = np.float64(value)
            return Term("number", lambda _, n: null_free(np.broadcast_to(number, n), n))
        if isinstance(value, str):
            return Term("string", lambda _, n: Values([value] * n, np.broadcast_to(np.True_, n)))
        if value is None:
            raise self._source.error(
                node, "null cannot be computed or compared with", "Write 'is None' or 'is not None'"
            )
        raise self._source.error(
            node, f"a {type(value).__name__} is not allowed here, only numbers, strings, True and False"
        )

    def _int64(self, node: ast.expr, value: int) -> np.int64:
        if not _INT64.min <= value <= _INT64.max:
            raise self._source.error(node, "an integer must fit into 64 bits")
        return np.int64(value)

    def _name(self, node: ast.Name | ast.Attribute) -> Term:
        path = self._path(node)
        kind = self._names.get(path)
        if kind is None:
            close = difflib.get_close_matches(path, self._names, n=3)
            known = f"Did you mean {' or '.join(close)}" if close else f"Known are {', '.join(sorted(self._names))}"
            raise self._source.error(node, f"unknown name {path!r}", known)
        self._used[path] = None

        def run(columns: Mapping[str, FieldColumn], _: int) -> Values:
            column = columns[path]
            return Values(column.values, column.present)

        return Term(kind, run)

    def _path(self, node: ast.expr) -> str:
        parts: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            raise self._source.error(node, "a dot may stand only in a path, such as data.temp")
        return ".".join([inner.id, *reversed(parts)])

    def _boolean(self, node: ast.expr, depth: int) -> Term:
        term = self._term(node, depth + 1)
        if term.kind != "boolean":
            raise self._source.error(node, f"expected something true or false, found kind {term.kind}")
        return term

    def _numeric(self, node: ast.expr, depth: int) -> Term:
        term = self._term(node, depth + 1)
        if term.kind not in ("integer", "number"):
            raise self._source.error(node, f"expected a number, found kind {term.kind}")
        return term

    def _negative(self, node: ast.UnaryOp, depth: int) -> Term:
        # -9223372036854775808 is a literal, although the number after the sign does not fit by itself.
        if isinstance(node.operand, ast.Constant) and type(node.operand.value) is int:
            return integer_term(self._int64(node, -node.operand.value))
        term = self._numeric(node.operand, depth)
        return (
            calculation(np.subtract, integer_term(np.int64(0)), term, term.kind)
            if term.kind == "integer"
            else (calculation(np.multiply, integer_term(np.int64(-1)), term, term.kind))
        )

    def _arithmetic(self, node: ast.BinOp, depth: int) -> Term:
        ufunc = _ARITHMETIC.get(type(node.op))
        if ufunc is None:
            raise self._source.error(node, f"the operator {type(node.op).__name__} is not allowed, only + - * /")
        left, right = self._numeric(node.left, depth), self._numeric(node.right, depth)
        whole = left.kind == right.kind == "integer" and ufunc is not np.true_divide
        return calculation(ufunc, left, right, "integer" if whole else "number")

    def _comparison(self, node: ast.Compare, depth: int) -> Term:
        links: list[Term] = []
        for (left, right), op in zip(itertools.pairwise([node.left, *node.comparators]), node.ops, strict=True):
            links.append(self._link(left, op, right, depth))
        return links[0] if len(links) == 1 else all_or_any(links, any_of=False)

    def _link(self, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int) -> Term:
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._source.error(right, "only None may follow 'is' and 'is not'", "Compare with == or !=")
            return null_test(self._term(left, depth + 1), negated=isinstance(op, ast.IsNot))
        if isinstance(op, ast.In | ast.NotIn):
            return self._membership(left, right, depth, negated=isinstance(op, ast.NotIn))
        compare, ufunc, sign = _COMPARISONS[type(op)]
        first, second = self._term(left, depth + 1), self._term(right, depth + 1)
        self._comparable(right, first.kind, second.kind)
        if first.kind == "boolean" and sign not in ("==", "!="):
            raise self._source.error(left, f"{sign} does not order true and false", "Compare with == or !=")
        if first.kind == "string":
            return string_comparison(compare, first, second)
        return comparison(ufunc, first, second)

    def _comparable(self, node: ast.expr, first: Kind, second: Kind) -> None:
        numeric = ("integer", "number")
        if first != second and not (first in numeric and second in numeric):
            raise self._source.error(node, f"expected {first} to compare with, found {second}")

    def _literal(self, node: ast.expr) -> bool | int | float | str:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case _:
                raise self._source.error(node, "expected a constant")

    def _membership(self, left: ast.expr, right: ast.expr, depth: int, *, negated: bool) -> Term:
        term = self._term(left, depth + 1)
        if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
            raise self._source.error(right, "expected a list of constants, such as (1, 2) or ('a', 'b')")
        literals: list[bool | int | float | str] = []
        for element in right.elts:
            # Compiled for its checks alone: kind, size, None.
            self._comparable(element, term.kind, self._term(element, depth + 1).kind)
            literals.append(self._literal(element))
        return membership(term, literals, negated=negated)
