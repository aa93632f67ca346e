"""FilterCriteria: which records a function sees.

A record passes if it matches one of the filters. A pattern speaks of the record's ``kinesis`` properties; ``data`` is
then its decoded JSON, and a record whose data is no JSON does not match a pattern that names ``data``.

Source: AWS Lambda developer guide, "Control which events Lambda sends to your function" (invocation-eventfiltering) and
"Using event filtering with a Kinesis event source" (with-kinesis-filtering); Amazon EventBridge user guide, "Comparison
operators for use in event patterns" (eb-create-pattern-operators).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import StreamRecord

__all__ = ["Filter", "FilterRefused", "parse_filters", "passes"]

_FILTERS_MAX = 10
_MISSING = object()
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda left, right: left == right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


class FilterRefused(StreamgaugeError):
    """AWS would refuse the pattern, or the local poller does not know what it asks for."""


@dataclass(frozen=True, slots=True)
class _Number:
    """A number as it is written: 300 and 3.0e2 are not equal, says AWS."""

    text: str


_Rule: TypeAlias = Callable[[object], bool]


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: its pattern as it was given, and made ready to be asked."""

    text: str
    pattern: Mapping[str, object] = field(compare=False, repr=False)

    def matches(self, properties: Mapping[str, object], data: object) -> bool:
        """Whether the record matches. `data` is its decoded data, the module's mark if that is no JSON."""
        if "data" in self.pattern and data is _MISSING:
            return False
        return _matches(self.pattern, {**properties, "data": data})


def parse_filters(criteria: object, *, where: str) -> tuple[Filter, ...]:
    """The filters of a ``FilterCriteria``.

    Raises
    ------
    FilterRefused
        A pattern is no JSON, has a rule that is not known, or there are too many.
    """
    filters = criteria.get("Filters") if isinstance(criteria, Mapping) else None
    if not filters:
        return ()
    if not isinstance(filters, list) or len(filters) > _FILTERS_MAX:
        raise FilterRefused(f"there are more than {_FILTERS_MAX} filters", where=f"{where}, FilterCriteria")
    return tuple(_parse(entry, f"{where}, FilterCriteria.Filters[{index}]") for index, entry in enumerate(filters))


def passes(filters: tuple[Filter, ...], record: StreamRecord) -> bool:
    """Whether the function is to see the record: without filters, always."""
    if not filters:
        return True
    properties: dict[str, object] = {
        "kinesisSchemaVersion": "1.0",
        "partitionKey": record.partition_key,
        "sequenceNumber": record.sequence_number,
        "approximateArrivalTimestamp": _Number(repr(record.arrival_ms / 1000)),
    }
    try:
        data = _json(record.data)
    except ValueError:
        data = _MISSING
    return any(one.matches(properties, data) for one in filters)


def _json(text: str | bytes) -> object:
    decoded: object = json.loads(text, parse_int=_Number, parse_float=_Number)
    return decoded


def _parse(entry: object, where: str) -> Filter:
    text = entry.get("Pattern") if isinstance(entry, Mapping) else None
    try:
        pattern = _json(text) if isinstance(text, str) else None
    except ValueError:
        pattern = None
    if not isinstance(pattern, dict) or not pattern:
        raise FilterRefused("the pattern is no JSON object", where=where)
    if "data" in pattern and not isinstance(pattern["data"], dict):
        raise FilterRefused("the pattern for data is no JSON object", where=f"{where}, data")
    assert isinstance(text, str)
    return Filter(text, _checked(pattern, where))


def _checked(pattern: Mapping[str, object], where: str) -> dict[str, object]:
    """The pattern with every list of rules made ready to be asked."""
    ready: dict[str, object] = {}
    for name, value in pattern.items():
        place = f"{where}, {name}"
        if name == "$or":
            if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
                raise FilterRefused("$or takes a list of patterns", where=place)
            ready[name] = [_checked(one, place) for one in value]
        elif isinstance(value, dict):
            ready[name] = _checked(value, place)
        elif isinstance(value, list) and value:
            ready[name] = tuple(_rule(one, place) for one in value)
        else:
            raise FilterRefused("a property takes a pattern, or a list of rules", where=place)
    return ready


def _matches(pattern: Mapping[str, object], value: object) -> bool:
    if isinstance(value, list):
        # A property that holds a list matches if one of its elements does.
        return any(_matches(pattern, element) for element in value)
    if not isinstance(value, Mapping):
        value = {}
    for name, wanted in pattern.items():
        if name == "$or":
            assert isinstance(wanted, list)
            if not any(_matches(one, value) for one in wanted):
                return False
        elif isinstance(wanted, tuple):
            found = value.get(name, _MISSING)
            # An object is no leaf, and rules are asked of leaves.
            candidates = (
                found if isinstance(found, list) and found else [_MISSING if isinstance(found, dict) else found]
            )
            if not any(rule(candidate) for rule in wanted for candidate in candidates):
                return False
        else:
            assert isinstance(wanted, Mapping)
            if not _matches(wanted, value.get(name, _MISSING)):
                return False
    return True


def _rule(rule: object, where: str) -> _Rule:
    if not isinstance(rule, dict):
        return lambda value: value is not _MISSING and type(value) is type(rule) and value == rule
    if len(rule) != 1:
        raise FilterRefused("a rule has one operator", where=where)
    operator, operand = next(iter(rule.items()))
    if operator == "exists" and isinstance(operand, bool):
        return lambda value: (value is not _MISSING) is operand
    if operator == "anything-but":
        return _anything_but(operand, where)
    if operator == "numeric":
        return _numeric(operand, where)
    return _text_rule(operator, operand, where)


def _text_rule(operator: str, operand: object, where: str) -> _Rule:
    is_folded = isinstance(operand, dict) and set(operand) == {"equals-ignore-case"}
    text = operand["equals-ignore-case"] if isinstance(operand, dict) and is_folded else operand
    if not isinstance(text, str) or (is_folded and operator == "equals-ignore-case"):
        raise FilterRefused(f"the rule {operator} does not take {operand!r}", where=where)
    wanted = text.casefold() if is_folded else text

    def shown(value: str) -> str:
        return value.casefold() if is_folded else value

    match operator:
        case "prefix":
            return lambda value: isinstance(value, str) and shown(value).startswith(wanted)
        case "suffix":
            return lambda value: isinstance(value, str) and shown(value).endswith(wanted)
        case "equals-ignore-case":
            return lambda value: isinstance(value, str) and value.casefold() == text.casefold()
        case _:
            raise FilterRefused(f"the local poller does not know the rule {operator}", where=where)


def _anything_but(operand: object, where: str) -> _Rule:
    refused: list[_Rule]
    if isinstance(operand, dict):
        refused = [_rule(operand, where)]
    else:
        refused = [_rule(one, where) for one in (operand if isinstance(operand, list) else [operand])]
    return lambda value: value is not _MISSING and not any(rule(value) for rule in refused)


def _numeric(operand: object, where: str) -> _Rule:
    if not isinstance(operand, list) or len(operand) not in {2, 4}:
        raise FilterRefused("numeric takes one or two comparisons", where=where)
    tests: list[tuple[Callable[[float, float], bool], float]] = []
    for name, bound in zip(operand[::2], operand[1::2], strict=True):
        if not isinstance(name, str) or name not in _COMPARISONS or not isinstance(bound, _Number):
            raise FilterRefused(f"numeric does not know {name!r} {bound!r}", where=where)
        tests.append((_COMPARISONS[name], float(bound.text)))
    return lambda value: isinstance(value, _Number) and all(test(float(value.text), bound) for test, bound in tests)
