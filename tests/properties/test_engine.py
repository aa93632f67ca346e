"""The engine against a model that treats events one by one in plain Python, over random streams cut at random."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.events.catalogue import Catalogue
from streamgauge.events.control import EndOfInput, Tick, control_event
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core import aggregate_state
from streamgauge.processors.core.batch import ControlRecord, Decoded, EventBatch, FieldColumn, Outcome
from streamgauge.processors.core.container import decode_columns, encode_columns
from streamgauge.processors.core.definition import Aggregate, Measure, Pipeline, Threshold, TumblingWindow
from streamgauge.processors.core.effects import Effects, FailureReason, PaneBatch, ThresholdEvent
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.expressions import compile_expression

SHARD = Shard("shardId-000000000000", FULL_RANGE)
SOURCE = "urn:streamgauge:00000000-0000-4000-8000-000000000000:w1024"
BOUND_MS = 30
FUTURE_MS = 200
WINDOWS = {"narrow": (10, 70), "wide": (50, 0), "coarse": (30, 35)}
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


class Script(msgspec.Struct, omit_defaults=True):
    """One record of the scripted wire format: events, or a control record."""

    events: list[Item] = []
    tick_ms: int | None = None
    end: tuple[str, int, int] | None = None


class ScriptedDecoder:
    """Reads `Script` records: the engine's tests need no JSON envelope."""

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
            batch=scripted_batch(rows),
            controls=controls,
            failed=[],
            positions=positions,
            ledger=0,
            misrouted=0,
            redelivered=redelivered,
        )


def scripted_batch(rows: list[tuple[int, int, Item]]) -> EventBatch:
    items = [item for _, _, item in rows]
    return EventBatch(
        record=np.array([record for record, _, _ in rows], dtype=np.int64),
        sub_sequence=np.array([sub for _, sub, _ in rows], dtype=np.int64),
        time_ms=np.array([item.time_ms for item in items], dtype=np.int64),
        source=np.zeros(len(rows), dtype=np.int64),
        sources=[SOURCE] if rows else [],
        source_windows=[1024] if rows else [],
        sequence=np.array([item.sequence for item in items], dtype=np.int64),
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
            window=TumblingWindow(size),
            allowed_lateness_ms=lateness,
            where=compile_expression("data.i < 8", names=EVENT_KINDS, where="where") if name == "coarse" else None,
            measures=measures,
            serve=False,
        )
        for name, (size, lateness) in WINDOWS.items()
    )
    rules = [("hot", "narrow", "high > 5", "high < 3"), ("busy", "narrow", "total > 6", None)]
    rules += [("swing", "narrow", "total > 1", "total < 0")]
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


