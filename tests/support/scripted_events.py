"""Events without an envelope for tests of the engine, a pipeline to run them through, and what must come of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from streamgauge.events.catalogue import Catalogue
from streamgauge.events.control import EndOfInput, Tick, control_event
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.batch import ControlRecord, Decoded, EventBatch, FieldColumn, Outcome
from streamgauge.processors.core.definition import (
    Aggregate,
    HoppingWindow,
    Measure,
    Pipeline,
    SessionWindow,
    Threshold,
    TumblingWindow,
    Window,
)
from streamgauge.processors.core.effects import Effects, FailureReason, PaneBatch, ThresholdEvent
from streamgauge.processors.core.expressions import compile_expression

SHARD = Shard("shardId-000000000000", FULL_RANGE)
SOURCE = "urn:streamgauge:00000000-0000-4000-8000-000000000000:w1024"
BOUND_MS = 30
FUTURE_MS = 200
WINDOWS: dict[str, tuple[Window, int]] = {
    "narrow": (TumblingWindow(10), 70),
    "wide": (TumblingWindow(50), 0),
    "coarse": (TumblingWindow(30), 35),
    "hops": (HoppingWindow(30, 10), 25),
    "visits": (SessionWindow(20, 70), 40),
}
"""By aggregate its window and allowed lateness."""
EVENT_KINDS = {"subject": "string", "data.i": "integer", "data.f": "number"}
MEASURE_KINDS = {
    "n": "integer",
    "numbers": "integer",
    "total": "integer",
    "low": "number",
    "high": "number",
    "average": "number",
}


class Item(msgspec.Struct, array_like=True):
    """One event of the scripted wire format."""

    sequence: int
    key: str
    time_ms: int
    integer: int | None
    number: float | None
    outcome: int = 0
    source: int = 0


class Script(msgspec.Struct, omit_defaults=True):
    """One record of the scripted wire format: events, or a control record."""

    events: list[Item] = []
    tick_ms: int | None = None
    end: tuple[str, int, int] | None = None


class ScriptedDecoder:
    """Reads `Script` records: the engine's tests need no JSON envelope. Sources have a W each, 0 being foreign."""

    def __init__(self, windows: Mapping[str, int] | None = None) -> None:
        self._windows = windows or {SOURCE: 1024}

    def decode(self, records: Sequence[StreamRecord], shard: Shard, after: Position | None) -> Decoded:
        rows: list[tuple[int, int, Item]] = []
        controls: list[ControlRecord] = []
        positions = redelivered = last = 0
        for index, record in enumerate(records):
            script = msgspec.json.decode(record.data, type=Script)
            count = max(1, len(script.events))
            for sub in range(count):
                last = sub
                if after is not None and (int(record.sequence_number), sub) <= after:
                    redelivered += 1
                    continue
                positions += 1
                if script.events:
                    rows.append((index, sub, script.events[sub]))
                    continue
                body = Tick(script.tick_ms) if script.tick_ms is not None else EndOfInput(*(script.end or ("", 0, 1)))
                event = control_event("test", body, id=record.sequence_number, time_ms=record.arrival_ms)
                controls.append(ControlRecord(index, 0, event))
        return Decoded(
            sequence_numbers=[int(record.sequence_number) for record in records],
            arrival_ms=np.array([record.arrival_ms for record in records], dtype=np.int64),
            last_sub_sequence=last,
            batch=scripted_batch(rows, self._windows),
            controls=controls,
            failed=[],
            positions=positions,
            ledger=0,
            misrouted=0,
            redelivered=redelivered,
        )


