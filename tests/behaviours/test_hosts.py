"""What every host promises, whoever calls whom: nothing lost, nothing counted twice, and no standing still."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from commit_world import World, make_record, memory_world
from hosts import Host, KclHost, LambdaHost, LocalHost
from scripted_kinesis import ScriptedKinesis, ScriptedShard

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.position import Position
from streamgauge.processors.commit.memory import no_faults
from streamgauge.processors.commit.outbox import OutboxLimits
from streamgauge.processors.commit.ports import StoreRefused, StoreUnavailable
from streamgauge.processors.commit.snapshots import decode_snapshot
from streamgauge.processors.hosts.shard_reader import Gap

A, B = "shardId-000000000000", "shardId-000000000001"
INPUT = [make_record(number) for number in range(10)]
WITH_END = [*INPUT, make_record(10, "end")]
MakeHost = Callable[..., Host]


@pytest.fixture(params=[LocalHost, LambdaHost, KclHost])
def make(request: pytest.FixtureRequest) -> MakeHost:
    return request.param


@pytest.fixture
def world() -> World:
    return memory_world()


def served(world: World) -> list[int]:
    """Which records' panes have left; each may have done so more than once."""
    return sorted({int(start) // 1_000 for batch in world.served.delivered for start in batch.window_start_ms})


def counted(world: World) -> int:
    """How many events the shards' states have counted, in all."""
    found = 0
    for row in world.store.rows():
        blob = world.store.snapshot(row)
        if blob is not None:
            state = decode_snapshot(blob, where=row.shard.shard_id).engine["state"]
            found += json.loads(state[0])["accepted"]
    return found


def fails(step: str, moment: str, error: Exception, *, times: int) -> Callable[[str, str], None]:
    left = [error] * times

    def hook(at: str, when: str) -> None:
        if (at, when) == (step, moment) and left:
            raise left.pop()

    return hook


def test_all_shards_are_read_to_the_end_of_the_input(make: MakeHost, world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(WITH_END), B: ScriptedShard([make_record(11), make_record(12, "end")])})
    make(world, kinesis).run()
    assert served(world) == [*range(10), 11] and counted(world) == 11
    assert [row.position for row in world.store.rows()] == [Position(1_010, 0), Position(1_012, 0)]


def test_what_comes_later_is_added_to_what_was_saved(make: MakeHost, world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard([*INPUT[:4], make_record(4, "end")])})
    host = make(world, kinesis)
    host.run()
    kinesis.shards[A].records += [make_record(number) for number in range(5, 10)] + [make_record(10, "end")]
    host.run()
    assert served(world) == [0, 1, 2, 3, *range(5, 10)] and counted(world) == 9


def test_a_host_that_has_forgotten_how_far_it_was_counts_nothing_twice(make: MakeHost, world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(WITH_END)})
    make(world, kinesis).run()
    make(world, kinesis).run()
    assert served(world) == list(range(10)) and counted(world) == 10


@pytest.mark.parametrize("step", ["claim", "snapshot", "commit"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_state_store_that_comes_back_is_waited_for(make: MakeHost, world: World, step: str, moment: str) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard([*INPUT[:4], make_record(4, "end")])})
    if step == "snapshot":
        make(world, kinesis).run()
    kinesis.shards[A].records = [*INPUT[:4], make_record(4, "end"), *INPUT[5:], make_record(10, "end")]
    world.hook = fails(step, moment, StoreUnavailable("no connection"), times=3)
    make(world, kinesis).run()
    assert served(world) == [0, 1, 2, 3, *range(5, 10)] and counted(world) == 9


def test_a_state_store_that_refuses_is_an_error_and_loses_nothing(make: MakeHost, world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(WITH_END)})
    host = make(world, kinesis)
    world.hook = fails("commit", "before", StoreRefused("no space left", where="DynamoDB table state"), times=10**6)
    with pytest.raises(StoreRefused, match="DynamoDB table state: no space left"):
        host.run()
    assert served(world) == []
    world.hook = no_faults
    host.run()
    assert served(world) == list(range(10)) and counted(world) == 10


