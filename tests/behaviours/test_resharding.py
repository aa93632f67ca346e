"""A shard begins with what its parents hand over: nothing is lost at a reshard, nothing doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from aws_in_process import InProcessAws, aws_in_process
from commit_world import SCRIPTED_HANDOVER, SHARD, World, make_record, memory_world

from streamgauge.events.hash_key import FULL_RANGE, HashRange, hash_key
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.commit.ancestry import ParentMissing, Parents
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.dynamodb import DynamoDbStateStore
from streamgauge.processors.commit.lineage import is_covered, register_shards
from streamgauge.processors.commit.memory import no_faults
from streamgauge.processors.commit.ports import Fenced, ParentBehind, ShardRow, StoreUnavailable
from streamgauge.processors.commit.s3 import S3ObjectStore
from streamgauge.processors.commit.session import SessionClosed, ShardSession
from streamgauge.processors.commit.snapshots import Snapshot, decode_snapshot, encode_snapshot
from streamgauge.processors.core.effects import Outbox

LOW, HIGH = FULL_RANGE.even_parts(2)
LEFT = Shard("shardId-000000000001", LOW, (SHARD.shard_id,))
RIGHT = Shard("shardId-000000000002", HIGH, (SHARD.shard_id,))
MERGED = Shard("shardId-000000000003", FULL_RANGE, (LEFT.shard_id, RIGHT.shard_id))
LOW_KEYS = [f"k{n}" for n in range(40) if hash_key(f"k{n}") in LOW]
HIGH_KEYS = [f"k{n}" for n in range(40) if hash_key(f"k{n}") in HIGH]


def hold(number: int, key: str | None = None) -> StreamRecord:
    keys = LOW_KEYS if number % 2 == 0 else HIGH_KEYS
    return make_record(number, "hold", key=key or keys[number % 10])


def flush(number: int) -> StreamRecord:
    return make_record(number, "flush")


@dataclass
class Stream:
    """Closed shards and their records. `gone` are no longer listed; `trimmed` have lost their records."""

    shards: dict[str, Shard]
    records: dict[str, list[StreamRecord]]
    gone: set[str] = field(default_factory=set)
    trimmed: set[str] = field(default_factory=set)
    reads: int = 0
    meanwhile: Callable[[str], object] = lambda shard_id: None

    def shard(self, shard_id: str) -> Shard | None:
        return None if shard_id in self.gone else self.shards[shard_id]

    def rest(self, row: ShardRow, *, on_gap: Callable[[str], None] | None) -> Iterator[Sequence[StreamRecord]]:
        self.reads += 1
        shard_id = row.shard.shard_id
        records = [] if shard_id in self.trimmed else self.records.get(shard_id, [])
        if row.position is not None:
            records = [record for record in records if int(record.sequence_number) >= row.position.sequence_number]
            if not records:
                assert on_gap is not None, "a gap that nobody accepted"
                on_gap("end of shard")
        yield []
        for first in range(0, len(records), 2):
            yield records[first : first + 2]
        self.meanwhile(shard_id)


RECORDS = [hold(number) for number in range(6)]


@dataclass
class Family:
    """A world, a stream whose root was split and merged again, and somebody who watches its rows."""

    world: World
    now_s: float = 0.0
    stream: Stream = field(
        default_factory=lambda: Stream(
            {shard.shard_id: shard for shard in (SHARD, LEFT, RIGHT, MERGED)}, {SHARD.shard_id: RECORDS}
        )
    )
    watch: ClaimWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = ClaimWatch(lambda: self.now_s)

    def open(self, shard: Shard, **changes: object) -> ShardSession:
        parents = Parents(stream=self.stream, watch=self.watch, abandoned_after_s=30, handover=SCRIPTED_HANDOVER)
        return self.world.open(shard, parents=replace(parents, **changes))

    def row(self, shard: Shard) -> ShardRow:
        row = self.world.store.row(shard.shard_id)
        assert row is not None
        return row

    def apply_root(self, upto: int = len(RECORDS)) -> None:
        session = self.open(SHARD)
        session.apply(RECORDS[:upto])
        session.close()

    @property
    def served(self) -> list[int]:
        return sorted(int(start) // 1_000 for batch in self.world.served.delivered for start in batch.window_start_ms)


def flushed(session: ShardSession, number: int = 50) -> None:
    session.apply([flush(number)])
    session.close()


@pytest.fixture(scope="module")
def in_process() -> Iterator[InProcessAws]:
    with aws_in_process() as aws:
        yield aws


@pytest.fixture(params=["memory", "aws"])
def family(request: pytest.FixtureRequest, in_process: InProcessAws) -> Family:
    if request.param == "memory":
        return Family(memory_world())
    in_process.clear()
    state = S3ObjectStore(in_process.s3, "state")
    store = DynamoDbStateStore(
        in_process.dynamodb, "state", state, pipeline="weather", state_epoch=1, max_inline_bytes=0
    )
    return Family(World(store, S3ObjectStore(in_process.s3, "archive")))


@pytest.fixture
def in_memory() -> Family:
    return Family(memory_world())


# --- a split, a merge ------------------------------------------------------------------------------------------------


def test_each_child_begins_with_what_its_parent_held_in_its_range(family: Family) -> None:
    family.apply_root()
    left = family.open(LEFT)
    right = family.open(RIGHT)
    assert left.position is None and right.position is None
    assert family.row(SHARD).sealed
    flushed(left)
    assert family.served == [0, 2, 4]
    flushed(right)
    assert family.served == [0, 1, 2, 3, 4, 5]


def test_a_merged_shard_begins_with_what_both_parents_held(family: Family) -> None:
    family.apply_root()
    flushed(family.open(LEFT))
    family.open(RIGHT).close()
    family.stream.records |= {LEFT.shard_id: [flush(50)]}
    flushed(family.open(MERGED), 60)
    assert family.served == [0, 1, 2, 3, 4, 5]
    assert family.row(LEFT).sealed and family.row(RIGHT).sealed


def test_a_child_saves_what_it_inherited_before_anything_else(family: Family) -> None:
    family.apply_root()
    family.open(LEFT)
    row = family.row(LEFT)
    assert row.position is None and row.snapshot_bytes > 0
    # Whoever comes next does not ask the parent again.
    reads = family.stream.reads
    flushed(family.open(LEFT))
    assert family.stream.reads == reads and family.served == [0, 2, 4]


def test_two_children_that_open_at_once_both_find_their_parent_sealed(in_memory: Family) -> None:
    in_memory.apply_root()
    opened: list[ShardSession] = []

    def sibling(step: str, moment: str) -> None:
        if (step, moment) == ("seal", "before"):
            in_memory.world.hook = no_faults
            opened.append(in_memory.open(RIGHT))

    in_memory.world.hook = sibling
    opened.append(in_memory.open(LEFT))
    for session in opened:
        flushed(session)
    assert in_memory.served == [0, 1, 2, 3, 4, 5]


def test_of_two_workers_that_begin_one_child_the_later_claim_holds_it(in_memory: Family) -> None:
    in_memory.apply_root()
    in_memory.open(RIGHT)
    others: list[ShardSession] = []

    def other(step: str, moment: str) -> None:
        if (step, moment) == ("claim", "before"):
            in_memory.world.hook = no_faults
            others.append(in_memory.open(LEFT))

    in_memory.world.hook = other
    session = in_memory.open(LEFT)
    flushed(session)
    with pytest.raises(Fenced):
        flushed(others[0])
    assert in_memory.served == [0, 2, 4]


def test_a_child_that_somebody_else_has_begun_is_fenced_and_not_broken(in_memory: Family) -> None:
    """It read its own row before, and its parent's after the other one had saved what it inherited."""
    in_memory.apply_root()
    in_memory.open(RIGHT).close()

    def other(step: str, moment: str) -> None:
        if step == "snapshot":
            in_memory.world.hook = no_faults
            in_memory.open(LEFT).close()

    in_memory.world.hook = other
    with pytest.raises(Fenced):
        in_memory.open(LEFT)
    flushed(in_memory.open(LEFT))
    assert in_memory.served == [0, 2, 4]


