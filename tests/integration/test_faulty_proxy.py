"""The proxy that loses and delays answers, between boto3 and the local Kinesis."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, sleep

import pytest
from botocore.exceptions import ConnectionClosedError

from streamgauge.infra.clients import Clients
from streamgauge.infra.local.faulty_proxy import FaultyProxy, Treatment
from streamgauge.infra.local.kinesis.server import LocalKinesis
from streamgauge.settings import Endpoints

STREAM = "observations"


@pytest.fixture
def kinesis() -> Iterator[LocalKinesis]:
    with LocalKinesis() as server:
        clients = Clients(Endpoints(server.endpoint_url, server.endpoint_url), region="us-east-1")
        clients.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        clients.kinesis.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1})
        clients.kinesis.close()
        yield server


def through(proxy: FaultyProxy, *, attempts: int = 1) -> Clients:
    return Clients(Endpoints(proxy.url, proxy.url), region="us-east-1", attempts=attempts)


def put(clients: Clients, data: bytes) -> None:
    clients.kinesis.put_record(StreamName=STREAM, Data=data, PartitionKey="key")


def held(clients: Clients) -> list[bytes]:
    client = clients.kinesis
    (shard,) = client.list_shards(StreamName=STREAM)["Shards"]
    iterator = client.get_shard_iterator(StreamName=STREAM, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")[
        "ShardIterator"
    ]
    return [record["Data"] for record in client.get_records(ShardIterator=iterator)["Records"]]


def test_calls_pass_whole_in_both_directions(kinesis: LocalKinesis) -> None:
    large = bytes(range(256)) * 3_000
    with FaultyProxy(kinesis.endpoint_url, lambda _: Treatment()) as proxy:
        clients = through(proxy)
        put(clients, large)
        assert held(clients) == [large]
        assert proxy.passed["PutRecord"] == 1
        clients.kinesis.close()


def test_a_lost_answer_is_that_of_a_call_which_had_its_effect(kinesis: LocalKinesis) -> None:
    treatments = iter([Treatment(lose=True), Treatment(refuse=True)])
    with FaultyProxy(kinesis.endpoint_url, lambda name: next(treatments, Treatment())) as proxy:
        clients = through(proxy)
        for data in (b"lost", b"refused"):
            with pytest.raises(ConnectionClosedError):
                put(clients, data)
        assert held(clients) == [b"lost"]
        assert (proxy.lost["PutRecord"], proxy.refused["PutRecord"]) == (1, 1)
        clients.kinesis.close()


def test_a_client_that_tries_again_puts_twice(kinesis: LocalKinesis) -> None:
    treatments = iter([Treatment(lose=True)])
    with FaultyProxy(kinesis.endpoint_url, lambda name: next(treatments, Treatment())) as proxy:
        clients = through(proxy, attempts=2)
        put(clients, b"once")
        assert held(clients) == [b"once", b"once"]
        clients.kinesis.close()


def test_an_answer_is_held_back_and_a_call_is_open_until_it_has_ended(kinesis: LocalKinesis) -> None:
    with FaultyProxy(kinesis.endpoint_url, lambda _: Treatment(delay_s=0.3)) as proxy:
        clients = through(proxy)
        started = monotonic()
        put(clients, b"slow")
        assert monotonic() - started >= 0.3
        until = monotonic() + 5
        while proxy.calls_open and monotonic() < until:
            sleep(0.01)
        assert proxy.calls_open == 0
        clients.kinesis.close()


def test_a_server_that_is_gone_breaks_the_connection(kinesis: LocalKinesis) -> None:
    with FaultyProxy("http://127.0.0.1:9", lambda _: Treatment()) as proxy:
        clients = through(proxy)
        with pytest.raises(ConnectionClosedError):
            put(clients, b"nobody")
        clients.kinesis.close()
