"""The local host against a scripted Kinesis, a scripted engine and stores in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from botocore.exceptions import EndpointConnectionError
from commit_world import World, make_record, memory_world
from hosts import FAST
from scripted_kinesis import ScriptedKinesis, ScriptedShard, client_error

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.position import Position
from streamgauge.processors.commit.memory import no_faults
from streamgauge.processors.commit.outbox import OutboxLimits
from streamgauge.processors.commit.ports import StoreRefused, StoreUnavailable
from streamgauge.processors.hosts.local import LocalProgress, LocalSettings, run_local
from streamgauge.processors.hosts.shard_reader import Gap, ReadFailed

A, B = "shardId-000000000000", "shardId-000000000001"
INPUT = [make_record(number) for number in range(10)]
WITH_END = [*INPUT, make_record(10, "end")]


def run(
    world: World,
    kinesis: ScriptedKinesis,
    *,
    until: Callable[[LocalProgress], bool] | None = None,
    settings: LocalSettings = FAST,
) -> LocalProgress:
    """Until the input has ended; or, given a condition, until that holds. A run that hangs is stopped and fails."""
    stop = threading.Event()
    deadline = threading.Timer(20, stop.set)
    deadline.start()
    ticks = iter(range(10**9))
    # Progress is shown once a second: let a second pass at each look at the clock.
    clock = (lambda: float(next(ticks))) if until else None

    def on_progress(progress: LocalProgress) -> None:
        if until is not None and until(progress):
            stop.set()

    try:
        if clock is None:
            return run_local(
                world.pipeline,
                kinesis,
                world.open,
                store=world.store,
                stop=stop,
                settings=settings,
                until_input_ended=True,
            )
        return run_local(
            world.pipeline,
            kinesis,
            world.open,
            store=world.store,
            stop=stop,
            settings=settings,
            on_progress=on_progress,
            clock=clock,
        )
    finally:
        assert deadline.is_alive(), "the run did not end by itself"
        deadline.cancel()


def served(world: World) -> list[int]:
    return sorted(int(start) // 1_000 for batch in world.served.delivered for start in batch.window_start_ms)


@pytest.fixture
def world() -> World:
    return memory_world()


def test_all_shards_are_read_to_the_end_of_the_input(world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(WITH_END), B: ScriptedShard([make_record(11), make_record(12, "end")])})
    progress = run(world, kinesis)
    assert (progress.records, progress.events, progress.behind_ms) == (13, 13, 0)
    assert served(world) == [*range(10), 11]
    assert [row.position for row in world.store.rows()] == [Position(1_010, 0), Position(1_012, 0)]
    assert all(shard.input_ended and shard.outbox_entries == 0 for shard in progress.shards)


def test_size_and_age_of_the_saved_states_are_told(world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(WITH_END), B: ScriptedShard([make_record(11), make_record(12, "end")])})
    progress = run(world, kinesis)
    rows = world.store.rows()
    assert [shard.snapshot_bytes for shard in progress.shards] == [row.snapshot_bytes for row in rows]
    assert progress.snapshot_bytes == sum(row.snapshot_bytes for row in rows) > 0
    assert progress.committed_at_ms == min(row.committed_at_ms or 0 for row in rows) > 0


def test_a_stop_commits_what_was_applied(world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(INPUT)})
    settings = LocalSettings(read_interval_s=0, commit_interval_s=10**9)
    run(world, kinesis, until=lambda progress: progress.records == 10, settings=settings)
    assert world.store.row(A).position == Position(1_009, 0)
    assert served(world) == list(range(10))


def test_a_later_run_goes_on_at_the_saved_position(world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(list(INPUT[:4]))})
    run(world, kinesis, until=lambda progress: progress.records == 4)
    kinesis.shards[A].records = list(WITH_END)
    progress = run(world, kinesis)
    # It reads *at* the position: the record comes again, and is skipped.
    assert kinesis.shards[A].iterators[-1] == ("AT_SEQUENCE_NUMBER", "1003")
    assert (progress.records, progress.events) == (8, 7)
    assert served(world) == list(range(10))


def test_an_end_that_was_reached_before_does_not_end_the_next_input(world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(list(WITH_END))})
    run(world, kinesis)
    kinesis.shards[A].records += [make_record(11), make_record(12, "end")]
    kinesis.shards[A].faults = [client_error("ProvisionedThroughputExceededException")]
    run(world, kinesis)
    assert served(world) == [*range(10), 11]


def test_reading_may_begin_at_a_time(world: World) -> None:
    settings = LocalSettings(start="AT_TIMESTAMP 2023-11-14T22:13:20.004Z", read_interval_s=0.001)
    run(world, ScriptedKinesis({A: ScriptedShard(WITH_END)}), settings=settings)
    assert served(world) == list(range(4, 10))


@pytest.mark.parametrize("start", ["LATEST", "AT_TIMESTAMP", "AT_TIMESTAMP yesterday"])
def test_a_beginning_that_is_none_is_refused_before_anything_is_claimed(world: World, start: str) -> None:
    with pytest.raises(ReadFailed, match="AT_TIMESTAMP with an RFC 3339 time"):
        run(world, ScriptedKinesis({A: ScriptedShard(WITH_END)}), settings=LocalSettings(start=start))
    assert world.store.rows() == []


@pytest.mark.parametrize(
    "fault",
    [
        client_error("ProvisionedThroughputExceededException"),
        client_error("ExpiredIteratorException"),
        client_error("InternalFailure", 500),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:9"),
    ],
    ids=["throttled", "expired iterator", "500", "no connection"],
)
def test_what_goes_away_by_itself_is_waited_for(world: World, fault: Exception) -> None:
    shard = ScriptedShard(WITH_END, faults=[fault, None, fault, fault, None, fault])
    progress = run(world, ScriptedKinesis({A: shard}))
    assert progress.events == 11 and served(world) == list(range(10))
    assert shard.faults == []


def test_an_expired_iterator_is_replaced_after_the_last_record_read(world: World) -> None:
    shard = ScriptedShard(WITH_END, faults=[None, client_error("ExpiredIteratorException")])
    run(world, ScriptedKinesis({A: shard}))
    assert shard.iterators == [("TRIM_HORIZON", None), ("AFTER_SEQUENCE_NUMBER", "1002")]
    assert served(world) == list(range(10))


def test_throttling_is_no_outage_however_long_it_lasts(world: World) -> None:
    shard = ScriptedShard(WITH_END, faults=[client_error("ProvisionedThroughputExceededException")] * 60)
    run(world, ScriptedKinesis({A: shard}))
    assert served(world) == list(range(10))


def test_an_outage_that_lasts_ends_the_run_and_commits_the_other_shards(world: World) -> None:
    down = EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
    kinesis = ScriptedKinesis({A: ScriptedShard(INPUT), B: ScriptedShard(INPUT, faults=[down] * 10_000)})
    with pytest.raises(ReadFailed, match=f"shard {B}.*no usable answer for 0.05 s.*Is Kinesis running"):
        run(world, kinesis)
    assert world.store.row(A).position == Position(1_009, 0)


def test_a_refused_read_ends_the_run_at_once(world: World) -> None:
    shard = ScriptedShard(WITH_END, faults=[None, client_error("AccessDeniedException")])
    with pytest.raises(ReadFailed, match="AccessDeniedException"):
        run(world, ScriptedKinesis({A: shard}))
    assert world.store.row(A).position == Position(1_002, 0)


# --- gaps --------------------------------------------------------------------------------------------------------


def interrupted(world: World, rest: list) -> ScriptedKinesis:
    """A run has committed up to record 3; then the stream holds `rest`."""
    kinesis = ScriptedKinesis({A: ScriptedShard(list(INPUT[:4]))})
    run(world, kinesis, until=lambda progress: progress.records == 4)
    kinesis.shards[A].records = rest
    return kinesis


@pytest.mark.parametrize("rest", [WITH_END[6:], []], ids=["a later record comes", "silence"])
def test_a_record_that_does_not_come_back_stops_the_run(world: World, rest: list) -> None:
    kinesis = interrupted(world, rest)
    with pytest.raises(Gap, match=r"shard shardId-000000000000: .*position 1003/0.*--accept-gap"):
        run(world, kinesis)
    assert world.store.row(A).position == Position(1_003, 0)
    assert served(world) == list(range(4))


def test_a_position_that_the_stream_never_gave_out_stops_the_run(world: World) -> None:
    kinesis = interrupted(world, WITH_END[6:])
    kinesis.refuses_unknown_positions = True
    with pytest.raises(Gap):
        run(world, kinesis)


@pytest.mark.parametrize("refuses", [False, True])
def test_an_accepted_gap_is_named_and_the_rest_is_read(world: World, refuses: bool) -> None:
    kinesis = interrupted(world, WITH_END[6:])
    kinesis.refuses_unknown_positions = refuses
    settings = LocalSettings(accept_gap=True, read_interval_s=0.001, commit_interval_s=0.01)
    progress = run(world, kinesis, settings=settings)
    assert progress.shards[0].gaps == ("1003/0..1006",)
    assert served(world) == [0, 1, 2, 3, 6, 7, 8, 9]


def test_no_gap_is_counted_where_none_is(world: World) -> None:
    kinesis = interrupted(world, list(WITH_END))
    progress = run(world, kinesis, settings=LocalSettings(accept_gap=True, read_interval_s=0.001))
    assert progress.shards[0].gaps == ()


# --- resharding --------------------------------------------------------------------------------------------------


def test_a_stream_that_was_resharded_before_the_first_start_is_read_generation_by_generation(world: World) -> None:
    closed = ScriptedShard(INPUT[:5], is_closed=True, children=(B,))
    kinesis = ScriptedKinesis({A: closed, B: ScriptedShard(WITH_END[5:], parents=(A,))})
    progress = run(world, kinesis)
    assert served(world) == list(range(10))
    assert [(shard.sealed, shard.input_ended) for shard in progress.shards] == [(True, False), (False, True)]
    assert world.store.row(A).sealed


def test_a_shard_that_is_closed_under_way_is_sealed_and_its_children_go_on(world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(list(INPUT[:4]))})

    def reshard(step: str, moment: str) -> None:
        if (step, moment) == ("commit", "after") and B not in kinesis.shards:
            kinesis.shards[A].is_closed, kinesis.shards[A].children = True, (B,)
            kinesis.shards[B] = ScriptedShard(WITH_END[4:], parents=(A,))

    world.hook = reshard
    progress = run(world, kinesis)
    assert served(world) == list(range(10))
    assert [shard.sealed for shard in progress.shards] == [True, False]
    assert world.store.row(B).shard.parents == (A,)


def test_a_shard_is_not_sealed_before_its_children_have_rows(world: World) -> None:
    """Else nobody would look for them, if this worker died in between."""
    kinesis = ScriptedKinesis({A: ScriptedShard(list(INPUT[:4]), is_closed=True, children=(B,))})
    order: list[str] = []

    def reshard(step: str, moment: str) -> None:
        order.append(step)
        # Kinesis lists the child some time after the parent's last answer named it.
        if step == "renew":
            kinesis.shards[B] = ScriptedShard(WITH_END[4:], parents=(A,))

    world.hook = reshard
    run(world, kinesis)
    assert order.index("renew") < order.index("seal")
    assert order[: order.index("seal")].count("create") == 4, "two steps for each row"
    assert served(world) == list(range(10))


def test_a_shard_that_the_stream_has_forgotten_is_a_gap(world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(list(INPUT[:4]))})
    run(world, kinesis, until=lambda progress: progress.records == 4)
    kinesis.shards = {B: ScriptedShard(WITH_END[4:], parents=(A,))}
    with pytest.raises(Gap, match=f"shard {A}.*position 1003/0"):
        run(world, kinesis)
    progress = run(world, kinesis, settings=replace(FAST, accept_gap=True))
    assert progress.shards[0].gaps == ("1003/0..end of shard",) and progress.shards[0].sealed
    assert served(world) == list(range(10))


def test_a_stream_that_does_not_exist_is_named(world: World) -> None:
    class Nothing(ScriptedKinesis):
        def list_shards(self, **_: object) -> dict[str, object]:
            raise client_error("ResourceNotFoundException")

    with pytest.raises(ReadFailed, match="stream observations: there is no such stream"):
        run(world, Nothing({}))


# --- the outbox, other owners, the state store -------------------------------------------------------------------


def test_a_full_outbox_pauses_reading_until_the_receiver_is_back(world: World) -> None:
    world.limits = OutboxLimits(max_entries=5)
    paused_at: list[int] = []
    shard = ScriptedShard(WITH_END)

    def hook(step: str, moment: str) -> None:
        if step == "deliver served" and moment == "before" and len(paused_at) < 20:
            paused_at.append(shard.reads)
            raise StoreUnavailable("the table is down")

    world.hook = hook
    run(world, ScriptedKinesis({A: shard}))
    assert len(set(paused_at[5:])) == 1, "it read on although nothing could be delivered"
    assert served(world) == list(range(10))


def test_what_a_shard_waits_for_is_shown(world: World) -> None:
    world.limits = OutboxLimits(max_entries=5)

    def hook(step: str, moment: str) -> None:
        if step == "deliver served":
            raise StoreUnavailable("the table is down")

    world.hook = hook
    progress = run(
        world,
        ScriptedKinesis({A: ScriptedShard(WITH_END)}),
        until=lambda progress: "the table is down" in (progress.shards[0].waiting_for or ""),
    )
    assert progress.records < 10


def test_a_shard_that_another_worker_claims_is_named_and_nothing_of_it_leaves(world: World) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(INPUT), B: ScriptedShard(INPUT)})
    stolen: list[object] = []

    def steal(step: str, moment: str) -> None:
        if step == "commit" and moment == "before" and not stolen and world.store.row(A).claim_version:
            stolen.append(world.store.claim(A, owner="another.1"))

    world.hook = steal
    settings = replace(FAST, lease_s=10**9)
    progress = run(world, kinesis, until=lambda progress: len(served(world)) == 10, settings=settings)
    assert list(progress.fenced) == [A]
    assert "owner another.1 holds version" in progress.fenced[A]
    assert world.store.row(A).position is None and world.store.row(B).position == Position(1_009, 0)


def test_a_state_store_that_comes_back_is_waited_for(world: World) -> None:
    failures = iter([True] * 5)

    def hook(step: str, moment: str) -> None:
        if step == "commit" and moment == "before" and next(failures, False):
            raise StoreUnavailable("no connection")

    world.hook = hook
    run(world, ScriptedKinesis({A: ScriptedShard(WITH_END)}))
    assert served(world) == list(range(10))


@pytest.mark.parametrize("error", [StoreUnavailable, StoreRefused])
def test_a_state_store_that_stays_away_ends_the_run_and_loses_nothing(
    world: World, error: type[StreamgaugeError]
) -> None:
    kinesis = ScriptedKinesis({A: ScriptedShard(WITH_END)})

    def hook(step: str, moment: str) -> None:
        if step == "commit":
            raise error("no space left", where="DynamoDB table state")

    world.hook = hook
    with pytest.raises(error, match="DynamoDB table state: no space left"):
        run(world, kinesis)
    assert served(world) == []
    world.hook = no_faults
    run(world, kinesis)
    assert served(world) == list(range(10))


def test_a_commit_is_made_early_when_there_is_much_to_save(world: World) -> None:
    commits: list[str] = []
    world.hook = lambda step, moment: commits.append(step) if (step, moment) == ("commit", "before") else None
    settings = LocalSettings(read_interval_s=0, commit_interval_s=10**9, commit_bytes=50)
    run(world, ScriptedKinesis({A: ScriptedShard(INPUT)}), until=lambda p: p.records == 10, settings=settings)
    assert len(commits) > 3
