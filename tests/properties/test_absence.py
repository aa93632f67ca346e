"""Keys that fall silent: against plain Python, an event at a time, however the stream is cut or resharded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_events import BOUND_MS, PIPELINE, SHARD, Item, Result, Script, ScriptedDecoder
from window_models import NEVER

from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.container import decode_columns, encode_columns
from streamgauge.processors.core.definition import Absence
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.handover import ParentState, inherit

WAITS = {"soon": 15, "later": 60}
KEYS = "abcd"
SILENT = replace(
    PIPELINE,
    aggregates=(PIPELINE.aggregates[0],),
    thresholds=(),
    absences=tuple(Absence(name, "narrow", wait, name.title()) for name, wait in WAITS.items()),
)
BEHIND = st.sampled_from([0, 0, 0, 5, 20, 31, 45, 70, 130])

Told = tuple[str, str, int, str, tuple[int, int]]
"""Rule, key, latest event time, kind, and the position that decided."""


@st.composite
def streams(draw: st.DrawFn) -> list[StreamRecord]:
    clock, sequence = 1_000, 0
    records: list[StreamRecord] = []
    for number in range(draw(st.integers(1, 12))):
        clock += draw(st.integers(0, 40))
        script = Script(tick_ms=clock + draw(st.integers(-20, 60)))
        if draw(st.integers(0, 4)):
            items = []
            for _ in range(draw(st.integers(1, 4))):
                items.append(Item(sequence, draw(st.sampled_from(KEYS)), clock - draw(BEHIND), 1, None))
                sequence += 1
            script = Script(events=items)
        records.append(StreamRecord(str(10**20 + number), "k", clock, msgspec.json.encode(script)))
    return records


def run(records: Sequence[StreamRecord], cuts: Sequence[int], *, restarts: bool = False) -> tuple[Result, Engine]:
    result, engine = Result(), Engine(SILENT, SHARD, ScriptedDecoder())
    for first, after in itertools.pairwise([0, *sorted(cuts), len(records)]):
        result.add(engine.apply(records[first:after]))
        if restarts:
            columns = decode_columns(encode_columns(engine.snapshot()))
            engine = Engine.restore(SILENT, SHARD, ScriptedDecoder(), columns)
    return result, engine


def told(results: Sequence[Result]) -> list[Told]:
    return [
        (event.rule, event.key[0][1], event.window_start_ms, event.kind, event.rule_sequence[:2])
        for result in results
        for event in result.effects.threshold_events
    ]


def expected(records: Sequence[StreamRecord]) -> list[Told]:
    """What the rules say, written as plainly as it can be."""
    highest = highest_arrival = watermark = NEVER
    last: dict[str, int] = {}
    raised: set[tuple[str, str]] = set()
    found: list[Told] = []

    def look(position: tuple[int, int]) -> None:
        for key, (rule, wait) in itertools.product(sorted(last), WAITS.items()):
            if (rule, key) not in raised and last[key] + wait <= watermark:
                raised.add((rule, key))
                found.append((rule, key, last[key], "raise", position))

    for record in records:
        script = msgspec.json.decode(record.data, type=Script)
        position = (int(record.sequence_number), 0)
        for sub, item in enumerate(script.events):
            position = (int(record.sequence_number), sub)
            if item.time_ms > highest:
                highest, highest_arrival = item.time_ms, record.arrival_ms
            watermark = max(watermark, highest - BOUND_MS)
            before = last.get(item.key, NEVER)
            if item.time_ms > before:
                for rule, wait in WAITS.items():
                    if (rule, item.key) in raised and item.time_ms + wait > watermark:
                        raised.discard((rule, item.key))
                        found.append((rule, item.key, int(before), "clear", position))
                last[item.key] = item.time_ms
            look(position)
        if script.tick_ms is not None and highest != NEVER:
            idle = highest - BOUND_MS + script.tick_ms - highest_arrival
            watermark = max(watermark, min(idle, highest - highest % 10 + 10))
            look(position)
    return found


@settings(max_examples=150, deadline=None)
@given(data=st.data(), records=streams())
def test_a_key_is_absent_when_the_watermark_says_so(data: st.DataObject, records: list[StreamRecord]) -> None:
    whole, whole_engine = run(records, [])
    assert sorted(told([whole])) == sorted(expected(records))
    assert [event.rule_sequence for event in whole.effects.threshold_events] == sorted(
        {event.rule_sequence for event in whole.effects.threshold_events}
    )
    cuts = data.draw(st.lists(st.integers(0, len(records)), max_size=6))
    cut, cut_engine = run(records, cuts, restarts=data.draw(st.booleans()))
    assert cut.effects == whole.effects
    assert encode_columns(cut_engine.snapshot()) == encode_columns(whole_engine.snapshot())


@settings(max_examples=60, deadline=None)
@given(records=streams(), at=st.integers(0, 12))
def test_a_split_hands_silence_on_to_the_shard_that_has_the_key(records: list[StreamRecord], at: int) -> None:
    first, engine = run(records[:at], [])
    results = [first]
    for number, hash_range in enumerate(FULL_RANGE.even_parts(2)):
        child = Shard(f"shardId-{number + 1:012}", hash_range)
        columns = inherit(SILENT, child, [ParentState(SHARD, engine.snapshot())])
        heir, result = Engine.restore(SILENT, child, ScriptedDecoder(), columns), Result()
        result.add(heir.apply([StreamRecord(str(10**21), "k", 9_000, msgspec.json.encode(Script(end=("e", 0, 1))))]))
        results.append(result)
    alone, engine = run(records[:at], [])
    alone.add(engine.apply([StreamRecord(str(10**21), "k", 9_000, msgspec.json.encode(Script(end=("e", 0, 1))))]))
    assert sorted(told(results)) == sorted(told([alone]))
    assert len({event.id for result in results for event in result.effects.threshold_events}) == len(told(results))
