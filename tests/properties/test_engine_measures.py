"""Measures with more state than a number, through the engine: cut, restarted, corrected, split and merged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import variance

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_events import BOUND_MS, PIPELINE, SOURCE, Item, Result, Script, ScriptedDecoder

from streamgauge.events.hash_key import FULL_RANGE, HashRange, hash_key
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core import keys
from streamgauge.processors.core.container import decode_columns, encode_columns
from streamgauge.processors.core.definition import HoppingWindow, Measure, Pipeline, SessionWindow, Threshold
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.expressions import compile_expression
from streamgauge.processors.core.handover import ParentState, inherit

SOURCES = {SOURCE: 1024, "urn:foreign:a": 0}
MEASURES = (
    Measure("spread", "variance", "data.f", is_integer=False),
    Measure("deviation", "stddev", "data.i", is_integer=False),
    Measure("opening", "first", "data.f", is_integer=False),
    Measure("closing", "last", "data.i", is_integer=True),
    Measure("kinds", "approx_distinct", "data.i", is_integer=True),
    Measure("names", "approx_distinct", "subject", is_integer=True),
    Measure("middle", "quantile", "data.f", is_integer=False, parameter="0.5"),
    Measure("most", "quantile", "data.f", is_integer=False, parameter="0.95"),
)
WINDOWS = {"wide": HoppingWindow(50, 10), "coarse": SessionWindow(15, 200)}
"""Where windows overlap, panes are merged from slices; sessions are merged by the events between them."""
KINDS = {measure.name: "integer" if measure.is_integer else "number" for measure in MEASURES}
RULES = [("wide", "narrow", "spread > 4", "spread < 2"), ("rich", "narrow", "kinds > 2", None)]
RULES += [("late", "coarse", "closing > opening", "most - middle < 1"), ("hops", "wide", "kinds > 3", "spread < 9")]


def pipeline() -> Pipeline:
    return replace(
        PIPELINE,
        aggregates=tuple(
            replace(aggregate, measures=MEASURES, window=WINDOWS.get(aggregate.name, aggregate.window))
            for aggregate in PIPELINE.aggregates
        ),
        thresholds=tuple(
            Threshold(
                name=name,
                aggregate=aggregate,
                raise_when=compile_expression(raise_when, names=KINDS, where=name),
                clear_when=clear_when and compile_expression(clear_when, names=KINDS, where=name),
                detail_type=name,
            )
            for name, aggregate, raise_when, clear_when in RULES
        ),
    )


MEASURED = pipeline()


@pytest.fixture(autouse=True, scope="module")
def few_keys_are_many() -> Iterator[None]:
    """Else no stream here has keys enough for them to be found in arrays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_MANY", 1)
        yield


@st.composite
def streams(draw: st.DrawFn) -> list[StreamRecord]:
    clock, sequence = 1_000, 0
    numbers = st.none() | st.sampled_from([0.1, 1e9, -3.5, 1e-3]) | st.integers(-8, 8).map(float)
    records: list[StreamRecord] = []
    for number in range(draw(st.integers(1, 12))):
        clock += draw(st.integers(0, 25))
        items = []
        for _ in range(draw(st.integers(1, 6))):
            behind = draw(st.sampled_from([0, 0, 5, 20, 40, 60, 80]))
            integer = draw(st.none() | st.integers(-5, 7))
            source = draw(st.integers(0, 1))
            items.append(
                Item(sequence, draw(st.sampled_from("abc")), clock - behind, integer, draw(numbers), source=source)
            )
            sequence += 1
        records.append(StreamRecord(str(10**20 + number), "k", clock, msgspec.json.encode(Script(events=items))))
    return records


def run(records: Sequence[StreamRecord], cuts: Sequence[int], *, restarts: bool = False) -> tuple[Result, Engine]:
    shard = Shard("shardId-000000000000", FULL_RANGE)
    result, engine = Result(), Engine(MEASURED, shard, ScriptedDecoder(SOURCES))
    for first, after in itertools.pairwise([0, *sorted(cuts), len(records)]):
        result.add(engine.apply(records[first:after]))
        if restarts:
            columns = decode_columns(encode_columns(engine.snapshot()))
            engine = Engine.restore(MEASURED, shard, ScriptedDecoder(SOURCES), columns)
    return result, engine


@settings(max_examples=80, deadline=None)
@given(data=st.data(), records=streams())
def test_how_the_stream_is_cut_changes_no_measure(data: st.DataObject, records: list[StreamRecord]) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(records)), max_size=6))
    whole, whole_engine = run(records, [])
    cut, cut_engine = run(records, cuts, restarts=data.draw(st.booleans()))
    assert cut.panes == whole.panes
    assert cut.effects == whole.effects
    assert encode_columns(cut_engine.snapshot()) == encode_columns(whole_engine.snapshot())