# --- parents that are not at their end -------------------------------------------------------------------------------


def test_a_child_waits_while_its_parent_has_records_left(family: Family) -> None:
    family.apply_root(upto=4)
    with pytest.raises(ParentBehind, match=f"{LEFT.shard_id}.*{SHARD.shard_id} has not been applied to its end"):
        family.open(LEFT)
    assert not family.row(SHARD).sealed
    family.apply_root()
    flushed(family.open(LEFT))
    assert family.served == [0, 2, 4]


def test_without_a_reader_only_a_sealed_parent_will_do(family: Family) -> None:
    family.apply_root()
    with pytest.raises(ParentBehind):
        family.open(LEFT, stream=None)
    family.open(SHARD).seal()
    flushed(family.open(LEFT, stream=None))
    assert family.served == [0, 2, 4]


def test_a_record_that_was_applied_in_part_only_is_left(in_memory: Family) -> None:
    """Its last part stands at sub-sequence number 0, and the state before it."""
    in_memory.apply_root(upto=5)
    snapshot = in_memory.world.store.snapshot(in_memory.row(SHARD))
    assert snapshot is not None
    in_memory.stream.records[SHARD.shard_id] = RECORDS[:5]
    engine = decode_snapshot(snapshot).engine
    partly = {"state": [str(engine["state"][0]).replace("1004/0", "1003/7")]}
    row = in_memory.world.store.claim(SHARD.shard_id, owner="partial")
    encoded = encode_snapshot(Snapshot(partly, Outbox()))
    in_memory.world.store.commit(row, snapshot=encoded, position=Position(1_004, -1), now_ms=0)
    with pytest.raises(ParentBehind):
        in_memory.open(LEFT)


