"""The engine against a model that treats events one by one in plain Python, over random streams cut at random."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_events import (
    BOUND_MS,
    FUTURE_MS,
    PIPELINE,
    SHARD,
    WINDOWS,
    Item,
    Result,
    Script,
    ScriptedDecoder,
    as_bytes,
    check_rule,
    check_values,
    crossings_of,
    pane_rows,
)
from window_models import Late, Shown, Values, model_of

from streamgauge.events.records import StreamRecord
from streamgauge.processors.core import aggregate_state
from streamgauge.processors.core.batch import Outcome
from streamgauge.processors.core.container import decode_columns, encode_columns
from streamgauge.processors.core.engine import Engine


@pytest.fixture(autouse=True, scope="module")
def keys_are_forgotten_early() -> Iterator[None]:
    """Else no stream here is long enough for keys to be numbered anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregate_state, "_FORGOTTEN_KEYS_MIN", 1)
        yield


# --- random streams

KEYS = "abcdefgh"

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
                        KEYS[draw(st.integers(0, keys - 1))],
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


class Model:
    """Events one by one: what the engine must agree with, written as plainly as it can be."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.highest = self.highest_arrival = self.watermark = None
        self.arrival = -math.inf
        self.parts: dict[tuple[str, int], set[int]] = {}
        self.windows = {name: model_of(window, lateness, KEYS) for name, (window, lateness) in WINDOWS.items()}
        self.emitted: dict[str, list[Shown]] = {name: [] for name in WINDOWS}
        self.position = (0, 0)
        self.history: dict[tuple[str, str, int], list[tuple[tuple[int, int], int, Values]]] = {}
        self.standing: dict[tuple[str, str, int], Values] = {}
        self.late: list[tuple[str, int, Late]] = []
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
        return max(model.end_of(self.highest) for model in self.windows.values())

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

    def overflows(self, name: str, item: Item) -> bool:
        if not self.passes(name, item):
            return False
        totals = self.windows[name].totals(item.key, item.time_ms, self.closed_to())
        return any(not -(2**63) <= total + (item.integer or 0) < 2**63 for total in totals)

    def closed_to(self) -> float:
        return -math.inf if self.watermark is None else self.watermark

    def apply(self, name: str, item: Item) -> None:
        shown, late = self.windows[name].add(item.key, item.time_ms, item.integer, item.number, self.closed_to())
        if late is not None:
            self.late.append((name, item.sequence, late))
        self.emit(name, shown)

    def raise_to(self, watermark: int) -> None:
        before = self.watermark
        self.watermark = watermark if before is None else max(before, watermark)
        for name, model in self.windows.items():
            self.emit(name, model.close(KEYS, self.watermark))

    def emit(self, name: str, shown: list[Shown]) -> None:
        for pane in shown:
            window = name, pane.key, pane.start
            self.emitted[name].append(pane)
            self.history.setdefault(window, []).append((self.position, pane.revision, pane.measures))
            self.standing.pop(window, None)
            if not pane.tombstone:
                self.standing[window] = pane.measures


# --- the properties


@settings(max_examples=150, deadline=None)
@given(data=st.data(), records=streams())
def test_cutting_the_stream_into_batches_differently_gives_identical_bytes_of_panes_and_effects(
    data: st.DataObject, records: list[StreamRecord]
) -> None:
    whole, whole_engine = run(records, [])
    cut, cut_engine = run(records, data.draw(cuts_of(records)), restarts=data.draw(st.booleans()))
    assert cut.panes == whole.panes
    assert cut.effects == whole.effects
    # To the bit: -0.0 is not 0.0.
    assert repr(cut.effects) == repr(whole.effects)
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
    late = [(event.aggregate, int(event.identity), event.window_start_ms) for event in result.effects.late]
    assert late == [(name, sequence, each.start) for name, sequence, each in model.late]
    assert [(int(e.identity or -1), str(e.reason)) for e in result.effects.failed] == model.failed
    opened = {panes.aggregate: panes for panes in engine.open_panes()}
    for name, windows in model.windows.items():
        assert result.panes.get(name, []) == [
            (
                (pane.key,),
                pane.key,
                pane.start,
                pane.end,
                pane.revision,
                pane.measures["n"],
                tuple((measure, as_bytes(measure, value)) for measure, value in pane.measures.items()),
                pane.tombstone,
            )
            for pane in model.emitted[name]
        ]
        rows = pane_rows(opened[name]) if name in opened else []
        assert {(row[1], row[2]): row[6] for row in rows} == {
            window: tuple((measure, as_bytes(measure, value)) for measure, value in measures.items())
            for window, measures in windows.open().items()
        }
        counters = engine.counters.aggregates[name]
        mine = [each for aggregate, _, each in model.late if aggregate == name]
        assert (counters.late, counters.late_in_part) == (
            sum(not each.in_part for each in mine),
            sum(each.in_part for each in mine),
        )
        assert counters.cut_sessions == getattr(windows, "cut", 0)


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
                (start, values)
                for (name, of, start), values in model.standing.items()
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


@settings(max_examples=100, deadline=None)
@given(data=st.data(), records=streams())
def test_replay_of_any_prefix_changes_nothing(data: st.DataObject, records: list[StreamRecord]) -> None:
    _, engine = run(records, [])
    before, positions = encode_columns(engine.snapshot()), engine.counters.positions
    for _ in range(data.draw(st.integers(1, 3))):
        prefix = records[: data.draw(st.integers(0, len(records)))]
        replayed = engine.apply(prefix)
        assert not (replayed.panes or replayed.threshold_events or replayed.failed or replayed.late)
        assert engine.counters.redelivered == sum(
            max(1, len(msgspec.json.decode(r.data, type=Script).events)) for r in prefix
        )
        assert engine.counters.positions == positions
        engine.counters.redelivered = 0
    assert encode_columns(engine.snapshot()) == before
