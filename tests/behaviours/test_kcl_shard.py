"""A shard under the KCL: what is handed over is applied, saved and only then checkpointed, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from commit_world import make_record
from kcl_world import Office
from scripted_kinesis import ScriptedKinesis, ScriptedShard, client_error

from streamgauge.events.hash_key import FULL_RANGE, hash_key
from streamgauge.events.position import Position
from streamgauge.events.records import StreamRecord
from streamgauge.processors.commit.memory import no_faults
from streamgauge.processors.commit.outbox import OutboxLimits
from streamgauge.processors.commit.ports import Fenced, StoreUnavailable
from streamgauge.processors.commit.session import SessionClosed
from streamgauge.processors.hosts.kcl.checkpoints import CheckpointRefused
from streamgauge.processors.hosts.kcl.messages import LeaseLost, ShardEnded, ShutdownRequested
from streamgauge.processors.hosts.shard_reader import Gap, ReadFailed

PARENT, CHILD = (f"shardId-{number:012}" for number in range(2))
# The scripted stream gives each shard its part of the hash keys, parents too.
KEY_OF_THE_CHILD = next(key for key in "abcdefgh" if hash_key(key) in FULL_RANGE.even_parts(2)[1])


class Gone(Exception):
    """The daemon has ended while a child waited in place."""


def records(*numbers: int) -> list[StreamRecord]:
    return [make_record(number) for number in numbers]


def office(*numbers: int, closed: bool = False) -> Office:
    """One shard that holds these records; closed ones have one child."""
    shards = {PARENT: ScriptedShard(records(*numbers), is_closed=closed, children=(CHILD,) if closed else ())}
    if closed:
        shards[CHILD] = ScriptedShard(parents=(PARENT,))
    return Office(ScriptedKinesis(shards))


def place(number: int) -> str:
    return f"{1_000 + number}/0"


# --- batches, commits, checkpoints


def test_a_batch_is_checkpointed_when_it_is_committed_and_not_before() -> None:
    one = office(1, 2, 3)
    child = one.child().start()
    assert child.hand_over(*records(1, 2)) == []
    assert one.world.store.row(PARENT).position is None
    assert child.hand_over(later_s=1.0) == [place(2)], "the time is up, though nothing followed"
    assert child.hand_over(*records(3), later_s=1.0) == [place(3)]
    assert one.counted == [1, 2, 3]


def test_bytes_bring_a_commit_before_its_time() -> None:
    one = office(1, 2)
    child = one.child(commit_bytes=40).start()
    assert child.hand_over(*records(1)) == []
    assert child.hand_over(*records(2)) == [place(2)]


def test_nothing_new_is_not_checkpointed_again() -> None:
    child = office(1).child().start()
    assert child.hand_over(*records(1), later_s=1.0) == [place(1)]
    assert child.hand_over(later_s=1.0) == []


def test_a_store_that_is_down_for_a_while_is_waited_for_in_place() -> None:
    one = office(1)
    child = one.child().start()

    def down(step: str, moment: str) -> None:
        if step == "commit" and moment == "before" and one.now_s < 20.0:
            raise StoreUnavailable("down", where="store")

    one.world.hook = down
    assert child.hand_over(*records(1), later_s=1.0) == [place(1)]
    assert one.now_s >= 20.0
    assert child.log.said("waiting")


def test_a_store_that_stays_down_ends_the_child_without_a_checkpoint() -> None:
    one = office(1)
    child = one.child().start()

    def down(step: str, moment: str) -> None:
        if step == "commit":
            raise StoreUnavailable("down", where="store")

    one.world.hook = down
    with pytest.raises(StoreUnavailable):
        child.hand_over(*records(1), later_s=1.0)
    assert one.checkpoints == {}
    one.world.hook = no_faults
    assert one.child().start().hand_over(*records(1), later_s=1.0) == [place(1)]
    assert one.counted == [1]


def test_a_receiver_that_is_down_holds_up_the_shard_and_nothing_else() -> None:
    one = office(1, 2)
    one.world.limits = OutboxLimits(max_entries=1)
    child = one.child().start()

    def down(step: str, moment: str) -> None:
        if step == "deliver served" and one.now_s < 30.0:
            raise StoreUnavailable("the table is down", where="panes")

    one.world.hook = down
    child.hand_over(*records(1), later_s=1.0)
    assert one.now_s < 30.0, "what is committed waits in the outbox"
    child.hand_over(*records(2), later_s=1.0)
    assert one.now_s >= 30.0, "which is full now"
    child.hand_over(later_s=1.0)
    assert one.counted == [1, 2]


def test_a_child_that_waits_in_place_ends_with_its_daemon() -> None:
    one = office(1)
    child = one.child().start()
    one.world.hook = _raise_at("commit", StoreUnavailable("down", where="store"))

    def gone() -> None:
        raise Gone

    one.on_sleep = gone
    with pytest.raises(Gone):
        child.hand_over(*records(1), later_s=1.0)


def _raise_at(step: str, error: Exception) -> Callable[[str, str], None]:
    def hook(at: str, moment: str) -> None:
        if at == step and moment == "before":
            raise error

    return hook


def test_a_bug_in_the_engine_ends_the_child_and_saves_nothing_of_the_batch() -> None:
    one = office(1, 2, 3)
    child = one.child().start()
    child.hand_over(*records(1), later_s=1.0)
    with pytest.raises(RuntimeError, match="bug"):
        child.hand_over(make_record(2), make_record(3, "bug"), later_s=1.0)
    child.processor.abandoned()
    assert one.world.store.row(PARENT).position == Position(1_001, 0)
    assert one.checkpoints[PARENT] == place(1)


def test_a_record_that_cannot_be_read_is_stored_and_does_not_stop_its_shard() -> None:
    one = office(1, 3)
    child = one.child().start()
    assert child.hand_over(make_record(1), make_record(2, "failed"), make_record(3), later_s=1.0) == [place(3)]
    assert one.counted == [1, 3]
    assert any("failed" in name for name in one.world.archive.names(""))


# --- checkpoints that the KCL does not take


@pytest.mark.parametrize("error", ["ThrottlingException", "KinesisClientLibDependencyException"])
def test_a_checkpoint_that_is_refused_for_now_comes_with_the_next_commit(error: str) -> None:
    one = office(1, 2)
    child = one.child().start()
    child.errors = [error]
    assert child.hand_over(*records(1), later_s=1.0) == []
    assert child.hand_over(later_s=1.0) == [place(1)]


def test_a_checkpoint_of_a_lost_lease_is_no_error() -> None:
    one = office(1)
    child = one.child().start()
    child.errors = ["ShutdownException"]
    assert child.hand_over(*records(1), later_s=1.0) == []
    child.do(LeaseLost())
    assert child.log.said("lease_lost")


@pytest.mark.parametrize("error", ["InvalidStateException", "IllegalArgumentException"])
def test_a_checkpoint_that_is_refused_for_good_ends_the_child(error: str) -> None:
    child = office(1).child().start()
    child.errors = [error]
    with pytest.raises(CheckpointRefused, match=error):
        child.hand_over(*records(1), later_s=1.0)


# --- where a child begins


def test_a_state_ahead_of_the_checkpoint_skips_the_overlap() -> None:
    one = office(1, 2, 3, 4)
    child = one.child().start()
    child.hand_over(*records(1), later_s=1.0)
    child.errors = ["ThrottlingException"]
    child.hand_over(*records(2, 3), later_s=1.0)
    assert one.checkpoints[PARENT] == place(1)
    second = one.child().start()
    assert "is skipped" in second.log.said("started")[0]
    assert second.hand_over(*records(2, 3), later_s=1.0) == [place(3)]
    assert second.hand_over(*records(4), later_s=1.0) == [place(4)]
    assert one.counted == [1, 2, 3, 4]


def test_a_checkpoint_is_not_asked_for_further_than_was_handed_over() -> None:
    one = office(1, 2, 3)
    one.child().start().hand_over(*records(1, 2, 3), later_s=1.0)
    one.checkpoints.clear()
    child = one.child().start()
    assert child.hand_over(*records(1), later_s=1.0) == [place(1)], "the state is at 3"


def test_a_state_behind_the_checkpoint_reads_the_gap_from_the_stream() -> None:
    one = office(1, 2, 3, 4, 5)
    one.child().start().hand_over(*records(1), later_s=1.0)
    one.checkpoints[PARENT] = place(4)
    child = one.child().start()
    assert "was read from the stream" in child.log.said("started")[0]
    child.hand_over(*records(5), later_s=1.0)
    assert one.counted == [1, 2, 3, 4, 5]


def test_a_state_that_was_lost_reads_everything_before_the_checkpoint() -> None:
    one = office(1, 2, 3)
    one.checkpoints[PARENT] = place(2)
    child = one.child().start()
    child.hand_over(*records(3), later_s=1.0)
    assert one.counted == [1, 2, 3]


def test_a_checkpoint_that_names_no_place_is_met_by_reading_what_there_is() -> None:
    one = office(1, 2, 3)
    one.child().start().hand_over(*records(1), later_s=1.0)
    one.checkpoints[PARENT] = "LATEST"
    child = one.child().start()
    child.hand_over(later_s=1.0)
    assert one.counted == [1, 2, 3]


@pytest.mark.parametrize("checkpoint", [place(1), place(3), "TRIM_HORIZON"])
def test_a_position_that_was_trimmed_out_of_the_stream_stops_the_child(checkpoint: str) -> None:
    one = office(1, 2, 3)
    one.child().start().hand_over(*records(1), later_s=1.0)
    del one.kinesis.shards[PARENT].records[:2]
    one.checkpoints[PARENT] = checkpoint
    with pytest.raises(Gap, match="--accept-gap"):
        one.child().start()
    child = one.child(accept_gap=True).start()
    child.hand_over(*records(3), later_s=1.0)
    assert one.counted == [1, 3]
    assert child.log.last is not None and child.log.last.gaps == ("1001/0..1003",)


def test_a_start_in_time_leaves_out_what_the_daemon_hands_over_before_it() -> None:
    one = office(1, 2, 3)
    instant = "AT_TIMESTAMP 2023-11-14T22:13:20.002Z"
    child = one.child(start=instant).start()
    child.hand_over(*records(1), later_s=1.0)
    child.hand_over(*records(2, 3), later_s=1.0)
    assert one.counted == [2, 3]


def test_a_throttled_stream_is_waited_for_at_the_start() -> None:
    one = office(1, 2)
    one.child().start().hand_over(*records(1), later_s=1.0)
    one.kinesis.shards[PARENT].faults = [client_error("ProvisionedThroughputExceededException")] * 12
    child = one.child().start()
    child.hand_over(*records(2), later_s=1.0)
    assert one.counted == [1, 2]


def test_a_lease_of_a_shard_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ReadFailed, match="lease table"):
        office(1).child().start("shardId-000000000099")


# --- two owners


def test_a_zombie_loses_its_write_and_ends() -> None:
    one = office(1, 2)
    zombie = one.child().start()
    zombie.hand_over(*records(1))
    heir = one.child().start()
    with pytest.raises(Fenced):
        zombie.hand_over(*records(2), later_s=1.0)
    heir.hand_over(*records(1, 2), later_s=1.0)
    assert one.counted == [1, 2]


def test_a_lease_that_is_lost_saves_what_was_applied() -> None:
    one = office(1)
    child = one.child().start()
    child.hand_over(*records(1))
    assert child.do(LeaseLost()) == []
    assert one.counted == [1]


def test_a_lease_that_is_lost_to_an_heir_says_so_and_leaves_nothing() -> None:
    one = office(1)
    child = one.child().start()
    child.hand_over(*records(1))
    heir = one.child().start()
    child.do(LeaseLost())
    assert child.log.said("fenced")
    assert one.counted == []
    heir.hand_over(*records(1), later_s=1.0)
    assert one.counted == [1]


# --- the end


def test_a_graceful_stop_commits_checkpoints_and_releases() -> None:
    one = office(1, 2)
    child = one.child().start()
    child.hand_over(*records(1, 2))
    assert child.do(ShutdownRequested()) == [place(2)]
    row = one.world.store.row(PARENT)
    assert row.owner is None
    assert child.do(LeaseLost()) == []
    assert not child.log.said("lease_lost")
    second = one.child().start()
    second.hand_over(later_s=1.0)
    assert second.log.last is not None and second.log.last.events == 0


def test_records_after_the_request_to_stop_are_refused() -> None:
    one = office(1)
    child = one.child().start()
    child.do(ShutdownRequested())
    with pytest.raises(SessionClosed):
        child.hand_over(*records(1))


def test_the_end_of_a_shard_seals_it_after_its_children_have_rows() -> None:
    one = office(1, closed=True)
    child = one.child().start()
    child.hand_over(*records(1))
    order: list[str] = []
    one.world.hook = lambda step, moment: order.append(step) if moment == "before" else None
    del one.world.store._rows[CHILD]  # type: ignore[attr-defined]
    assert child.do(ShardEnded()) == ["SHARD_END"]
    row = one.world.store.row(PARENT)
    assert row.sealed and row.position == Position(1_001, 0)
    assert order.index("create") < order.index("seal")


def test_a_shard_whose_children_are_not_listed_yet_is_not_sealed() -> None:
    one = office(1, closed=True)
    child = one.child().start()
    child.hand_over(*records(1))
    kept = one.kinesis.shards.pop(CHILD)

    def appear() -> None:
        assert not one.world.store.row(PARENT).sealed
        one.kinesis.shards[CHILD] = kept

    one.on_sleep = appear
    assert child.do(ShardEnded()) == ["SHARD_END"]
    assert one.world.store.row(PARENT).sealed


def test_a_stream_that_was_deleted_is_no_end_of_its_shards() -> None:
    one = office(1)
    child = one.child().start()
    child.hand_over(*records(1), later_s=1.0)

    def gone(**arguments: object) -> None:
        raise client_error("ResourceNotFoundException")

    one.kinesis.list_shards = gone  # type: ignore[method-assign, assignment]
    with pytest.raises(ReadFailed, match="no such stream"):
        child.do(ShardEnded())
    assert not one.world.store.row(PARENT).sealed


def test_credentials_that_expire_are_one_clear_error_and_lose_nothing() -> None:
    one = office(1, 2)
    one.child().start().hand_over(*records(1), later_s=1.0)
    one.kinesis.shards[PARENT].faults = [client_error("ExpiredTokenException")]
    with pytest.raises(ReadFailed, match=r"ExpiredTokenException.*Renew the AWS credentials"):
        one.child().start()
    one.child().start().hand_over(*records(2), later_s=1.0)
    assert one.counted == [1, 2]


def test_a_sealed_shard_takes_everything_and_writes_nothing() -> None:
    one = office(1, closed=True)
    child = one.child().start()
    child.hand_over(*records(1))
    child.errors = ["ThrottlingException"] * 10
    assert child.do(ShardEnded()) == []
    before = one.world.store.row(PARENT)
    again = one.child().start()
    assert again.hand_over(*records(1), later_s=1.0) == []
    assert again.do(ShardEnded()) == ["SHARD_END"]
    assert one.world.store.row(PARENT) == before
    assert one.counted == [1]


# --- reshards, in whatever order the children start


def test_a_child_whose_parent_nobody_works_on_applies_it_and_seals_it() -> None:
    one = office(1, 2, closed=True)
    one.child().start().hand_over(*records(1), later_s=1.0)
    child = one.child().start(CHILD)
    assert one.now_s >= 30.0, "it waits until the parent's row has stood still for long enough"
    assert one.world.store.row(PARENT).sealed
    assert one.counted == [1, 2]
    assert any("has not been applied to its end" in message for message in child.log.said("waiting"))


def test_a_child_begins_at_once_where_its_parent_was_read_to_its_end() -> None:
    one = office(1, closed=True)
    one.child().start().hand_over(*records(1), later_s=1.0)
    before_s = one.now_s
    one.child().start(CHILD)
    assert one.now_s - before_s < 2.0
    assert one.world.store.row(PARENT).sealed


def test_what_the_parent_holds_is_the_childs() -> None:
    one = office(closed=True)
    held = make_record(1, "hold", key=KEY_OF_THE_CHILD)
    one.kinesis.shards[PARENT].records = [held]
    parent = one.child().start()
    parent.hand_over(held)
    parent.do(ShardEnded())
    child = one.child().start(CHILD)
    child.hand_over(make_record(2, "flush"), later_s=1.0)
    assert one.counted == [1]


def test_the_parents_own_child_finds_itself_sealed_when_it_comes_late() -> None:
    one = office(1, closed=True)
    zombie = one.child().start()
    zombie.hand_over(*records(1), later_s=1.0)
    one.child().start(CHILD)
    late = one.child().start()
    assert late.hand_over(*records(1), later_s=1.0) == []
    assert late.do(ShardEnded()) == ["SHARD_END"]
    assert one.counted == [1]