def test_of_a_merges_parents_the_one_that_is_behind_decides(family: Family) -> None:
    family.apply_root()
    flushed(family.open(LEFT))
    family.open(RIGHT).close()
    family.stream.records |= {LEFT.shard_id: [flush(50)], RIGHT.shard_id: [flush(51)]}
    with pytest.raises(ParentBehind, match=RIGHT.shard_id):
        family.open(MERGED)
    flushed(family.open(RIGHT), 51)
    flushed(family.open(MERGED), 60)
    assert family.served == [0, 1, 2, 3, 4, 5]


def test_a_parent_that_moves_while_it_is_looked_at_is_not_sealed(in_memory: Family) -> None:
    in_memory.apply_root(upto=4)
    holder = in_memory.open(SHARD)
    in_memory.stream.records[SHARD.shard_id] = RECORDS[:4]

    def owner_goes_on(shard_id: str) -> None:
        in_memory.stream.meanwhile = lambda shard_id: None
        in_memory.stream.records[SHARD.shard_id] = RECORDS
        holder.apply(RECORDS)
        holder.commit()

    in_memory.stream.meanwhile = owner_goes_on
    with pytest.raises(ParentBehind, match="somebody works on its parent"):
        in_memory.open(LEFT)
    flushed(in_memory.open(LEFT))
    assert in_memory.served == [0, 2, 4]


def test_a_zombie_owner_commits_nothing_after_the_seal_and_delivers_nothing(family: Family) -> None:
    family.apply_root()
    zombie = family.open(SHARD)
    flushed(family.open(LEFT))
    zombie.apply([make_record(70), make_record(71, "raise")])
    with pytest.raises(Fenced, match="sealed"):
        zombie.commit()
    assert family.served == [0, 2, 4] and family.world.crossings.delivered == []
    with pytest.raises(Fenced):
        zombie.commit()
    assert family.served == [0, 2, 4]


# --- parents that nobody finishes ------------------------------------------------------------------------------------


def test_an_abandoned_parent_is_applied_to_its_end_by_its_child(family: Family) -> None:
    family.apply_root(upto=2)
    dead = family.open(SHARD)
    dead.apply(RECORDS[:4])
    with pytest.raises(ParentBehind):
        family.open(LEFT)
    family.now_s = 29
    with pytest.raises(ParentBehind):
        family.open(LEFT)
    family.now_s = 31
    left = family.open(LEFT)
    assert family.row(SHARD).sealed and family.row(SHARD).position == Position(1_005, 0)
    with pytest.raises(Fenced):
        dead.commit()
    flushed(left)
    flushed(family.open(RIGHT))
    assert family.served == [0, 1, 2, 3, 4, 5]


