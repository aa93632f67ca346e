"""What a user may rely on whatever the machinery does: who put an event first, and in how many parts it was counted.

Events come in rounds of `_ROUND_MS`, and only those of one round change places: none is ever behind the bound. Numbers
are whole where results must agree to the bit, so that no order of additions rounds differently.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_events import BOUND_MS, Item, Result, Script, ScriptedDecoder
from scripted_events import PIPELINE as SCRIPTED

from streamgauge.events.hash_key import FULL_RANGE, HashRange, hash_key
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.container import decode_columns, encode_columns
from streamgauge.processors.core.definition import Pipeline, SessionWindow
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.handover import ParentState, inherit


def _without_cuts() -> Pipeline:
    """Where a session's maximum length cuts it, is by the order of the stream: here none is so long."""
    window = SessionWindow(gap_ms=20, max_length_ms=1_000)
    return replace(
        SCRIPTED,
        aggregates=tuple(
            replace(aggregate, window=window) if isinstance(aggregate.window, SessionWindow) else aggregate
            for aggregate in SCRIPTED.aggregates
        ),
    )


PIPELINE = _without_cuts()

_W = 64
_SOURCES = {f"urn:streamgauge:00000000-0000-4000-8000-00000000000{number}:w{_W}": _W for number in range(3)}
_ROUND_MS = BOUND_MS // 2
_KEYS = "abcdefgh"

Rounds = list[list[Item]]
"""All events of each stretch of time, in the order in which their producers made them."""


@st.composite
def rounds(draw: st.DrawFn, *, numbers: st.SearchStrategy[float]) -> Rounds:
    """What three producers put, retries included: a retry stays within its round."""
    newest = [-1, -1, -1]
    made: Rounds = []
    for number in range(draw(st.integers(1, 8))):
        items: list[Item] = []
        for _ in range(draw(st.integers(0, 7))):
            source = draw(st.integers(0, 2))
            newest[source] += 1
            item = Item(
                newest[source],
                draw(st.sampled_from(_KEYS)),
                1_000 + number * _ROUND_MS + draw(st.integers(0, _ROUND_MS - 1)),
                draw(st.none() | st.integers(-5, 9)),
                draw(st.none() | numbers),
                source=source,
            )
            items += [item] * draw(st.sampled_from([1, 1, 1, 2]))
        made.append(items)
    return made


whole_numbers = st.integers(-8, 8).map(float)
any_numbers = st.floats(-1e6, 1e6)


def records_of(items: Sequence[Item], *, first: int, arrival_ms: int) -> list[StreamRecord]:
    return [
        StreamRecord(str(10**20 + first + index), item.key, arrival_ms, msgspec.json.encode(Script(events=[item])))
        for index, item in enumerate(items)
    ]


def stream_of(made: Rounds, *, first: int = 0) -> list[StreamRecord]:
    stream: list[StreamRecord] = []
    for number, items in enumerate(made):
        arrival_ms = 1_000 + (number + 1) * _ROUND_MS
        stream += records_of(items, first=first + len(stream), arrival_ms=arrival_ms)
    return stream


def an_end(number: int) -> StreamRecord:
    """Closes every window."""
    return StreamRecord(str(10**21 + number), "k", 10_000, msgspec.json.encode(Script(end=("all", 0, 1))))


Pane = tuple[int, tuple[object, ...]]


def final_panes(results: Sequence[Result]) -> dict[tuple[object, ...], Pane]:
    """Number of events and measures by aggregate, key and window: the last revision's."""
    panes: dict[tuple[object, ...], Pane] = {}
    for result in results:
        for name, rows in result.panes.items():
            for key, _, start, _, _, events, measures, tombstone in rows:
                panes[name, key, start] = (events, measures)
                if tombstone:
                    del panes[name, key, start]
    return panes


def final_panes_of(records: Sequence[StreamRecord]) -> dict[tuple[object, ...], Pane]:
    result = Result()
    engine = Engine(PIPELINE, Shard("shardId-000000000000", FULL_RANGE), ScriptedDecoder(_SOURCES))
    result.add(engine.apply([*records, an_end(0)]))
    assert not result.effects.late
    return final_panes([result])


# --- the order of producers


def interleaved(draw: Callable[[st.SearchStrategy[list[Item]]], list[Item]], made: Rounds) -> Rounds:
    return [draw(st.permutations(items)) for items in made]


@settings(max_examples=120, deadline=None)
@given(data=st.data(), made=rounds(numbers=whole_numbers))
def test_the_order_in_which_producers_interleave_changes_no_final_pane(data: st.DataObject, made: Rounds) -> None:
    turned = interleaved(data.draw, made)
    assert final_panes_of(stream_of(turned)) == final_panes_of(stream_of(made))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), made=rounds(numbers=any_numbers))
def test_with_floats_interleaving_changes_no_final_pane_beyond_rounding(data: st.DataObject, made: Rounds) -> None:
    turned, straight = (final_panes_of(stream_of(each)) for each in (interleaved(data.draw, made), made))
    assert turned.keys() == straight.keys()
    for pane, (events, measures) in straight.items():
        assert turned[pane][0] == events
        for (name, ours), (_, theirs) in zip(measures, turned[pane][1], strict=True):
            if name != "average" or ours is None:
                assert ours == theirs
                continue
            (mine,), (other,) = struct.unpack("<d", ours[1]), struct.unpack("<d", theirs[1])
            # A mean of at most a hundred numbers of at most 1e6 in size.
            assert math.isclose(mine, other, rel_tol=1e-12, abs_tol=1e-7)


# --- partial aggregates


def parts_of(made: Rounds, ranges: Sequence[HashRange]) -> list[Rounds]:
    """What each of several shards gets."""
    return [[[item for item in items if hash_key(item.key) in part] for items in made] for part in ranges]


def merged(parents: Sequence[tuple[Shard, Engine]]) -> tuple[Shard, Engine]:
    """Two neighbours at a time, until one is left."""
    left = list(parents)
    numbers = itertools.count(len(left))
    while len(left) > 1:
        (first, one), (second, other) = left[:2]
        child = Shard(
            f"shardId-{next(numbers):012}", HashRange(first.hash_range.first, second.hash_range.last), (first[0],)
        )
        states = [ParentState(first, one.snapshot()), ParentState(second, other.snapshot())]
        columns = decode_columns(encode_columns(inherit(PIPELINE, child, states)))
        left[:2] = [(child, Engine.restore(PIPELINE, child, ScriptedDecoder(_SOURCES), columns))]
    return left[0]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), made=rounds(numbers=any_numbers))
def test_merge_of_partial_aggregates_equals_the_whole(data: st.DataObject, made: Rounds) -> None:
    cut = data.draw(st.integers(0, len(made)))
    ranges = FULL_RANGE.even_parts(data.draw(st.integers(2, 4)))
    results, parents = [], []
    for number, (part, hash_range) in enumerate(zip(parts_of(made[:cut], ranges), ranges, strict=True)):
        shard = Shard(f"shardId-{number:012}", hash_range)
        engine = Engine(PIPELINE, shard, ScriptedDecoder(_SOURCES))
        results.append(Result())
        results[-1].add(engine.apply(stream_of(part)))
        parents.append((shard, engine))
    _, engine = merged(parents)
    results.append(Result())
    later: Rounds = [[] for _ in range(cut)]
    results[-1].add(engine.apply([*stream_of([*later, *made[cut:]], first=10_000), an_end(0)]))

    assert not any(result.effects.late for result in results)
    assert final_panes(results) == final_panes_of(stream_of(made))
