"""The first look at a stream, when its answer does not come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest

from streamgauge.producers.client import ports
from streamgauge.producers.client.ports import StreamUnavailable, first_shards

SHARD = {
    "ShardId": "shardId-000000000000",
    "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "9"},
    "SequenceNumberRange": {"StartingSequenceNumber": "1"},
}


class NotFound(Exception):
    response: ClassVar = {"Error": {"Code": "ResourceNotFoundException", "Message": "no such stream"}}


class Client:
    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def list_shards(self, **_: object) -> Mapping[str, object]:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return {"Shards": [SHARD]}

    def put_records(self, **_: object) -> Mapping[str, object]:
        raise AssertionError("nothing is put")


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(ports.time, "sleep", waits.append)
    return waits


def test_a_listing_without_an_answer_is_tried_again(waited: list[float]) -> None:
    client = Client(ConnectionError("reset"), TimeoutError("no answer"))
    assert [entry.shard.shard_id for entry in first_shards(client, "s")] == ["shardId-000000000000"]
    assert client.calls == 3
    assert waited == sorted(waited) and len(waited) == 2


def test_a_stream_that_is_not_there_is_said_at_once(waited: list[float]) -> None:
    client = Client(NotFound(), NotFound())
    with pytest.raises(StreamUnavailable, match="no such stream"):
        first_shards(client, "s")
    assert client.calls == 1 and not waited


def test_trying_ends() -> None:
    client = Client(*[ConnectionError("refused") for _ in range(9)])
    with pytest.raises(StreamUnavailable, match="refused"):
        first_shards(client, "s")
    assert client.calls == 5