def test_a_parent_whose_owner_lives_is_not_abandoned(family: Family) -> None:
    family.apply_root(upto=2)
    owner = family.open(SHARD)
    for now_s in range(0, 200, 20):
        family.now_s = now_s
        owner.renew()
        with pytest.raises(ParentBehind):
            family.open(LEFT)
    owner.apply(RECORDS)
    owner.close()
    flushed(family.open(LEFT))
    assert family.served == [0, 2, 4]


def test_a_parent_without_a_row_is_applied_from_its_beginning(family: Family) -> None:
    with pytest.raises(ParentBehind):
        family.open(LEFT)
    assert family.row(SHARD).start == "TRIM_HORIZON"
    family.now_s = 31
    flushed(family.open(LEFT))
    flushed(family.open(RIGHT))
    assert family.served == [0, 1, 2, 3, 4, 5]


def test_several_generations_that_nobody_processed_are_gone_through_in_order(family: Family) -> None:
    """Resharded twice while stopped: the root was under way, the generation between never began."""
    family.apply_root(upto=2)
    family.stream.records |= {LEFT.shard_id: [hold(10, LOW_KEYS[0])], RIGHT.shard_id: []}
    for now_s in (0, 31, 62, 93):
        family.now_s = now_s
        try:
            session = family.open(MERGED)
        except ParentBehind:
            continue
        break
    flushed(session, 60)
    assert family.served == [0, 1, 2, 3, 4, 5, 10]
    assert all(family.row(shard).sealed for shard in (SHARD, LEFT, RIGHT))
    assert family.row(RIGHT).position is None


def test_an_empty_generation_hands_on_what_it_inherited(family: Family) -> None:
    family.apply_root()
    session = family.open(MERGED)
    assert all(family.row(shard).sealed for shard in (SHARD, LEFT, RIGHT))
    flushed(session)
    assert family.served == [0, 1, 2, 3, 4, 5]


def test_parents_that_hold_nothing_hand_over_nothing(family: Family) -> None:
    family.stream.records = {}
    session = family.open(MERGED)
    assert family.row(SHARD).sealed and family.row(MERGED).snapshot_sha256 is None
    session.apply([make_record(1)])
    session.close()
    assert family.served == [1]


# --- what is gone from the stream ------------------------------------------------------------------------------------


def test_a_parent_that_nobody_processed_and_the_stream_forgot_is_named(family: Family) -> None:
    family.stream.gone = {SHARD.shard_id}
    with pytest.raises(ParentMissing, match=f"{LEFT.shard_id}: its parent {SHARD.shard_id}.*--accept-gap"):
        family.open(LEFT)
    session = family.open(LEFT, accept_gap=True)
    assert session.gaps == (f"{SHARD.shard_id}: all of it",)
    session.apply([make_record(1)])
    session.close()
    assert family.open(LEFT).gaps == (f"{SHARD.shard_id}: all of it",)


def test_what_was_trimmed_of_a_parent_is_a_gap_of_the_parent(family: Family) -> None:
    family.apply_root(upto=4)
    family.stream.trimmed = {SHARD.shard_id}
    with pytest.raises(AssertionError, match="a gap that nobody accepted"):
        family.open(LEFT)
    with pytest.raises(ParentBehind):
        family.open(LEFT, accept_gap=True)
    family.now_s = 31
    flushed(family.open(LEFT, accept_gap=True))
    assert family.open(RIGHT).gaps == ()
    blob = family.world.store.snapshot(family.row(SHARD))
    assert blob is not None and decode_snapshot(blob).gaps == ("1003/0..end of shard",)
    assert family.served == [0, 2]


# --- the outbox, and what sealed shards keep -------------------------------------------------------------------------


