"""`KinesisProducer` with boto3 against the local Kinesis over HTTP."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config

from streamgauge.events.control import END_OF_INPUT, EndOfInput
from streamgauge.events.envelope import decode_event
from streamgauge.events.kpl import decode_aggregate, is_aggregate
from streamgauge.infra.local.kinesis.faults import Fault, Rule, ScriptedFaults
from streamgauge.infra.local.kinesis.server import LocalKinesis
from streamgauge.producers.client.delivery import Acknowledged, GivenUp
from streamgauge.producers.client.ports import StreamUnavailable
from streamgauge.producers.client.producer import CloseIncomplete, KinesisProducer, ProducerClosed
from streamgauge.producers.client.settings import ProducerSettings

FAST = ProducerSettings(aggregate_linger_ms=10, request_linger_ms=2, backoff_base_ms=5, backoff_max_ms=50)


@pytest.fixture
def faults() -> ScriptedFaults:
    return ScriptedFaults()


@pytest.fixture
def kinesis(faults: ScriptedFaults) -> Iterator[LocalKinesis]:
    with LocalKinesis(faults=faults) as server:
        yield server


@pytest.fixture
def client(kinesis: LocalKinesis):
    client = boto3.client(
        "kinesis",
        endpoint_url=kinesis.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=5, connect_timeout=2, max_pool_connections=8),
    )
    client.create_stream(StreamName="s", ShardCount=2)
    yield client
    client.close()


def payloads(client) -> list[bytes]:
    found: list[bytes] = []
    for shard in client.list_shards(StreamName="s")["Shards"]:
        iterator = client.get_shard_iterator(
            StreamName="s", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        answer = client.get_records(ShardIterator=iterator)
        for record in answer["Records"]:
            data = record["Data"]
            found += decode_aggregate(data).payloads if is_aggregate(data) else [data]
    return found


def sequences(client) -> Counter[int]:
    events = [decode_event(payload) for payload in payloads(client)]
    return Counter(int(event.sequence) for event in events if event.sequence is not None)


@pytest.mark.parametrize("wire_format", ["kpl", "plain"])
def test_events_of_several_threads_arrive_once_each(client, wire_format: str) -> None:
    settings = ProducerSettings(wire_format=wire_format, aggregate_linger_ms=10, request_linger_ms=2)
    producer = KinesisProducer(client, stream="s", settings=settings)

    def put_some(number: int) -> None:
        for n in range(100):
            producer.put("test.event", f"key-{number}-{n}", producer.now_ms, b'{"v":1}')

    threads = [threading.Thread(target=put_some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = producer.close()
    assert sequences(client) == Counter(range(400))
    assert stats.acknowledged == stats.put == 400


def test_a_delivery_waits_for_its_outcome_and_calls_back(client) -> None:
    seen: list[object] = []
    with KinesisProducer(client, stream="s", settings=FAST) as producer:
        delivery = producer.put("test.event", "key", 0, b"{}", on_done=lambda done: seen.append(done.outcome))
        outcome = delivery.result(timeout_s=10)
        assert isinstance(outcome, Acknowledged)
        assert seen == [outcome]


def test_a_lost_answer_is_healed_and_the_copy_has_the_same_identity(client, faults: ScriptedFaults) -> None:
    faults.rules.append(Rule(Fault.LOSE_ANSWER, operation="PutRecords"))
    with KinesisProducer(client, stream="s", settings=FAST) as producer:
        producer.put("test.event", "key", 0, b"{}")
        producer.flush(timeout_s=20)
    assert sequences(client) == Counter({0: 2})


def test_throttled_entries_and_an_unavailable_service_are_healed(client, faults: ScriptedFaults) -> None:
    faults.rules += [
        Rule(Fault.THROTTLE, operation="PutRecords", entries=(0, 2), times=6),
        Rule(Fault.UNAVAILABLE, operation="PutRecords", skip=1, times=2),
    ]
    settings = ProducerSettings(wire_format="plain", request_linger_ms=2, backoff_base_ms=5, backoff_max_ms=50)
    with KinesisProducer(client, stream="s", settings=settings) as producer:
        for n in range(50):
            producer.put("test.event", f"key-{n}", 0, b"{}")
        producer.flush(timeout_s=20)
        assert producer.stats.records_throttled == 6
        assert producer.stats.requests_failed == 2
    assert sequences(client) == Counter(range(50))


def test_a_split_while_producing_loses_nothing_and_the_input_ends_in_every_shard(client) -> None:
    producer = KinesisProducer(client, stream="s", settings=FAST)
    for n in range(2_000):
        if n == 800:
            client.split_shard(StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**126))
        producer.put("test.event", f"key-{n % 50}", 0, b"{}")
    producer.close(end_of_input=EndOfInput(input="i", part=0, parts=1), timeout_s=30)
    assert set(sequences(client)) == set(range(2_000))
    ends = [p for p in payloads(client) if decode_event(p).type == END_OF_INPUT]
    assert len(ends) >= 3


def test_back_pressure_blocks_put_until_there_is_room(client, faults: ScriptedFaults) -> None:
    faults.delays_ms["PutRecords"] = 30
    settings = ProducerSettings(events_in_flight_max=20, aggregate_linger_ms=10, request_linger_ms=2)
    with KinesisProducer(client, stream="s", settings=settings) as producer:
        most = 0
        for n in range(200):
            producer.put("test.event", f"key-{n}", 0, b"{}")
            most = max(most, producer.stats.put - producer.stats.acknowledged)
        assert most <= 20
    assert sequences(client) == Counter(range(200))


def test_a_stream_that_does_not_exist_is_a_clear_error(client) -> None:
    with pytest.raises(StreamUnavailable, match="stream nowhere: ResourceNotFoundException"):
        KinesisProducer(client, stream="nowhere")


def test_a_stream_deleted_meanwhile_gives_up_and_says_so(client) -> None:
    producer = KinesisProducer(client, stream="s", settings=FAST)
    client.delete_stream(StreamName="s")
    outcome = producer.put("test.event", "key", 0, b"{}").result(timeout_s=20)
    assert isinstance(outcome, GivenUp)
    assert "ResourceNotFoundException" in outcome.reason
    with pytest.raises(CloseIncomplete, match=r"1 given up.*ResourceNotFoundException"):
        producer.close(end_of_input=EndOfInput(input="i", part=0, parts=1))
    with pytest.raises(ProducerClosed):
        producer.put("test.event", "key", 0, b"{}")


def test_closing_in_vain_ends_in_time_and_leaves_the_outcome_unknown(client, faults: ScriptedFaults) -> None:
    faults.rules.append(Rule(Fault.UNAVAILABLE, operation="PutRecords", times=None))
    producer = KinesisProducer(client, stream="s", settings=FAST)
    delivery = producer.put("test.event", "key", 0, b"{}")
    with pytest.raises(CloseIncomplete, match="0 given up, 1 unknown"):
        producer.close(timeout_s=0.3)
    assert delivery.done
