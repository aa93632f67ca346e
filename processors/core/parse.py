"""Reading a pipeline file. The grammar is in ``docs/adr/0004-pipeline-file-grammar.md``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar, get_args

from streamgauge.events.catalogue import Catalogue, FieldType
from streamgauge.events.envelope import MAX_SEQUENCE_WINDOW, MIN_SEQUENCE_WINDOW, RESERVED_TYPE_PREFIX
from streamgauge.events.mapping import EventMapping, MappingError, parse_mapping
from streamgauge.processors.core.definition import Absence, Aggregate, Pipeline, Severity, Threshold
from streamgauge.processors.core.expressions import Expression, Kind, compile_expression
from streamgauge.processors.core.parse_measures import parse_measures
from streamgauge.processors.core.parse_windows import TimeZones, parse_window
from streamgauge.processors.core.toml_tables import PipelineFileError, Table, TomlFile
from streamgauge.processors.core.window_kinds import TumblingWindow

__all__ = ["PipelineFileError", "parse_pipeline"]

DEFAULT_FUTURE_BOUND = "1h"
DEFAULT_RESEND_HORIZON = "24h"
DEFAULT_FOREIGN_HORIZON = "1h"
DEFAULT_MAX_W = 65_536

_ENVELOPE_FIELDS = ("subject", "partitionkey", "type", "source")
_PIPELINE_KEYS = (
    "name",
    "stream",
    "event_types",
    "schemas",
    "out_of_orderness",
    "state_epoch",
    "future_bound",
    "resend_horizon",
    "foreign_horizon",
    "max_w",
)
_EVENT_KEYS = ("id", "time", "time_format", "type", "key", "source")
_AGGREGATE_KEYS = ("name", "key", "window", "allowed_lateness", "where", "measures", "serve")
_THRESHOLD_KEYS = ("name", "aggregate", "raise_when", "clear_when", "detail_type", "severity", "early")
_ABSENCE_KEYS = ("name", "aggregate", "absent_for", "detail_type", "severity")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_STREAM = re.compile(r"[A-Za-z0-9_.-]{1,128}")

NO_ID_WARNING = "without an id the producers' own retries are not removed"


def parse_pipeline(text: str, *, file: str, schemas: Catalogue, time_zones: TimeZones | None = None) -> Pipeline:
    """Read and check a pipeline file.

    Parameters
    ----------
    text
        TOML.
    file
        Its name, for errors.
    schemas
        The catalogue that its ``schemas`` folder holds.
    time_zones
        Where windows that name a time zone find it; None if they are to be refused.

    Raises
    ------
    PipelineFileError
        With file and line: no TOML; an unknown table, key, event type or field; a value of a wrong type; a bad
        duration; a name used twice; an aggregate key that does not determine the partition key; a measure or window
        that this version does not have.
    ExpressionError
        An expression that is not in the grammar, with its column.
    """
    toml = TomlFile(text, file)
    toml.check_tables(singles=("pipeline", "event"), arrays=("aggregate", "threshold"))
    table = toml.table("pipeline")
    if table is None:
        raise PipelineFileError("the table [pipeline] is missing", where=f"{file}, line 1")
    table.check_keys(_PIPELINE_KEYS)
    event_types = _event_types(table, schemas)
    mapping = _mapping(toml, event_types)
    fields = _Fields(schemas, event_types, is_mapped=mapping is not None)
    aggregates = _distinct(
        toml, "aggregate", [_aggregate(entry, fields, time_zones) for entry in toml.tables("aggregate")]
    )
    rules = _distinct(toml, "threshold", [_threshold(entry, aggregates) for entry in toml.tables("threshold")])
    return Pipeline(
        name=_name(table),
        stream=_stream(table),
        event_types=event_types,
        state_epoch=_at_least(table, "state_epoch", 1, default=1),
        out_of_orderness_ms=table.duration("out_of_orderness"),
        future_bound_ms=table.duration("future_bound", DEFAULT_FUTURE_BOUND),
        resend_horizon_ms=table.duration("resend_horizon", DEFAULT_RESEND_HORIZON, least_ms=1_000),
        foreign_horizon_ms=table.duration("foreign_horizon", DEFAULT_FOREIGN_HORIZON),
        max_w=_max_w(table),
        catalogue=schemas,
        mapping=mapping,
        aggregates=tuple(aggregates),
        thresholds=tuple(rule for rule in rules if isinstance(rule, Threshold)),
        absences=tuple(rule for rule in rules if isinstance(rule, Absence)),
        warnings=(NO_ID_WARNING,) if mapping is not None and mapping.id is None else (),
    )


class _Fields:
    """What a pipeline may name, from the newest versions of the types that it reads."""

    def __init__(self, schemas: Catalogue, event_types: Iterable[str], *, is_mapped: bool) -> None:
        self.is_mapped = is_mapped
        self.kinds: dict[str, Kind] = dict.fromkeys(_ENVELOPE_FIELDS, "string")
        self.nullable: set[str] = set()
        self._conflicts: dict[str, str] = {}
        by_type = {event_type: schemas.fields(event_type) for event_type in event_types}
        for event_type, fields in by_type.items():
            for path, field in fields.items():
                self._add(f"data.{path}", field, event_type)
        for fields in by_type.values():
            self.nullable |= {f"data.{path}" for path, field in fields.items() if field.nullable}
            self.nullable |= {name for name in self.kinds if name.startswith("data.") and name[5:] not in fields}

    def _add(self, name: str, field: FieldType, event_type: str) -> None:
        known = self.kinds.setdefault(name, field.kind)
        if known == field.kind:
            return
        if {known, field.kind} == {"integer", "number"}:
            self.kinds[name] = "number"
        else:
            self._conflicts[name] = f"{field.kind} in {event_type}, {known} in another event type of this pipeline"

    def check(self, table: Table, key: str, name: str) -> Kind:
        """The kind of a field that `key` names."""
        if name in self._conflicts:
            raise table.error(key, f"{name} is {self._conflicts[name]}", "Types that are read together must agree")
        if name not in self.kinds:
            raise table.error(key, f"unknown field {name!r}", f"Known are {', '.join(sorted(self.kinds))}")
        return self.kinds[name]

    def compile(self, table: Table, key: str, text: str) -> Expression:
        """An expression over events."""
        expression = compile_expression(text, names=self.kinds, where=f"{table.where(key)}, {key}")
        for name in expression.names:
            self.check(table, key, name)
        return expression


def _event_types(table: Table, schemas: Catalogue) -> tuple[str, ...]:
    event_types = table.strings("event_types")
    for event_type in event_types:
        if event_type.startswith(RESERVED_TYPE_PREFIX):
            raise table.error("event_types", f"types beginning with {RESERVED_TYPE_PREFIX!r} are reserved")
        if event_type not in schemas.types:
            known = ", ".join(schemas.types) or "none"
            raise table.error(
                "event_types",
                f"unknown event type {event_type!r}",
                f"The catalogue has: {known}. Put its schema at <schemas>/{event_type}/1.json",
            )
    return event_types


def _mapping(toml: TomlFile, event_types: tuple[str, ...]) -> EventMapping | None:
    table = toml.table("event")
    if table is None:
        return None
    table.check_keys(_EVENT_KEYS)
    try:
        mapping = parse_mapping(table.values, where=table.where())
    except MappingError as error:
        # The mapping's errors end in the entry's name, which has a line of its own.
        entry = (error.where or "").removeprefix(table.where()).strip()
        raise table.error(entry or None, error.what, error.remedy) from error
    constant = mapping.type.constant
    if constant is not None and constant not in event_types:
        raise table.error("type", f"{constant!r} is not among event_types", f"Name one of {', '.join(event_types)}")
    return mapping


def _aggregate(table: Table, fields: _Fields, time_zones: TimeZones | None) -> Aggregate:
    table.check_keys(_AGGREGATE_KEYS)
    where = table.string("where", "") if "where" in table.values else None
    return Aggregate(
        name=_name(table),
        key=_key(table, fields),
        window=parse_window(table.inner("window"), time_zones),
        allowed_lateness_ms=table.duration("allowed_lateness", "0s"),
        where=None if where is None else fields.compile(table, "where", where),
        measures=parse_measures(table.inner("measures"), fields.check),
        serve=table.boolean("serve", default=False),
    )


def _key(table: Table, fields: _Fields) -> tuple[str, ...]:
    key = table.strings("key")
    for name in key:
        if fields.check(table, "key", name) not in ("string", "integer"):
            raise table.error("key", f"{name} is a {fields.kinds[name]}; keys are strings or integers")
        if name in fields.nullable:
            raise table.error(
                "key", f"{name} may be null or absent, and an event without a key has no window", "Make it required"
            )
    wanted = ("subject",) if fields.is_mapped else ("subject", "partitionkey")
    if not set(wanted) & set(key):
        raise table.error(
            "key",
            "it does not determine the partition key, so its windows would be spread over shards",
            f"Add {' or '.join(repr(name) for name in wanted)}",
        )
    return key


def _threshold(table: Table, aggregates: list[Aggregate]) -> Threshold | Absence:
    table.check_keys(_ABSENCE_KEYS if "absent_for" in table.values else _THRESHOLD_KEYS)
    name, wanted = _name(table), table.string("aggregate")
    aggregate = next((known for known in aggregates if known.name == wanted), None)
    if aggregate is None:
        known_names = ", ".join(known.name for known in aggregates) or "none"
        raise table.error("aggregate", f"there is no aggregate {wanted!r}", f"Known are: {known_names}")
    names: Mapping[str, Kind] = {
        measure.name: "integer" if measure.is_integer else "number" for measure in aggregate.measures
    }

    def rule(key: str) -> Expression:
        return compile_expression(table.string(key), names=names, where=f"{table.where(key)}, {key}")

    detail_type = table.string("detail_type", name)
    if len(detail_type) > 128:
        raise table.error("detail_type", "longer than EventBridge's 128 characters")
    if "absent_for" in table.values:
        return Absence(name, wanted, table.duration("absent_for", least_ms=1), detail_type, _severity(table))
    return Threshold(
        name=name,
        aggregate=wanted,
        raise_when=rule("raise_when"),
        clear_when=rule("clear_when") if "clear_when" in table.values else None,
        detail_type=detail_type,
        severity=_severity(table),
        early=_early(table, aggregate),
    )


def _early(table: Table, aggregate: Aggregate) -> bool:
    early = table.boolean("early", default=False)
    if early and not isinstance(aggregate.window, TumblingWindow):
        raise table.error("early", f"looks into tumbling windows only, and {aggregate.name!r} has others")
    slow = [measure.name for measure in aggregate.measures if not measure.has_running_values]
    if early and slow:
        raise table.error(
            "early",
            f"{', '.join(slow)} of {aggregate.name!r} cannot be had after each event",
            "Give the rule an aggregate of its own, of count, min, max and sums of integers only",
        )
    return early


def _severity(table: Table) -> Severity:
    given = table.string("severity", "warning")
    found: Severity | None = next((severity for severity in get_args(Severity) if severity == given), None)
    if found is None:
        raise table.error("severity", f"{given!r} is none of {', '.join(get_args(Severity))}")
    return found


def _name(table: Table) -> str:
    name = table.string("name")
    if _NAME.fullmatch(name) is None:
        raise table.error("name", f"{name!r} is no name: a letter, then up to 63 letters, digits, _ and -")
    return name


def _stream(table: Table) -> str:
    stream = table.string("stream")
    if _STREAM.fullmatch(stream) is None:
        raise table.error("stream", f"{stream!r} is no stream name: 1 to 128 letters, digits, _ . and -")
    return stream


def _at_least(table: Table, key: str, least: int, *, default: int) -> int:
    value = table.integer(key, default)
    if not least <= value < 2**53:
        raise table.error(key, f"must be at least {least}, not {value}")
    return value


def _max_w(table: Table) -> int:
    value = table.integer("max_w", DEFAULT_MAX_W)
    if value & (value - 1) or not MIN_SEQUENCE_WINDOW <= value <= MAX_SEQUENCE_WINDOW:
        raise table.error(
            "max_w", f"must be a power of two from {MIN_SEQUENCE_WINDOW} to {MAX_SEQUENCE_WINDOW}, not {value}"
        )
    return value


Named = TypeVar("Named", bound=Aggregate | Threshold | Absence)


def _distinct(toml: TomlFile, kind: str, entries: list[Named]) -> list[Named]:
    seen: set[str] = set()
    for table, entry in zip(toml.tables(kind), entries, strict=True):
        if entry.name in seen:
            raise table.error("name", f"there are two {kind}s called {entry.name!r}")
        seen.add(entry.name)
    return entries
