"""Shards that get no records are begun all the same: they inherit what their parents left."""

from __future__ import annotations

from itertools import count

import pytest
from commit_world import SCRIPTED_HANDOVER, World, make_record, memory_world
from scripted_kinesis import ScriptedKinesis, ScriptedShard

from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.memory import no_faults
from streamgauge.processors.commit.ports import StoreUnavailable
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.parent_stream import KinesisParents
from streamgauge.processors.hosts.shard_reader import Gap
from streamgauge.processors.hosts.stream_shards import list_shards
from streamgauge.processors.hosts.ticks import ChildStarts, start_children

A, B, C, D = (f"shardId-{number:012}" for number in range(4))
HELD = [make_record(number, "hold") for number in range(5)]


class Heirs(ScriptedKinesis):
    """Every shard covers all hash keys, so that each child inherits all that there is."""

    def list_shards(self, **arguments: str) -> dict[str, object]:
        answer = super().list_shards(**arguments)
        keys = {"StartingHashKey": str(FULL_RANGE.first), "EndingHashKey": str(FULL_RANGE.last)}
        shards: list[dict[str, object]] = answer["Shards"]  # type: ignore[assignment]
        return answer | {"Shards": [shard | {"HashKeyRange": keys} for shard in shards]}


class Ticks:
    """The tick function's part that is no tick, over a stream whose shard A was closed."""

    def __init__(self) -> None:
        self.world: World = memory_world()
        self.kinesis = Heirs(
            {A: ScriptedShard(list(HELD), is_closed=True, children=(B,)), B: ScriptedShard(parents=(A,))}
        )
        self.now_s = 0.0
        self._numbers = count()
        self.watch = ClaimWatch(lambda: self.now_s)

    def open(self, shard: Shard, start: str, *, owner: str, seen_version: int | None) -> ShardSession:
        parents = Parents(
            stream=KinesisParents(self.kinesis, "observations", sleep=lambda _: None),  # type: ignore[arg-type]
            watch=self.watch,
            abandoned_after_s=60,
            handover=SCRIPTED_HANDOVER,
        )
        return self.world.open(shard, start, owner=owner, seen_version=seen_version, parents=parents)

    def turn(self) -> ChildStarts:
        return start_children(
            self.world.store,
            list_shards(self.kinesis, "observations"),  # type: ignore[arg-type]
            self.open,
            watch=self.watch,
            abandoned_after_s=60,
            new_owner=lambda: f"ticker-{next(self._numbers)}",
        )

    def process(self, shard_id: str, records: list, *, owner: str = "processor") -> ShardSession:
        """What a processor does with a batch; it keeps the shard."""
        row = self.world.store.row(shard_id)
        session = self.open(row.shard, row.start, owner=owner, seen_version=row.claim_version)
        session.apply(records)
        session.commit()
        return session

    @property
    def served(self) -> set[int]:
        return {int(start) // 1_000 for batch in self.world.served.delivered for start in batch.window_start_ms}


@pytest.fixture
def ticks() -> Ticks:
    found = Ticks()
    # The pipeline's first start: every shard has its row.
    assert found.turn().started == ()
    return found


def test_the_first_tick_of_a_pipeline_writes_the_rows_of_all_shards_and_claims_none() -> None:
    ticks = Ticks()
    assert ticks.turn() == ChildStarts((), {B: ticks.turn().waiting[B]})
    assert [row.claim_version for row in ticks.world.store.rows()] == [0, 0]


def test_an_empty_child_inherits_open_panes_and_is_left_without_an_owner(ticks: Ticks) -> None:
    ticks.process(A, HELD)
    assert ticks.turn().started == (B,)
    row = ticks.world.store.row(B)
    assert ticks.world.store.row(A).sealed and row.owner is None and row.snapshot_sha256 is not None
    ticks.process(B, [make_record(9, "flush")])
    assert ticks.served == {0, 1, 2, 3, 4}


def test_an_empty_child_delivers_what_its_parent_could_not(ticks: Ticks) -> None:
    def down(step: str, moment: str) -> None:
        if step == "deliver served":
            raise StoreUnavailable("the table is down")

    ticks.world.hook = down
    ticks.process(A, [*HELD, make_record(5, "flush")])
    ticks.kinesis.shards[A].records.append(make_record(5, "flush"))
    ticks.world.hook = no_faults
    assert ticks.served == set()
    assert ticks.turn().started == (B,)
    assert ticks.served == {0, 1, 2, 3, 4}


def test_a_child_waits_for_a_parent_that_still_holds_records(ticks: Ticks) -> None:
    session = ticks.process(A, HELD[:3])
    assert "has not been applied to its end" in ticks.turn().waiting[B]
    session.apply(HELD[3:])
    session.commit()
    assert ticks.turn().started == (B,)


def test_a_parent_that_makes_no_progress_is_applied_to_its_end(ticks: Ticks) -> None:
    ticks.process(A, HELD[:3])
    ticks.turn()
    ticks.now_s += 61
    assert ticks.turn().started == (B,)
    assert ticks.world.store.row(A).position == Position(1_004, 0)


def test_shards_that_were_closed_empty_are_begun_one_after_the_other(ticks: Ticks) -> None:
    ticks.kinesis.shards[B].is_closed, ticks.kinesis.shards[B].children = True, (C,)
    ticks.kinesis.shards[C] = ScriptedShard(parents=(B,), is_closed=True, children=(D,))
    ticks.kinesis.shards[D] = ScriptedShard(parents=(C,))
    ticks.process(A, HELD)
    assert ticks.turn().started == (B, C, D)
    assert [row.sealed for row in ticks.world.store.rows()] == [True, True, True, False]


def test_a_processor_at_work_is_not_fenced(ticks: Ticks) -> None:
    """Neither one that has a state, nor one that has just claimed its shard."""
    session = ticks.process(A, HELD)
    child = ticks.world.store.row(B)
    ticks.world.store.claim(B, owner="processor", seen_version=child.claim_version)
    before = ticks.world.store.rows()
    ticks.now_s += 59
    assert ticks.turn().waiting == {B: "somebody begins it"}
    assert ticks.world.store.rows() == before
    session.apply([make_record(5)])
    assert session.commit() == Position(1_005, 0)


def test_a_child_whose_claimer_died_is_begun_when_its_row_has_stood_still(ticks: Ticks) -> None:
    ticks.process(A, HELD)
    ticks.world.store.claim(B, owner="processor", seen_version=0)
    assert B in ticks.turn().waiting
    ticks.now_s += 61
    assert ticks.turn().started == (B,)


def test_what_was_begun_is_left_alone(ticks: Ticks) -> None:
    ticks.process(A, HELD)
    ticks.turn()
    before = ticks.world.store.rows()
    assert ticks.turn() == ChildStarts((), {})
    assert ticks.world.store.rows() == before


def test_a_child_of_a_shard_that_left_nothing_is_begun_once(ticks: Ticks) -> None:
    ticks.kinesis.shards[A].records.clear()
    assert ticks.turn().started == (B,)
    before = ticks.world.store.rows()
    assert ticks.turn() == ChildStarts((), {})
    assert ticks.world.store.rows() == before and before[0].sealed


def test_an_error_of_one_shard_holds_up_no_other() -> None:
    ticks = Ticks()
    ticks.kinesis.shards[C] = ScriptedShard(list(HELD), is_closed=True, children=(D,))
    ticks.kinesis.shards[D] = ScriptedShard(parents=(C,))
    ticks.turn()
    ticks.process(A, HELD[:3])
    ticks.process(C, HELD)
    # The record up to which A was applied has been trimmed.
    ticks.kinesis.shards[A].records = HELD[4:]
    with pytest.raises(Gap, match=f"shard {A}"):
        ticks.turn()
    assert [row.snapshot_sha256 is not None for row in ticks.world.store.rows()] == [True, False, True, True]


def test_a_processor_that_is_faster_keeps_the_shard(ticks: Ticks) -> None:
    ticks.process(A, HELD)

    def faster(step: str, moment: str) -> None:
        if (step, moment) == ("claim", "before"):
            ticks.world.hook = no_faults
            ticks.process(B, [make_record(9, "flush")])

    ticks.world.hook = faster
    assert B in ticks.turn().waiting
    assert ticks.world.store.row(B).owner == "processor"
    assert ticks.served == {0, 1, 2, 3, 4}