def test_what_a_parent_could_not_deliver_its_children_deliver(in_memory: Family) -> None:
    down = {"deliver served", "deliver crossings", "put"}

    def hook(step: str, moment: str) -> None:
        if step in down:
            raise StoreUnavailable("down")

    in_memory.stream.records[SHARD.shard_id] = [*RECORDS, flush(6), make_record(7, "raise")]
    session = in_memory.open(SHARD)
    session.apply(in_memory.stream.records[SHARD.shard_id])
    in_memory.world.hook = hook
    session.close()
    in_memory.world.hook = no_faults
    assert in_memory.served == [] and in_memory.world.archive.names("") == []
    in_memory.open(LEFT).close()
    in_memory.open(RIGHT).close()
    # Record 7 is of a key in one of the two ranges.
    assert in_memory.served == [0, 1, 2, 3, 4, 5, 7]
    assert [event.window_start_ms for event in in_memory.world.crossings.delivered] == [7_000]
    # Archive objects go to both, under their old names.
    assert [name.rpartition("/")[2] for name in in_memory.world.archive.names("type=streamgauge_panes/")] == [
        f"weather-1-{SHARD.shard_id}-2.jsonl.gz"
    ]


def test_a_sealed_shards_state_is_kept_until_all_its_range_is_in_its_childrens_hands(family: Family) -> None:
    family.apply_root()
    before = family.row(SHARD).snapshot_bytes
    family.open(LEFT)
    assert not family.row(SHARD).reduced and family.row(SHARD).snapshot_bytes == before
    right = family.open(RIGHT)
    reduced = family.row(SHARD)
    assert reduced.reduced and reduced.sealed and reduced.position == Position(1_005, 0)
    blob = family.world.store.snapshot(reduced)
    assert blob is not None
    assert '"held": []' in decode_snapshot(blob).engine["state"][0]
    assert '"accepted": 6' in decode_snapshot(blob).engine["state"][0]
    flushed(right)
    assert family.served == [1, 3, 5]


def test_state_that_could_not_be_dropped_is_dropped_when_a_child_is_opened_next(in_memory: Family) -> None:
    in_memory.apply_root()

    def hook(step: str, moment: str) -> None:
        if step == "reduce":
            raise StoreUnavailable("down")

    in_memory.world.hook = hook
    in_memory.open(LEFT)
    in_memory.open(RIGHT)
    assert not in_memory.row(SHARD).reduced
    in_memory.world.hook = no_faults
    in_memory.open(RIGHT)
    assert in_memory.row(SHARD).reduced


# --- sessions that end -----------------------------------------------------------------------------------------------


def test_an_owner_seals_its_shard_itself_at_its_end(family: Family) -> None:
    session = family.open(SHARD)
    session.apply(RECORDS)
    session.seal()
    assert family.row(SHARD).sealed and family.row(SHARD).position == Position(1_005, 0)
    session.seal()
    with pytest.raises(Fenced, match="sealed"):
        family.open(SHARD)


def test_a_session_that_an_error_ended_seals_nothing(family: Family) -> None:
    session = family.open(SHARD)
    with pytest.raises(RuntimeError):
        session.apply([make_record(1), make_record(2, "bug")])
    with pytest.raises(SessionClosed, match="an error while"):
        session.seal()
    assert not family.row(SHARD).sealed


def test_a_fenced_session_seals_nothing(family: Family) -> None:
    session = family.open(SHARD)
    session.apply(RECORDS[:2])
    family.open(SHARD)
    with pytest.raises(Fenced):
        session.seal()
    assert not family.row(SHARD).sealed
    idle = family.open(SHARD)
    family.open(SHARD)
    with pytest.raises(Fenced):
        idle.seal()
    assert not family.row(SHARD).sealed


def test_a_released_shard_has_no_owner(family: Family) -> None:
    session = family.open(SHARD)
    session.apply(RECORDS)
    session.release()
    assert family.row(SHARD).owner is None and family.row(SHARD).position == Position(1_005, 0)


def test_a_renewal_whose_answer_was_lost_does_not_fence_its_own_session(in_memory: Family) -> None:
    session = in_memory.open(SHARD)
    lost = {1}

    def hook(step: str, moment: str) -> None:
        if (step, moment) == ("renew", "after") and lost:
            lost.pop()
            raise StoreUnavailable("the answer was lost")

    in_memory.world.hook = hook
    session.apply(RECORDS)
    session.renew()
    assert session.claim_version == 2
    # And where reading it back fails too.
    lost |= {1, 2}
    with pytest.raises(StoreUnavailable):
        session.renew()
    assert session.commit() == Position(1_005, 0)


