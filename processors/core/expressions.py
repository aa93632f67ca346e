"""Expressions of a pipeline file: Python's grammar with an allow-list, compiled once to numpy operations.

Nothing is ever evaluated as Python. What may be written, and what null does, is in
``docs/adr/0004-pipeline-file-grammar.md``; in short: a comparison with null is false, arithmetic with null is null,
``is None`` asks for null, and a predicate that comes out null does not hold.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.core.batch import FieldColumn

__all__ = ["Expression", "ExpressionError", "Kind", "compile_expression"]

Kind = Literal["integer", "number", "boolean", "string"]

# Bounds the recursion of the parser and of the compiled operations.
_MAX_CHARACTERS = 4_000
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


class ExpressionError(StreamgaugeError):
    """An expression that is not in the grammar, or that names or compares what does not exist or fit."""


class _Values(NamedTuple):
    """Like a `FieldColumn`, but constants are broadcast, so `values` may be read-only."""

    values: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_] | list[str]
    present: NDArray[np.bool_]

    def array(self) -> NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_]:
        assert isinstance(self.values, np.ndarray), "strings are not compared as arrays"
        return self.values


_Run = Callable[[Mapping[str, FieldColumn], int], _Values]


class _Term(NamedTuple):
    kind: Kind
    run: _Run


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
    _run: _Run = field(compare=False, repr=False)

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


def _null_free(values: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_], n: int) -> _Values:
    return _Values(values, np.broadcast_to(np.True_, n))


class _Compiler:
    def __init__(self, text: str, names: Mapping[str, Kind], where: str) -> None:
        self._text = text
        self._names = names
        self._where = where
        self._used: dict[str, None] = {}
        # ast counts columns from the text without its leading blanks, which it would take for an indentation.
        self._source = text.lstrip()
        self._shift = len(text) - len(self._source)

    def compile(self) -> Expression:
        term = self._term(self._parse(), 0)
        if term.kind != "boolean":
            raise self._error(None, f"must be true or false, but is of kind {term.kind}", "Compare it with something")
        return Expression(self._text, tuple(self._used), term.run)

    def _parse(self) -> ast.expr:
        if len(self._text) > _MAX_CHARACTERS:
            raise self._error(None, f"longer than {_MAX_CHARACTERS} characters")
        if not self._source:
            raise self._error(None, "empty")
        try:
            with warnings.catch_warnings():
                # A doubtful escape is a mistake in a pipeline file, not a warning on somebody's screen.
                warnings.simplefilter("error")
                return ast.parse(self._source, mode="eval").body
        except SyntaxError as error:
            column = f", column {error.offset + self._shift}" if error.offset else ""
            raise ExpressionError(
                f"not an expression: {error.msg}", where=f"{self._where}{column}: {self._text!r}"
            ) from error
        except (ValueError, MemoryError, RecursionError) as error:
            raise self._error(None, f"not an expression: {error}") from error

    def _error(self, node: ast.expr | None, what: str, remedy: str | None = None) -> ExpressionError:
        column = ""
        if node is not None:
            line = self._source.splitlines()[node.lineno - 1].encode()[: node.col_offset].decode()
            shift = self._shift if node.lineno == 1 else 0
            column = f", column {len(line) + shift + 1}"
        return ExpressionError(what, where=f"{self._where}{column}: {self._text!r}", remedy=remedy)

    def _term(self, node: ast.expr, depth: int) -> _Term:
        if depth > _MAX_DEPTH:
            raise self._error(node, f"nested deeper than {_MAX_DEPTH}")
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name() | ast.Attribute():
                return self._name(node)
            case ast.UnaryOp(op=ast.Not()):
                return _not(self._boolean(node.operand, depth))
            case ast.UnaryOp(op=ast.USub()):
                return self._negative(node, depth)
            case ast.BoolOp():
                return _all_or_any(
                    [self._boolean(part, depth) for part in node.values], any_of=isinstance(node.op, ast.Or)
                )
            case ast.BinOp():
                return self._arithmetic(node, depth)
            case ast.Compare():
                return self._comparison(node, depth)
            case _:
                raise self._error(
                    node,
                    f"{type(node).__name__} is not allowed",
                    "Allowed are numbers, strings, True, False, names, + - * /, comparisons, and, or, not, "
                    "in (…), is None, is not None",
                )

    def _constant(self, node: ast.Constant) -> _Term:
        value = node.value
        if isinstance(value, bool):
            truth = np.bool_(value)
            return _Term("boolean", lambda _, n: _null_free(np.broadcast_to(truth, n), n))
        if isinstance(value, int):
            return _integer(self._int64(node, value))
        if isinstance(value, float):
            if not np.isfinite(value):
                raise self._error(node, "not a finite number")
            number = np.float64(value)
            return _Term("number", lambda _, n: _null_free(np.broadcast_to(number, n), n))
        if isinstance(value, str):
            return _Term("string", lambda _, n: _Values([value] * n, np.broadcast_to(np.True_, n)))
        if value is None:
            raise self._error(node, "null cannot be computed or compared with", "Write 'is None' or 'is not None'")
        raise self._error(node, f"a {type(value).__name__} is not allowed here, only numbers, strings, True and False")

    def _int64(self, node: ast.expr, value: int) -> np.int64:
        if not _INT64.min <= value <= _INT64.max:
            raise self._error(node, "an integer must fit into 64 bits")
        return np.int64(value)

    def _name(self, node: ast.Name | ast.Attribute) -> _Term:
        path = self._path(node)
        kind = self._names.get(path)
        if kind is None:
            close = difflib.get_close_matches(path, self._names, n=3)
            known = f"Did you mean {' or '.join(close)}" if close else f"Known are {', '.join(sorted(self._names))}"
            raise self._error(node, f"unknown name {path!r}", known)
        self._used[path] = None

        def run(columns: Mapping[str, FieldColumn], _: int) -> _Values:
            column = columns[path]
            return _Values(column.values, column.present)

        return _Term(kind, run)

    def _path(self, node: ast.expr) -> str:
        parts: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            raise self._error(node, "a dot may stand only in a path, such as data.temp")
        return ".".join([inner.id, *reversed(parts)])

    def _boolean(self, node: ast.expr, depth: int) -> _Term:
        term = self._term(node, depth + 1)
        if term.kind != "boolean":
            raise self._error(node, f"expected something true or false, found kind {term.kind}")
        return term

    def _numeric(self, node: ast.expr, depth: int) -> _Term:
        term = self._term(node, depth + 1)
        if term.kind not in ("integer", "number"):
            raise self._error(node, f"expected a number, found kind {term.kind}")
        return term

    def _negative(self, node: ast.UnaryOp, depth: int) -> _Term:
        # -9223372036854775808 is a literal, although the number after the sign does not fit by itself.
        if isinstance(node.operand, ast.Constant) and type(node.operand.value) is int:
            return _integer(self._int64(node, -node.operand.value))
        term = self._numeric(node.operand, depth)
        return (
            _calculation(np.subtract, _integer(np.int64(0)), term, term.kind)
            if term.kind == "integer"
            else (_calculation(np.multiply, _integer(np.int64(-1)), term, term.kind))
        )

    def _arithmetic(self, node: ast.BinOp, depth: int) -> _Term:
        ufunc = _ARITHMETIC.get(type(node.op))
        if ufunc is None:
            raise self._error(node, f"the operator {type(node.op).__name__} is not allowed, only + - * /")
        left, right = self._numeric(node.left, depth), self._numeric(node.right, depth)
        whole = left.kind == right.kind == "integer" and ufunc is not np.true_divide
        return _calculation(ufunc, left, right, "integer" if whole else "number")

    def _comparison(self, node: ast.Compare, depth: int) -> _Term:
        links: list[_Term] = []
        for (left, right), op in zip(itertools.pairwise([node.left, *node.comparators]), node.ops, strict=True):
            links.append(self._link(left, op, right, depth))
        return links[0] if len(links) == 1 else _all_or_any(links, any_of=False)

    def _link(self, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int) -> _Term:
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._error(right, "only None may follow 'is' and 'is not'", "Compare with == or !=")
            return _is_null(self._term(left, depth + 1), negated=isinstance(op, ast.IsNot))
        if isinstance(op, ast.In | ast.NotIn):
            return self._membership(left, right, depth, negated=isinstance(op, ast.NotIn))
        compare, ufunc, sign = _COMPARISONS[type(op)]
        first, second = self._term(left, depth + 1), self._term(right, depth + 1)
        self._comparable(right, first.kind, second.kind)
        if first.kind == "boolean" and sign not in ("==", "!="):
            raise self._error(left, f"{sign} does not order true and false", "Compare with == or !=")
        if first.kind == "string":
            return _string_comparison(compare, first, second)
        return _comparison(ufunc, first, second)

    def _comparable(self, node: ast.expr, first: Kind, second: Kind) -> None:
        numeric = ("integer", "number")
        if first != second and not (first in numeric and second in numeric):
            raise self._error(node, f"expected {first} to compare with, found {second}")

    def _literal(self, node: ast.expr) -> bool | int | float | str:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case _:
                raise self._error(node, "expected a constant")

    def _membership(self, left: ast.expr, right: ast.expr, depth: int, *, negated: bool) -> _Term:
        term = self._term(left, depth + 1)
        if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
            raise self._error(right, "expected a list of constants, such as (1, 2) or ('a', 'b')")
        literals: list[bool | int | float | str] = []
        for element in right.elts:
            # Compiled for its checks alone: kind, size, None.
            self._comparable(element, term.kind, self._term(element, depth + 1).kind)
            literals.append(self._literal(element))
        return _member(term, literals, negated=negated)


def _integer(value: np.int64) -> _Term:
    return _Term("integer", lambda _, n: _null_free(np.broadcast_to(value, n), n))


def _not(term: _Term) -> _Term:
    def run(columns: Mapping[str, FieldColumn], n: int) -> _Values:
        inner = term.run(columns, n)
        return _null_free(~np.logical_and(inner.array(), inner.present), n)

    return _Term("boolean", run)


def _all_or_any(terms: Sequence[_Term], *, any_of: bool) -> _Term:
    join: np.ufunc = np.logical_or if any_of else np.logical_and

    def run(columns: Mapping[str, FieldColumn], n: int) -> _Values:
        held = np.full(n, not any_of, dtype=np.bool_)
        for term in terms:
            part = term.run(columns, n)
            join(held, np.logical_and(part.array(), part.present), out=held)
        return _null_free(held, n)

    return _Term("boolean", run)


def _is_null(term: _Term, *, negated: bool) -> _Term:
    def run(columns: Mapping[str, FieldColumn], n: int) -> _Values:
        present = term.run(columns, n).present
        return _null_free(present if negated else ~present, n)

    return _Term("boolean", run)


def _comparison(ufunc: np.ufunc, left: _Term, right: _Term) -> _Term:
    def run(columns: Mapping[str, FieldColumn], n: int) -> _Values:
        first, second = left.run(columns, n), right.run(columns, n)
        held: NDArray[np.bool_] = ufunc(first.array(), second.array())
        return _null_free(held & first.present & second.present, n)

    return _Term("boolean", run)


def _string_comparison(compare: Callable[[str, str], bool], left: _Term, right: _Term) -> _Term:
    def run(columns: Mapping[str, FieldColumn], n: int) -> _Values:
        first, second = left.run(columns, n), right.run(columns, n)
        held = np.fromiter(map(compare, first.values, second.values), dtype=np.bool_, count=n)
        return _null_free(held & first.present & second.present, n)

    return _Term("boolean", run)


def _member(term: _Term, literals: Sequence[bool | int | float | str], *, negated: bool) -> _Term:
    texts = frozenset(literals) if term.kind == "string" else frozenset()
    whole = term.kind == "integer" and all(isinstance(literal, int) for literal in literals)
    dtype = np.bool_ if term.kind == "boolean" else np.int64 if whole else np.float64
    numbers = np.array([] if texts else literals, dtype=dtype)

    def run(columns: Mapping[str, FieldColumn], n: int) -> _Values:
        inner = term.run(columns, n)
        if isinstance(inner.values, list):
            held = np.fromiter(map(texts.__contains__, inner.values), dtype=np.bool_, count=n)
        else:
            held = np.isin(inner.values, numbers)
        return _null_free((~held if negated else held) & inner.present, n)

    return _Term("boolean", run)


def _calculation(ufunc: np.ufunc, left: _Term, right: _Term, kind: Kind) -> _Term:
    """A result that is no finite number, or does not fit int64, is null: it never wraps or turns infinite."""

    def run(columns: Mapping[str, FieldColumn], n: int) -> _Values:
        first, second = left.run(columns, n), right.run(columns, n)
        a, b = first.array(), second.array()
        result = ufunc(a, b)
        fits = ~_overflows(ufunc, a, b, result) if kind == "integer" else np.isfinite(result)
        present = first.present & second.present & fits
        return _Values(np.where(present, result, result.dtype.type(0)), present)

    return _Term(kind, run)


def _overflows(
    ufunc: np.ufunc,
    a: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_],
    b: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_],
    result: NDArray[np.int64],
) -> NDArray[np.bool_]:
    # The textbook tests on the wrapped two's-complement result (Warren, Hacker's Delight, 2-13).
    a, b = a.astype(np.int64, copy=False), b.astype(np.int64, copy=False)
    if ufunc is np.add:
        return np.asarray(((a ^ result) & (b ^ result)) < 0)
    if ufunc is np.subtract:
        return np.asarray(((a ^ b) & (a ^ result)) < 0)
    nonzero = np.where(a == 0, 1, a)
    return np.asarray((a != 0) & ((result // nonzero != b) | ((a == -1) & (b == _INT64.min))))