def scripted_batch(rows: list[tuple[int, int, Item]], windows: Mapping[str, int]) -> EventBatch:
    items = [item for _, _, item in rows]
    is_own = [window > 0 for window in windows.values()]
    return EventBatch(
        record=np.array([record for record, _, _ in rows], dtype=np.int64),
        sub_sequence=np.array([sub for _, sub, _ in rows], dtype=np.int64),
        time_ms=np.array([item.time_ms for item in items], dtype=np.int64),
        source=np.array([item.source for item in items], dtype=np.int64),
        sources=list(windows) if rows else [],
        source_windows=list(windows.values()) if rows else [],
        sequence=np.array([item.sequence if is_own[item.source] else -1 for item in items], dtype=np.int64),
        ids=[str(item.sequence) for item in items],
        partition_keys=[item.key for item in items],
        outcome=np.array([item.outcome for item in items], dtype=np.uint8),
        failures={
            row: (FailureReason.DATA, "scripted") for row, item in enumerate(items) if item.outcome == Outcome.FAILED
        },
        fields={
            "subject": FieldColumn([item.key for item in items], np.ones(len(items), dtype=np.bool_)),
            "data.i": FieldColumn(
                np.array([item.integer or 0 for item in items], dtype=np.int64),
                np.array([item.integer is not None for item in items], dtype=np.bool_),
            ),
            "data.f": FieldColumn(
                np.array([item.number or 0.0 for item in items], dtype=np.float64),
                np.array([item.number is not None for item in items], dtype=np.bool_),
            ),
        },
        payloads=[msgspec.json.encode(item) for item in items],
    )


def pipeline() -> Pipeline:
    measures = (
        Measure("n", "count", None, is_integer=True),
        Measure("numbers", "count", "data.f", is_integer=True),
        Measure("total", "sum", "data.i", is_integer=True),
        Measure("low", "min", "data.f", is_integer=False),
        Measure("high", "max", "data.f", is_integer=False),
        Measure("average", "mean", "data.f", is_integer=False),
    )
    aggregates = tuple(
        Aggregate(
            name=name,
            key=("subject",),
            window=window,
            allowed_lateness_ms=lateness,
            where=compile_expression("data.i < 8", names=EVENT_KINDS, where="where") if name == "coarse" else None,
            measures=measures,
            serve=False,
        )
        for name, (window, lateness) in WINDOWS.items()
    )
    rules = [("hot", "narrow", "high > 5", "high < 3"), ("busy", "narrow", "total > 6", None)]
    rules += [("swing", "narrow", "total > 1", "total < 0")]
    rules += [("surge", "hops", "high > 5", "high < 3"), ("rush", "hops", "total > 6", None)]
    rules += [("storm", "visits", "high > 5", "n > 3 and high < 3"), ("crowd", "visits", "n > 3", None)]
    rules += [("cold", "wide", "low < -4", "low > -2"), ("both", "coarse", "high > 2", "n > 1")]
    thresholds = tuple(
        Threshold(
            name=name,
            aggregate=aggregate,
            raise_when=compile_expression(raise_when, names=MEASURE_KINDS, where=name),
            clear_when=clear_when and compile_expression(clear_when, names=MEASURE_KINDS, where=name),
            detail_type=name.title(),
        )
        for name, aggregate, raise_when, clear_when in rules
    )
    return Pipeline(
        name="p",
        stream="s",
        event_types=("t",),
        state_epoch=1,
        out_of_orderness_ms=BOUND_MS,
        future_bound_ms=FUTURE_MS,
        resend_horizon_ms=10**9,
        foreign_horizon_ms=10**9,
        max_w=16_384,
        catalogue=Catalogue([]),
        mapping=None,
        aggregates=aggregates,
        thresholds=thresholds,
    )


PIPELINE = pipeline()


@dataclass
class Result:
    panes: dict[str, list[tuple[object, ...]]] = field(default_factory=dict)
    effects: Effects = field(default_factory=Effects)

    def add(self, effects: Effects) -> None:
        for panes in effects.panes:
            self.panes.setdefault(panes.aggregate, []).extend(pane_rows(panes))
        self.effects.threshold_events += effects.threshold_events
        self.effects.failed += effects.failed
        self.effects.late += effects.late


def pane_rows(panes: PaneBatch) -> list[tuple[object, ...]]:
    """One row per pane; floats as their bytes, since the promise is about bytes."""
    measures = {
        name: [
            (column.values.dtype.str, value.tobytes()) if present else None
            for value, present in zip(column.values, column.present, strict=True)
        ]
        for name, column in panes.measures.items()
    }
    return [
        (
            panes.keys[row],
            panes.partition_keys[row],
            int(panes.window_start_ms[row]),
            int(panes.window_end_ms[row]),
            int(panes.revision[row]),
            int(panes.event_count[row]),
            tuple((name, values[row]) for name, values in measures.items()),
            bool(panes.tombstone[row]),
        )
        for row in range(len(panes))
    ]