# --- faults at every step --------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process dies here."""


def go_through(family: Family, hook: Callable[[str, str], None]) -> int:
    """The whole family from an abandoned root to the merged shard; a crash begins again. How many there were."""
    family.world.hook = hook
    crashes = 0
    for _ in range(200):
        try:
            session = family.open(MERGED)
            session.apply([flush(60)])
            session.close()
        except (Crash, StoreUnavailable):
            crashes += 1
        except (ParentBehind, Fenced):
            family.now_s += 31
        else:
            family.world.hook = no_faults
            return crashes
    raise AssertionError("it never ended")


@pytest.mark.parametrize("error", [Crash, StoreUnavailable])
@pytest.mark.parametrize("later", [(), (0,), (4,), (9, 3)])
def test_a_fault_at_any_step_of_a_hand_over_loses_nothing_and_doubles_nothing(
    error: type[BaseException], later: tuple[int, ...]
) -> None:
    steps: list[str] = []
    go_through(Family(memory_world()), lambda step, moment: steps.append(step))
    assert {"claim", "commit", "seal", "reduce", "snapshot", "create"} <= set(steps)
    for number in range(len(steps)):
        family = Family(memory_world())
        due, seen = [number, *later], 0

        def hook(step: str, moment: str) -> None:
            nonlocal seen
            if due and seen == due[0]:  # noqa: B023 - used within the loop
                due.pop(0)  # noqa: B023
                seen = 0
                raise error(f"{moment} {step}")
            seen += 1

        go_through(family, hook)
        family.open(MERGED).close()
        assert sorted(set(family.served)) == [0, 1, 2, 3, 4, 5], f"fault at step {number}"


# --- where shards begin ----------------------------------------------------------------------------------------------


def test_the_first_start_says_for_every_shard_where_it_begins(family: Family) -> None:
    start = "AT_TIMESTAMP 2026-01-01T00:00:00.000Z"
    older = LEFT._replace(parents=("shardId-before",))
    rows = register_shards(family.world.store, [older, RIGHT._replace(parents=()), MERGED], start=start)
    assert [(row.shard.parents, row.start) for row in rows] == [
        ((), start),
        ((), start),
        ((LEFT.shard_id, RIGHT.shard_id), start),
    ]


def test_a_first_start_that_crashed_half_way_is_a_first_start_still(family: Family) -> None:
    start = "AT_TIMESTAMP 2026-01-01T00:00:00.000Z"
    register_shards(family.world.store, [LEFT._replace(parents=("shardId-before",))], start=start)
    rows = register_shards(family.world.store, [LEFT, RIGHT._replace(parents=("shardId-before",))], start=start)
    assert [(row.shard.parents, row.start) for row in rows] == [((), start), ((), start)]


def test_a_shard_that_comes_later_is_read_from_its_beginning_and_keeps_its_parents(family: Family) -> None:
    start = "AT_TIMESTAMP 2026-01-01T00:00:00.000Z"
    register_shards(family.world.store, [SHARD], start=start)
    family.world.store.claim(SHARD.shard_id, owner="first")
    rows = register_shards(family.world.store, [LEFT, MERGED], start=start)
    assert [(row.shard, row.start) for row in rows] == [
        (SHARD, start),
        (LEFT, "TRIM_HORIZON"),
        (MERGED, "TRIM_HORIZON"),
    ]


@pytest.mark.parametrize(
    ("parts", "covered"),
    [
        ([(0, 9)], True),
        ([(5, 9), (0, 4)], True),
        ([(0, 4), (6, 9)], False),
        ([(0, 8)], False),
        ([(1, 9)], False),
        ([(0, 5), (3, 20)], True),
        ([], False),
    ],
)
def test_a_range_is_covered_by_parts_without_a_hole(parts: list[tuple[int, int]], covered: bool) -> None:
    assert is_covered(HashRange(0, 9), [HashRange(*part) for part in parts]) is covered
