"""What a shard begins with after a split or a merge, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from scripted_events import PIPELINE, Item, Script, ScriptedDecoder

from streamgauge.events.hash_key import FULL_RANGE, HashRange, hash_key
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.container import SnapshotError, encode_columns
from streamgauge.processors.core.effects import ArchiveObject, Effects, MeasureColumn, Outbox, PaneBatch
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.floors import NEVER, Floor, Floors
from streamgauge.processors.core.handover import ParentState, inherit, split_outbox

LOW, HIGH = FULL_RANGE.even_parts(2)
WHOLE, LEFT, RIGHT, MERGED = (
    Shard("shardId-0", FULL_RANGE),
    Shard("shardId-1", LOW, ("shardId-0",)),
    Shard("shardId-2", HIGH, ("shardId-0",)),
    Shard("shardId-3", FULL_RANGE, ("shardId-1", "shardId-2")),
)
LOW_KEY, LOW_KEY_2 = [key for key in "abcdefgh" if hash_key(key) in LOW][:2]
HIGH_KEY = next(key for key in "abcdefgh" if hash_key(key) in HIGH)


class ShardUnderTest:
    """An engine that is fed one record at a time; numbers rise over all shards."""

    sent = 0

    def __init__(self, shard: Shard, engine: Engine | None = None) -> None:
        self.shard = shard
        self.engine = engine or Engine(PIPELINE, shard, ScriptedDecoder())
        self.effects: list[Effects] = []

    def apply(self, script: Script, arrival: int = 1_000) -> Effects:
        ShardUnderTest.sent += 1
        number = str(10**20 + ShardUnderTest.sent)
        effects = self.engine.apply([StreamRecord(number, "k", arrival, msgspec.json.encode(script))])
        self.effects.append(effects)
        return effects

    def event(self, sequence: int, key: str, time: int, number: float | None = None) -> Effects:
        return self.apply(Script(events=[Item(sequence, key, time, 1, number)]))

    def state(self) -> ParentState:
        return ParentState(self.shard, self.engine.snapshot())


def begin(shard: Shard, parents: Sequence[ParentState]) -> ShardUnderTest:
    columns = inherit(PIPELINE, shard, parents)
    return ShardUnderTest(shard, Engine.restore(PIPELINE, shard, ScriptedDecoder(), columns))


def two_parents() -> tuple[ShardUnderTest, ShardUnderTest]:
    """LEFT stands at 200 - 30, RIGHT at 110 - 30; each has emitted windows of ten milliseconds up to there."""
    left, right = ShardUnderTest(LEFT), ShardUnderTest(RIGHT)
    for sequence, time in enumerate((100, 150, 200)):
        left.event(sequence, LOW_KEY, time)
    for sequence, time in enumerate((70, 110), start=10):
        right.event(sequence, HIGH_KEY, time)
    return left, right


def narrow(effects: Effects) -> list[tuple[str, int, int]]:
    return [
        (key[0], start, revision)
        for panes in effects.panes
        if panes.aggregate == "narrow"
        for key, start, revision in zip(
            panes.keys, panes.window_start_ms.tolist(), panes.revision.tolist(), strict=True
        )
    ]


def test_the_child_begins_at_its_own_first_record_and_counts_from_zero() -> None:
    parent = ShardUnderTest(WHOLE)
    parent.event(0, LOW_KEY, 100)
    child = begin(LEFT, [parent.state()])
    assert child.engine.position is None
    assert child.engine.counters.positions == child.engine.counters.accepted == 0
    assert child.engine.counters.aggregates["narrow"].accepted_before == 0


def test_a_split_undone_by_a_merge_gives_the_state_of_before() -> None:
    parent = ShardUnderTest(WHOLE)
    for sequence, key in enumerate("abcdefgh" * 4):
        parent.event(sequence, key, 100 + 3 * sequence)
    children = [ParentState(shard, inherit(PIPELINE, shard, [parent.state()])) for shard in (LEFT, RIGHT)]
    merged = inherit(PIPELINE, MERGED, children)
    once = inherit(PIPELINE, MERGED, [parent.state()])
    assert encode_columns(merged) == encode_columns(once)


def test_a_merged_shard_takes_the_lower_watermark() -> None:
    left, right = two_parents()
    child = begin(MERGED, [left.state(), right.state()])
    assert (left.engine.watermark_ms, right.engine.watermark_ms) == (170, 80)
    assert child.engine.watermark_ms == 80


def test_what_a_parent_had_emitted_is_corrected_not_emitted_again() -> None:
    left, right = two_parents()
    child = begin(MERGED, [left.state(), right.state()])
    assert narrow(child.event(20, LOW_KEY, 153)) == [(HIGH_KEY, 110, 1), (LOW_KEY, 150, 2)]


def test_a_closed_window_without_a_pane_is_not_opened_anew() -> None:
    left, right = two_parents()
    child = begin(MERGED, [left.state(), right.state()])
    assert narrow(child.event(20, LOW_KEY_2, 120)) == [(LOW_KEY_2, 120, 1)]
    # For a key without a floor it is open, and its pane alone leaves when the watermark comes by.
    assert narrow(child.event(21, HIGH_KEY, 125)) == []
    assert [row for row in narrow(child.event(22, HIGH_KEY, 190)) if row[1] == 120] == [(HIGH_KEY, 120, 1)]


def test_a_crossing_below_a_floor_is_taken_back() -> None:
    left, right = ShardUnderTest(LEFT), ShardUnderTest(RIGHT)
    for sequence, (time, number) in enumerate(((120, 7.0), (130, 1.0), (200, None))):
        left.event(sequence, LOW_KEY, time, number)
    right.event(10, HIGH_KEY, 110)
    crossings = [event for effects in left.effects for event in effects.threshold_events if event.rule == "hot"]
    assert [(event.kind, event.window_start_ms) for event in crossings] == [("raise", 120), ("clear", 130)]
    child = begin(MERGED, [left.state(), right.state()])
    (event,) = [event for event in child.event(20, LOW_KEY, 131, 9.0).threshold_events if event.rule == "hot"]
    assert (event.kind, event.window_start_ms, event.state) == ("raise", 130, "raised")
    assert event.takes_back == crossings[1].id
    assert event.rule_sequence > crossings[1].rule_sequence


def test_arrival_goes_on_from_the_later_parent() -> None:
    left, right = ShardUnderTest(LEFT), ShardUnderTest(RIGHT)
    left.apply(Script(tick_ms=0), arrival=5_000)
    right.apply(Script(tick_ms=0), arrival=1_000)
    child = begin(MERGED, [left.state(), right.state()])
    # By its own arrival the event would lie too far in the future.
    assert child.apply(Script(events=[Item(0, LOW_KEY, 5_100, 1, None)]), arrival=1_000).failed == []


def test_a_pane_that_a_parent_had_let_go_is_not_rebuilt() -> None:
    left, right = two_parents()
    child = begin(MERGED, [left.state(), right.state()])
    late = child.event(20, LOW_KEY, 85).late
    assert [(event.aggregate, event.window_start_ms) for event in late] == [
        ("narrow", 80),
        ("wide", 50),
        ("coarse", 60),
        ("hops", 80),
        ("visits", 85),
    ]
    assert child.engine.counters.aggregates["narrow"].late == 1
    assert child.event(21, HIGH_KEY, 85).late == []


def test_floors_go_once_the_watermark_has_passed_them() -> None:
    left, right = two_parents()
    child = begin(MERGED, [left.state(), right.state()])
    assert child.engine.snapshot()["watermark.floor_closed_to"].tolist() == [170]
    child.event(20, HIGH_KEY, 200)
    assert child.engine.snapshot()["watermark.floor_closed_to"].tolist() == []


def test_a_split_keeps_the_floors_of_its_part_only() -> None:
    left, right = two_parents()
    merged = begin(MERGED, [left.state(), right.state()])
    again_left = Shard("shardId-4", HashRange(0, LOW.last // 2), ("shardId-3",))
    again_right = Shard("shardId-5", HIGH, ("shardId-3",))
    columns = inherit(PIPELINE, again_left, [merged.state()])
    assert [int(str(text), 16) for text in columns["watermark.floor_last"]] == [LOW.last // 2]
    assert inherit(PIPELINE, again_right, [merged.state()])["watermark.floor_first"] == []


def test_windows_beyond_the_lower_parents_time_close_when_the_input_ends() -> None:
    left, right = two_parents()
    child = begin(MERGED, [left.state(), right.state()])
    effects = child.apply(Script(end=("all", 0, 1)))
    assert (LOW_KEY, 200, 1) in narrow(effects)
    assert child.engine.input_ended
    assert all(np.array_equal(panes.keys, []) for panes in child.engine.open_panes())


def test_ticks_close_what_the_parent_ahead_had_open() -> None:
    left, right = two_parents()
    child = begin(MERGED, [left.state(), right.state()])
    assert (LOW_KEY, 200, 1) in narrow(child.apply(Script(tick_ms=10_000)))


def test_a_copy_is_a_duplicate_in_every_descendant() -> None:
    left, right = two_parents()
    child = begin(MERGED, [left.state(), right.state()])
    grandchild = begin(Shard("shardId-4", LOW, ("shardId-3",)), [child.state()])
    for sequence in (0, 1, 2, 10, 11):
        grandchild.event(sequence, LOW_KEY, 200)
    assert grandchild.engine.counters.duplicate_in_window == 5


def test_parts_count_at_a_merge_that_every_parent_has_seen() -> None:
    left, right = two_parents()
    for part in (0, 1):
        left.apply(Script(end=("all", part, 2)))
    right.apply(Script(end=("all", 1, 2)))
    child = begin(MERGED, [left.state(), right.state()])
    assert not child.engine.input_ended
    child.apply(Script(end=("all", 0, 2)))
    assert child.engine.input_ended


def test_an_input_that_ended_in_all_parents_has_ended_in_the_child() -> None:
    left, right = two_parents()
    for parent in (left, right):
        parent.apply(Script(end=("all", 0, 1)))
    child = begin(MERGED, [left.state(), right.state()])
    assert child.engine.input_ended
    assert begin(Shard("shardId-4", LOW, ("shardId-3",)), [child.state()]).engine.input_ended


def test_a_parent_that_never_had_a_state_leaves_the_other_alone() -> None:
    left, _ = two_parents()
    child = begin(MERGED, [left.state(), ParentState(RIGHT, None)])
    assert child.engine.watermark_ms == 170
    assert child.engine.snapshot()["watermark.floor_first"] == []


def test_a_parent_without_events_does_not_hold_the_watermark_back() -> None:
    left, _ = two_parents()
    child = begin(MERGED, [left.state(), ShardUnderTest(RIGHT).state()])
    assert child.engine.watermark_ms == 170


def test_parents_without_any_state_give_the_state_of_a_new_shard() -> None:
    new = Engine(PIPELINE, MERGED, ScriptedDecoder()).snapshot()
    columns = inherit(PIPELINE, MERGED, [ParentState(LEFT, None), ParentState(RIGHT, None)])
    assert encode_columns(columns) == encode_columns(new)


def test_the_state_of_another_definition_is_refused() -> None:
    left, right = two_parents()
    changed = replace(PIPELINE, state_epoch=2)
    with pytest.raises(SnapshotError, match="state_epoch 1, not to 'p', state_epoch 2"):
        inherit(changed, MERGED, [left.state(), right.state()])


def test_an_aggregate_that_was_added_since_begins_empty() -> None:
    left, right = two_parents()
    added = replace(PIPELINE.aggregates[0], name="added")
    pipeline = replace(PIPELINE, aggregates=(*PIPELINE.aggregates, added))
    columns = inherit(pipeline, MERGED, [left.state(), right.state()])
    engine = Engine.restore(pipeline, MERGED, ScriptedDecoder(), columns)
    assert {panes.aggregate for panes in engine.open_panes()} == {each.name for each in PIPELINE.aggregates}


def test_a_state_from_before_there_were_floors_is_read() -> None:
    left, _ = two_parents()
    new = ("watermark.floor", "watermark.latest")
    old = {name: column for name, column in left.engine.snapshot().items() if not name.startswith(new)}
    engine = Engine.restore(PIPELINE, LEFT, ScriptedDecoder(), old)
    assert encode_columns(engine.snapshot()) == encode_columns(left.engine.snapshot())


def test_floors_speak_for_every_part_of_a_range() -> None:
    floors = Floors([Floor(HashRange(10, 19), 500), Floor(HashRange(20, 29), 500), Floor(HashRange(40, 49), 300)])
    assert len(floors) == 2
    assert floors.over(HashRange(5, 44), 400) == [
        Floor(HashRange(5, 9), 400),
        Floor(HashRange(10, 29), 500),
        Floor(HashRange(30, 39), 400),
        Floor(HashRange(40, 44), 400),
    ]


def test_a_key_has_the_floor_of_its_hash() -> None:
    floors = Floors([Floor(LOW, 500)])
    assert floors.of([LOW_KEY, HIGH_KEY, LOW_KEY]).tolist() == [500, NEVER, 500]
    floors.drop(500)
    assert floors.of([LOW_KEY]).tolist() == [NEVER]


def test_an_outbox_is_split_by_hash_but_for_archive_objects() -> None:
    parent = ShardUnderTest(WHOLE)
    for sequence, key in enumerate("abcdefgh"):
        parent.event(sequence, key, 100, 7.0)
    effects = parent.event(8, "a", 200)
    assert len(effects.threshold_events) > 2
    archive = (ArchiveObject("p/1/panes", b"all"),)
    outbox = Outbox(archive, tuple(effects.threshold_events), tuple(effects.panes))
    parts = [split_outbox(outbox, hash_range) for hash_range in (LOW, HIGH)]
    for part, hash_range in zip(parts, (LOW, HIGH), strict=True):
        assert part.archive_objects == archive
        assert part.threshold_events
        assert all(hash_key(event.partition_key) in hash_range for event in part.threshold_events)
        assert all(hash_key(key) in hash_range for panes in part.served_panes for key in panes.partition_keys)
    events = [event.id for part in parts for event in part.threshold_events]
    assert sorted(events) == sorted(event.id for event in effects.threshold_events)
    rows = [row for part in parts for panes in part.served_panes for row in rows_of(panes)]
    assert sorted(rows) == sorted(row for panes in effects.panes for row in rows_of(panes))


def rows_of(panes: PaneBatch) -> list[tuple[object, ...]]:
    def value(column: MeasureColumn, row: int) -> object:
        return column.values[row].item() if column.present[row] else None

    return [
        (
            panes.aggregate,
            key,
            panes.partition_keys[row],
            int(panes.window_start_ms[row]),
            int(panes.window_end_ms[row]),
            int(panes.revision[row]),
            int(panes.event_count[row]),
            bool(panes.tombstone[row]),
            str({name: value(column, row) for name, column in panes.measures.items()}),
        )
        for row, key in enumerate(panes.keys)
    ]


def test_panes_of_another_child_only_leave_nothing_behind() -> None:
    parent = ShardUnderTest(WHOLE)
    parent.event(0, LOW_KEY, 100)
    effects = parent.event(1, LOW_KEY, 200)
    assert split_outbox(Outbox(served_panes=tuple(effects.panes)), HIGH) == Outbox()
