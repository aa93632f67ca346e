"""The event source poller between our Kinesis and functions that MiniStack runs in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from event_source_place import DEADLINE_S, TIMEOUT_S, Place, a_place, running, wait_until

REPORTS = {"FunctionResponseTypes": ["ReportBatchItemFailures"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("event-source")) as servers:
        yield servers


@pytest.fixture(scope="module")
def poller(place: Place) -> Iterator[None]:
    """One for all tests: it finds each test's mapping by itself."""
    with running(place.endpoints):
        yield


@pytest.fixture(autouse=True)
def _nothing_deployed_stays(place: Place) -> Iterator[None]:
    yield
    place.remove_mappings()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[-60:].strip("-")


@pytest.mark.usefixtures("poller")
def test_batches_come_whole_and_in_order_to_a_warm_process(place: Place, name: str) -> None:
    source = place.source(name, texts=["a", "b"])
    source.wait_for([["a", "b"]])
    source.put("c")
    source.wait_for([["a", "b"], ["c"]])

    (first, second) = source.calls
    assert first["pid"] == second["pid"]
    assert all(one.startswith("shardId-000000000000:") for one in first["ids"])


@pytest.mark.usefixtures("poller")
@pytest.mark.parametrize("trouble", ["raise", "die", "hang", "large"])
def test_a_function_that_fails_gets_its_batch_again_in_another_process(place: Place, name: str, trouble: str) -> None:
    source = place.source(name, texts=["a", f"{trouble} once", "b"], MaximumRetryAttempts=1)
    source.wait_for([["a", f"{trouble} once", "b"]] * 2)

    (first, second) = source.calls
    # MiniStack ends a process after every failure; AWS keeps one whose handler has raised.
    assert trouble == "large" or first["pid"] != second["pid"]


@pytest.mark.usefixtures("poller")
def test_a_function_that_hangs_was_ended_before_its_batch_comes_again(place: Place, name: str) -> None:
    source = place.source(name, texts=["hang once"])
    source.wait_for([["hang once"]] * 2)

    (first, second) = source.calls
    assert second["began"] - first["began"] >= TIMEOUT_S
    assert not Path(f"/proc/{first['pid']}").exists()


@pytest.mark.usefixtures("poller")
def test_a_partial_answer_gets_the_rest_again(place: Place, name: str) -> None:
    source = place.source(name, texts=["a", "partial once", "b"], **REPORTS)

    source.wait_for([["a", "partial once", "b"], ["partial once", "b"]])


