"""The lease table is made and filled before the daemon starts, and one of another application is left alone."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.processors.commit.memory import MemoryStateStore
from streamgauge.processors.commit.ports import ShardRow
from streamgauge.processors.hosts.kcl.leases import Lease, LeaseTable, OtherApplication

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/readings"
PARENT, LEFT, RIGHT = (f"shardId-{number:012}" for number in range(3))


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        made = boto3.client("dynamodb", region_name="us-east-1")
        yield made
        made.close()


@pytest.fixture
def table(client) -> Iterator[LeaseTable]:
    yield LeaseTable(client, "leases", sleep=lambda seconds: None)
    if "leases" in client.list_tables()["TableNames"]:
        client.delete_table(TableName="leases")


def rows() -> list[ShardRow]:
    """A sealed parent, a child whose state stands somewhere, and one that has none yet."""
    store = MemoryStateStore()
    left, right = FULL_RANGE.even_parts(2)
    for shard in (Shard(PARENT, FULL_RANGE), Shard(LEFT, left, (PARENT,)), Shard(RIGHT, right, (PARENT,))):
        store.create(shard, start="TRIM_HORIZON")
    row = store.claim(LEFT, owner="someone")
    store.commit(row, snapshot=b"", position=Position(10**55, 7), now_ms=1)
    row = store.row(PARENT)
    assert row is not None
    store.seal(row)
    return store.rows()


def prepare(table: LeaseTable, *, stream_arn: str = ARN) -> int:
    return table.prepare(rows(), pipeline="p", stream_arn=stream_arn)


def test_a_lease_begins_where_the_state_stands_and_sealed_shards_have_none(table: LeaseTable) -> None:
    assert table.leases() is None
    assert prepare(table) == 2
    left, right = FULL_RANGE.even_parts(2)
    assert table.leases() == [
        Lease(LEFT, None, 0, str(10**55), 7, left),
        Lease(RIGHT, None, 0, "TRIM_HORIZON", 0, right),
    ]


def test_leases_that_are_there_are_left_as_they_are(table: LeaseTable, client) -> None:
    prepare(table)
    change(client, LEFT, owner="worker")
    before = table.leases()
    assert prepare(table) == 0
    assert table.leases() == before


def change(client, shard_id: str, *, owner: str) -> None:
    client.update_item(
        TableName="leases",
        Key={"leaseKey": {"S": shard_id}},
        UpdateExpression="SET leaseOwner = :owner",
        ExpressionAttributeValues={":owner": {"S": owner}},
    )


def test_a_worker_that_has_ended_leaves_its_leases_and_no_others(table: LeaseTable, client) -> None:
    prepare(table)
    change(client, LEFT, owner="ours")
    change(client, RIGHT, owner="theirs")
    table.release("ours")
    left, right = table.leases() or []
    assert (left.owner, left.counter) == (None, 1), "whoever watches it sees it move"
    assert (right.owner, right.counter) == ("theirs", 0)


def test_the_table_has_the_index_that_the_kcl_would_wait_for(table: LeaseTable, client) -> None:
    prepare(table)
    described = client.describe_table(TableName="leases")["Table"]
    assert [index["IndexName"] for index in described["GlobalSecondaryIndexes"]] == ["LeaseOwnerToLeaseKeyIndex"]


def test_the_lease_table_of_another_stream_is_refused(table: LeaseTable) -> None:
    prepare(table)
    with pytest.raises(OtherApplication, match=r"stream/readings, not of .*others.*--lease-table"):
        prepare(table, stream_arn=ARN.replace("readings", "others"))


def test_the_lease_table_of_another_application_is_refused(table: LeaseTable, client) -> None:
    prepare(table)
    arn = client.describe_table(TableName="leases")["Table"]["TableArn"]
    client.untag_resource(ResourceArn=arn, TagKeys=["streamgauge:stream"])
    with pytest.raises(OtherApplication, match="another application's"):
        prepare(table)


def test_an_empty_lease_table_without_a_tag_is_taken(table: LeaseTable, client) -> None:
    prepare(table)
    arn = client.describe_table(TableName="leases")["Table"]["TableArn"]
    client.untag_resource(ResourceArn=arn, TagKeys=["streamgauge:stream"])
    for shard_id in (LEFT, RIGHT):
        client.delete_item(TableName="leases", Key={"leaseKey": {"S": shard_id}})
    assert prepare(table) == 2


def test_a_table_that_is_no_lease_table_is_refused(table: LeaseTable, client) -> None:
    client.create_table(
        TableName="leases",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "order", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "order", "KeyType": "HASH"}],
    )
    with pytest.raises(OtherApplication, match="no lease table"):
        prepare(table)


def test_leases_of_shards_with_other_hash_keys_are_refused(table: LeaseTable) -> None:
    prepare(table)
    store = MemoryStateStore()
    store.create(Shard(LEFT, FULL_RANGE), start="TRIM_HORIZON")
    with pytest.raises(OtherApplication, match="other hash keys"):
        table.prepare(store.rows(), pipeline="p", stream_arn=ARN)