def test_a_full_outbox_waits_for_its_receiver_and_loses_nothing(make: MakeHost, world: World) -> None:
    world.limits = OutboxLimits(max_entries=5)
    world.hook = fails("deliver served", "before", StoreUnavailable("the table is down"), times=20)
    make(world, ScriptedKinesis({A: ScriptedShard(WITH_END)})).run()
    assert served(world) == list(range(10)) and counted(world) == 10


def test_another_owner_in_between_costs_nothing_but_work(make: MakeHost, world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(WITH_END)})
    stolen = []

    def steal(step: str, moment: str) -> None:
        if (step, moment) == ("commit", "before") and not stolen and world.store.row(A).claim_version:
            stolen.append(world.store.release(world.store.claim(A, owner="thief.1")))

    world.hook = steal
    make(world, kinesis).run()
    assert stolen and served(world) == list(range(10)) and counted(world) == 10


def test_a_bug_in_the_engine_saves_nothing_of_its_batch(make: MakeHost, world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard([*INPUT[:2], make_record(2, "bug"), *WITH_END[3:]])})
    host = make(world, kinesis)
    with pytest.raises(RuntimeError, match="a bug in the engine"):
        host.run()
    kinesis.shards[A].records = list(WITH_END)
    host.run()
    assert served(world) == list(range(10)) and counted(world) == 10


def interrupted(make: MakeHost, world: World, rest: list, *, accept_gap: bool = False) -> Host:
    """A host has committed up to record 4; then the stream holds `rest`."""
    kinesis = ScriptedKinesis({A: ScriptedShard([*INPUT[:4], make_record(4, "end")])})
    make(world, kinesis).run()
    kinesis.shards[A].records = rest
    return make(world, kinesis, accept_gap=accept_gap)


def test_a_record_that_does_not_come_back_stops_the_host(make: MakeHost, world: World) -> None:
    host = interrupted(make, world, WITH_END[7:])
    with pytest.raises(Gap, match=r"shard shardId-000000000000: .*position 1004/0.*--accept-gap"):
        host.run()
    assert world.store.row(A).position == Position(1_004, 0) and served(world) == list(range(4))


def test_an_accepted_gap_is_named_and_the_rest_is_counted(make: MakeHost, world: World) -> None:
    interrupted(make, world, WITH_END[7:], accept_gap=True).run()
    assert served(world) == [0, 1, 2, 3, 7, 8, 9]
    row = world.store.row(A)
    assert decode_snapshot(world.store.snapshot(row), where=A).gaps == ("1004/0..1007",)


def test_no_gap_is_named_where_none_is(make: MakeHost, world: World) -> None:
    interrupted(make, world, [*INPUT[:4], make_record(4, "end"), *WITH_END[5:]], accept_gap=True).run()
    row = world.store.row(A)
    assert decode_snapshot(world.store.snapshot(row), where=A).gaps == ()


def test_a_stream_that_was_resharded_before_the_first_start_is_read_generation_by_generation(
    make: MakeHost, world: World
) -> None:
    closed = ScriptedShard(INPUT[:5], is_closed=True, children=(B,))
    kinesis = ScriptedKinesis({A: closed, B: ScriptedShard(WITH_END[5:], parents=(A,))})
    make(world, kinesis).run()
    assert served(world) == list(range(10)) and counted(world) == 10
    assert [row.sealed for row in world.store.rows()] == [True, False]


def test_a_shard_that_is_closed_under_way_is_sealed_and_its_child_goes_on(make: MakeHost, world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(list(INPUT[:4]))})

    def reshard(step: str, moment: str) -> None:
        if (step, moment) == ("commit", "after") and B not in kinesis.shards:
            kinesis.shards[A].is_closed, kinesis.shards[A].children = True, (B,)
            kinesis.shards[B] = ScriptedShard(WITH_END[4:], parents=(A,))

    world.hook = reshard
    make(world, kinesis).run()
    assert served(world) == list(range(10)) and counted(world) == 10
    assert [row.sealed for row in world.store.rows()] == [True, False]


def test_every_error_of_a_host_says_what_to_do(make: MakeHost, world: World) -> None:
    host = interrupted(make, world, WITH_END[7:])
    with pytest.raises(StreamgaugeError) as raised:
        host.run()
    assert raised.value.where and raised.value.remedy
