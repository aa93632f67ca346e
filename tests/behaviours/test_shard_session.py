"""`ShardSession`: nothing is lost, nothing doubled, and nothing leaves before the snapshot that holds it is saved."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from aws_in_process import InProcessAws, aws_in_process
from commit_world import SHARD, World, make_crossing, make_record, memory_world, scripted_engine

from streamgauge.events.position import Position
from streamgauge.events.times import rfc3339
from streamgauge.processors.commit.archive_rows import (
    COMMITS,
    FAILED_EVENTS,
    LATE_EVENTS,
    PANES,
    THRESHOLD_EVENTS,
    CommitRow,
    FailedRow,
    LateRow,
    PaneRow,
    ThresholdRow,
    decode_rows,
)
from streamgauge.processors.commit.dynamodb import DynamoDbStateStore
from streamgauge.processors.commit.memory import MemoryObjectStore, MemoryReceiver, no_faults
from streamgauge.processors.commit.outbox import OutboxLimits
from streamgauge.processors.commit.ports import Backpressure, Fenced, Receivers, StoreUnavailable
from streamgauge.processors.commit.s3 import S3ObjectStore
from streamgauge.processors.commit.session import SessionClosed, ShardSession
from streamgauge.processors.commit.snapshots import Snapshot, decode_snapshot
from streamgauge.processors.commit.state_rows import read_snapshot

KINDS = ["good", "raise", "failed", "late", "good", "raise", "good", "failed", "raise"]
RECORDS = [make_record(number, kind) for number, kind in enumerate(KINDS)]
GOOD = [number for number, kind in enumerate(KINDS) if kind != "failed"]
RAISED = [number for number, kind in enumerate(KINDS) if kind == "raise"]


class Crash(BaseException):
    """The process dies here."""


@pytest.fixture(scope="module")
def in_process() -> Iterator[InProcessAws]:
    with aws_in_process() as aws:
        yield aws


@pytest.fixture(params=["memory", "aws"])
def world(request: pytest.FixtureRequest, in_process: InProcessAws) -> World:
    if request.param == "memory":
        return memory_world()
    in_process.clear()
    state = S3ObjectStore(in_process.s3, "state")
    store = DynamoDbStateStore(in_process.dynamodb, "state", state, pipeline="weather", state_epoch=1)
    return World(store, S3ObjectStore(in_process.s3, "archive"))


def rows(world: World, table: str, row_type: type) -> list:
    names = world.archive.names(f"type={table}/")
    return [row for name in names for row in decode_rows(world.archive.get(name) or b"", row_type)]


def commit_rows(world: World) -> list[CommitRow]:
    return sorted(rows(world, COMMITS, CommitRow), key=lambda row: row.claim_version)


def listed(world: World, column: str, row_type: type) -> list:
    """Rows of the failed or late objects that some commit lists: only those count."""
    names = [name for row in commit_rows(world) if (name := getattr(row, column)) is not None]
    return [row for name in names for row in decode_rows(world.archive.get(name) or b"", row_type)]


def saved(world: World) -> Snapshot:
    found = read_snapshot(world.store, SHARD.shard_id)
    assert found is not None
    return decode_snapshot(found[1])


def check_whole(world: World) -> None:
    """Everything in `RECORDS` came out, and in the archive once."""
    world.hook = no_faults
    assert sorted(row.window_start for row in rows(world, PANES, PaneRow)) == [rfc3339(1_000 * n) for n in GOOD]
    assert sorted(row.id for row in rows(world, THRESHOLD_EVENTS, ThresholdRow)) == [f"crossing-{n}" for n in RAISED]
    assert sorted({event.id for event in world.crossings.delivered}) == [f"crossing-{n}" for n in RAISED]
    starts = {int(start) for batch in world.served.delivered for start in batch.window_start_ms}
    assert starts == {1_000 * n for n in GOOD}
    failed = [row.sequence_number for row in listed(world, "failed_object", FailedRow)]
    assert sorted(failed) == [str(1_000 + n) for n, kind in enumerate(KINDS) if kind == "failed"]
    late = [row.sequence_number for row in listed(world, "late_object", LateRow)]
    assert late == [str(1_000 + n) for n, kind in enumerate(KINDS) if kind == "late"]
    last = commit_rows(world)[-1]
    assert (last.counters.positions, last.counters.accepted) == (len(KINDS), len(GOOD))
    assert last.sequence_number == RECORDS[-1].sequence_number


def test_a_session_saves_and_delivers_what_it_applied(world: World) -> None:
    session = world.open()
    session.apply(RECORDS[:4])
    session.commit()
    session.apply(RECORDS[4:])
    assert session.commit() == Position(1_008, 0) == session.position
    check_whole(world)
    assert [row.claim_version for row in commit_rows(world)] == [2, 3]


def test_a_later_session_goes_on_where_the_last_one_committed(world: World) -> None:
    first = world.open()
    first.apply(RECORDS[:4])
    first.commit()
    first.close()
    second = world.open()
    assert second.position == second.committed == Position(1_003, 0)
    second.apply(RECORDS)  # a host that begins again from the start
    second.close()
    check_whole(world)
    assert second.counters.redelivered == 4


def test_a_commit_with_nothing_new_writes_nothing(world: World) -> None:
    session = world.open()
    session.apply(RECORDS)
    session.commit()
    before = world.store.row(SHARD.shard_id), world.archive.names("")
    session.apply(RECORDS)
    assert session.commit() == Position(1_008, 0)
    assert (world.store.row(SHARD.shard_id), world.archive.names("")) == before


def test_a_session_that_applied_nothing_leaves_no_commit(world: World) -> None:
    session = world.open(start="AT_TIMESTAMP 2026-01-01T00:00:00.000Z")
    assert session.start == "AT_TIMESTAMP 2026-01-01T00:00:00.000Z"
    assert session.commit() is None
    session.close()
    assert world.store.row(SHARD.shard_id).claim_version == 1
    assert world.archive.names("") == []


def test_delivered_entries_leave_the_next_snapshot(world: World) -> None:
    session = world.open()
    session.apply(RECORDS[:2])
    session.commit()
    assert [event.id for event in saved(world).outbox.threshold_events] == ["crossing-1"]
    session.apply(RECORDS[2:6])
    session.commit()
    assert [event.id for event in saved(world).outbox.threshold_events] == ["crossing-5"]
    session.close()
    assert len(saved(world).outbox) == 0


def test_objects_of_a_commit_are_named_by_what_made_them(world: World) -> None:
    session = world.open()
    session.apply(RECORDS)
    session.commit()
    by_arrival = "dt=2023-11-14/hour=22"
    common = f"weather-1-{SHARD.shard_id}"
    assert world.archive.names("") == sorted(
        [
            f"type={COMMITS}/{by_arrival}/{common}-2.jsonl.gz",
            f"type={PANES}/{by_arrival}/{common}-2.jsonl.gz",
            f"type={THRESHOLD_EVENTS}/{by_arrival}/{common}-2.jsonl.gz",
            f"type={FAILED_EVENTS}/{by_arrival}/{common}-owner-0-2-2.jsonl.gz",
            f"type={LATE_EVENTS}/{by_arrival}/{common}-owner-0-2-1.jsonl.gz",
        ]
    )


def test_the_archive_keeps_every_attribute_of_a_pane_and_a_crossing(world: World) -> None:
    session = world.open()
    session.apply(RECORDS[:2])
    session.commit()
    pane = rows(world, PANES, PaneRow)[1]
    assert pane == PaneRow(
        pipeline="weather",
        state_epoch=1,
        aggregate="wind",
        key={"subject": "lga"},
        partition_key="lga",
        window_start="1970-01-01T00:00:01.000Z",
        window_end="1970-01-01T00:00:02.000Z",
        revision=0,
        event_count=1,
        tombstone=False,
        measures={"n": 1, "mean": None},
        shard_id=SHARD.shard_id,
        claim_version=2,
    )
    (crossing,) = rows(world, THRESHOLD_EVENTS, ThresholdRow)
    assert crossing.measures == {"n": 1, "mean": 0.5, "gust": None}
    assert [int(part) for part in crossing.rule_sequence.split("/")] == [10**55 + 1, 0, 0]


# --- faults ------------------------------------------------------------------------------------------------------


def run_to_the_end(world: World, crash: Callable[[str, str], None]) -> int:
    """Apply `RECORDS` in batches of two, starting over after every crash; how many crashes there were."""
    crashes = 0
    world.hook = crash
    while True:
        try:
            session = world.open()
            for first in range(0, len(RECORDS), 2):
                session.apply(RECORDS[first : first + 2])
                session.commit()
            session.close()
        except Crash:
            crashes += 1
        else:
            return crashes


def steps_of_a_run() -> list[tuple[str, str]]:
    steps: list[tuple[str, str]] = []
    run_to_the_end(memory_world(), lambda step, moment: steps.append((step, moment)))
    return steps


class RaiseAt:
    """A hook that raises at its call number `at`, and then at each of `later`, counted from the one before."""

    def __init__(self, error: type[BaseException], at: int, *later: int) -> None:
        self.error = error
        self.due = [at, *later]
        self.seen = 0

    def __call__(self, step: str, moment: str) -> None:
        if self.due and self.seen == self.due[0]:
            self.due.pop(0)
            self.seen = 0
            raise self.error(f"{moment} {step}")
        self.seen += 1


@pytest.mark.parametrize("later", [(), (0,), (3,), (7,), (12,), (20,), (2, 9, 14)])
def test_a_crash_before_or_after_any_step_loses_nothing_and_doubles_nothing(later: tuple[int, ...]) -> None:
    """And again, so many steps into the run that follows."""
    steps = steps_of_a_run()
    assert {"put", "commit", "deliver crossings", "deliver served"} <= {step for step, _ in steps}
    for number in range(len(steps)):
        world = memory_world()
        assert run_to_the_end(world, RaiseAt(Crash, number, *later)) >= 1
        check_whole(world)


def until_it_works(call: Callable[[], object]) -> None:
    while True:
        try:
            call()
        except StoreUnavailable:
            continue
        return


@pytest.mark.parametrize("later", [(), (0,), (1,), (2, 0, 0), (5, 5, 5)])
def test_a_lost_answer_or_an_outage_at_any_step_loses_nothing_and_doubles_nothing(later: tuple[int, ...]) -> None:
    for number in range(len(steps_of_a_run())):
        world = memory_world()
        world.hook = RaiseAt(StoreUnavailable, number, *later)
        opened: list[ShardSession] = []
        until_it_works(lambda: opened.append(world.open()))  # noqa: B023 - called at once
        for first in range(0, len(RECORDS), 2):
            opened[0].apply(RECORDS[first : first + 2])
            until_it_works(opened[0].commit)
        until_it_works(opened[0].close)
        world.hook = no_faults
        # What could not be delivered then is in the snapshot.
        world.open().close()
        check_whole(world)


def test_nothing_leaves_before_its_snapshot_is_saved() -> None:
    world = memory_world()
    order: list[str] = []
    world.hook = lambda step, moment: order.append(step) if moment == "before" else None
    session = world.open()
    session.apply(RECORDS)
    assert order == ["create", "claim", "snapshot"]
    session.commit()
    at = order.index("commit")
    # Failed and late events before the snapshot; panes, crossings and the commit itself after it.
    assert order[3:at] == ["put", "put"]
    assert order[at + 1 :] == ["put"] * 3 + ["deliver crossings"] * 3 + ["deliver served"] * len(GOOD)


def test_a_commit_whose_answer_was_lost_is_success() -> None:
    world = memory_world()
    session = world.open()
    session.apply(RECORDS)
    lose_once = iter([True])

    def hook(step: str, moment: str) -> None:
        if (step, moment) == ("commit", "after") and next(lose_once, False):
            raise StoreUnavailable("the answer was lost")

    world.hook = hook
    assert session.commit() == Position(1_008, 0)
    assert world.store.row(SHARD.shard_id).claim_version == 2
    check_whole(world)


def test_a_write_in_doubt_is_finished_before_anything_else_is_written() -> None:
    world = memory_world()
    session = world.open()
    session.apply(RECORDS[:4])
    down = {"commit"}

    def hook(step: str, moment: str) -> None:
        # The write happens, and not one answer comes through.
        if step in down and moment == "after":
            raise StoreUnavailable("the answer was lost")
        if step in down and world.store.row(SHARD.shard_id).claim_version > 1:
            raise StoreUnavailable("no connection")

    world.hook = hook
    with pytest.raises(StoreUnavailable):
        session.commit()
    assert world.crossings.delivered == []
    session.apply(RECORDS[4:])
    down.clear()
    session.commit()
    assert [row.claim_version for row in commit_rows(world)] == [2, 3]
    check_whole(world)


def test_a_zombies_commit_is_fenced_and_leaves_no_delivery(world: World) -> None:
    zombie = world.open()
    zombie.apply(RECORDS)
    heir = world.open()
    with pytest.raises(Fenced):
        zombie.commit()
    assert world.crossings.delivered == [] and world.served.delivered == []
    assert rows(world, PANES, PaneRow) == [] and commit_rows(world) == []
    # The objects that it wrote before it noticed are there, and count for nothing.
    assert len(rows(world, FAILED_EVENTS, FailedRow)) == 2
    with pytest.raises(Fenced):
        zombie.apply(RECORDS)
    with pytest.raises(Fenced):
        zombie.commit()
    zombie.close()
    heir.apply(RECORDS)
    heir.close()
    check_whole(world)


def test_failed_events_count_only_when_a_commit_lists_them(world: World) -> None:
    zombie = world.open()
    zombie.apply(RECORDS)
    heir = world.open()
    heir.apply(RECORDS)
    heir.commit()
    with pytest.raises(Fenced):
        zombie.commit()
    assert len(rows(world, FAILED_EVENTS, FailedRow)) == 4
    assert len(listed(world, "failed_object", FailedRow)) == 2
    assert len(listed(world, "late_object", LateRow)) == 1


def test_a_put_of_failed_events_that_lands_late_does_not_hide_later_ones() -> None:
    world = memory_world()
    session = world.open()

    puts: list[str] = []

    def down_after_the_first(step: str, moment: str) -> None:
        if (step, moment) == ("put", "before"):
            puts.append(step)
            if len(puts) > 1:
                raise StoreUnavailable("the archive is down")

    session.apply(RECORDS[:4])
    world.hook = down_after_the_first
    with pytest.raises(StoreUnavailable):
        session.commit()
    (first,) = world.archive.names(f"type={FAILED_EVENTS}/")
    delayed = world.archive.get(first)
    assert delayed is not None
    world.hook = no_faults
    session.apply(RECORDS)
    session.commit()
    world.archive.put(first, delayed)
    assert len(listed(world, "failed_object", FailedRow)) == 2


def test_failed_events_that_cannot_be_stored_stop_the_commit() -> None:
    world = memory_world()
    session = world.open()
    session.apply(RECORDS)

    def hook(step: str, moment: str) -> None:
        if step == "put":
            raise StoreUnavailable("the archive is down")

    world.hook = hook
    with pytest.raises(StoreUnavailable):
        session.commit()
    assert world.store.row(SHARD.shard_id).position is None
    assert session.committed is None
    world.hook = lambda step, moment: None
    session.commit()
    check_whole(world)


def test_undelivered_entries_are_kept_in_order_and_delivered_later() -> None:
    world = memory_world()
    session = world.open()
    down = {"deliver crossings"}

    def hook(step: str, moment: str) -> None:
        if step in down:
            raise StoreUnavailable("the bus is down")

    world.hook = hook
    session.apply(RECORDS[:2])
    session.commit()
    session.apply(RECORDS[2:6])
    session.commit()
    assert session.outbox_entries == 2
    assert session.waiting_for is not None and "the bus is down" in session.waiting_for
    assert len(world.served.delivered) > 0, "one receiver must not hold up the others"
    session.close()

    heir = world.open()
    heir.apply(RECORDS[6:])
    heir.commit()
    assert world.crossings.delivered == []
    down.clear()
    heir.commit()  # nothing new, but what waits is tried again
    assert [event.id for event in world.crossings.delivered] == ["crossing-1", "crossing-5", "crossing-8"]
    assert heir.waiting_for is None
    heir.close()
    assert [event.id for event in world.crossings.delivered] == ["crossing-1", "crossing-5", "crossing-8"]
    check_whole(world)


def test_what_a_crash_left_in_the_outbox_is_delivered_again_under_the_same_names(world: World) -> None:
    session = world.open()
    session.apply(RECORDS)
    session.commit()
    before = world.archive.names("")
    bodies = [world.archive.get(name) for name in before]
    heir = world.open()  # the first session died before it could save that it had delivered
    heir.commit()
    assert Counter(event.id for event in world.crossings.delivered) == {f"crossing-{n}": 2 for n in RAISED}
    assert world.archive.names("") == before
    assert [world.archive.get(name) for name in before] == bodies
    check_whole(world)


def test_a_full_outbox_refuses_more_until_deliveries_succeed() -> None:
    world = memory_world()
    world.limits = OutboxLimits(max_entries=4)
    down = {"deliver crossings"}

    def hook(step: str, moment: str) -> None:
        if step in down:
            raise StoreUnavailable("the bus is down")

    world.hook = hook
    session = world.open()
    for number in range(4):
        session.apply([make_record(number, "raise")])
        session.commit()
    assert not session.can_apply
    with pytest.raises(Backpressure, match=r"4 results wait to be delivered .*the bus is down"):
        session.apply([make_record(4, "raise")])
    assert session.position == Position(1_003, 0)
    session.commit()
    assert not session.can_apply

    heir = world.open()
    assert not heir.can_apply, "the bound outlives the session"
    down.clear()
    heir.commit()
    assert heir.can_apply
    heir.apply([make_record(4, "raise")])
    heir.commit()
    assert [event.id for event in world.crossings.delivered] == [f"crossing-{n}" for n in range(5)]


def test_results_that_are_not_saved_yet_count_towards_the_bound() -> None:
    world = memory_world()
    world.limits = OutboxLimits(max_entries=4)
    session = world.open()
    session.apply(RECORDS[:6])
    with pytest.raises(Backpressure):
        session.apply(RECORDS[6:])
    session.commit()
    session.apply(RECORDS[6:])
    session.commit()
    check_whole(world)


def test_the_outbox_is_bounded_in_bytes_too() -> None:
    world = memory_world()
    world.limits = OutboxLimits(max_bytes=1_000)
    session = world.open()
    session.apply(RECORDS)
    assert not session.can_apply
    session.commit()
    assert session.can_apply


def test_an_error_inside_the_engine_saves_nothing_of_its_batch() -> None:
    world = memory_world()
    session = world.open()
    session.apply(RECORDS[:2])
    session.commit()
    with pytest.raises(RuntimeError, match="bug"):
        session.apply([RECORDS[2], make_record(3, "bug")])
    with pytest.raises(SessionClosed):
        session.commit()
    session.close()
    assert world.store.row(SHARD.shard_id).position == Position(1_001, 0)


def test_a_closed_session_does_nothing_more(world: World) -> None:
    session = world.open()
    session.apply(RECORDS)
    session.close()
    session.close()
    with pytest.raises(SessionClosed):
        session.apply(RECORDS)
    with pytest.raises(SessionClosed):
        session.commit()
    check_whole(world)


def test_an_accepted_gap_is_saved_and_named_by_every_later_commit(world: World) -> None:
    session = world.open()
    session.apply(RECORDS[:4])
    session.commit()
    session.accept_gap("1006")
    session.commit()
    session.close()
    heir = world.open()
    heir.apply(RECORDS[6:])
    heir.commit()
    assert heir.gaps == ("1003/0..1006",)
    assert [row.gaps for row in commit_rows(world)] == [[], ["1003/0..1006"], ["1003/0..1006"]]


def test_the_input_s_end_is_part_of_the_state(world: World) -> None:
    session = world.open()
    assert not session.input_ended
    session.apply([make_record(0, "end")])
    session.close()
    assert world.open().input_ended


def test_a_receiver_that_fails_in_an_unforeseen_way_does_not_undo_the_commit() -> None:
    world = memory_world()

    class Broken(MemoryReceiver):
        def deliver(self, entries):
            raise RuntimeError("a bug in a receiver")

    session = ShardSession.open(
        world.pipeline,
        SHARD,
        store=world.store,
        archive=MemoryObjectStore(),
        receivers=Receivers(world.archived, Broken("crossings"), world.served),
        owner="unlucky",
        now_ms=lambda: world.clock_ms,
        engine=scripted_engine,
    )
    session.apply(RECORDS[:2])
    with pytest.raises(RuntimeError, match="receiver"):
        session.commit()
    assert session.committed == Position(1_001, 0)
    assert [event.id for event in saved(world).outbox.threshold_events] == [make_crossing(1).id]


def test_errors_name_the_shard() -> None:
    world = memory_world()
    zombie = world.open()
    zombie.apply(RECORDS)
    world.open()
    with pytest.raises(Fenced, match=re.escape(SHARD.shard_id)):
        zombie.commit()
