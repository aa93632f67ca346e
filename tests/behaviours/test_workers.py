"""Workers that share a pipeline's shards, turn by turn, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from commit_world import World, make_record, memory_world
from scripted_kinesis import ScriptedKinesis, ScriptedShard

from streamgauge.events.records import StreamRecord
from streamgauge.processors.commit.lineage import register_shards
from streamgauge.processors.commit.memory import no_faults
from streamgauge.processors.commit.ports import StoreUnavailable
from streamgauge.processors.hosts.shard_run import LocalSettings
from streamgauge.processors.hosts.stream_shards import list_shards
from streamgauge.processors.hosts.worker import Worker

SHARDS = [f"shardId-{number:012}" for number in range(4)]
LEASE_S = 10.0


def records(*numbers: int, ends: int | None = None) -> list[StreamRecord]:
    end = [] if ends is None else [make_record(ends, "end")]
    return [*(make_record(number) for number in numbers), *end]


@dataclass
class Office:
    """Workers over one world. Each turn of theirs takes a tenth of a second; who is suspended has none."""

    kinesis: ScriptedKinesis
    world: World = field(default_factory=memory_world)
    now_s: float = 0.0

    def worker(self, name: str) -> Worker:
        return Worker(
            "observations",
            self.kinesis,
            self.world.open,
            store=self.world.store,
            settings=LocalSettings(lease_s=LEASE_S),
            clock=lambda: self.now_s,
            name=name,
        )

    def run(self, *workers: Worker, until: Callable[[], bool] | None = None, for_s: float = 120.0) -> float:
        """Turn by turn until it holds; the seconds that took. Without a condition: for so long."""
        began_s = self.now_s
        while self.now_s < began_s + for_s:
            if until is not None and until():
                return self.now_s - began_s
            for worker in workers:
                worker.turn()
            self.now_s += 0.1
        assert until is None, "it never came to hold"
        return for_s

    def of(self, name: str) -> set[str]:
        """The shards that a worker has."""
        return {row.shard.shard_id for row in self.world.store.rows() if (row.owner or "").startswith(name + ".")}

    @property
    def deliveries(self) -> list[int]:
        return [int(start) // 1_000 for batch in self.world.served.delivered for start in batch.window_start_ms]

    @property
    def served(self) -> list[int]:
        """What was delivered; after a crash it may have been delivered again."""
        return sorted(set(self.deliveries))


def office(shards: Sequence[ScriptedShard]) -> Office:
    return Office(ScriptedKinesis(dict(zip(SHARDS, shards, strict=False))))


def test_a_worker_that_is_alone_takes_every_shard() -> None:
    at = office([ScriptedShard() for _ in range(4)])
    only = at.worker("only")
    assert at.run(only, until=lambda: at.of("only") == set(SHARDS)) < 2


def test_workers_that_start_together_share_the_shards() -> None:
    at = office([ScriptedShard() for _ in range(4)])
    left, right = at.worker("left"), at.worker("right")
    at.run(left, right, until=lambda: len(at.of("left")) == len(at.of("right")) == 2)
    at.run(left, right, for_s=5 * LEASE_S)
    assert len(at.of("left")) == len(at.of("right")) == 2 and not left.progress.fenced and not right.progress.fenced


def test_a_worker_leaves_others_their_share() -> None:
    at = office([ScriptedShard() for _ in range(4)])
    register_shards(at.world.store, list_shards(at.kinesis, "observations"), start="TRIM_HORIZON")
    at.world.store.claim(SHARDS[3], owner="other.1")
    at.run(at.worker("hasty"), for_s=LEASE_S - 1)
    assert len(at.of("hasty")) == 2


def test_an_owner_with_nothing_to_do_shows_that_it_lives() -> None:
    at = office([ScriptedShard(), ScriptedShard()])
    owner, other = at.worker("owner"), at.worker("other")
    at.run(owner, until=lambda: len(at.of("owner")) == 2)
    at.run(owner, other, for_s=6 * LEASE_S)
    assert len(at.of("owner")) == 2 and not owner.progress.fenced


def test_the_shards_of_a_worker_that_died_are_taken_after_its_lease_and_no_sooner() -> None:
    at = office([ScriptedShard(records(0, 1)), ScriptedShard(records(2))])
    dead, heir = at.worker("dead"), at.worker("heir")
    at.run(dead, until=lambda: at.served == [0, 1, 2])
    at.kinesis.shards[SHARDS[0]].records += records(3)
    assert at.run(heir, until=lambda: at.of("heir") == set(SHARDS[:2])) > LEASE_S
    at.run(heir, until=lambda: at.served == [0, 1, 2, 3])


def test_shards_of_a_worker_that_stopped_are_taken_at_once() -> None:
    at = office([ScriptedShard(records(0)), ScriptedShard(records(1))])
    first, second = at.worker("first"), at.worker("second")
    at.run(first, until=lambda: at.served == [0, 1])
    first.close()
    assert at.run(second, until=lambda: at.of("second") == set(SHARDS[:2])) < 2


def test_a_worker_that_was_suspended_loses_its_shards_quietly_and_goes_on_with_others() -> None:
    at = office([ScriptedShard(records(0)), ScriptedShard(records(10))])
    zombie, heir = at.worker("zombie"), at.worker("heir")
    at.run(zombie, until=lambda: at.served == [0, 10])
    for shard, number in zip(SHARDS, (1, 11), strict=False):
        at.kinesis.shards[shard].records += records(number)
    # It has read them, and applied them, and is stopped before it commits.
    held: list[str] = []
    at.world.hook = lambda step, moment: held.append(step) if step == "commit" else None
    at.run(zombie, until=lambda: zombie.progress.records == 4)
    assert not held
    at.run(heir, until=lambda: at.served == [0, 1, 10, 11])
    at.run(zombie, heir, until=lambda: len(zombie.progress.fenced) == 2)
    delivered = at.deliveries
    assert delivered.count(1) == delivered.count(11) == 1, "what the zombie had applied has not left it"
    assert "another process works on this shard" in zombie.progress.fenced[SHARDS[0]].lower()
    heir.close()
    at.kinesis.shards[SHARDS[1]].records += records(12)
    at.run(zombie, until=lambda: at.served == [0, 1, 10, 11, 12])
    assert not zombie.progress.fenced


def test_of_two_that_see_a_shard_abandoned_the_slower_one_leaves_it_to_the_faster() -> None:
    at = office([ScriptedShard(records(0))])
    dead, fast, slow = at.worker("dead"), at.worker("fast"), at.worker("slow")
    at.run(dead, until=lambda: at.of("dead") == {SHARDS[0]})
    at.run(fast, slow, for_s=LEASE_S - 1)

    def overtake(step: str, moment: str) -> None:
        # Both have looked at the row when the faster one claims it.
        if (step, moment) == ("claim", "before"):
            at.world.hook = no_faults
            at.run(fast, until=lambda: at.of("fast") == {SHARDS[0]})

    at.world.hook = overtake
    at.run(slow, until=lambda: at.of("fast") == {SHARDS[0]})
    at.run(fast, slow, for_s=2)
    assert at.of("fast") == {SHARDS[0]} and not fast.progress.fenced


def test_a_claim_whose_answer_was_lost_is_made_again_at_once() -> None:
    at = office([ScriptedShard(records(0))])
    lost = iter([True])

    def hook(step: str, moment: str) -> None:
        if (step, moment) == ("snapshot", "before") and next(lost, False):
            raise StoreUnavailable("the answer was lost")

    only = at.worker("only")
    at.run(only, for_s=0.1)
    at.world.store.release(at.world.store.row(SHARDS[0]))
    at.world.hook = hook
    other = at.worker("other")
    assert at.run(other, until=lambda: at.served == [0]) < LEASE_S / 2


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_generation_of_a_reshard_is_gone_through_by_whoever_has_time(workers: int) -> None:
    root = ScriptedShard(records(0, 1), is_closed=True, children=(SHARDS[1], SHARDS[2]))
    at = office(
        [
            root,
            ScriptedShard(records(2, 3), parents=(SHARDS[0],), is_closed=True, children=(SHARDS[3],)),
            ScriptedShard(records(4, 5), parents=(SHARDS[0],), is_closed=True, children=(SHARDS[3],)),
            ScriptedShard(records(6, ends=7), parents=(SHARDS[1], SHARDS[2])),
        ]
    )
    staff = [at.worker(f"worker {number}") for number in range(workers)]
    at.run(*staff, until=lambda: all(worker.is_finished for worker in staff))
    assert at.served == list(range(7))
    assert [row.sealed for row in at.world.store.rows()] == [True, True, True, False]


def test_a_child_is_not_begun_before_both_its_parents_are_sealed() -> None:
    at = office(
        [
            ScriptedShard(records(0), is_closed=True, children=(SHARDS[2],)),
            ScriptedShard(records(1), is_closed=True, children=(SHARDS[2],)),
            ScriptedShard(records(2, ends=3), parents=(SHARDS[0], SHARDS[1])),
        ]
    )
    down = {"deliver served"}

    def hook(step: str, moment: str) -> None:
        if step == "commit" and moment == "before" and down:
            raise StoreUnavailable("down")

    at.world.hook = hook
    only = at.worker("only")
    at.run(only, for_s=20)
    assert at.world.store.row(SHARDS[2]).claim_version == 0
    down.clear()
    at.run(only, until=lambda: only.is_finished)
    assert at.served == [0, 1, 2]


def test_a_parent_whose_worker_died_before_it_was_sealed_is_sealed_by_another() -> None:
    at = office(
        [
            ScriptedShard(records(0), is_closed=True, children=(SHARDS[1],)),
            ScriptedShard(records(1, ends=2), parents=(SHARDS[0],)),
        ]
    )
    dead, heir = at.worker("dead"), at.worker("heir")

    def hook(step: str, moment: str) -> None:
        if step == "seal":
            raise StoreUnavailable("down")

    at.world.hook = hook
    at.run(dead, for_s=5)
    assert at.served == [0] and not at.world.store.row(SHARDS[0]).sealed
    at.world.hook = no_faults
    at.run(heir, until=lambda: heir.is_finished)
    assert at.served == [0, 1] and at.world.store.row(SHARDS[0]).sealed


def test_a_worker_has_not_finished_while_nobody_works_on_what_a_dead_one_left() -> None:
    at = office([ScriptedShard(records(0, ends=1)), ScriptedShard(records(2, ends=3))])
    dead = at.worker("dead")
    at.run(dead, until=lambda: at.of("dead") == set(SHARDS[:2]))
    heir = at.worker("heir")
    assert at.run(heir, until=lambda: heir.is_finished) > LEASE_S
    assert at.served == [0, 2]


def test_a_worker_has_finished_when_what_remains_is_in_the_hands_of_one_that_lives() -> None:
    at = office([ScriptedShard(records(0)), ScriptedShard(records(2, ends=3))])
    left, right = at.worker("left"), at.worker("right")
    at.run(left, right, until=lambda: len(at.of("left")) == len(at.of("right")) == 1)
    ended = left if at.of("left") == {SHARDS[1]} else right
    still = right if ended is left else left
    at.run(left, right, until=lambda: ended.is_finished)
    assert not still.is_finished
    ended.close()
    at.kinesis.shards[SHARDS[0]].records += records(ends=1)
    at.run(still, until=lambda: still.is_finished)
    assert at.served == [0, 2]


def test_a_worker_that_delivers_for_longer_than_its_lease_keeps_its_shards() -> None:
    at = office([ScriptedShard(records(*range(20))), ScriptedShard(records(100))])
    owner, other = at.worker("owner"), at.worker("other")
    at.run(owner, until=lambda: len(at.of("owner")) == 2)
    calls: list[str] = []

    def slow(step: str, moment: str) -> None:
        if step == "deliver served" and moment == "before":
            calls.append(step)
            at.now_s += LEASE_S / 4
            other.turn()

    at.world.hook = slow
    at.run(owner, other, until=lambda: set(at.served) == {*range(20), 100})
    assert len(calls) > 12, "delivering took three leases"
    assert at.of("owner") == set(SHARDS[:2]) and not owner.progress.fenced
    assert len(at.deliveries) == 21, "nobody else delivered the same"


@pytest.mark.parametrize("jump_h", [-3, 3], ids=["back", "forward"])
def test_a_wall_clock_that_jumps_hours_costs_no_shard_and_changes_no_result(jump_h: int) -> None:
    at = office([ScriptedShard(records(0)), ScriptedShard(records(10))])
    owner, other = at.worker("owner"), at.worker("other")
    at.run(owner, until=lambda: at.served == [0, 10])
    began_ms = at.world.clock_ms
    for number in range(1, 5):
        # There and back again, while two workers watch each other's shards.
        at.world.clock_ms = began_ms + number % 2 * jump_h * 3_600_000
        for shard, first in zip(SHARDS, (0, 10), strict=False):
            at.kinesis.shards[shard].records += records(first + number)
        at.run(owner, other, for_s=2 * LEASE_S)
    assert len(at.of("owner")) == 2
    assert not owner.progress.fenced
    assert at.deliveries.count(4) == 1
    assert sorted(at.deliveries) == [*range(5), *range(10, 15)]
    saved = [at.world.store.row(shard) for shard in SHARDS[:2]]
    assert [row.position.sequence_number for row in saved] == [1_004, 1_014]
