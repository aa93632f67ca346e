"""Batches of an event source against a scripted stream, a scripted engine and stores in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from commit_world import SHARD, make_record
from lambda_world import A, B, C, Lambdas
from scripted_kinesis import ScriptedShard, client_error

from streamgauge.events.position import Position
from streamgauge.processors.commit.ancestry import ParentMissing
from streamgauge.processors.commit.memory import no_faults
from streamgauge.processors.commit.outbox import OutboxLimits
from streamgauge.processors.commit.ports import Fenced, StoreRefused, StoreUnavailable
from streamgauge.processors.hosts.aws_lambda.shards import NotApplied
from streamgauge.processors.hosts.shard_reader import Gap, ReadFailed

STATE = {"create", "claim", "snapshot", "commit", "renew", "release", "seal", "reduce"}
INPUT = [make_record(number) for number in range(10)]


@pytest.fixture
def lambdas() -> Lambdas:
    return Lambdas()


def once(action: Callable[[], object], step: str, moment: str) -> Callable[[str, str], None]:
    """A hook that acts when `step` is reached for the first time."""
    left = [action]

    def hook(at: str, when: str) -> None:
        if (at, when) == (step, moment) and left:
            left.pop()()

    return hook


def raises(error: Exception) -> Callable[[], object]:
    def raising() -> object:
        raise error

    return raising


# --- one sandbox -----------------------------------------------------------------------------------------------------


def test_a_batch_is_applied_committed_and_answered_whole(lambdas: Lambdas) -> None:
    answer = lambdas.sandbox().process(lambdas.put(*INPUT))
    assert (answer.failed_from, answer.reason) == (None, None)
    assert lambdas.world.store.row(A).position == Position(1_009, 0)
    assert lambdas.has_counted(*range(10))
    assert answer.work.after.positions - answer.work.before.positions == 10


def test_a_warm_invocation_writes_the_row_once_and_reads_nothing(lambdas: Lambdas) -> None:
    sandbox = lambdas.sandbox()
    sandbox.process(lambdas.put(*INPUT[:5]))
    reads = lambdas.kinesis.shards[A].reads
    calls = lambdas.calls()
    sandbox.process(lambdas.put(*INPUT[5:]))
    assert [call for call in calls if call in STATE] == ["commit"]
    assert lambdas.kinesis.shards[A].reads == reads
    assert lambdas.has_counted(*range(10))


def test_a_cold_start_claims_once_and_looks_at_two_records_of_the_stream(lambdas: Lambdas) -> None:
    lambdas.sandbox().process(lambdas.put(*INPUT[:5]))
    lambdas.kinesis.shards[A].iterators.clear()
    sandbox = lambdas.sandbox()
    calls = lambdas.calls()
    assert sandbox.process(lambdas.put(*INPUT[5:])).failed_from is None
    assert [call for call in calls if call in STATE] == ["claim", "snapshot", "commit"]
    assert lambdas.kinesis.shards[A].iterators == [("AT_SEQUENCE_NUMBER", "1004")]
    assert lambdas.has_counted(*range(10))


def test_a_batch_that_comes_again_is_counted_once_and_writes_nothing(lambdas: Lambdas) -> None:
    sandbox = lambdas.sandbox()
    batch = lambdas.put(*INPUT)
    sandbox.process(batch)
    calls = lambdas.calls()
    answer = sandbox.process(batch)
    assert answer.failed_from is None and calls == []
    assert (answer.work.after.redelivered, lambdas.served) == (10, list(range(10)))


def test_the_half_of_a_batch_and_then_all_of_it_are_counted_once(lambdas: Lambdas) -> None:
    sandbox = lambdas.sandbox()
    batch = lambdas.put(*INPUT)
    sandbox.process(batch[:4])
    sandbox.process(batch)
    assert lambdas.has_counted(*range(10))


def test_a_sandbox_works_on_several_shards(lambdas: Lambdas) -> None:
    lambdas.kinesis.shards[B] = ScriptedShard()
    sandbox = lambdas.sandbox()
    for index in range(0, 10, 2):
        sandbox.process(lambdas.put(INPUT[index], shard_id=A), shard_id=A)
        sandbox.process(lambdas.put(INPUT[index + 1], shard_id=B), shard_id=B)
    assert len(sandbox.owners) == 2 and sandbox.batches.warm == (A, B)
    assert lambdas.has_counted(*range(10))


def test_a_sandbox_forgets_the_shards_that_it_has_not_worked_on_for_longest(lambdas: Lambdas) -> None:
    lambdas.kinesis.shards |= {B: ScriptedShard(), C: ScriptedShard()}
    sandbox = lambdas.sandbox(warm_bytes=3_000)
    size = 0
    for number, shard_id in enumerate((A, B, A, C)):
        sandbox.process(lambdas.put(make_record(number), shard_id=shard_id), shard_id=shard_id)
        size = lambdas.world.store.row(shard_id).snapshot_bytes
    assert 1_000 < size < 1_500, "two states fit, three do not"
    assert sandbox.batches.warm == (A, C)
    sandbox.process(lambdas.put(make_record(9), shard_id=B), shard_id=B)
    assert lambdas.has_counted(0, 1, 2, 3, 9)


def test_all_shards_of_the_stream_get_their_rows_before_one_is_claimed(lambdas: Lambdas) -> None:
    lambdas.kinesis.shards[B] = ScriptedShard()
    calls = lambdas.calls()
    lambdas.sandbox().process(lambdas.put(*INPUT))
    assert calls[:3] == ["create", "create", "claim"]
    assert lambdas.world.store.row(B).claim_version == 0


def test_a_shard_that_the_stream_does_not_list_is_refused(lambdas: Lambdas) -> None:
    with pytest.raises(ReadFailed, match=f"shard {C}: the stream does not list the shard"):
        lambdas.sandbox().process(INPUT, shard_id=C)


def test_a_shard_that_another_host_begins_at_a_time_is_refused(lambdas: Lambdas) -> None:
    lambdas.world.store.create(SHARD, start="AT_TIMESTAMP 2026-01-01T00:00:00Z")
    with pytest.raises(ReadFailed, match=r"begins AT_TIMESTAMP .* but the event source sends all of it"):
        lambdas.sandbox().process(lambdas.put(*INPUT))


# --- a gap between the state and the batch ---------------------------------------------------------------------------


def test_what_lies_between_the_state_and_the_batch_is_read_from_the_stream(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    lambdas.sandbox().process(batch[:2])
    answer = lambdas.sandbox().process(batch[8:])
    assert answer.failed_from is None and answer.work.gap_records == 6
    assert lambdas.has_counted(*range(10))


def test_a_shard_without_state_is_read_from_its_beginning_up_to_the_batch(lambdas: Lambdas) -> None:
    answer = lambdas.sandbox().process(lambdas.put(*INPUT)[7:])
    assert answer.work.gap_records == 7 and lambdas.has_counted(*range(10))


def test_a_gap_that_is_longer_than_the_time_is_read_in_several_invocations(lambdas: Lambdas) -> None:
    lambdas.kinesis.page = 1
    batch = lambdas.put(*INPUT)
    sandbox = lambdas.sandbox()
    answers = [sandbox.process(batch[9:], left_s=1.5) for _ in range(8)]
    assert [answer.failed_from for answer in answers[:2]] == ["1009", "1009"]
    assert "before the batch" in answers[0].reason
    assert answers[-1].failed_from is None
    assert 0 < answers[0].work.gap_records < 9
    assert lambdas.has_counted(*range(10))


def test_a_throttled_gap_is_read_when_the_stream_lets_it(lambdas: Lambdas) -> None:
    lambdas.kinesis.shards[A].faults = [client_error("ProvisionedThroughputExceededException")] * 20
    answer = lambdas.sandbox().process(lambdas.put(*INPUT)[7:])
    assert answer.failed_from is None and lambdas.has_counted(*range(10))


@pytest.mark.parametrize("later", [[], INPUT[6:]], ids=["silence", "a later record comes"])
def test_a_gap_whose_records_were_trimmed_stops_the_shard_with_a_clear_error(lambdas: Lambdas, later: list) -> None:
    lambdas.sandbox().process(lambdas.put(*INPUT[:4]))
    lambdas.kinesis.shards[A].records = list(later)
    for _ in range(2):
        with pytest.raises(Gap, match=r"position 1003/0.*is not in the stream any more"):
            lambdas.sandbox().process(INPUT[8:])
    assert lambdas.world.store.row(A).position == Position(1_003, 0)


@pytest.mark.parametrize("is_held", [True, False])
def test_what_was_trimmed_while_a_warm_sandbox_could_not_go_on_is_noticed(lambdas: Lambdas, is_held: bool) -> None:
    """After a day of failures the event source goes on behind what is gone, and does not say so."""
    sandbox = lambdas.sandbox()
    sandbox.process(lambdas.put(*INPUT[:4]))
    if not is_held:
        lambdas.world.store.claim(A, owner="another")
    lambdas.kinesis.shards[A].records = INPUT[6:]
    lambdas.world.clock_ms += 24 * 3_600_000
    with pytest.raises(Gap, match="position 1003/0"):
        sandbox.process(INPUT[6:])
    assert lambdas.has_counted(0, 1, 2, 3)


def test_an_accepted_gap_is_named_in_the_state(lambdas: Lambdas) -> None:
    lambdas.sandbox().process(lambdas.put(*INPUT[:4]))
    lambdas.kinesis.shards[A].records = INPUT[6:]
    sandbox = lambdas.sandbox(accept_gap=True)
    assert sandbox.process(INPUT[8:]).failed_from is None
    assert sandbox.opened[0].gaps == ("1003/0..1006",)
    assert lambdas.has_counted(0, 1, 2, 3, 6, 7, 8, 9)


def test_no_gap_is_noted_where_none_is(lambdas: Lambdas) -> None:
    lambdas.sandbox().process(lambdas.put(*INPUT[:4]))
    sandbox = lambdas.sandbox(accept_gap=True)
    sandbox.process(lambdas.put(*INPUT[4:]))
    assert sandbox.opened[0].gaps == () and lambdas.has_counted(*range(10))


def test_a_gap_is_looked_for_again_where_the_first_look_was_interrupted(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    sandbox = lambdas.sandbox()
    lambdas.kinesis.shards[A].faults = [client_error("InternalFailure", 500)] * 20
    assert sandbox.process(batch[8:], left_s=3).failed_from == "1008"
    lambdas.kinesis.shards[A].faults = []
    assert sandbox.process(batch[8:]).failed_from is None
    assert lambdas.has_counted(*range(10)) and len(sandbox.owners) == 1


# --- somebody else has the shard -------------------------------------------------------------------------------------


def test_two_invocations_of_one_batch_at_a_time_count_it_once(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    first, second = lambdas.sandbox(), lambdas.sandbox()
    inner = []
    lambdas.world.hook = once(lambda: inner.append(second.process(batch)), "commit", "before")
    answer = first.process(batch)
    assert (answer.failed_from, inner[0].failed_from) == (None, None)
    assert lambdas.has_counted(*range(10)) and len(first.owners) == 1
    assert (answer.work.conflicts, answer.work.after.positions - answer.work.before.positions) == (1, 0)


def test_a_conflict_whose_row_covers_the_batch_is_success_and_writes_nothing(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    first, second = lambdas.sandbox(), lambdas.sandbox()
    first.process(batch[:2])
    second.process(batch)
    version = lambdas.world.store.row(A).claim_version
    assert first.process(batch[2:]).failed_from is None
    assert lambdas.world.store.row(A).claim_version == version
    assert first.batches.warm == (), "what was applied on top of an old state is good for nothing"


def test_a_conflict_whose_row_does_not_cover_the_batch_is_waited_out_and_the_batch_applied(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    first, second = lambdas.sandbox(), lambdas.sandbox()
    first.process(batch[:2])
    second.process(batch[2:5])
    answer = first.process(batch[5:])
    assert answer.failed_from is None and answer.work.conflicts == 1
    assert len(lambdas.time.waits) == 1 and 0 < lambdas.time.waits[0] <= 0.1
    assert len(set(first.owners)) == 2, "an owner and a version name one write"
    assert lambdas.has_counted(*range(10))


def test_a_claim_of_a_shard_that_a_sandbox_knows_reads_nothing_from_the_stream(lambdas: Lambdas) -> None:
    """Kinesis allows five reads a second of a shard, and a shard may change sandboxes at each invocation."""
    batch = lambdas.put(*INPUT)
    first, second = lambdas.sandbox(), lambdas.sandbox()
    first.process(batch[:2])
    second.process(batch[2:5])
    reads = lambdas.kinesis.shards[A].reads
    first.process(batch[5:7])
    second.process(batch[7:9])
    first.process(batch[9:])
    assert lambdas.kinesis.shards[A].reads == reads
    assert lambdas.has_counted(*range(10)) and (len(first.owners), len(second.owners)) == (3, 2)


def test_a_state_that_has_gone_back_is_joined_anew(lambdas: Lambdas) -> None:
    """Somebody has restored the table, under a sandbox that lives."""
    batch = lambdas.put(*INPUT)
    sandbox = lambdas.sandbox()
    sandbox.process(batch[:3])
    old = lambdas.world.store.row(A)
    blob = lambdas.world.store.snapshot(old)
    sandbox.process(batch[3:8])
    lambdas.world.store._rows[A] = old
    lambdas.world.store._snapshots[A, old.snapshot_sha256] = blob
    answer = sandbox.process(batch[8:])
    assert answer.failed_from is None and answer.work.gap_records == 5
    assert lambdas.has_counted(*range(10))


def test_a_sandbox_that_was_overtaken_looks_before_it_applies_a_batch_for_nothing(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    first, second = lambdas.sandbox(), lambdas.sandbox()
    first.process(batch[:1])
    second.process(batch[1:2])
    assert first.process(batch[2:4]).work.conflicts == 1
    second.process(batch[4:6])
    applied: list[int] = []
    first.on_apply = lambda records: applied.append(len(records))
    answer = first.process(batch[6:])
    assert (answer.failed_from, answer.work.conflicts, answer.work.claims) == (None, 0, 1)
    assert applied == [4] and lambdas.has_counted(*range(10))


def test_a_sandbox_that_is_alone_for_a_while_looks_no_more(lambdas: Lambdas, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = lambdas.sandbox(), lambdas.sandbox()
    for number, sandbox in enumerate((first, second, first)):
        sandbox.process(lambdas.put(make_record(number)))
    looks: list[str] = []
    row = lambdas.world.store.row
    monkeypatch.setattr(lambdas.world.store, "row", lambda shard_id: looks.append(shard_id) or row(shard_id))
    for number in range(3, 40):
        first.process(lambdas.put(make_record(number)))
    assert len(looks) == 16
    assert lambdas.has_counted(*range(40))


def test_a_sandbox_that_is_fenced_again_and_again_lets_the_batch_come_back(lambdas: Lambdas) -> None:
    thief = lambdas.sandbox()

    def hook(step: str, moment: str) -> None:
        if (step, moment) == ("commit", "before"):
            lambdas.world.hook = no_faults
            lambdas.world.store.claim(A, owner=thief.new_owner())
            lambdas.world.hook = hook

    lambdas.world.hook = hook
    answer = lambdas.sandbox().process(lambdas.put(*INPUT), left_s=10)
    assert answer.failed_from == "1000" and "lost the shard" in answer.reason
    assert answer.work.conflicts > 3 and 5 < lambdas.time.now_s < 10
    assert lambdas.served == []


def test_a_claim_that_another_sandbox_was_faster_with_is_no_theft(lambdas: Lambdas) -> None:
    """It is claimed at the version that was seen, or two sandboxes would fence each other for ever."""
    batch = lambdas.put(*INPUT)
    first, second = lambdas.sandbox(), lambdas.sandbox()
    lambdas.world.hook = once(lambda: second.process(batch[:3]), "claim", "before")
    answer = first.process(batch)
    assert answer.failed_from is None and answer.work.conflicts == 1
    assert lambdas.has_counted(*range(10))


def test_a_zombie_that_resumes_writes_nothing(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    zombie, other = lambdas.sandbox(), lambdas.sandbox()
    zombie.process(batch[:2])
    zombie.on_apply = lambda records: other.process(batch) if not other.owners else None
    assert zombie.process(batch[2:]).failed_from is None
    assert lambdas.has_counted(*range(10))


def test_a_cold_start_delivers_what_a_killed_sandbox_left_behind(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    lambdas.world.hook = once(raises(KeyboardInterrupt()), "deliver served", "before")
    with pytest.raises(KeyboardInterrupt):
        lambdas.sandbox().process(batch)
    assert lambdas.served == []
    assert lambdas.sandbox().process(batch).failed_from is None
    assert lambdas.has_counted(*range(10))


# --- parents and children --------------------------------------------------------------------------------------------


def split(lambdas: Lambdas, *records: int) -> None:
    """Close the shard A, and let B go on."""
    lambdas.kinesis.shards[A].is_closed, lambdas.kinesis.shards[A].children = True, (B,)
    lambdas.kinesis.shards[B] = ScriptedShard([make_record(number) for number in records], parents=(A,))


def test_a_parent_is_sealed_before_the_first_record_of_its_child(lambdas: Lambdas) -> None:
    lambdas.sandbox().process(lambdas.put(*INPUT[:5]))
    split(lambdas, *range(5, 10))
    assert lambdas.sandbox().process(INPUT[5:], shard_id=B).failed_from is None
    assert lambdas.world.store.row(A).sealed
    assert lambdas.has_counted(*range(10))


def test_a_child_whose_parent_still_holds_records_lets_its_batch_come_back(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT[:5])
    lambdas.sandbox().process(batch[:3])
    split(lambdas, *range(5, 10))
    child = lambdas.sandbox(parent_wait_s=4)
    answer = child.process(INPUT[5:], shard_id=B)
    assert answer.failed_from == "1005" and "has not been applied to its end yet" in answer.reason
    assert 4 <= lambdas.time.now_s < 10, (
        "it waits for a while in place, or the event source would be at it without pause"
    )
    lambdas.sandbox().process(batch[3:])
    assert child.process(INPUT[5:], shard_id=B).failed_from is None
    assert lambdas.has_counted(*range(10))


def test_a_parent_that_makes_no_progress_is_applied_to_its_end_by_its_child(lambdas: Lambdas) -> None:
    lambdas.sandbox().process(lambdas.put(*INPUT[:5])[:3])
    split(lambdas, *range(5, 10))
    child = lambdas.sandbox()
    child.process(INPUT[5:], shard_id=B)
    lambdas.time.now_s += 61
    assert child.process(INPUT[5:], shard_id=B).failed_from is None
    assert lambdas.world.store.row(A).sealed and lambdas.has_counted(*range(10))


def test_a_batch_of_a_sealed_shard_that_its_row_covers_is_success_and_writes_nothing(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT[:5])
    parent = lambdas.sandbox()
    parent.process(batch)
    split(lambdas, *range(5, 10))
    lambdas.sandbox().process(INPUT[5:], shard_id=B)
    row = lambdas.world.store.row(A)
    assert parent.process(batch).failed_from is None
    assert lambdas.sandbox().process(batch).failed_from is None
    assert lambdas.world.store.row(A) == row


def test_a_record_beyond_the_end_of_a_sealed_shard_is_an_error(lambdas: Lambdas) -> None:
    lambdas.sandbox().process(lambdas.put(*INPUT[:5]))
    split(lambdas, *range(5, 10))
    lambdas.sandbox().process(INPUT[5:], shard_id=B)
    with pytest.raises(NotApplied, match="up to 1004/0 and sealed, and there is still the record 1005"):
        lambdas.sandbox().process(INPUT[3:7])


def test_a_parent_that_is_gone_and_was_never_processed_stops_the_child(lambdas: Lambdas) -> None:
    lambdas.sandbox().process(lambdas.put(*INPUT[:5]))
    lambdas.kinesis.shards[C] = ScriptedShard(INPUT[5:], parents=(B,))
    with pytest.raises(ParentMissing, match=f"shard {C}: its parent {B} was never processed"):
        lambdas.sandbox().process(INPUT[5:], shard_id=C)


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_batch_that_takes_too_long_is_committed_as_far_as_it_went(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    sandbox = lambdas.sandbox(run_bytes=1)

    def slow(records: object) -> None:
        lambdas.time.now_s += 1

    sandbox.on_apply = slow
    answer = sandbox.process(batch, left_s=6)
    assert answer.failed_from == "1004" and answer.reason == "the time of the invocation is used up"
    assert lambdas.world.store.row(A).position == Position(1_003, 0)
    assert 6 - lambdas.time.now_s >= 2, "the rest is for the commit"
    answers = [sandbox.process(batch[at:], left_s=6).failed_from for at in (4, 8)]
    assert answers == ["1008", None]
    assert lambdas.has_counted(*range(10)) and len(sandbox.owners) == 1


def test_a_slow_commit_is_given_more_time_by_the_next_invocations_but_not_all(lambdas: Lambdas) -> None:
    sandbox = lambdas.sandbox(run_bytes=1)
    slow = [5.0, 500.0]

    def hook(step: str, moment: str) -> None:
        if (step, moment) == ("commit", "before") and slow:
            lambdas.time.now_s += slow.pop(0)

    lambdas.world.hook = hook
    sandbox.process(lambdas.put(INPUT[0]), left_s=60)
    sandbox.process(lambdas.put(INPUT[1]), left_s=60)
    began = lambdas.time.now_s

    def apply(records: object) -> None:
        lambdas.time.now_s += 10

    sandbox.on_apply = apply
    assert sandbox.process(lambdas.put(*INPUT[2:]), left_s=60).failed_from == "1006"
    assert lambdas.time.now_s - began == 40


def test_an_invocation_without_any_time_left_answers_and_stays_warm(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    sandbox = lambdas.sandbox()
    assert sandbox.process(batch, left_s=0).failed_from == "1000"
    assert sandbox.process(batch).failed_from is None
    assert lambdas.has_counted(*range(10))


def test_a_cold_start_that_took_nearly_all_the_time_answers_before_it_claims(lambdas: Lambdas) -> None:
    """Killed in the middle of the claim, it would be as cold the next time, and so for ever."""
    batch = lambdas.put(*INPUT)
    sandbox = lambdas.sandbox()
    calls = lambdas.calls()
    answer = sandbox.process(batch, left_s=1.5, total_s=10)
    assert answer.failed_from == "1000" and answer.reason == "the time of the invocation is used up"
    assert calls == []
    assert sandbox.process(batch, left_s=10).failed_from is None
    assert lambdas.has_counted(*range(10))


def test_what_is_saved_counts_although_the_time_does_not_suffice_to_deliver_it(lambdas: Lambdas) -> None:
    batch = lambdas.put(*INPUT)
    sandbox = lambdas.sandbox()

    def hook(step: str, moment: str) -> None:
        if (step, moment) == ("deliver served", "after"):
            lambdas.time.now_s += 4

    lambdas.world.hook = hook
    answer = sandbox.process(batch, left_s=12)
    assert answer.failed_from is None and answer.work.outbox_entries > 0
    assert 0 < len(lambdas.served) < 10 and lambdas.time.now_s <= 12
    lambdas.world.hook = no_faults
    assert sandbox.process(lambdas.put(make_record(10)), left_s=12).failed_from is None
    assert lambdas.has_counted(*range(11))


# --- stores and receivers --------------------------------------------------------------------------------------------


def receiver_down(step: str, moment: str) -> None:
    if step == "deliver served":
        raise StoreUnavailable("the table is down")


def test_a_full_outbox_waits_in_place_for_its_receiver(lambdas: Lambdas) -> None:
    lambdas.world.limits = OutboxLimits(max_entries=5)
    sandbox = lambdas.sandbox(run_bytes=1)
    lambdas.world.hook = receiver_down

    def comes_back() -> None:
        if len(lambdas.time.waits) == 3:
            lambdas.world.hook = no_faults

    lambdas.time.meanwhile = comes_back
    assert sandbox.process(lambdas.put(*INPUT)).failed_from is None
    assert lambdas.has_counted(*range(10)) and len(lambdas.time.waits) == 3


def test_a_full_outbox_lets_the_batch_come_back_from_where_it_is_not_committed(lambdas: Lambdas) -> None:
    lambdas.world.limits = OutboxLimits(max_entries=5)
    sandbox = lambdas.sandbox(run_bytes=1)
    lambdas.world.hook = receiver_down
    batch = lambdas.put(*INPUT)
    answer = sandbox.process(batch, left_s=20)
    row = lambdas.world.store.row(A)
    assert answer.failed_from == str(row.position.sequence_number + 1)
    assert "the table is down" in answer.reason and lambdas.time.now_s < 20
    again = sandbox.process(batch[int(answer.failed_from) - 1_000 :], left_s=20)
    assert again.failed_from == answer.failed_from, "nothing is applied while nothing can leave"
    lambdas.world.hook = no_faults
    assert sandbox.process(batch[int(answer.failed_from) - 1_000 :]).failed_from is None
    assert lambdas.has_counted(*range(10))


def test_a_tick_delivers_what_an_idle_shard_has_left(lambdas: Lambdas) -> None:
    sandbox = lambdas.sandbox()
    lambdas.world.hook = receiver_down
    answer = sandbox.process(lambdas.put(*INPUT))
    assert answer.failed_from is None and answer.work.waiting_for == "the table is down"
    lambdas.world.hook = no_faults
    sandbox.process(lambdas.put(make_record(10, "flush")))
    assert lambdas.has_counted(*range(10))


def test_a_state_store_that_comes_back_is_waited_for(lambdas: Lambdas) -> None:
    failures = iter([True] * 5)

    def hook(step: str, moment: str) -> None:
        if step == "commit" and moment == "before" and next(failures, False):
            raise StoreUnavailable("no connection")

    lambdas.world.hook = hook
    sandbox = lambdas.sandbox()
    assert sandbox.process(lambdas.put(*INPUT)).failed_from is None
    assert lambdas.has_counted(*range(10)) and len(sandbox.owners) == 1


def test_a_write_whose_answer_was_lost_is_carried_to_its_end_and_counted_once(lambdas: Lambdas) -> None:
    failures = iter([True] * 3)

    def hook(step: str, moment: str) -> None:
        if step == "commit" and moment == "after" and next(failures, False):
            raise StoreUnavailable("no answer")

    lambdas.world.hook = hook
    sandbox = lambdas.sandbox()
    assert sandbox.process(lambdas.put(*INPUT)).failed_from is None
    assert lambdas.has_counted(*range(10)) and len(sandbox.owners) == 1


def test_a_state_store_that_stays_away_lets_the_batch_come_back(lambdas: Lambdas) -> None:
    def hook(step: str, moment: str) -> None:
        if step == "commit":
            raise StoreUnavailable("no connection", where="DynamoDB table state")

    lambdas.world.hook = hook
    batch = lambdas.put(*INPUT)
    sandbox = lambdas.sandbox()
    answer = sandbox.process(batch, left_s=20)
    assert answer.failed_from == "1000" and "DynamoDB table state: no connection" in answer.reason
    assert lambdas.time.now_s < 20 and lambdas.served == []
    lambdas.world.hook = no_faults
    assert sandbox.process(batch).failed_from is None
    assert lambdas.has_counted(*range(10))


def test_a_state_store_that_refuses_is_an_error_and_loses_nothing(lambdas: Lambdas) -> None:
    lambdas.world.hook = once(raises(StoreRefused("no such table", where="DynamoDB table state")), "claim", "before")
    batch = lambdas.put(*INPUT)
    sandbox = lambdas.sandbox()
    with pytest.raises(StoreRefused, match="DynamoDB table state: no such table"):
        sandbox.process(batch)
    assert sandbox.process(batch).failed_from is None
    assert lambdas.has_counted(*range(10))


def test_after_a_bug_the_next_invocation_begins_from_what_is_saved(lambdas: Lambdas) -> None:
    sandbox = lambdas.sandbox()
    sandbox.process(lambdas.put(*INPUT[:5]))
    with pytest.raises(RuntimeError, match="a bug in the engine"):
        sandbox.process([*INPUT[5:8], make_record(8, "bug")])
    assert sandbox.batches.warm == ()
    lambdas.put(*INPUT[5:])
    assert sandbox.process(INPUT[5:]).failed_from is None
    assert lambdas.has_counted(*range(10)) and len(sandbox.owners) == 2


def test_a_stream_that_cannot_be_listed_now_is_waited_for(lambdas: Lambdas) -> None:
    listing, failures = lambdas.kinesis.list_shards, [client_error("LimitExceededException")] * 3

    def list_shards(**arguments: str) -> dict[str, object]:
        if failures:
            raise failures.pop()
        return listing(**arguments)

    lambdas.kinesis.list_shards = list_shards  # type: ignore[method-assign]
    assert lambdas.sandbox().process(lambdas.put(*INPUT)).failed_from is None


def test_fenced_is_no_error_of_the_caller(lambdas: Lambdas) -> None:
    """Whatever becomes of a batch, an invocation that was fenced never raises: an answer says where to go on."""
    lambdas.world.hook = once(raises(Fenced("somebody has it")), "snapshot", "before")
    sandbox = lambdas.sandbox()
    sandbox.process(lambdas.put(*INPUT[:5]))
    other = lambdas.sandbox()
    lambdas.world.hook = once(raises(Fenced("somebody has it")), "snapshot", "before")
    assert other.process(lambdas.put(*INPUT[5:])).failed_from is None
    assert lambdas.has_counted(*range(10))