@pytest.mark.usefixtures("poller")
def test_a_throttled_function_gets_its_batch_when_there_is_room_again(
    place: Place, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = place.source(name, MaximumRetryAttempts=0)
    place.clients.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    source.put("a")
    wait_until(lambda: sum("TooManyRequests" in line for line in caplog.messages) >= 3, "it was to be throttled")
    assert source.calls == []
    place.clients.functions.delete_function_concurrency(FunctionName=name)

    source.wait_for([["a"]])


@pytest.mark.usefixtures("poller")
def test_a_queue_is_told_of_records_that_are_given_up(place: Place, name: str) -> None:
    url = place.clients.sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = f"arn:aws:sqs:us-east-1:000000000000:{name}"
    source = place.source(
        name, texts=["a", "raise"], MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    source.wait_for([["a", "raise"]] * 2)
    source.put("b")
    source.wait_for_last("b")

    told = json.loads(place.clients.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"][0]["Body"])
    assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert told["requestContext"]["approximateInvokeCount"] == 2
    assert told["requestContext"]["functionArn"].endswith(f":function:{name}")
    assert told["requestContext"]["requestId"]
    assert told["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    batch = told["KinesisBatchInfo"]
    assert (batch["batchSize"], batch["streamArn"]) == (2, source.arn)
    assert [batch["startSequenceNumber"], batch["endSequenceNumber"]] == [
        one.partition(":")[2] for one in source.calls[0]["ids"]
    ]
    assert "payload" not in told


@pytest.mark.usefixtures("poller")
def test_a_topic_is_told_too(place: Place, name: str) -> None:
    topic = place.clients.sns.create_topic(Name=name)["TopicArn"]
    url = place.clients.sqs.create_queue(QueueName=name)["QueueUrl"]
    place.clients.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:us-east-1:000000000000:{name}")
    place.source(name, texts=["raise"], MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": topic}})

    body = json.loads(place.clients.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"][0]["Body"])
    assert json.loads(body["Message"])["KinesisBatchInfo"]["batchSize"] == 1


@pytest.mark.usefixtures("poller")
def test_a_bucket_gets_the_records_as_well(place: Place, name: str) -> None:
    s3 = place.clients.s3
    s3.create_bucket(Bucket="given-up")
    source = place.source(
        name,
        texts=["raise"],
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:s3:::given-up"}},
    )
    wait_until(lambda: s3.list_objects_v2(Bucket="given-up")["KeyCount"] == 1, "an object was to be written")

    key = s3.list_objects_v2(Bucket="given-up")["Contents"][0]["Key"]
    assert key.startswith(f"aws/lambda/{source.uuid}/shardId-000000000000/")
    told = json.loads(s3.get_object(Bucket="given-up", Key=key)["Body"].read())
    (record,) = json.loads(told["payload"])["Records"]
    assert record["eventID"] == source.calls[0]["ids"][0]


@pytest.mark.usefixtures("poller")
def test_a_destination_that_is_not_there_does_not_hold_the_shard(place: Place, name: str) -> None:
    arn = "arn:aws:sqs:us-east-1:000000000000:nowhere"
    source = place.source(
        name, texts=["raise"], MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    source.wait_for_last("raise")
    source.put("b")

    source.wait_for([["raise"], ["b"]])


@pytest.mark.usefixtures("poller")
def test_a_filter_keeps_records_from_the_function(place: Place, name: str) -> None:
    pattern = json.dumps({"data": {"type": ["buy"]}})
    texts = ['{"type":"buy"}', '{"type":"sell"}', "no JSON", '{"type":"buy","n":2}']
    source = place.source(name, texts=texts, FilterCriteria={"Filters": [{"Pattern": pattern}]})

    source.wait_for([[texts[0], texts[3]]])


@pytest.mark.usefixtures("poller")
def test_children_of_a_reshard_come_after_their_parents(place: Place, name: str) -> None:
    source = place.source(name, texts=["slow"], BatchSize=5)
    kinesis = place.clients.kinesis
    for number in range(20):
        source.put(f"before {number}", key=f"k{number % 8}")
    kinesis.split_shard(StreamName=name, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127))
    wait_until(lambda: place.is_active(name), "the stream was to be split")
    for number in range(20):
        source.put(f"between {number}", key=f"k{number % 8}")
    kinesis.merge_shards(
        StreamName=name, ShardToMerge="shardId-000000000001", AdjacentShardToMerge="shardId-000000000002"
    )
    wait_until(lambda: place.is_active(name), "the shards were to be merged")
    for number in range(20):
        source.put(f"after {number}", key=f"k{number % 8}")
    wait_until(lambda: sum(map(len, source.texts)) == 61, "all records were to be seen")

    spans: dict[str, list[tuple[float, float]]] = {}
    for call in source.calls:
        shard = call["ids"][0].partition(":")[0].removeprefix("shardId-00000000000")
        spans.setdefault(shard, []).append((call["began"], call["ended"]))
    assert sorted(spans) == ["0", "1", "2", "3"]
    begun = {shard: min(began for began, _ in each) for shard, each in spans.items()}
    ended = {shard: max(ended for _, ended in each) for shard, each in spans.items()}
    assert min(begun["1"], begun["2"]) >= ended["0"]
    assert begun["3"] >= max(ended["1"], ended["2"])


@pytest.mark.usefixtures("poller")
def test_latest_begins_with_what_comes_after_it(place: Place, name: str) -> None:
    source = place.source(name, texts=["old"], StartingPosition="LATEST")
    deadline = monotonic() + DEADLINE_S
    while not source.calls:
        assert monotonic() < deadline
        source.put("new")
        sleep(0.1)

    assert "old" not in source.texts[0]


@pytest.mark.usefixtures("poller")
def test_a_disabled_mapping_rests_and_goes_on_where_it_was(place: Place, name: str) -> None:
    source = place.source(name, texts=["a"])
    source.wait_for([["a"]])
    place.clients.functions.update_event_source_mapping(UUID=source.uuid, Enabled=False)
    # What is deployed later is seen together with it.
    place.source(f"{name}-1"[-60:], texts=["x"]).wait_for([["x"]])
    source.put("b")
    place.source(f"{name}-2"[-60:], texts=["x"]).wait_for([["x"]])
    assert source.texts == [["a"]]
    place.clients.functions.update_event_source_mapping(UUID=source.uuid, Enabled=True)

    source.wait_for([["a"], ["b"]])