def only(records: Sequence[StreamRecord], inside: HashRange) -> list[StreamRecord]:
    """A shard's part of the stream; times without an event there pass all the same."""
    parts: list[StreamRecord] = []
    for record in records:
        script = msgspec.json.decode(record.data, type=Script)
        items = [item for item in script.events if hash_key(item.key) in inside]
        if items:
            parts.append(record._replace(data=msgspec.json.encode(Script(events=items))))
    return parts


@settings(max_examples=60, deadline=None)
@given(data=st.data(), records=streams())
def test_what_a_split_and_a_merge_hand_over_is_what_each_key_had(
    data: st.DataObject, records: list[StreamRecord]
) -> None:
    """No window closes on the way, so that the shards' watermarks play no part."""
    patient = replace(MEASURED, out_of_orderness_ms=10**6)
    end = StreamRecord(str(10**21), "k", 10_000, msgspec.json.encode(Script(end=("all", 0, 1))))
    place = data.draw(st.integers(0, len(records)))

    def engine_of(shard: Shard, parents: Sequence[ParentState] | None = None) -> Engine:
        if parents is None:
            return Engine(patient, shard, ScriptedDecoder(SOURCES))
        columns = decode_columns(encode_columns(inherit(patient, shard, parents)))
        return Engine.restore(patient, shard, ScriptedDecoder(SOURCES), columns)

    def snapshot(shard: Shard, engine: Engine) -> ParentState:
        return ParentState(shard, decode_columns(encode_columns(engine.snapshot())))

    whole = Result()
    whole.add(engine_of(Shard("shardId-000000000000", FULL_RANGE)).apply([*records, end]))

    root = Shard("shardId-000000000000", FULL_RANGE)
    first = engine_of(root)
    first.apply(records[:place])
    halves = []
    for number, inside in enumerate(FULL_RANGE.even_parts(2), start=1):
        shard = Shard(f"shardId-{number:012}", inside, (root.shard_id,))
        engine = engine_of(shard, [snapshot(root, first)])
        engine.apply(only(records[place : place + 3], inside))
        halves.append(snapshot(shard, engine))
    joined = engine_of(
        Shard("shardId-000000000003", FULL_RANGE, ("shardId-000000000001", "shardId-000000000002")), halves
    )
    result = Result()
    result.add(joined.apply([*records[place + 3 :], end]))
    assert {name: sorted(map(str, rows)) for name, rows in result.panes.items()} == {
        name: sorted(map(str, rows)) for name, rows in whole.panes.items()
    }


def test_the_streams_here_close_and_correct_windows() -> None:
    """What the properties above rest on."""
    items = [Item(n, "a", 1_000 + 10 * n, n % 5, float(n)) for n in range(20)]
    late = [Item(20 + n, "a", 1_130 + n, 1, 0.5) for n in range(3)]
    records = [
        StreamRecord(str(10**20 + n), "k", item.time_ms + BOUND_MS, msgspec.json.encode(Script(events=[item])))
        for n, item in enumerate([*items, *late])
    ]
    result, _ = run(records, [])
    revisions = [row[4] for row in result.panes["narrow"]]
    assert max(revisions) > 1 and revisions.count(1) > 10
    assert {event.rule for event in result.effects.threshold_events} >= {"hops", "wide"}


def test_an_event_that_joins_two_sessions_joins_their_measures() -> None:
    times = [1_000, 1_005, 1_030, 1_033, 1_018]
    values = [3.0, -1.0, 1e9, 8.0, 0.1]
    items = [Item(n, "a", time, n % 3, value) for n, (time, value) in enumerate(zip(times, values, strict=True))]
    records = [
        StreamRecord(str(10**20 + n), "k", 2_000, msgspec.json.encode(Script(events=[item])))
        for n, item in enumerate([*items[:4], Item(10, "b", 1_062, 0, 0.0), items[4], Item(11, "b", 1_500, 0, 0.0)])
    ]
    result, _ = run(records, [])
    joined = [row for row in result.panes["coarse"] if row[0] == ("a",) and row[5] == 5]
    assert [row[2] for row in joined] == [1_000]
    found = {name: np.frombuffer(value[1], dtype=value[0])[0] for name, value in joined[0][6] if value is not None}
    assert found["spread"] == pytest.approx(variance(values), rel=1e-12)
    assert (found["opening"], found["closing"], found["kinds"]) == (3.0, 0, 3)
    assert found["middle"] == pytest.approx(3.0, rel=0.008)