def crossings_of(panes: list[tuple[int, dict[str, int | float | None]]], rule: str) -> list[tuple[int, str]]:
    """The crossings of a rule over one key's final panes, in window order."""
    conditions = {
        "hot": (lambda m: m["high"] is not None and m["high"] > 5, lambda m: m["high"] is not None and m["high"] < 3),
        "busy": (lambda m: m["total"] is not None and m["total"] > 6, None),
        "surge": (lambda m: m["high"] is not None and m["high"] > 5, lambda m: m["high"] is not None and m["high"] < 3),
        "rush": (lambda m: m["total"] is not None and m["total"] > 6, None),
        "storm": (
            lambda m: m["high"] is not None and m["high"] > 5,
            lambda m: m["n"] > 3 and m["high"] is not None and m["high"] < 3,
        ),
        "crowd": (lambda m: m["n"] > 3, None),
        "swing": (
            lambda m: m["total"] is not None and m["total"] > 1,
            lambda m: m["total"] is not None and m["total"] < 0,
        ),
        "cold": (lambda m: m["low"] is not None and m["low"] < -4, lambda m: m["low"] is not None and m["low"] > -2),
        "both": (lambda m: m["high"] is not None and m["high"] > 2, lambda m: m["n"] > 1),
    }
    raises, clears = conditions[rule]
    crossings, raised = [], False
    for start, measures in sorted(panes, key=lambda pane: pane[0]):
        if clears is None:
            if raises(measures):
                crossings.append((start, "raise"))
        elif not raised and raises(measures):
            raised = True
            crossings.append((start, "raise"))
        elif raised and clears(measures):
            raised = False
            crossings.append((start, "clear"))
    return crossings


def as_bytes(measure: str, value: int | float | None) -> tuple[str, bytes] | None:
    if value is None:
        return None
    array = np.array([value], dtype=np.int64 if MEASURE_KINDS[measure] == "integer" else np.float64)
    # A minimum of -0.0 is kept as 0.0.
    return array.dtype.str, (array + array.dtype.type(0)).tobytes()


def check_rule(events: list[ThresholdEvent], expected: list[tuple[int, str]]) -> None:
    standing: dict[str, ThresholdEvent] = {}
    for event in events:
        if event.takes_back is None:
            assert event.reason == "crossed"
            standing[event.id] = event
        else:
            assert event.reason == "corrected"
            taken = standing.pop(event.takes_back)
            assert (taken.kind, event.kind) in {("raise", "clear"), ("clear", "raise")}
            assert taken.window_start_ms == event.window_start_ms
    assert sorted((e.window_start_ms, e.kind) for e in standing.values()) == sorted(expected)
    raises = sum(e.kind == "raise" and e.reason == "crossed" for e in events)
    corrected_clears = sum(e.kind == "clear" and e.reason == "corrected" for e in events)
    assert raises - corrected_clears == sum(kind == "raise" for _, kind in expected)
    if events and events[-1].clear_when is not None:
        assert events[-1].state == ("raised" if expected and expected[-1][1] == "raise" else "cleared")
    for _, group in itertools.groupby(events, key=lambda event: event.rule_sequence[:2]):
        check_order(list(group))


def check_order(events: list[ThresholdEvent]) -> None:
    """Of one decision: take-backs first, newest window first, then new crossings in window order."""
    back = [event.window_start_ms for event in events if event.takes_back is not None]
    new = [event.window_start_ms for event in events if event.takes_back is None]
    assert [event.window_start_ms for event in events] == sorted(back, reverse=True) + sorted(new)
    if back and events[0].clear_when is not None:
        assert len({event.state for event in events}) == 1


def check_values(
    event: ThresholdEvent, history: list[tuple[tuple[int, int], int, dict[str, int | float | None]]]
) -> None:
    """A threshold event shows its pane as it stood when it was decided."""
    _, revision, measures = [entry for entry in history if entry[0] <= event.rule_sequence[:2]][-1]
    assert (event.revision, dict(event.measures)) == (revision, measures)
