"""How far each shard is processed, from rows, leases and a read or two, whatever host does it."""

from __future__ import annotations

from scripted_kinesis import ScriptedKinesis, ScriptedShard, client_error

from streamgauge.events.position import Position
from streamgauge.events.records import StreamRecord
from streamgauge.processors.commit.lineage import register_shards
from streamgauge.processors.commit.memory import MemoryStateStore
from streamgauge.processors.hosts.kcl.leases import Lease
from streamgauge.processors.hosts.lag import ShardLag, StreamLag, read_lag
from streamgauge.processors.hosts.stream_shards import list_shards

PARENT, LEFT, RIGHT = (f"shardId-{number:012}" for number in range(3))
NOW_MS = 100_000


def records(*numbers: int) -> list[StreamRecord]:
    return [StreamRecord(str(number), "k", 1_000 * number, b"{}") for number in numbers]


class World:
    def __init__(self, **shards: ScriptedShard) -> None:
        ids = {"parent": PARENT, "left": LEFT, "right": RIGHT}
        self.kinesis = ScriptedKinesis({ids[name]: shard for name, shard in shards.items()})
        self.store = MemoryStateStore()
        register_shards(self.store, self.listed, start="TRIM_HORIZON")

    @property
    def listed(self):
        return list_shards(self.kinesis, "s")  # type: ignore[arg-type]

    def commit(self, shard_id: str, number: int, *, seal: bool = False) -> None:
        row = self.store.claim(shard_id, owner="someone")
        row = self.store.commit(row, snapshot=b"", position=Position(number, 3), now_ms=NOW_MS - 5)
        if seal:
            self.store.seal(row)

    def lag(self, leases: list[Lease] | None = None, *, rows: bool = True) -> StreamLag:
        return read_lag(
            self.kinesis,  # type: ignore[arg-type]
            "s",
            listed=self.listed,
            rows=self.store.rows() if rows else (),
            leases=leases or [],
            now_ms=lambda: NOW_MS,
            sleep=lambda seconds: None,
        )

    def of(self, shard_id: str) -> ShardLag:
        return next(shard for shard in self.lag().shards if shard.shard_id == shard_id)


def lease(shard_id: str, checkpoint: str) -> Lease:
    return Lease(shard_id, "worker", 7, checkpoint, 2, None)


def test_the_age_is_that_of_the_first_record_behind_the_snapshot() -> None:
    world = World(parent=ScriptedShard(records(10, 20, 30, 40)))
    world.commit(PARENT, 20)
    found = world.of(PARENT)
    assert (found.state, found.owner, found.position) == ("open", "someone", Position(20, 3))
    assert found.iterator_age_ms == NOW_MS - 30_000
    assert found.committed_at_ms == NOW_MS - 5
    assert world.kinesis.shards[PARENT].iterators[-1] == ("AT_SEQUENCE_NUMBER", "20")


def test_a_shard_that_is_read_to_its_tip_has_no_age() -> None:
    world = World(parent=ScriptedShard(records(10, 20)))
    world.commit(PARENT, 20)
    assert (world.of(PARENT).iterator_age_ms, world.of(PARENT).behind_ms) == (0, 0)


def test_a_shard_of_which_nothing_is_processed_is_as_old_as_its_first_record() -> None:
    world = World(parent=ScriptedShard(records(10, 20)))
    assert world.of(PARENT).iterator_age_ms == NOW_MS - 10_000
    assert world.lag().iterator_age_ms == NOW_MS - 10_000


def test_parents_are_closed_until_they_are_sealed() -> None:
    parent = ScriptedShard(records(10), is_closed=True, children=(LEFT, RIGHT))
    world = World(
        parent=parent, left=ScriptedShard(records(20), parents=(PARENT,)), right=ScriptedShard(parents=(PARENT,))
    )
    assert [shard.state for shard in world.lag().shards] == ["closed", "open", "open"]
    assert world.of(LEFT).sealed_parents == ()
    world.commit(PARENT, 10, seal=True)
    reads = parent.reads
    assert [shard.state for shard in world.lag().shards] == ["sealed", "open", "open"]
    assert world.of(LEFT).sealed_parents == world.of(LEFT).parents == (PARENT,)
    assert parent.reads == reads, "what is sealed is not read"


def test_a_shard_that_the_stream_has_forgotten_is_gone() -> None:
    world = World(parent=ScriptedShard(records(10)), left=ScriptedShard(records(20)))
    del world.kinesis.shards[PARENT]
    assert [shard.state for shard in world.lag().shards] == ["gone", "open"]


def test_a_position_that_was_trimmed_is_said_to_be() -> None:
    world = World(parent=ScriptedShard(records(30)))
    world.commit(PARENT, 10)
    assert world.of(PARENT).iterator_age_ms is None
    assert "not in the stream any more" in (world.of(PARENT).trouble or "")


def test_a_shard_that_is_throttled_is_said_to_be_and_does_not_hide_the_others() -> None:
    throttled = [client_error("ProvisionedThroughputExceededException")] * 8
    world = World(parent=ScriptedShard(records(10), faults=list(throttled)), left=ScriptedShard(records(20)))
    first, second = world.lag().shards
    assert "ProvisionedThroughputExceeded" in (first.trouble or "")
    assert second.iterator_age_ms == NOW_MS - 20_000


def test_a_stream_of_others_is_told_from_their_leases() -> None:
    world = World(
        parent=ScriptedShard(records(10), is_closed=True),
        left=ScriptedShard(records(20, 30), parents=(PARENT,)),
        right=ScriptedShard(records(40), parents=(PARENT,)),
    )
    leases = [lease(PARENT, "SHARD_END"), lease(LEFT, "20"), lease(RIGHT, "TRIM_HORIZON")]
    parent, left, right = world.lag(leases, rows=False).shards
    assert (parent.state, parent.checkpoint) == ("sealed", "SHARD_END")
    assert (left.checkpoint, left.lease_owner, left.iterator_age_ms) == ("20/2", "worker", NOW_MS - 30_000)
    assert left.sealed_parents == (PARENT,)
    assert (right.checkpoint, right.iterator_age_ms) == ("TRIM_HORIZON", NOW_MS - 40_000)


def test_a_stream_that_nobody_processes_is_not_read() -> None:
    world = World(parent=ScriptedShard(records(10)))
    (shard,) = world.lag(rows=False).shards
    assert (shard.state, shard.iterator_age_ms, shard.owner) == ("open", None, None)
    assert world.kinesis.shards[PARENT].reads == 0