@pytest.fixture(autouse=True, scope="module")
def keys_are_forgotten_early() -> Iterator[None]:
    """Else no stream here is long enough for keys to be numbered anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregate_state, "_FORGOTTEN_KEYS_MIN", 1)
        yield


# --- random streams

BEHIND = (0, 0, 5, 20, 35, 50, 70, 90, 120, -30, -FUTURE_MS - 40)


@st.composite
def streams(
    draw: st.DrawFn, *, keys: int = 3, big: bool = False, behind: tuple[int, ...] = BEHIND
) -> list[StreamRecord]:
    clock, sequence = 1_000, 0
    numbers = st.none() | st.sampled_from([0.1, 0.2, 0.3, 1e16, -1e16]) | st.integers(-8, 8).map(float)
    integers = st.sampled_from([2**62, 2**62, 2**62, -(2**62), 2**63 - 1, 1]) if big else st.none() | st.integers(-5, 9)
    records: list[StreamRecord] = []
    for number in range(draw(st.integers(1, 14))):
        clock += draw(st.integers(0, 25))
        kind = draw(st.sampled_from(["events"] * 8 + ["tick", "end"]))
        if kind == "tick":
            script = Script(tick_ms=clock + draw(st.integers(-60, 60)))
        elif kind == "end":
            parts = draw(st.integers(1, 2))
            script = Script(end=(draw(st.sampled_from("ab")), draw(st.integers(0, parts - 1)), parts))
        else:
            items = []
            for _ in range(draw(st.integers(1, 6))):
                again = sequence > 0 and draw(st.integers(0, 9)) == 0
                identity = draw(st.integers(0, sequence - 1)) if again else sequence
                sequence += not again
                items.append(
                    Item(
                        identity,
                        "abcdefgh"[draw(st.integers(0, keys - 1))],
                        clock - draw(st.sampled_from(behind)),
                        draw(integers),
                        draw(numbers),
                        draw(st.sampled_from([0] * 18 + [1, 2])),
                    )
                )
            script = Script(events=items)
        arrival = clock + draw(st.integers(-20, 20))
        records.append(StreamRecord(str(10**20 + number), "k", arrival, msgspec.json.encode(script)))
    return records


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
        )
        for row in range(len(panes))
    ]


def run(records: Sequence[StreamRecord], cuts: Sequence[int], *, restarts: bool = False) -> tuple[Result, Engine]:
    result = Result()
    engine = Engine(PIPELINE, SHARD, ScriptedDecoder())
    edges = [0, *sorted(cuts), len(records)]
    for first, after in itertools.pairwise(edges):
        result.add(engine.apply(records[first:after]))
        if restarts:
            columns = decode_columns(encode_columns(engine.snapshot()))
            engine = Engine.restore(PIPELINE, SHARD, ScriptedDecoder(), columns)
    return result, engine


def cuts_of(records: Sequence[StreamRecord]) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(records)), max_size=6)


# --- the model


@dataclass
class ModelPane:
    revision: int = 0
    events: int = 0
    total: int = 0
    integers: int = 0
    numbers: list[float] = field(default_factory=list)

    def measures(self) -> dict[str, int | float | None]:
        total, values = 0.0, self.numbers
        for number in values:
            total += number
        return {
            "n": self.events,
            "numbers": len(values),
            "total": self.total if self.integers else None,
            "low": min(values) if values else None,
            "high": max(values) if values else None,
            "average": total / len(values) if values else None,
        }


class Model:
    """Events one by one: what the engine must agree with, written as plainly as it can be."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.highest = self.highest_arrival = self.watermark = None
        self.arrival = -math.inf
        self.parts: dict[tuple[str, int], set[int]] = {}
        self.panes: dict[str, dict[tuple[int, str], ModelPane]] = {name: {} for name in WINDOWS}
        self.emitted: dict[str, list[tuple[str, int, int, dict[str, int | float | None]]]] = {n: [] for n in WINDOWS}
        self.position = (0, 0)
        self.history: dict[tuple[str, str, int], list[tuple[tuple[int, int], int, dict[str, int | float | None]]]] = {}
        self.late: list[tuple[str, int]] = []
        self.failed: list[tuple[int, str]] = []
        self.accepted = 0

    def feed(self, records: Sequence[StreamRecord]) -> None:
        for record in records:
            self.arrival = max(self.arrival, record.arrival_ms)
            script = msgspec.json.decode(record.data, type=Script)
            self.position = (int(record.sequence_number), 0)
            for sub, item in enumerate(script.events):
                self.position = (int(record.sequence_number), sub)
                self.event(item)
            if script.tick_ms is not None and self.highest is not None:
                idle = self.highest - BOUND_MS + script.tick_ms - self.highest_arrival
                self.raise_to(min(idle, self.end_of_highest()))
            if script.end is not None:
                name, part, parts = script.end
                seen = self.parts.setdefault((name, parts), set())
                if part not in seen:
                    seen.add(part)
                    if len(seen) == parts and self.highest is not None:
                        self.raise_to(self.end_of_highest())

    def end_of_highest(self) -> int:
        return max(self.highest - self.highest % size + size for size, _ in WINDOWS.values())

    def event(self, item: Item) -> None:
        if item.sequence in self.seen:
            return
        self.seen.add(item.sequence)
        if item.outcome == Outcome.FAILED:
            self.failed.append((item.sequence, "data"))
        if item.outcome != Outcome.READ:
            return
        if item.time_ms > self.arrival + FUTURE_MS:
            self.failed.append((item.sequence, "future"))
            return
        if any(self.overflows(name, item) for name in WINDOWS):
            self.failed.append((item.sequence, "overflow"))
            return
        self.accepted += 1
        for name in WINDOWS:
            if self.passes(name, item):
                self.apply(name, item)
        if self.highest is None or item.time_ms > self.highest:
            self.highest, self.highest_arrival = item.time_ms, self.arrival
        self.raise_to(self.highest - BOUND_MS)

    def passes(self, name: str, item: Item) -> bool:
        return name != "coarse" or (item.integer is not None and item.integer < 8)

    def is_late(self, name: str, item: Item, allowed: int) -> bool:
        size, _ = WINDOWS[name]
        end = item.time_ms - item.time_ms % size + size
        return self.watermark is not None and self.watermark >= end + allowed

    def overflows(self, name: str, item: Item) -> bool:
        size, lateness = WINDOWS[name]
        pane = self.panes[name].get((item.time_ms - item.time_ms % size, item.key), ModelPane())
        total = pane.total + (item.integer or 0)
        return self.passes(name, item) and not self.is_late(name, item, lateness) and not -(2**63) <= total < 2**63

    def apply(self, name: str, item: Item) -> None:
        size, lateness = WINDOWS[name]
        start = item.time_ms - item.time_ms % size
        if self.is_late(name, item, lateness):
            self.late.append((name, item.sequence))
            return
        pane = self.panes[name].setdefault((start, item.key), ModelPane())
        pane.events += 1
        if item.integer is not None:
            pane.integers += 1
            pane.total += item.integer
        if item.number is not None:
            pane.numbers.append(item.number)
        if self.is_late(name, item, 0):
            self.emit(name, start, item.key)

    def raise_to(self, watermark: int) -> None:
        before = self.watermark
        self.watermark = watermark if before is None else max(before, watermark)
        for name, (size, _) in WINDOWS.items():
            for start, key in sorted(self.panes[name]):
                if start + size <= self.watermark and self.panes[name][start, key].revision == 0:
                    self.emit(name, start, key)

    def emit(self, name: str, start: int, key: str) -> None:
        pane = self.panes[name][start, key]
        pane.revision += 1
        self.emitted[name].append((key, start, pane.revision, pane.measures()))
        self.history.setdefault((name, key, start), []).append((self.position, pane.revision, pane.measures()))


