"""What every state store does: memory, DynamoDB with the snapshot in the row, DynamoDB with the snapshot in S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import pytest
from aws_in_process import InProcessAws, aws_in_process

from streamgauge.events.hash_key import FULL_RANGE, HashRange
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.processors.commit.dynamodb import DynamoDbStateStore
from streamgauge.processors.commit.memory import MemoryStateStore
from streamgauge.processors.commit.ports import Fenced, ShardRow, StateStore
from streamgauge.processors.commit.s3 import S3ObjectStore
from streamgauge.processors.commit.state_rows import new_row, read_snapshot

LEFT, RIGHT = FULL_RANGE.even_parts(2)
SHARD = Shard("shardId-000000000001", LEFT, ("shardId-000000000000",))
OTHER = Shard("shardId-000000000002", RIGHT)
AT = Position(10**55 + 7, 3)

MakeStore = Callable[[int], StateStore]


PIPELINES = count()


@pytest.fixture(scope="module")
def in_process() -> Iterator[InProcessAws]:
    with aws_in_process() as aws:
        yield aws


@pytest.fixture(params=["memory", "dynamodb row", "dynamodb and s3"])
def make_store(request: pytest.FixtureRequest, in_process: InProcessAws) -> MakeStore:
    """Makes the store of one state_epoch; all of them stand on the same tables."""
    if request.param == "memory":
        stores: dict[int, StateStore] = {}
        return lambda epoch: stores.setdefault(epoch, MemoryStateStore())
    max_inline_bytes = 0 if request.param == "dynamodb and s3" else 8_192
    objects, name = S3ObjectStore(in_process.s3, "state"), f"weather-{next(PIPELINES)}"
    return lambda epoch: DynamoDbStateStore(
        in_process.dynamodb, "state", objects, pipeline=name, state_epoch=epoch, max_inline_bytes=max_inline_bytes
    )


@pytest.fixture
def store(make_store: MakeStore) -> StateStore:
    return make_store(1)


def claimed(store: StateStore, owner: str = "first") -> ShardRow:
    store.create(SHARD, start="TRIM_HORIZON")
    return store.claim(SHARD.shard_id, owner=owner)


def commit(store: StateStore, row: ShardRow, snapshot: bytes = b"state", position: Position | None = AT) -> ShardRow:
    return store.commit(row, snapshot=snapshot, position=position, now_ms=1_700_000_000_000)


def test_a_shard_that_was_never_seen_has_no_row(store: StateStore) -> None:
    assert store.row(SHARD.shard_id) is None
    assert store.rows() == []
    assert read_snapshot(store, SHARD.shard_id) is None


def test_a_row_keeps_the_shard_and_where_it_starts(store: StateStore) -> None:
    row = store.create(SHARD, start="AT_TIMESTAMP 2026-01-01T00:00:00.000Z")
    assert row == store.row(SHARD.shard_id)
    assert row.shard == SHARD and row.start == "AT_TIMESTAMP 2026-01-01T00:00:00.000Z"
    assert (row.owner, row.claim_version, row.position, row.sealed) == (None, 0, None, False)
    assert store.snapshot(row) is None


def test_the_first_start_of_a_shard_is_kept(store: StateStore) -> None:
    store.create(SHARD, start="AT_TIMESTAMP 2026-01-01T00:00:00.000Z")
    assert store.create(SHARD, start="TRIM_HORIZON").start == "AT_TIMESTAMP 2026-01-01T00:00:00.000Z"


def test_rows_come_in_the_order_of_shard_ids(store: StateStore) -> None:
    store.create(OTHER, start="TRIM_HORIZON")
    store.create(SHARD, start="TRIM_HORIZON")
    assert [row.shard for row in store.rows()] == [SHARD, OTHER]


def test_a_state_epoch_starts_from_nothing(make_store: MakeStore) -> None:
    commit(make_store(1), claimed(make_store(1)))
    assert make_store(2).rows() == []


def test_a_claim_names_the_owner_and_raises_the_version(store: StateStore) -> None:
    first = claimed(store, "first")
    second = store.claim(SHARD.shard_id, owner="second")
    assert (first.owner, first.claim_version) == ("first", 1)
    assert (second.owner, second.claim_version) == ("second", 2)
    assert store.row(SHARD.shard_id) == second


def test_a_shard_without_a_row_cannot_be_claimed(store: StateStore) -> None:
    with pytest.raises(Fenced, match="no row"):
        store.claim(SHARD.shard_id, owner="first")


def test_what_a_commit_returns_is_what_is_read(store: StateStore) -> None:
    row = commit(store, claimed(store), b"\x00state\xff")
    assert row == store.row(SHARD.shard_id) == store.rows()[0]
    assert (row.owner, row.claim_version, row.position) == ("first", 2, AT)
    assert (row.snapshot_bytes, row.committed_at_ms) == (7, 1_700_000_000_000)
    assert store.snapshot(row) == b"\x00state\xff"
    assert read_snapshot(store, SHARD.shard_id) == (row, b"\x00state\xff")


def test_a_snapshot_before_the_first_event_has_no_position(store: StateStore) -> None:
    row = commit(store, claimed(store), position=None)
    assert row.position is None
    assert store.row(SHARD.shard_id) == row


def test_a_claim_keeps_position_and_snapshot(store: StateStore) -> None:
    commit(store, claimed(store), b"state")
    row = store.claim(SHARD.shard_id, owner="second")
    assert row.position == AT
    assert store.snapshot(row) == b"state"


def test_commits_follow_each_other(store: StateStore) -> None:
    row = claimed(store)
    for number in range(3):
        row = commit(store, row, f"state {number}".encode(), Position(number, 0))
    assert row.claim_version == 4
    assert read_snapshot(store, SHARD.shard_id) == (row, b"state 2")


def test_an_owner_is_fenced_by_a_later_claim(store: StateStore) -> None:
    row = commit(store, claimed(store, "zombie"), b"before")
    store.claim(SHARD.shard_id, owner="second")
    with pytest.raises(Fenced, match="owner second holds version 3"):
        commit(store, row, b"zombie's")
    assert read_snapshot(store, SHARD.shard_id)[1] == b"before"


def test_an_owner_is_fenced_by_a_later_commit(store: StateStore) -> None:
    row = claimed(store, "zombie")
    second = commit(store, store.claim(SHARD.shard_id, owner="second"), b"second's")
    with pytest.raises(Fenced):
        commit(store, row, b"zombie's")
    assert read_snapshot(store, SHARD.shard_id) == (second, b"second's")


def test_the_same_owner_claiming_again_fences_its_own_past(store: StateStore) -> None:
    row = claimed(store, "first")
    store.claim(SHARD.shard_id, owner="first")
    with pytest.raises(Fenced):
        commit(store, row)


def test_the_same_commit_made_again_is_success(store: StateStore) -> None:
    row = claimed(store)
    assert commit(store, row, b"state") == commit(store, row, b"state")
    assert store.row(SHARD.shard_id).claim_version == 2
    assert read_snapshot(store, SHARD.shard_id)[1] == b"state"


def test_another_commit_under_the_same_version_is_fenced(store: StateStore) -> None:
    row = claimed(store)
    commit(store, row, b"state")
    with pytest.raises(Fenced):
        commit(store, row, b"other state")


def test_a_row_that_was_read_before_a_commit_no_longer_has_its_snapshot(store: StateStore) -> None:
    old = commit(store, claimed(store), b"old")
    commit(store, old, b"new")
    with pytest.raises(Fenced, match="replaced"):
        store.snapshot(old)


def test_shards_do_not_meet(store: StateStore) -> None:
    store.create(OTHER, start="TRIM_HORIZON")
    other = commit(store, store.claim(OTHER.shard_id, owner="first"), b"same bytes")
    row = commit(store, claimed(store), b"same bytes")
    commit(store, row, b"later")
    assert store.row(OTHER.shard_id) == other
    assert read_snapshot(store, OTHER.shard_id) == (other, b"same bytes")


def test_hash_ranges_keep_all_their_bits(store: StateStore) -> None:
    odd = Shard("shardId-000000000009", HashRange(2**127 + 1, 2**128 - 1), ("a", "b"))
    store.create(odd, start="TRIM_HORIZON")
    assert store.row(odd.shard_id).shard == odd


# --- renewals, releases, claims by an observer -----------------------------------------------------------------------


def test_a_renewal_raises_the_version_and_changes_nothing_else(store: StateStore) -> None:
    row = commit(store, claimed(store), b"state")
    renewed = store.renew(row)
    assert renewed == replace(row, claim_version=row.claim_version + 1) == store.row(SHARD.shard_id)
    assert store.snapshot(renewed) == b"state"
    assert commit(store, renewed, b"next").claim_version == renewed.claim_version + 1


def test_a_renewal_made_again_after_its_answer_was_lost_is_success(store: StateStore) -> None:
    row = claimed(store)
    assert store.renew(row) == store.renew(row)
    assert store.row(SHARD.shard_id).claim_version == 2


@pytest.mark.parametrize("write", ["renew", "release"])
def test_a_fenced_owner_can_neither_renew_nor_release(store: StateStore, write: str) -> None:
    row = claimed(store, "zombie")
    heir = store.claim(SHARD.shard_id, owner="heir")
    with pytest.raises(Fenced, match="owner heir holds version 2"):
        getattr(store, write)(row)
    assert store.row(SHARD.shard_id) == heir


def test_a_released_shard_has_no_owner_and_keeps_its_state(store: StateStore) -> None:
    row = commit(store, claimed(store), b"state")
    released = store.release(row)
    assert released == store.release(row) == store.row(SHARD.shard_id)
    assert (released.owner, released.claim_version, released.position) == (None, 3, AT)
    with pytest.raises(Fenced):
        commit(store, row, b"afterwards")
    assert store.snapshot(store.claim(SHARD.shard_id, owner="next")) == b"state"


def test_an_observers_claim_counts_only_while_the_row_is_as_it_was_seen(store: StateStore) -> None:
    row = claimed(store, "idle")
    heir = store.claim(SHARD.shard_id, owner="heir", seen_version=row.claim_version)
    assert (heir.owner, heir.claim_version) == ("heir", 2)
    with pytest.raises(Fenced, match="owner heir has written version 2"):
        store.claim(SHARD.shard_id, owner="slow", seen_version=row.claim_version)
    assert store.row(SHARD.shard_id) == heir


def test_an_observers_claim_made_again_after_its_answer_was_lost_is_success(store: StateStore) -> None:
    row = claimed(store, "idle")
    heir = store.claim(SHARD.shard_id, owner="heir", seen_version=row.claim_version)
    assert store.claim(SHARD.shard_id, owner="heir", seen_version=row.claim_version) == heir


# --- sealing ---------------------------------------------------------------------------------------------------------


def test_a_seal_raises_the_version_and_keeps_position_and_snapshot(store: StateStore) -> None:
    row = commit(store, claimed(store), b"state")
    sealed = store.seal(row)
    assert sealed == replace(row, claim_version=row.claim_version + 1, sealed=True) == store.row(SHARD.shard_id)
    assert store.snapshot(sealed) == b"state"


def test_a_shard_is_sealed_whoever_owns_it_and_even_if_nobody_does(store: StateStore) -> None:
    claimed(store, "owner")
    assert store.seal(store.row(SHARD.shard_id)).sealed
    store.create(OTHER, start="TRIM_HORIZON")
    sealed = store.seal(store.row(OTHER.shard_id))
    assert (sealed.sealed, sealed.owner, sealed.claim_version) == (True, None, 1)


def test_sealing_what_is_sealed_is_success_and_writes_nothing(store: StateStore) -> None:
    row = commit(store, claimed(store), b"state")
    sealed = store.seal(row)
    assert store.seal(row) == store.seal(sealed) == sealed == store.row(SHARD.shard_id)


@pytest.mark.parametrize("write", ["commit", "claim", "renew"])
def test_a_shard_that_moved_since_it_was_looked_at_is_not_sealed(store: StateStore, write: str) -> None:
    row = claimed(store)
    if write == "claim":
        store.claim(SHARD.shard_id, owner="second")
    else:
        _ = commit(store, row) if write == "commit" else store.renew(row)
    with pytest.raises(Fenced, match="sealed at version 1, but it is at version 2"):
        store.seal(row)
    assert not store.row(SHARD.shard_id).sealed


def test_a_shard_without_a_row_is_not_sealed(store: StateStore) -> None:
    with pytest.raises(Fenced, match="the row is gone"):
        store.seal(new_row(SHARD, "TRIM_HORIZON"))


WRITES: dict[str, Callable[[StateStore, ShardRow], object]] = {
    "commit": lambda store, row: commit(store, row, b"after the seal"),
    "claim": lambda store, row: store.claim(row.shard.shard_id, owner="heir"),
    "observer's claim": lambda store, row: store.claim(
        row.shard.shard_id, owner="heir", seen_version=row.claim_version
    ),
    "renew": lambda store, row: store.renew(row),
    "release": lambda store, row: store.release(row),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("knows_the_version", [False, True])
def test_a_sealed_shard_refuses_whatever_its_owner_or_another_writes(
    store: StateStore, write: str, knows_the_version: bool
) -> None:
    row = commit(store, claimed(store, "zombie"), b"last state")
    sealed = store.seal(row)
    if knows_the_version:
        row = replace(row, claim_version=sealed.claim_version)
    with pytest.raises(Fenced, match="sealed"):
        WRITES[write](store, row)
    assert read_snapshot(store, SHARD.shard_id) == (sealed, b"last state")


def test_a_sealed_snapshot_is_reduced_to_what_must_stay(store: StateStore) -> None:
    sealed = store.seal(commit(store, claimed(store), b"whole state"))
    reduced = store.reduce(sealed, snapshot=b"counters")
    assert store.row(SHARD.shard_id) == reduced == store.reduce(sealed, snapshot=b"counters")
    assert (reduced.sealed, reduced.position, reduced.snapshot_bytes) == (True, AT, 8)
    assert read_snapshot(store, SHARD.shard_id) == (reduced, b"counters")
    with pytest.raises(Fenced, match="replaced"):
        store.snapshot(sealed)


def test_a_sealed_shard_that_was_released_can_be_reduced(store: StateStore) -> None:
    sealed = store.seal(store.release(commit(store, claimed(store), b"whole state")))
    assert store.snapshot(store.reduce(sealed, snapshot=b"counters")) == b"counters"


def test_only_a_sealed_snapshot_is_reduced(store: StateStore) -> None:
    row = commit(store, claimed(store), b"whole state")
    with pytest.raises(Fenced):
        store.reduce(row, snapshot=b"counters")
    assert read_snapshot(store, SHARD.shard_id) == (row, b"whole state")
