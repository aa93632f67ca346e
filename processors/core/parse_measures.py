"""Reading the measures of an aggregate: ``name = "call"``. See ``docs/pipeline-file.md``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from fractions import Fraction
from keyword import iskeyword
from typing import get_args

from streamgauge.processors.core.definition import Measure, MeasureKind
from streamgauge.processors.core.expressions import Kind
from streamgauge.processors.core.toml_tables import Table

__all__ = ["parse_measures"]

_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*\(\s*([^(),\s]*)\s*(?:,\s*([^(),]*?)\s*)?\)\s*")
_QUANTILE = re.compile(r"[0-9]+(\.[0-9]{1,6})?")
_KINDS: dict[str, MeasureKind] = {kind: kind for kind in get_args(MeasureKind)}
_OF_ANYTHING: tuple[MeasureKind, ...] = ("count", "approx_distinct")
# Measures that are integers where their field is.
_LIKE_THE_FIELD: tuple[MeasureKind, ...] = ("sum", "min", "max", "first", "last")
_MEANT = {
    "avg": "mean",
    "average": "mean",
    "var": "variance",
    "var_samp": "variance",
    "std": "stddev",
    "stddev_samp": "stddev",
    "approx_count_distinct": "approx_distinct",
    "distinct": "approx_distinct",
    "count_distinct": "approx_distinct",
    "median": "quantile(…, 0.5)",
    "percentile": "quantile",
    "approx_quantile": "quantile",
    "p99": "quantile(…, 0.99)",
}

CheckField = Callable[[Table, str, str], Kind]
"""The kind of the field that a key of a table names; raises `PipelineFileError` where there is none."""


def parse_measures(table: Table, check: CheckField) -> tuple[Measure, ...]:
    """Read the table ``measures``.

    Raises
    ------
    PipelineFileError
        There is none; a name that expressions cannot use; no call of a measure that there is; a field that there is
        not, or that is no number where one is needed; a quantile that does not lie between 0 and 1.
    """
    if not table.values:
        raise table.error(None, "measures: there must be at least one", 'Such as { events = "count()" }')
    for name in table.values:
        if not name.isidentifier() or not name.isascii() or iskeyword(name) or len(name) > 64:
            raise table.error(name, "a measure's name must be one that expressions can use: letters, digits and _")
    return tuple(_measure(table, name, check) for name in table.values)


def _measure(table: Table, name: str, check: CheckField) -> Measure:
    text = table.string(name)
    match = _CALL.fullmatch(text)
    if match is None:
        raise table.error(
            name, f"{text!r} is no measure", "Write a call such as max(data.temp), count() or quantile(data.temp, 0.99)"
        )
    function, path, parameter = match.groups()
    kind = _KINDS.get(function)
    if kind is None:
        raise table.error(name, f"unknown measure {function!r}", _hint(function))
    if kind != "quantile" and parameter is not None:
        raise table.error(name, f"{kind} takes a field and nothing else, not {parameter!r}")
    if not path:
        if kind != "count":
            raise table.error(name, f"{kind} needs a field", f"Such as {_example(kind)}")
        return Measure(name, kind, None, is_integer=True)
    field_kind = check(table, name, path)
    if kind in _OF_ANYTHING:
        return Measure(name, kind, path, is_integer=True)
    if field_kind not in ("integer", "number"):
        raise table.error(name, f"{kind} needs a number, and {path} is a {field_kind}")
    is_integer = kind in _LIKE_THE_FIELD and field_kind == "integer"
    if kind == "quantile":
        return Measure(name, kind, path, is_integer=False, parameter=_quantile(table, name, path, parameter))
    return Measure(name, kind, path, is_integer=is_integer)


def _quantile(table: Table, name: str, path: str, text: str | None) -> str:
    if not text:
        raise table.error(name, "quantile needs to know which one", f"Such as quantile({path}, 0.99)")
    if _QUANTILE.fullmatch(text) is None or Fraction(text) > 1:
        raise table.error(name, f"a quantile is a decimal number from 0 to 1, of 6 places at most, not {text}")
    return text


def _example(kind: MeasureKind) -> str:
    return f"{kind}(data.temp, 0.99)" if kind == "quantile" else f"{kind}(data.temp)"


def _hint(function: str) -> str:
    close = _MEANT.get(function.lower()) or next(iter(difflib.get_close_matches(function, _KINDS, n=1)), None)
    known = f"Known are {', '.join(_KINDS)}"
    return f"Did you mean {close}? {known}" if close else known