def crossings_of(panes: list[tuple[int, dict[str, int | float | None]]], rule: str) -> list[tuple[int, str]]:
    """The crossings of a rule over one key's final panes, in window order."""
    conditions = {
        "hot": (lambda m: m["high"] is not None and m["high"] > 5, lambda m: m["high"] is not None and m["high"] < 3),
        "busy": (lambda m: m["total"] is not None and m["total"] > 6, None),
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


# --- the properties


@settings(max_examples=150, deadline=None)
@given(data=st.data(), records=streams())
def test_how_the_stream_is_cut_changes_nothing(data: st.DataObject, records: list[StreamRecord]) -> None:
    whole, whole_engine = run(records, [])
    cut, cut_engine = run(records, data.draw(cuts_of(records)), restarts=data.draw(st.booleans()))
    assert cut.panes == whole.panes
    assert cut.effects == whole.effects
    assert encode_columns(cut_engine.snapshot()) == encode_columns(whole_engine.snapshot())


@settings(max_examples=150, deadline=None)
@given(data=st.data(), records=streams(keys=1, big=True, behind=(0, 0, 5, 40)))
def test_sums_that_overflow_are_decided_event_by_event(data: st.DataObject, records: list[StreamRecord]) -> None:
    whole, whole_engine = run(records, [])
    cut, cut_engine = run(records, data.draw(cuts_of(records)))
    assert cut.panes == whole.panes
    assert cut.effects == whole.effects
    assert encode_columns(cut_engine.snapshot()) == encode_columns(whole_engine.snapshot())
    agrees_with_the_model(records, whole, whole_engine)


@settings(max_examples=150, deadline=None)
@given(records=streams())
def test_the_engine_agrees_with_the_model(records: list[StreamRecord]) -> None:
    result, engine = run(records, [])
    agrees_with_the_model(records, result, engine)


def agrees_with_the_model(records: list[StreamRecord], result: Result, engine: Engine) -> None:
    model = Model()
    model.feed(records)
    assert engine.watermark_ms == model.watermark
    assert engine.counters.accepted == model.accepted
    assert [(e.aggregate, int(e.identity)) for e in result.effects.late] == model.late
    assert [(int(e.identity or -1), str(e.reason)) for e in result.effects.failed] == model.failed
    for name, (size, _) in WINDOWS.items():
        expected = [
            (
                (key,),
                key,
                start,
                start + size,
                revision,
                measures["n"],
                tuple((measure, as_bytes(measure, value)) for measure, value in measures.items()),
            )
            for key, start, revision, measures in model.emitted[name]
        ]
        assert result.panes.get(name, []) == expected


def as_bytes(measure: str, value: int | float | None) -> tuple[str, bytes] | None:
    if value is None:
        return None
    array = np.array([value], dtype=np.int64 if MEASURE_KINDS[measure] == "integer" else np.float64)
    # A minimum of -0.0 is kept as 0.0.
    return array.dtype.str, (array + array.dtype.type(0)).tobytes()


# Most events correct one of the last few windows of one key.
CORRECTING = streams(keys=1, behind=(0, 40, 50, 60, 70, 80, 90))


@settings(max_examples=400, deadline=None)
@given(records=CORRECTING | streams(keys=2))
def test_raises_less_corrected_clears_are_the_crossings_of_the_final_panes(records: list[StreamRecord]) -> None:
    result, _ = run(records, [])
    model = Model()
    model.feed(records)
    events = result.effects.threshold_events
    assert len({event.id for event in events}) == len(events)
    assert [e.rule_sequence for e in events] == sorted({e.rule_sequence for e in events})
    for threshold in PIPELINE.thresholds:
        for key in "abc":
            panes = [
                (start, history[-1][2])
                for (name, of, start), history in model.history.items()
                if (name, of) == (threshold.aggregate, key)
            ]
            mine = [e for e in events if e.rule == threshold.name and e.key == (("subject", key),)]
            check_rule(mine, crossings_of(panes, threshold.name))
            for event in mine:
                check_values(event, model.history[threshold.aggregate, key, event.window_start_ms])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), records=CORRECTING)
