"""The definition of a pipeline, as plain values. `parse_pipeline` reads it from TOML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamgauge.events.catalogue import Catalogue
from streamgauge.events.mapping import EventMapping
from streamgauge.processors.core.expressions import Expression
from streamgauge.processors.core.window_kinds import HoppingWindow, SessionWindow, TumblingWindow, Window

__all__ = [
    "Absence",
    "Aggregate",
    "HoppingWindow",
    "Measure",
    "MeasureKind",
    "Pipeline",
    "SessionWindow",
    "Severity",
    "Threshold",
    "TumblingWindow",
    "Window",
]

Severity = Literal["info", "warning", "critical"]

MeasureKind = Literal[
    "count", "sum", "min", "max", "mean", "variance", "stddev", "first", "last", "approx_distinct", "quantile"
]


@dataclass(frozen=True, slots=True)
class Measure:
    """``name = kind(field)``; `field` is a path such as ``data.temp``, None for ``count()``.

    Nulls are left out: ``count(field)`` counts values. ``is_integer``: the measure is int64, as are all that count, and
    sum, min, max, first and last of an integer field. ``parameter``: of a quantile which one, as it was written.
    """

    name: str
    kind: MeasureKind
    field: str | None
    is_integer: bool
    parameter: str | None = None

    @property
    def call(self) -> str:
        """As it is written, in one way."""
        arguments = [text for text in (self.field, self.parameter) if text is not None]
        return f"{self.kind}({', '.join(arguments)})"

    @property
    def has_running_values(self) -> bool:
        """Whether its value after each event can be computed on whole columns: floats are added up one by one."""
        return self.kind in ("count", "min", "max") or (self.kind == "sum" and self.is_integer)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One ``[[aggregate]]``. `key` are paths; `where` is None or an expression over event fields."""

    name: str
    key: tuple[str, ...]
    window: Window
    allowed_lateness_ms: int
    where: Expression | None
    measures: tuple[Measure, ...]
    serve: bool


@dataclass(frozen=True, slots=True)
class Threshold:
    """One ``[[threshold]]`` over the measures of `aggregate`.

    ``early``: it looks at panes of open windows after each event, too.
    """

    name: str
    aggregate: str
    raise_when: Expression
    clear_when: Expression | None
    detail_type: str
    severity: Severity = "warning"
    early: bool = False


@dataclass(frozen=True, slots=True)
class Absence:
    """One ``[[threshold]]`` with `absent_for`: it raises for a key of `aggregate` that was seen and falls silent."""

    name: str
    aggregate: str
    absent_for_ms: int
    detail_type: str
    severity: Severity = "warning"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A whole pipeline file, checked. Durations in milliseconds; `mapping` is None for CloudEvents.

    ``warnings`` are what is allowed and yet worth saying to whoever loads the file.
    """

    name: str
    stream: str
    event_types: tuple[str, ...]
    state_epoch: int
    out_of_orderness_ms: int
    future_bound_ms: int
    resend_horizon_ms: int
    foreign_horizon_ms: int
    max_w: int
    catalogue: Catalogue
    mapping: EventMapping | None
    aggregates: tuple[Aggregate, ...]
    thresholds: tuple[Threshold, ...]
    warnings: tuple[str, ...] = ()
    absences: tuple[Absence, ...] = ()

    def aggregate(self, name: str) -> Aggregate | None:
        """The aggregate of that name."""
        return next((aggregate for aggregate in self.aggregates if aggregate.name == name), None)

    @property
    def named_fields(self) -> tuple[str, ...]:
        """The fields that aggregates name, each once: all that decoding has to bring."""
        names: dict[str, None] = {}
        for aggregate in self.aggregates:
            names |= dict.fromkeys(aggregate.key)
            names |= dict.fromkeys(aggregate.where.names if aggregate.where else ())
            names |= dict.fromkeys(measure.field for measure in aggregate.measures if measure.field is not None)
        return tuple(names)
