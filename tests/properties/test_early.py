"""Rules that look at open panes after each event: against plain Python, an event at a time, however it is cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_events import BOUND_MS, PIPELINE, SHARD, Item, Result, Script, ScriptedDecoder, check_order, crossings_of
from window_models import NEVER, FixedModel, Values

from streamgauge.events.records import StreamRecord
from streamgauge.processors.core.container import decode_columns, encode_columns
from streamgauge.processors.core.engine import Engine

SIZE_MS, LATENESS_MS = 10, 70
NARROW = replace(
    PIPELINE.aggregates[0],
    measures=tuple(measure for measure in PIPELINE.aggregates[0].measures if measure.name != "average"),
)
RULES = tuple(replace(rule, early=True) for rule in PIPELINE.thresholds if rule.aggregate == "narrow")
PLAIN = tuple(replace(rule, name=f"{rule.name}_at_close", early=False) for rule in RULES)
EARLY = replace(PIPELINE, aggregates=(NARROW,), thresholds=(*RULES, *PLAIN))


@st.composite
def streams(draw: st.DrawFn) -> list[StreamRecord]:
    clock, sequence = 1_000, 0
    records: list[StreamRecord] = []
    for number in range(draw(st.integers(1, 10))):
        clock += draw(st.integers(0, 15))
        items = []
        for _ in range(draw(st.integers(1, 6))):
            behind = draw(st.sampled_from([0, 0, 3, 8, 12, 25, 29, 45, 70, 110]))
            integer = draw(st.none() | st.integers(-5, 9))
            number_of = draw(st.none() | st.integers(-8, 8).map(float))
            items.append(Item(sequence, draw(st.sampled_from("ab")), clock - behind, integer, number_of))
            sequence += 1
        script = Script(tick_ms=clock + 50) if draw(st.integers(0, 9)) == 0 else Script(events=items)
        records.append(StreamRecord(str(10**20 + number), "k", clock, msgspec.json.encode(script)))
    return records


def run(records: Sequence[StreamRecord], cuts: Sequence[int], *, restarts: bool = False) -> tuple[Result, Engine]:
    result, engine = Result(), Engine(EARLY, SHARD, ScriptedDecoder())
    for first, after in itertools.pairwise([0, *sorted(cuts), len(records)]):
        result.add(engine.apply(records[first:after]))
        if restarts:
            columns = decode_columns(encode_columns(engine.snapshot()))
            engine = Engine.restore(EARLY, SHARD, ScriptedDecoder(), columns)
    return result, engine


@settings(max_examples=120, deadline=None)
@given(data=st.data(), records=streams())
def test_early_looks_do_not_depend_on_how_the_stream_is_cut(data: st.DataObject, records: list[StreamRecord]) -> None:
    whole, whole_engine = run(records, [])
    cuts = data.draw(st.lists(st.integers(0, len(records)), max_size=6))
    cut, cut_engine = run(records, cuts, restarts=data.draw(st.booleans()))
    assert cut.panes == whole.panes
    assert cut.effects == whole.effects
    assert encode_columns(cut_engine.snapshot()) == encode_columns(whole_engine.snapshot())


class Model:
    """After each event the crossings that the key's panes call for, open ones included, as they stand then."""

    def __init__(self) -> None:
        self.panes = FixedModel(NARROW.window, LATENESS_MS, "ab")  # type: ignore[arg-type]
        self.highest = self.highest_arrival = self.watermark = NEVER
        self.values: dict[tuple[str, int], Values] = {}
        self.decisions: list[tuple[tuple[int, int], str, list[tuple[str, int, str]]]] = []
        self.standing: dict[str, set[tuple[str, int, str]]] = {rule.name: set() for rule in RULES}

    def feed(self, records: Sequence[StreamRecord]) -> None:
        for record in records:
            script = msgspec.json.decode(record.data, type=Script)
            for sub, item in enumerate(script.events):
                self.event(item, record.arrival_ms, (int(record.sequence_number), sub))
            if script.tick_ms is not None and self.highest != NEVER:
                idle = self.highest - BOUND_MS + script.tick_ms - self.highest_arrival
                self.watermark = max(self.watermark, min(idle, self.panes.end_of(int(self.highest))))
                self.panes.close("ab", self.watermark)

    def event(self, item: Item, arrival_ms: int, position: tuple[int, int]) -> None:
        shown, late = self.panes.add(item.key, item.time_ms, item.integer, item.number, self.watermark)
        if item.time_ms > self.highest:
            self.highest, self.highest_arrival = item.time_ms, arrival_ms
        self.watermark = max(self.watermark, self.highest - BOUND_MS)
        start = item.time_ms - item.time_ms % SIZE_MS
        if late is None:
            pane = shown[0].measures if shown else self.panes.made(start, item.key).measures()
            self.values[item.key, start] = {name: value for name, value in pane.items() if name != "average"}
        self.panes.close("ab", self.watermark)
        for rule in RULES:
            mine = [(at, values) for (key, at), values in self.values.items() if key == item.key]
            wanted = {(item.key, at, kind) for at, kind in crossings_of(mine, rule.name)}
            had = {crossing for crossing in self.standing[rule.name] if crossing[0] == item.key}
            if wanted != had:
                self.standing[rule.name] = (self.standing[rule.name] - had) | wanted
                self.decisions.append((position, rule.name, sorted(had ^ wanted)))


@settings(max_examples=150, deadline=None)
@given(records=streams())
def test_crossings_stand_after_each_event_as_its_panes_call_for(records: list[StreamRecord]) -> None:
    result, _ = run(records, [])
    model = Model()
    model.feed(records)
    events = [event for event in result.effects.threshold_events if not event.rule.endswith("_at_close")]
    taken = {event.id: event for event in events}
    assert len(taken) == len(events)
    found = []
    for (position, name), group in itertools.groupby(
        sorted(events, key=lambda event: (event.rule_sequence[:2], [rule.name for rule in RULES].index(event.rule))),
        key=lambda event: (event.rule_sequence[:2], event.rule),
    ):
        decided = list(group)
        check_order(decided)
        changes = [
            (
                event.key[0][1],
                event.window_start_ms,
                event.kind if event.takes_back is None else taken[event.takes_back].kind,
            )
            for event in decided
        ]
        found.append((position, name, sorted(changes)))
    order = {rule.name: place for place, rule in enumerate(RULES)}
    assert found == sorted(model.decisions, key=lambda decision: (decision[0], order[decision[1]]))


@settings(max_examples=60, deadline=None)
@given(records=streams())
def test_rules_that_wait_for_the_close_decide_as_if_no_other_looked_early(records: list[StreamRecord]) -> None:
    result, _ = run(records, [])
    alone, engine = Result(), Engine(replace(EARLY, thresholds=PLAIN), SHARD, ScriptedDecoder())
    alone.add(engine.apply(records))
    waiting = [event for event in result.effects.threshold_events if event.rule.endswith("_at_close")]
    assert [event.id for event in waiting] == [event.id for event in alone.effects.threshold_events]
    assert result.panes == alone.panes
