"""Where DynamoDB and S3 meet: placement of snapshots, who deletes them, and what AWS's errors become."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aws_in_process import InProcessAws, aws_in_process
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.processors.commit.dynamodb import MAX_INLINE_BYTES, DynamoDbStateStore
from streamgauge.processors.commit.ports import Fenced, ShardRow, StoreRefused, StoreUnavailable
from streamgauge.processors.commit.s3 import S3ObjectStore
from streamgauge.processors.commit.state_rows import read_snapshot
from streamgauge.processors.core.container import SnapshotError

SHARD = Shard("shardId-000000000000", FULL_RANGE)
FOLDER = f"weather/1/{SHARD.shard_id}/"
LARGE = b"s" * (MAX_INLINE_BYTES + 1)


class Wrapped:
    """A client whose calls are looked at, or broken, first. `after`: the call happens, its answer is lost."""

    def __init__(self, client: object) -> None:
        self._client = client
        self.before: dict[str, Exception] = {}
        self.after: dict[str, Exception] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        real = getattr(self._client, name)
        if not callable(real) or name in ("exceptions", "get_paginator"):
            return real

        def call(**arguments: object) -> object:
            self.calls.append(name)
            if name in self.before:
                raise self.before[name]
            answer = real(**arguments)
            if name in self.after:
                raise self.after.pop(name)
            return answer

        return call


class Aws:
    def __init__(self, real: InProcessAws) -> None:
        self.real = real
        self.dynamodb = Wrapped(real.dynamodb)
        self.s3 = Wrapped(real.s3)
        self.objects = S3ObjectStore(self.s3, "state")

    def store(self) -> DynamoDbStateStore:
        """As another process would have it."""
        return DynamoDbStateStore(self.dynamodb, "state", self.objects, pipeline="weather", state_epoch=1)

    def claimed(self, owner: str = "first") -> tuple[DynamoDbStateStore, ShardRow]:
        store = self.store()
        store.create(SHARD, start="TRIM_HORIZON")
        return store, store.claim(SHARD.shard_id, owner=owner)


@pytest.fixture(scope="module")
def in_process() -> Iterator[InProcessAws]:
    with aws_in_process() as aws:
        yield aws


@pytest.fixture
def aws(in_process: InProcessAws) -> Aws:
    in_process.clear()
    return Aws(in_process)


def commit(store: DynamoDbStateStore, row: ShardRow, snapshot: bytes) -> ShardRow:
    return store.commit(row, snapshot=snapshot, position=Position(1, 0), now_ms=0)


def test_up_to_8_kb_a_snapshot_lives_in_the_row(aws: Aws) -> None:
    store, row = aws.claimed()
    row = commit(store, row, LARGE[:-1])
    assert row.snapshot_object is None
    assert aws.objects.names("") == []
    assert store.snapshot(row) == LARGE[:-1]


def test_a_larger_one_lives_in_s3_under_a_name_with_owner_and_version(aws: Aws) -> None:
    store, row = aws.claimed()
    row = commit(store, row, LARGE)
    assert row.snapshot_object == f"{FOLDER}{2:020}-first.snapshot"
    assert aws.objects.names("") == [row.snapshot_object]
    assert store.snapshot(row) == LARGE
    item = aws.real.dynamodb.get_item(
        TableName="state", Key={"pipeline": {"S": "weather#1"}, "shard_id": {"S": SHARD.shard_id}}
    )["Item"]
    assert "snapshot" not in item


@pytest.mark.parametrize("next_snapshot", [b"small", b"n" + LARGE], ids=["into the row", "into S3"])
def test_the_owner_that_replaced_an_object_deletes_it(aws: Aws, next_snapshot: bytes) -> None:
    store, row = aws.claimed()
    row = commit(store, row, LARGE)
    row = commit(store, row, next_snapshot)
    assert aws.objects.names("") == ([row.snapshot_object] if row.snapshot_object else [])
    assert store.snapshot(row) == next_snapshot


def test_a_fenced_owner_deletes_nothing_and_leaves_its_own_object_to_the_heir(aws: Aws) -> None:
    zombie, zombie_row = aws.claimed("zombie")
    zombie_row = commit(zombie, zombie_row, LARGE)
    heir, row = aws.claimed("heir")
    with pytest.raises(Fenced):
        commit(zombie, zombie_row, b"z" + LARGE)
    # What the row points at is still there; the zombie's orphan is too.
    assert heir.snapshot(row) == LARGE
    assert aws.objects.names("") == [f"{FOLDER}{2:020}-zombie.snapshot", f"{FOLDER}{3:020}-zombie.snapshot"]
    row = commit(heir, row, b"h" + LARGE)
    assert aws.objects.names("") == [row.snapshot_object] == [f"{FOLDER}{4:020}-heir.snapshot"]


def test_an_object_of_a_later_version_is_not_swept(aws: Aws) -> None:
    store, row = aws.claimed()
    later = f"{FOLDER}{99:020}-heir.snapshot"
    aws.objects.put(later, b"about to be pointed at")
    row = commit(store, row, LARGE)
    assert aws.objects.names("") == [row.snapshot_object, later]


def test_the_folder_is_listed_once_after_a_claim_and_not_at_every_commit(aws: Aws) -> None:
    listed: list[str] = []

    class Watched(S3ObjectStore):
        def names(self, prefix: str) -> list[str]:
            listed.append(prefix)
            return super().names(prefix)

    aws.objects = Watched(aws.s3, "state")
    store, row = aws.claimed()
    for number in range(4):
        row = commit(store, row, LARGE + bytes([number]))
    assert listed == [FOLDER]


def test_a_deletion_that_fails_is_made_up_for_later(aws: Aws) -> None:
    store, row = aws.claimed()
    row = commit(store, row, LARGE)
    aws.s3.before["delete_object"] = EndpointConnectionError(endpoint_url="http://s3")
    row = commit(store, row, LARGE + b"2")
    assert len(aws.objects.names("")) == 2
    del aws.s3.before["delete_object"]
    row = commit(store, row, LARGE + b"3")
    assert aws.objects.names("") == [row.snapshot_object]


def test_a_commit_whose_answer_was_lost_is_found_to_have_happened(aws: Aws) -> None:
    store, row = aws.claimed()
    row = commit(store, row, LARGE)
    aws.dynamodb.after["update_item"] = ReadTimeoutError(endpoint_url="http://dynamodb")
    with pytest.raises(StoreUnavailable):
        commit(store, row, LARGE + b"2")
    row = commit(store, row, LARGE + b"2")
    assert row.claim_version == 3 and store.row(SHARD.shard_id) == row
    assert aws.objects.names("") == [row.snapshot_object]


def test_a_snapshot_whose_row_was_not_written_points_nowhere(aws: Aws) -> None:
    store, row = aws.claimed()
    row = commit(store, row, LARGE)
    aws.dynamodb.before["update_item"] = EndpointConnectionError(endpoint_url="http://dynamodb")
    with pytest.raises(StoreUnavailable):
        commit(store, row, LARGE + b"2")
    assert read_snapshot(store, SHARD.shard_id) == (row, LARGE)


def test_a_snapshot_that_cannot_be_put_is_not_pointed_at(aws: Aws) -> None:
    store, row = aws.claimed()
    aws.s3.before["put_object"] = ClientError({"Error": {"Code": "NoSuchBucket", "Message": "gone"}}, "PutObject")
    with pytest.raises(StoreRefused, match=r"s3://state/weather/1/.*NoSuchBucket: gone"):
        commit(store, row, LARGE)
    assert store.row(SHARD.shard_id) == row


def test_a_missing_object_is_an_error_only_if_the_row_still_points_at_it(aws: Aws) -> None:
    store, row = aws.claimed()
    row = commit(store, row, LARGE)
    aws.objects.delete(row.snapshot_object)
    with pytest.raises(SnapshotError, match=r"0002-first\.snapshot is missing"):
        store.snapshot(row)
    commit(store, row, LARGE + b"2")
    with pytest.raises(Fenced, match="replaced"):
        store.snapshot(row)


def test_an_altered_object_is_refused(aws: Aws) -> None:
    store, row = aws.claimed()
    row = commit(store, row, LARGE)
    aws.objects.put(row.snapshot_object, b"x" + LARGE[1:])
    with pytest.raises(SnapshotError, match="hash"):
        store.snapshot(row)


def seal(aws: Aws) -> None:
    aws.real.dynamodb.update_item(
        TableName="state",
        Key={"pipeline": {"S": "weather#1"}, "shard_id": {"S": SHARD.shard_id}},
        UpdateExpression="SET sealed = :yes",
        ExpressionAttributeValues={":yes": {"BOOL": True}},
    )


def test_a_sealed_row_refuses_claims_and_commits(aws: Aws) -> None:
    store, row = aws.claimed()
    seal(aws)
    with pytest.raises(Fenced, match="sealed"):
        commit(store, row, b"state")
    with pytest.raises(Fenced, match="sealed"):
        store.claim(SHARD.shard_id, owner="second")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem"), StoreUnavailable),
        (
            ClientError(
                {"Error": {"Code": "Whatever"}, "ResponseMetadata": {"HTTPStatusCode": 503}},
                "UpdateItem",
            ),
            StoreUnavailable,
        ),
        (
            ClientError(
                {"Error": {"Code": "InsufficientStorage"}, "ResponseMetadata": {"HTTPStatusCode": 507}},
                "UpdateItem",
            ),
            StoreRefused,
        ),
        (ClientError({"Error": {"Code": "AccessDeniedException"}}, "UpdateItem"), StoreRefused),
        (EndpointConnectionError(endpoint_url="http://dynamodb"), StoreUnavailable),
        (ReadTimeoutError(endpoint_url="http://dynamodb"), StoreUnavailable),
    ],
    ids=["throttled", "503", "disk full", "denied", "no connection", "timeout"],
)
def test_errors_of_aws_say_whether_waiting_helps(aws: Aws, error: Exception, expected: type[Exception]) -> None:
    store, row = aws.claimed()
    aws.dynamodb.before["update_item"] = error
    with pytest.raises(expected, match=f"DynamoDB table state, row weather#1 {SHARD.shard_id}"):
        commit(store, row, b"state")


def test_a_missing_table_is_named(aws: Aws) -> None:
    store = DynamoDbStateStore(aws.dynamodb, "nowhere", aws.objects, pipeline="weather", state_epoch=1)
    with pytest.raises(StoreRefused, match="DynamoDB table nowhere"):
        store.rows()


def test_more_rows_than_a_page_are_all_read(aws: Aws) -> None:
    store = aws.store()
    long_start = "AT_TIMESTAMP 2026-01-01T00:00:00.000Z" + " " * 100_000
    for number in range(15):
        store.create(Shard(f"shardId-{number:012}", FULL_RANGE), start=long_start)
    assert len(store.rows()) == 15


def test_reducing_a_sealed_shard_leaves_nothing_in_its_folder(aws: Aws) -> None:
    zombie, zombie_row = aws.claimed("zombie")
    zombie_row = commit(zombie, zombie_row, LARGE)
    store = aws.store()
    row = commit(store, store.claim(SHARD.shard_id, owner="heir"), LARGE + b"2")
    sealed = store.seal(row)
    with pytest.raises(Fenced, match="sealed"):
        commit(zombie, zombie_row, LARGE + b"zombie's")
    store.reduce(sealed, snapshot=b"counters")
    assert aws.objects.names("") == []
    assert read_snapshot(store, SHARD.shard_id)[1] == b"counters"