def test_corrections_are_decided_event_by_event(data: st.DataObject, records: list[StreamRecord]) -> None:
    whole, whole_engine = run(records, [])
    cut, cut_engine = run(records, data.draw(cuts_of(records)), restarts=data.draw(st.booleans()))
    assert cut.panes == whole.panes
    assert cut.effects == whole.effects
    assert encode_columns(cut_engine.snapshot()) == encode_columns(whole_engine.snapshot())


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
    if back:
        assert len({event.state for event in events}) == 1


def check_values(
    event: ThresholdEvent, history: list[tuple[tuple[int, int], int, dict[str, int | float | None]]]
) -> None:
    """A threshold event shows its pane as it stood when it was decided."""
    _, revision, measures = [entry for entry in history if entry[0] <= event.rule_sequence[:2]][-1]
    assert (event.revision, dict(event.measures)) == (revision, measures)


@settings(max_examples=100, deadline=None)
@given(records=streams())
def test_every_position_and_every_event_is_counted_once(records: list[StreamRecord]) -> None:
    _, engine = run(records, [])
    c = engine.counters
    assert c.positions == sum(max(1, len(msgspec.json.decode(r.data, type=Script).events)) for r in records)
    duplicates = c.duplicate_in_window + c.duplicate_below_window + c.duplicate_foreign
    others = c.type_not_read + sum(c.failed.values()) + c.control + c.ledger + c.misrouted
    assert c.positions == c.accepted + duplicates + others
    for aggregate in c.aggregates.values():
        assert c.accepted == aggregate.accepted_before + aggregate.applied + aggregate.filtered + aggregate.late


@settings(max_examples=100, deadline=None)
@given(data=st.data(), records=streams())
def test_redelivered_records_change_nothing_but_their_counter(data: st.DataObject, records: list[StreamRecord]) -> None:
    whole, engine = run(records, [])
    result, again = Result(), Engine(PIPELINE, SHARD, ScriptedDecoder())
    cut = data.draw(st.integers(0, len(records)))
    back = data.draw(st.integers(0, cut))
    result.add(again.apply(records[:cut]))
    result.add(again.apply(records[back:]))
    assert result.panes == whole.panes
    assert result.effects == whole.effects
    assert again.position == engine.position
    again.counters.redelivered = 0
    assert encode_columns(again.snapshot()) == encode_columns(engine.snapshot())
