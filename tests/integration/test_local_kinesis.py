"""boto3 against the local Kinesis over HTTP/1.1: every operation, faults, and what is refused."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from streamgauge.events.hash_key import MAX_HASH_KEY
from streamgauge.events.records import MAX_RECORD_BYTES
from streamgauge.infra.local.kinesis.faults import Fault, Faults, Rule, ScriptedFaults
from streamgauge.infra.local.kinesis.server import LocalKinesis

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/s"


def client_of(server: LocalKinesis, *, attempts: int = 1) -> KinesisClient:
    return boto3.client(
        "kinesis",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"mode": "standard", "total_max_attempts": attempts}, read_timeout=10),
    )


@pytest.fixture
def server() -> Iterator[LocalKinesis]:
    with LocalKinesis() as server:
        yield server


@pytest.fixture
def client(server: LocalKinesis) -> Iterator[KinesisClient]:
    client = client_of(server)
    client.create_stream(StreamName="s", ShardCount=2)
    yield client
    client.close()


def read(client: KinesisClient, shard: str = FIRST) -> list[bytes]:
    token = client.get_shard_iterator(StreamName="s", ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    return [record["Data"] for record in client.get_records(ShardIterator=token)["Records"]]


def test_a_stream_is_created_described_listed_and_deleted(client: KinesisClient) -> None:
    description = client.describe_stream(StreamName="s")["StreamDescription"]
    assert description["StreamARN"] == ARN
    assert description["StreamStatus"] == "ACTIVE"
    assert description["RetentionPeriodHours"] == 24
    assert description["HasMoreShards"] is False
    assert description["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}
    assert abs((datetime.now(UTC) - description["StreamCreationTimestamp"]).total_seconds()) < 60
    low, high = description["Shards"]
    assert low["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str(2**127 - 1)}
    assert high["HashKeyRange"] == {"StartingHashKey": str(2**127), "EndingHashKey": str(MAX_HASH_KEY)}
    assert "EndingSequenceNumber" not in low["SequenceNumberRange"]
    assert "ParentShardId" not in low
    page = client.describe_stream(StreamARN=ARN, Limit=1)["StreamDescription"]
    assert [shard["ShardId"] for shard in page["Shards"]] == [FIRST]
    assert page["HasMoreShards"] is True
    rest = client.describe_stream(StreamName="s", ExclusiveStartShardId=FIRST)["StreamDescription"]
    assert [shard["ShardId"] for shard in rest["Shards"]] == [SECOND]
    summary = client.describe_stream_summary(StreamARN=ARN)["StreamDescriptionSummary"]
    assert (summary["OpenShardCount"], summary["ConsumerCount"]) == (2, 0)
    client.create_stream(StreamName="t", StreamModeDetails={"StreamMode": "ON_DEMAND"}, Tags={"a": "b"})
    client.get_waiter("stream_exists").wait(StreamName="t")
    names = [name for page in client.get_paginator("list_streams").paginate(Limit=1) for name in page["StreamNames"]]
    assert names == ["s", "t"]
    summaries = client.list_streams()["StreamSummaries"]
    assert [one["StreamModeDetails"]["StreamMode"] for one in summaries] == ["PROVISIONED", "ON_DEMAND"]
    limits = client.describe_limits()
    assert (limits["OpenShardCount"], limits["OnDemandStreamCount"]) == (6, 1)
    assert client.list_tags_for_stream(StreamName="t")["Tags"] == [{"Key": "a", "Value": "b"}]
    client.delete_stream(StreamName="t", EnforceConsumerDeletion=True)
    client.get_waiter("stream_not_exists").wait(StreamName="t")
    assert client.list_streams()["StreamNames"] == ["s"]


def test_records_come_back_as_they_were_put(client: KinesisClient) -> None:
    before = datetime.now(UTC)
    one = client.put_record(StreamName="s", Data=b"\x00\xff", PartitionKey="Zürich", ExplicitHashKey="0")
    assert one["ShardId"] == FIRST
    assert one["EncryptionType"] == "NONE"
    many = client.put_records(
        StreamARN=ARN,
        Records=[{"Data": b"%d" % index, "PartitionKey": "k", "ExplicitHashKey": "0"} for index in range(500)],
    )
    assert many["FailedRecordCount"] == 0
    token = client.get_shard_iterator(StreamARN=ARN, ShardId=FIRST, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    answer = client.get_records(ShardIterator=token, StreamARN=ARN)
    assert [record["Data"] for record in answer["Records"]] == [b"\x00\xff", *(b"%d" % index for index in range(500))]
    first = answer["Records"][0]
    assert first["PartitionKey"] == "Zürich"
    assert first["SequenceNumber"] == one["SequenceNumber"]
    assert abs((first["ApproximateArrivalTimestamp"] - before).total_seconds()) < 60
    assert [record["SequenceNumber"] for record in answer["Records"][1:]] == [
        record["SequenceNumber"] for record in many["Records"]
    ]
    assert answer["MillisBehindLatest"] == 0


@pytest.mark.parametrize("surplus", [-1, 0, 1])
def test_the_record_size_is_exact_over_the_wire(client: KinesisClient, surplus: int) -> None:
    data = b"x" * (MAX_RECORD_BYTES - len("é".encode()) + surplus)
    if surplus <= 0:
        client.put_record(StreamName="s", Data=data, PartitionKey="é", ExplicitHashKey="0")
        assert read(client) == [data]
    else:
        with pytest.raises(client.exceptions.InvalidArgumentException, match="1048577 bytes"):
            client.put_record(StreamName="s", Data=data, PartitionKey="é")


def test_rates_are_enforced_and_an_answer_says_which_entries_failed(client: KinesisClient) -> None:
    records = [{"Data": b"x" * 300_000, "PartitionKey": "k", "ExplicitHashKey": "0"} for _ in range(4)]
    answer = client.put_records(StreamName="s", Records=records)
    assert answer["FailedRecordCount"] == 1
    assert answer["Records"][3]["ErrorCode"] == "ProvisionedThroughputExceededException"
    assert "Rate exceeded for shard shardId-000000000000 in stream s" in answer["Records"][3]["ErrorMessage"]
    assert "SequenceNumber" not in answer["Records"][3]


def test_reads_are_limited_and_boto3_sees_the_code() -> None:
    with LocalKinesis(now_ms=lambda: 1_700_000_000_000) as server:
        client = client_of(server)
        client.create_stream(StreamName="s", ShardCount=1)
        token = client.get_shard_iterator(StreamName="s", ShardId=FIRST, ShardIteratorType="LATEST")["ShardIterator"]
        for _ in range(5):
            client.get_records(ShardIterator=token)
        with pytest.raises(client.exceptions.ProvisionedThroughputExceededException):
            client.get_records(ShardIterator=token)
        client.close()


def test_every_iterator_type_works_over_the_wire(client: KinesisClient) -> None:
    numbers = [
        client.put_record(StreamName="s", Data=b"%d" % index, PartitionKey="k", ExplicitHashKey="0")["SequenceNumber"]
        for index in range(3)
    ]
    expected = {
        "TRIM_HORIZON": ({}, [b"0", b"1", b"2"]),
        "LATEST": ({}, []),
        "AT_SEQUENCE_NUMBER": ({"StartingSequenceNumber": numbers[1]}, [b"1", b"2"]),
        "AFTER_SEQUENCE_NUMBER": ({"StartingSequenceNumber": numbers[1]}, [b"2"]),
        "AT_TIMESTAMP": ({"Timestamp": datetime(2020, 1, 1, tzinfo=UTC)}, [b"0", b"1", b"2"]),
    }
    for kind, (parameters, data) in expected.items():
        token = client.get_shard_iterator(StreamName="s", ShardId=FIRST, ShardIteratorType=kind, **parameters)
        got = client.get_records(ShardIterator=token["ShardIterator"])
        assert [record["Data"] for record in got["Records"]] == data, kind


def test_resharding_closes_parents_and_reads_lead_to_the_children(client: KinesisClient) -> None:
    client.put_record(StreamName="s", Data=b"before", PartitionKey="k", ExplicitHashKey="0")
    client.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey="1000")
    client.merge_shards(StreamARN=ARN, ShardToMerge="shardId-000000000003", AdjacentShardToMerge=SECOND)
    shards = {shard["ShardId"]: shard for shard in client.list_shards(StreamName="s")["Shards"]}
    assert shards["shardId-000000000002"]["ParentShardId"] == FIRST
    merged = shards["shardId-000000000004"]
    assert (merged["ParentShardId"], merged["AdjacentParentShardId"]) == ("shardId-000000000003", SECOND)
    assert int(shards[FIRST]["SequenceNumberRange"]["EndingSequenceNumber"]) > 0
    token = client.get_shard_iterator(StreamName="s", ShardId=FIRST, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    end = client.get_records(ShardIterator=token)
    assert [record["Data"] for record in end["Records"]] == [b"before"]
    assert "NextShardIterator" not in end
    assert end["ChildShards"] == [
        {
            "ShardId": "shardId-000000000002",
            "ParentShards": [FIRST],
            "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "999"},
        },
        {
            "ShardId": "shardId-000000000003",
            "ParentShards": [FIRST],
            "HashKeyRange": {"StartingHashKey": "1000", "EndingHashKey": str(2**127 - 1)},
        },
    ]
    put = client.put_record(StreamName="s", Data=b"after", PartitionKey="k", ExplicitHashKey="0")
    assert put["ShardId"] == "shardId-000000000002"
    answer = client.update_shard_count(StreamName="s", TargetShardCount=3, ScalingType="UNIFORM_SCALING")
    assert (answer["CurrentShardCount"], answer["TargetShardCount"]) == (2, 3)
    assert client.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["OpenShardCount"] == 3


def test_shards_are_listed_with_filters_and_page_by_page(client: KinesisClient) -> None:
    client.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey="1000")
    long_ago, now = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC)
    for shard_filter, expected in (
        ({"Type": "AT_LATEST"}, [1, 2, 3]),
        ({"Type": "AT_TRIM_HORIZON"}, [0, 1]),
        ({"Type": "FROM_TRIM_HORIZON"}, [0, 1, 2, 3]),
        ({"Type": "AFTER_SHARD_ID", "ShardId": SECOND}, [2, 3]),
        ({"Type": "AT_TIMESTAMP", "Timestamp": long_ago}, []),
        ({"Type": "FROM_TIMESTAMP", "Timestamp": long_ago}, [0, 1, 2, 3]),
        ({"Type": "AT_TIMESTAMP", "Timestamp": now}, [1, 2, 3]),
    ):
        page = client.list_shards(StreamName="s", ShardFilter=shard_filter, MaxResults=1)
        shards = page["Shards"]
        while "NextToken" in page:
            page = client.list_shards(NextToken=page["NextToken"], MaxResults=1)
            shards += page["Shards"]
        assert [int(shard["ShardId"][-2:]) for shard in shards] == expected


def test_a_page_token_and_a_stream_are_not_taken_together(client: KinesisClient) -> None:
    created = client.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamCreationTimestamp"]
    assert len(client.list_shards(StreamName="s", StreamCreationTimestamp=created)["Shards"]) == 2
    token = client.list_shards(StreamName="s", MaxResults=1)["NextToken"]
    for beside in ({"StreamName": "s"}, {"StreamARN": ARN}, {"ShardFilter": {"Type": "AT_LATEST"}}):
        with pytest.raises(client.exceptions.InvalidArgumentException, match="cannot be provided together"):
            client.list_shards(NextToken=token, **beside)


def test_retention_tags_encryption_mode_and_record_size_are_described(client: KinesisClient) -> None:
    client.increase_stream_retention_period(StreamName="s", RetentionPeriodHours=48)
    assert client.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["RetentionPeriodHours"] == 48
    client.decrease_stream_retention_period(StreamName="s", RetentionPeriodHours=24)
    client.add_tags_to_stream(StreamName="s", Tags={"a": "1", "b": "2", "c": "3"})
    page = client.list_tags_for_stream(StreamName="s", Limit=2)
    assert ([tag["Key"] for tag in page["Tags"]], page["HasMoreTags"]) == (["a", "b"], True)
    page = client.list_tags_for_stream(StreamName="s", ExclusiveStartTagKey="b")
    assert (page["Tags"], page["HasMoreTags"]) == ([{"Key": "c", "Value": "3"}], False)
    client.remove_tags_from_stream(StreamName="s", TagKeys=["a"])
    client.tag_resource(ResourceARN=ARN, Tags={"d": "4"})
    client.untag_resource(ResourceARN=ARN, TagKeys=["b"])
    assert [tag["Key"] for tag in client.list_tags_for_resource(ResourceARN=ARN)["Tags"]] == ["c", "d"]
    client.start_stream_encryption(StreamName="s", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    client.update_stream_mode(StreamARN=ARN, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    client.update_max_record_size(StreamARN=ARN, MaxRecordSizeInKiB=2048)
    summary = client.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
    assert (summary["EncryptionType"], summary["KeyId"]) == ("KMS", "alias/aws/kinesis")
    assert summary["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert summary["MaxRecordSizeInKiB"] == 2048
    assert client.put_record(StreamName="s", Data=b"", PartitionKey="k")["EncryptionType"] == "KMS"
    client.stop_stream_encryption(StreamName="s", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    assert client.describe_stream(StreamName="s")["StreamDescription"]["EncryptionType"] == "NONE"


def test_errors_carry_awss_codes(client: KinesisClient) -> None:
    with pytest.raises(client.exceptions.ResourceInUseException, match="already exists"):
        client.create_stream(StreamName="s", ShardCount=1)
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="Stream t under account"):
        client.put_record(StreamName="t", Data=b"", PartitionKey="k")
    with pytest.raises(client.exceptions.LimitExceededException, match="double"):
        client.update_shard_count(StreamName="s", TargetShardCount=5, ScalingType="UNIFORM_SCALING")
    with pytest.raises(client.exceptions.InvalidArgumentException, match="ShardIterator"):
        client.get_records(ShardIterator="nonsense")


def test_enhanced_fan_out_is_refused_by_name(client: KinesisClient) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="RegisterStreamConsumer is not supported") as refused:
        client.register_stream_consumer(StreamARN=ARN, ConsumerName="c")
    assert refused.value.response["Error"]["Code"] == "UnsupportedOperation"
    with pytest.raises(botocore.exceptions.ClientError, match="SubscribeToShard is not supported"):
        client.subscribe_to_shard(ConsumerARN=f"{ARN}/consumer/c:1", ShardId=FIRST, StartingPosition={"Type": "LATEST"})


# Faults, as a client meets them


def inject(server: LocalKinesis, *rules: Rule, delays_ms: dict[str, int] | None = None) -> None:
    def use(model: object) -> None:
        server.model.faults = ScriptedFaults(*rules, delays_ms=delays_ms)

    server.run(use)


def test_a_lost_answer_is_a_broken_connection_after_the_effect(server: LocalKinesis, client: KinesisClient) -> None:
    inject(server, Rule(Fault.LOSE_ANSWER, operation="PutRecords"))
    records = [{"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": "0"}]
    with pytest.raises(botocore.exceptions.HTTPClientError):
        client.put_records(StreamName="s", Records=records)
    assert read(client) == [b"x"]


def test_botocores_own_retry_of_a_lost_answer_puts_twice(server: LocalKinesis, client: KinesisClient) -> None:
    inject(server, Rule(Fault.LOSE_ANSWER, operation="PutRecord"))
    retrying = client_of(server, attempts=2)
    retrying.put_record(StreamName="s", Data=b"x", PartitionKey="k", ExplicitHashKey="0")
    retrying.close()
    assert read(client) == [b"x", b"x"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(Fault.UNAVAILABLE, 503, "ServiceUnavailable"), (Fault.INTERNAL_FAILURE, 500, "InternalFailure")],
)
def test_an_outage_is_a_server_error(
    server: LocalKinesis, client: KinesisClient, fault: Fault, status: int, code: str
) -> None:
    inject(server, Rule(fault))
    with pytest.raises(botocore.exceptions.ClientError) as failed:
        client.put_record(StreamName="s", Data=b"x", PartitionKey="k")
    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert failed.value.response["Error"]["Code"] == code


def test_a_delayed_answer_holds_up_no_other_caller(server: LocalKinesis, client: KinesisClient) -> None:
    inject(server, delays_ms={"PutRecord": 60_000})
    host = urlsplit(server.endpoint_url).netloc
    slow = http.client.HTTPConnection(host, timeout=10)
    slow.request(
        "POST", "/", b'{"StreamName":"s","Data":"","PartitionKey":"k"}', {"X-Amz-Target": "Kinesis_20131202.PutRecord"}
    )
    assert client.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["OpenShardCount"] == 2
    slow.close()
    server.run(lambda model: setattr(model, "faults", Faults()))


# Bare HTTP


@pytest.mark.parametrize(
    ("headers", "body", "code", "text"),
    [
        (
            {"Content-Type": "application/x-amz-cbor-1.1", "X-Amz-Target": "Kinesis_20131202.ListStreams"},
            b"\xa0",
            "UnsupportedOperation",
            "CBOR",
        ),
        ({"X-Amz-Target": "DynamoDB_20120810.ListTables"}, b"{}", "UnknownOperationException", "meant for Kinesis"),
        ({}, b"{}", "UnknownOperationException", "X-Amz-Target"),
        ({"X-Amz-Target": "Kinesis_20131202.Nonsense"}, b"{}", "UnknownOperationException", "Nonsense"),
        ({"X-Amz-Target": "Kinesis_20131202.ListStreams"}, b"{", "SerializationException", "ListStreams"),
        (
            {"X-Amz-Target": "Kinesis_20131202.ListStreams"},
            b" " * (20 * 1024 * 1024 + 1),
            "SerializationException",
            "exceeds",
        ),
    ],
)
def test_a_request_that_is_not_for_it_is_told_so(
    server: LocalKinesis, headers: dict[str, str], body: bytes, code: str, text: str
) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.endpoint_url).netloc, timeout=30)
    connection.request("POST", "/", body, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert response.status == 400
    assert answer["__type"] == code
    assert text in answer["message"]


def test_a_browser_is_greeted(server: LocalKinesis) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.endpoint_url).netloc, timeout=10)
    connection.request("GET", "/")
    assert b"in memory only" in connection.getresponse().read()
    connection.close()


def test_one_call_of_ten_mib_is_taken(client: KinesisClient) -> None:
    client.update_shard_count(StreamName="s", TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    client.update_max_record_size(StreamARN=ARN, MaxRecordSizeInKiB=10_240)
    data = b"x" * (10 * 1024 * 1024 - 1)
    put = client.put_records(StreamName="s", Records=[{"Data": data, "PartitionKey": "k", "ExplicitHashKey": "0"}])
    assert put["FailedRecordCount"] == 0
    assert read(client, put["Records"][0]["ShardId"]) == [data]
