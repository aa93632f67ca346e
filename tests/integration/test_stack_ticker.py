"""The ticker against the local Kinesis."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from streamgauge.events.control import TICK
from streamgauge.events.envelope import Event, decode_event
from streamgauge.infra.clients import Clients
from streamgauge.infra.local.kinesis.server import LocalKinesis
from streamgauge.infra.local.processes import free_port
from streamgauge.infra.local.ticker import run_ticker
from streamgauge.processors.hosts.ticks import TickCounts, tick_once
from streamgauge.settings import Endpoints

STREAM = "observations"


@pytest.fixture
def clients() -> Iterator[Clients]:
    with LocalKinesis() as kinesis:
        made = Clients(Endpoints(kinesis.endpoint_url, kinesis.endpoint_url), region="us-east-1")
        made.kinesis.create_stream(StreamName=STREAM, ShardCount=2)
        made.kinesis.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1})
        yield made
        made.kinesis.close()


def read(clients: Clients) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for shard in clients.kinesis.list_shards(StreamName=STREAM)["Shards"]:
        iterator = clients.kinesis.get_shard_iterator(
            StreamName=STREAM, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records = clients.kinesis.get_records(ShardIterator=iterator)["Records"]
        found[shard["ShardId"]] = [decode_event(record["Data"]) for record in records]
    return found


def test_each_open_shard_gets_the_tick_and_closed_ones_get_none(clients: Clients) -> None:
    parent = clients.kinesis.list_shards(StreamName=STREAM)["Shards"][0]
    start, end = (int(parent["HashKeyRange"][side]) for side in ("StartingHashKey", "EndingHashKey"))  # type: ignore[literal-required]
    clients.kinesis.split_shard(
        StreamName=STREAM, ShardToSplit=parent["ShardId"], NewStartingHashKey=str((start + end) // 2)
    )
    clients.kinesis.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1})
    counts = TickCounts()
    tick_once(clients.kinesis, STREAM, 1_000, counts)
    found = read(clients)
    assert len(found) == 4 and found.pop(parent["ShardId"]) == []
    for events in found.values():
        assert [(event.type, event.source, bytes(event.data)) for event in events] == [
            (TICK, "urn:streamgauge:control:ticker", b'{"at_ms":1000}')
        ]
    assert len({events[0].id for events in found.values()}) == 3
    assert (counts.put, counts.failed) == (3, 0)


class StopAfter:
    """Stops after some waits, and notes how long they were meant to be."""

    def __init__(self, waits: int) -> None:
        self.left = waits
        self.timeouts: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.timeouts.append(timeout)
        self.left -= 1
        return self.left == 0


def test_the_clock_is_read_at_each_tick(clients: Clients) -> None:
    times = iter([1_000, 3_000, 5_000])
    stop = StopAfter(3)
    counts = run_ticker(clients.kinesis, STREAM, 2.0, lambda: next(times), stop)
    for events in read(clients).values():
        assert [bytes(event.data) for event in events] == [b'{"at_ms":1000}', b'{"at_ms":3000}', b'{"at_ms":5000}']
        assert [event.time for event in events] == [
            "1970-01-01T00:00:01.000Z",
            "1970-01-01T00:00:03.000Z",
            "1970-01-01T00:00:05.000Z",
        ]
    assert stop.timeouts == [2.0, 2.0, 2.0]
    assert counts == TickCounts(put=6, failed=0)


def test_a_stop_before_the_next_tick_ends_it_at_once(clients: Clients) -> None:
    stop = threading.Event()
    stop.set()
    assert run_ticker(clients.kinesis, STREAM, 3600.0, lambda: 1_000, stop) == TickCounts(put=2, failed=0)


def test_a_stream_that_does_not_answer_is_counted_and_survived() -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    client = Clients(Endpoints(gone, gone), region="us-east-1", attempts=1).kinesis
    assert run_ticker(client, STREAM, 0.0, lambda: 1_000, StopAfter(2)) == TickCounts(put=0, failed=2)
