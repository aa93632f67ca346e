"""Plausible values for the fields of a JSON Schema: seeded, and per key a smooth random walk for numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.json_schema import FieldSchema, parse_object
from streamgauge.events.times import rfc3339

__all__ = ["ValueMaker", "data_fields"]

_NULL_SHARE = 0.02
_STEP_SHARE = 0.08
"""The most that a number walks in one event, as a share of its range."""
_WORDS = 8


class _Moment(NamedTuple):
    """What a maker may use: the walks of the event's key, and its time."""

    walks: dict[str, int]
    time_ms: int


_Maker = Callable[[_Moment], object]


def data_fields(schema: Mapping[str, object], chosen: Collection[str] | None, *, file: str) -> dict[str, FieldSchema]:
    """The top-level fields to make: `chosen` ones, or all.

    Raises
    ------
    StreamgaugeError
        A chosen field is not in the schema, or a required one is not chosen.
    """
    fields = parse_object(schema, file=file).properties
    if chosen is None:
        return dict(fields)
    for name in chosen:
        if name not in fields:
            raise StreamgaugeError(
                f"the schema has no field {name!r}", where=file, remedy=f"Fields: {', '.join(fields)}"
            )
    missing = [name for name, field in fields.items() if field.required and name not in chosen]
    if missing:
        raise StreamgaugeError(f"the schema requires {', '.join(missing)}", where=file, remedy="Add it to the fields")
    return {name: fields[name] for name in chosen}


class ValueMaker:
    """Makes the ``data`` of events.

    A number stays between ``minimum`` and ``maximum``, or between the least and the greatest of ``examples``, or
    between 0 and 100; text is one of ``enum`` or ``examples``, or a made-up word; ``date-time`` is the event's time.
    """

    def __init__(self, schema: Mapping[str, object], fields: Mapping[str, FieldSchema], rng: random.Random) -> None:
        self._rng = rng
        raw = schema.get("properties")
        self._makers = {name: self._maker(name, field, _child(raw, name)) for name, field in fields.items()}
        self._walks: dict[str, dict[str, int]] = {}
        self._encode = msgspec.json.Encoder().encode

    def values(self, key: str, time_ms: int) -> dict[str, object]:
        """The data of one event of `key`."""
        moment = _Moment(self._walks.setdefault(key, {}), time_ms)
        return {name: make(moment) for name, make in self._makers.items()}

    def data(self, key: str, time_ms: int) -> bytes:
        """The same as JSON."""
        return self._encode(self.values(key, time_ms))

    def _maker(self, path: str, field: FieldSchema, raw: object) -> _Maker:
        make = self._plain_maker(path, field, raw)
        if not field.nullable:
            return make
        chance = self._rng.random
        return lambda moment: None if chance() < _NULL_SHARE else make(moment)

    def _plain_maker(self, path: str, field: FieldSchema, raw: object) -> _Maker:
        rng = self._rng
        examples = _examples(raw)
        if field.kind in ("integer", "number") and field.enum is None:
            return self._walk(path, field, examples)
        if field.kind == "boolean":
            return lambda _: rng.random() < 0.5
        if field.kind == "object":
            inner = _child(raw, "properties")
            makers = {
                name: self._maker(f"{path}.{name}", each, _child(inner, name))
                for name, each in field.properties.items()
            }
            return lambda moment: {name: make(moment) for name, make in makers.items()}
        if field.kind == "array":
            if field.items is None:
                return lambda _: []
            item = self._maker(f"{path}[]", field.items, _child(raw, "items"))
            return lambda moment: [item(moment) for _ in range(rng.randint(1, 3))]
        if field.is_time:
            return lambda moment: rfc3339(moment.time_ms)
        words = field.enum or examples or [f"{path.rpartition('.')[2]}-{number}" for number in range(1, _WORDS + 1)]
        return lambda _: rng.choice(words)

    def _walk(self, path: str, field: FieldSchema, examples: list[object]) -> _Maker:
        low, high = _range(field, examples)
        is_integer = field.kind == "integer"
        # Walks count in ticks, a thousandth of the range or finer, so that values have few decimals and no bound is
        # overstepped by rounding.
        scale = 1 if is_integer or high <= low else 10 ** min(12, max(0, 3 - math.floor(math.log10(high - low))))
        first, last = _ticks(low, high, scale)
        if last <= first:
            return lambda _: math.ceil(low) if is_integer else low
        chance = self._rng.random
        reach = max(1, int((last - first) * _STEP_SHARE))
        steps = 2 * reach + 1

        def make(moment: _Moment) -> float | int:
            walks = moment.walks
            ticks = walks.get(path)
            if ticks is None:
                ticks = first + int((last - first) * (0.25 + 0.5 * chance()))
            else:
                ticks += int(chance() * steps) - reach
                # Reflected at the ends, so that walks do not stick to them.
                if ticks < first:
                    ticks = min(last, first * 2 - ticks)
                elif ticks > last:
                    ticks = max(first, last * 2 - ticks)
            walks[path] = ticks
            return ticks if is_integer else ticks / scale

        return make


def _ticks(low: float, high: float, scale: int) -> tuple[int, int]:
    """The least and the greatest number of ticks whose value lies within the bounds."""
    first, last = math.ceil(low * scale), math.floor(high * scale)
    # The products are rounded.
    return first + (first / scale < low), last - (last / scale > high)


def _range(field: FieldSchema, examples: list[object]) -> tuple[float, float]:
    numbers = [float(value) for value in examples if isinstance(value, int | float) and not isinstance(value, bool)]
    low = field.minimum if field.minimum is not None else min(numbers, default=None)
    high = field.maximum if field.maximum is not None else max(numbers, default=None)
    if low is None:
        low = 0.0 if high is None or high > 0 else high - 100.0
    if high is None:
        high = low + 100.0
    return float(low), float(high)


def _child(raw: object, name: str) -> object:
    return raw.get(name) if isinstance(raw, Mapping) else None


def _examples(raw: object) -> list[object]:
    examples = _child(raw, "examples")
    return list(examples) if isinstance(examples, list | tuple) else []
