"""What expressions compile to: operations on columns that know about null. See `expressions` for the grammar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.batch import FieldColumn

__all__ = [
    "Kind",
    "Run",
    "Term",
    "Values",
    "all_or_any",
    "calculation",
    "comparison",
    "integer_term",
    "membership",
    "negation",
    "null_free",
    "null_test",
    "string_comparison",
]

Kind = Literal["integer", "number", "boolean", "string"]

_INT64 = np.iinfo(np.int64)


class Values(NamedTuple):
    """Like a `FieldColumn`, but constants are broadcast, so `values` may be read-only."""

    values: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_] | list[str]
    present: NDArray[np.bool_]

    def array(self) -> NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_]:
        """The values of anything but strings."""
        assert isinstance(self.values, np.ndarray), "strings are not compared as arrays"
        return self.values


Run = Callable[[Mapping[str, FieldColumn], int], Values]


class Term(NamedTuple):
    """A part of an expression: its kind, and what computes it for n rows."""

    kind: Kind
    run: Run


def null_free(values: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_], n: int) -> Values:
    """Values none of which is null."""
    return Values(values, np.broadcast_to(np.True_, n))


def integer_term(value: np.int64) -> Term:
    """An integer constant."""
    return Term("integer", lambda _, n: null_free(np.broadcast_to(value, n), n))


def negation(term: Term) -> Term:
    """True where the term does not hold, null included."""

    def run(columns: Mapping[str, FieldColumn], n: int) -> Values:
        inner = term.run(columns, n)
        return null_free(~np.logical_and(inner.array(), inner.present), n)

    return Term("boolean", run)


def all_or_any(terms: Sequence[Term], *, any_of: bool) -> Term:
    """Whether all terms hold, or any; null does not."""
    join: np.ufunc = np.logical_or if any_of else np.logical_and

    def run(columns: Mapping[str, FieldColumn], n: int) -> Values:
        held = np.full(n, not any_of, dtype=np.bool_)
        for term in terms:
            part = term.run(columns, n)
            join(held, np.logical_and(part.array(), part.present), out=held)
        return null_free(held, n)

    return Term("boolean", run)


def null_test(term: Term, *, negated: bool) -> Term:
    """Whether the term is null, or with `negated` is not."""

    def run(columns: Mapping[str, FieldColumn], n: int) -> Values:
        present = term.run(columns, n).present
        return null_free(present if negated else ~present, n)

    return Term("boolean", run)


def comparison(ufunc: np.ufunc, left: Term, right: Term) -> Term:
    """Two numbers or booleans compared; false where one is null."""

    def run(columns: Mapping[str, FieldColumn], n: int) -> Values:
        first, second = left.run(columns, n), right.run(columns, n)
        held: NDArray[np.bool_] = ufunc(first.array(), second.array())
        return null_free(held & first.present & second.present, n)

    return Term("boolean", run)


def string_comparison(compare: Callable[[str, str], bool], left: Term, right: Term) -> Term:
    """Two strings compared; false where one is null."""

    def run(columns: Mapping[str, FieldColumn], n: int) -> Values:
        first, second = left.run(columns, n), right.run(columns, n)
        held = np.fromiter(map(compare, first.values, second.values), dtype=np.bool_, count=n)
        return null_free(held & first.present & second.present, n)

    return Term("boolean", run)


def membership(term: Term, literals: Sequence[bool | int | float | str], *, negated: bool) -> Term:
    """Whether the term is one of the literals, or with `negated` is none; false where it is null."""
    texts = frozenset(literals) if term.kind == "string" else frozenset()
    whole = term.kind == "integer" and all(isinstance(literal, int) for literal in literals)
    dtype = np.bool_ if term.kind == "boolean" else np.int64 if whole else np.float64
    numbers = np.array([] if texts else literals, dtype=dtype)

    def run(columns: Mapping[str, FieldColumn], n: int) -> Values:
        inner = term.run(columns, n)
        if isinstance(inner.values, list):
            held = np.fromiter(map(texts.__contains__, inner.values), dtype=np.bool_, count=n)
        else:
            held = np.isin(inner.values, numbers)
        return null_free((~held if negated else held) & inner.present, n)

    return Term("boolean", run)


def calculation(ufunc: np.ufunc, left: Term, right: Term, kind: Kind) -> Term:
    """A result that is no finite number, or does not fit int64, is null: it never wraps or turns infinite."""

    def run(columns: Mapping[str, FieldColumn], n: int) -> Values:
        first, second = left.run(columns, n), right.run(columns, n)
        a, b = first.array(), second.array()
        result = ufunc(a, b)
        fits = ~_overflows(ufunc, a, b, result) if kind == "integer" else np.isfinite(result)
        present = first.present & second.present & fits
        return Values(np.where(present, result, result.dtype.type(0)), present)

    return Term(kind, run)


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
