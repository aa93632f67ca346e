"""A producer's core against the local Kinesis's pure model, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

import pytest

from streamgauge.events.envelope import Event, decode_event
from streamgauge.events.hash_key import hash_key
from streamgauge.events.kpl import decode_aggregate, is_aggregate
from streamgauge.events.records import Shard
from streamgauge.events.shard_listing import ListedShard
from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.infra.local.kinesis.model import KinesisModel, PutEntry, PutFailure
from streamgauge.producers.client.closing import Phase
from streamgauge.producers.client.core import ProducerCore
from streamgauge.producers.client.out_record import EntryAnswer, ListShards, PutRequest
from streamgauge.producers.client.retrier import Failure
from streamgauge.producers.client.settings import ProducerSettings

START_MS = 1_700_000_000_000


class Read(NamedTuple):
    """One event as a consumer meets it; `misrouted` if its aggregate is to be ignored."""

    shard_id: str
    sequence_number: int
    place: int
    partition_key: str
    payload: bytes
    aggregated: bool
    misrouted: bool

    @property
    def event(self) -> Event:
        return decode_event(self.payload)


class World:
    """Everything around one `ProducerCore`. `latency` gives (way out, way back) in ms for a call."""

    def __init__(
        self,
        *,
        shards: int = 1,
        seed: int = 0,
        settings: ProducerSettings | None = None,
        limits: Limits | None = None,
        latency: Callable[[random.Random], tuple[int, int]] = lambda rng: (rng.randint(1, 20), rng.randint(1, 20)),
        lose: Callable[[random.Random, int], str] = lambda rng, call: "",
        refuse: Callable[[random.Random, int, int], str] = lambda rng, call, entry: "",
        list_lag_ms: int = 0,
    ) -> None:
        self.now_ms = START_MS
        self.rng = random.Random(seed)
        self.model = KinesisModel(limits=limits or Limits(enforced=False))
        self.model.create_stream("s", shards, now_ms=self.now_ms)
        self.settings = settings or ProducerSettings()
        self.latency, self.lose, self.refuse, self.list_lag_ms = latency, lose, refuse, list_lag_ms
        self.timeout_ms = 1_000
        self.lists_fail = False
        self.calls = 0
        self.requests: list[PutRequest] = []
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._listed_until = self.now_ms
        self.now_ms += 60_000
        uuids = random.Random(seed + 1)
        self.core = ProducerCore(
            self.settings,
            self.list_shards(),
            rng=random.Random(seed + 2),
            new_uuid=lambda: UUID(int=uuids.getrandbits(128), version=4),
            now_ms=self.now_ms,
        )

    def list_shards(self) -> list[ListedShard]:
        shards, _ = self.model.list_shards("s", now_ms=self.now_ms)
        at = self.now_ms - self.list_lag_ms
        return [
            ListedShard(
                Shard(shard.shard_id, shard.hash_range, shard.parents), shard.closed_ms is None or shard.closed_ms > at
            )
            for shard in shards
            if shard.created_ms <= at or not shard.parents
        ]

    def at(self, when_ms: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when_ms, next(self._count), action))

    def run(self, until: Callable[[], bool], *, limit_ms: int = 48 * 3_600_000) -> None:
        """Let time pass until the condition holds."""
        end_ms = self.now_ms + limit_ms
        while not until():
            self._poll()
            wake = self.core.wake_ms(self.now_ms)
            due = self._heap[0][0] if self._heap else None
            if until():
                return
            times = [when for when in (wake, due) if when is not None]
            assert times, "nothing would ever happen again"
            self.now_ms = max(self.now_ms, min(times))
            assert self.now_ms <= end_ms, "the condition did not come true"
            while self._heap and self._heap[0][0] <= self.now_ms:
                heapq.heappop(self._heap)[2]()

    def put(self, subject: str, data: bytes = b'{"v":1}', **options: object):
        """Put one event, waiting for room."""
        self.run(lambda: self.core.can_accept(1_000))
        return self.core.put("test.event", subject, self.now_ms, data, now_ms=self.now_ms, **options)

    def pass_ms(self, duration_ms: int) -> None:
        passed: list[int] = []
        self.at(self.now_ms + duration_ms, lambda: passed.append(1))
        self.run(lambda: bool(passed))

    def close(self, end_of_input=None) -> None:
        self.core.close(end_of_input)
        self.run(lambda: self.core.phase is Phase.CLOSED)

    def split(self, index: int = 0) -> None:
        shard = self.model.describe("s", now_ms=self.now_ms).shards
        target = [state for state in shard.values() if state.closed_ms is None][index]
        middle = (target.hash_range.first + target.hash_range.last) // 2 + 1
        self.model.split_shard("s", target.shard_id, middle, now_ms=self.now_ms)

    def merge(self) -> None:
        states = self.model.describe("s", now_ms=self.now_ms).shards.values()
        first, second = sorted((s for s in states if s.closed_ms is None), key=lambda s: s.hash_range)[:2]
        self.model.merge_shards("s", first.shard_id, second.shard_id, now_ms=self.now_ms)

    def read(self) -> list[Read]:
        """Everything in the stream, shard by shard."""
        found = []
        for shard_id, state in self.model.describe("s", now_ms=self.now_ms).shards.items():
            for index in range(state.log.first, state.log.end):
                record = state.log.at(index)
                if not is_aggregate(record.data):
                    found.append(
                        Read(shard_id, int(record.sequence_number), 0, record.partition_key, record.data, False, False)
                    )
                    continue
                aggregate = decode_aggregate(record.data)
                keys = [aggregate.partition_keys[key] for key in aggregate.key_index]
                misrouted = any(hash_key(key) not in state.hash_range for key in keys)
                found += [
                    Read(shard_id, int(record.sequence_number), place, key, payload, True, misrouted)
                    for place, (key, payload) in enumerate(zip(keys, aggregate.payloads, strict=True))
                ]
        return found

    def events(self) -> list[Read]:
        """The events that consumers count or know as duplicates, without control and ledger records."""
        return [read for read in self.read() if not read.misrouted and not read.event.type.startswith("streamgauge.")]

    def _poll(self) -> None:
        while (action := self.core.poll(self.now_ms)) is not None:
            out, back = self.latency(self.rng)
            if isinstance(action, ListShards):
                self.at(self.now_ms + out + back, self._list)
            else:
                self.requests.append(action)
                self._send(action, out, back)

    def _list(self) -> None:
        if self.lists_fail:
            self.core.list_failed("no answer", self.now_ms)
        else:
            self.core.listed(self.list_shards(), self.now_ms)

    def _send(self, request: PutRequest, out: int, back: int) -> None:
        self.calls += 1
        call = self.calls
        fate = self.lose(self.rng, call)  # "", "request", "answer" or "late" (lands after the caller's timeout)

        def land() -> None:
            answers = self._land(request, call)
            if not fate:
                self.at(self.now_ms + back, lambda: self.core.answered(request.request_id, answers, self.now_ms))

        if fate != "request":
            self.at(self.now_ms + (self.timeout_ms * 5 if fate == "late" else out), land)
        if fate:
            self.at(
                self.now_ms + self.timeout_ms,
                lambda: self.core.failed(request.request_id, Failure.LOST, "timed out", self.now_ms),
            )

    def _land(self, request: PutRequest, call: int) -> list[EntryAnswer]:
        answers: dict[int, EntryAnswer] = {}
        entries = []
        for index, record in enumerate(request.records):
            code = self.refuse(self.rng, call, index)
            if code:
                answers[index] = EntryAnswer(None, None, code, "refused")
            else:
                entries.append((index, PutEntry(record.partition_key, record.data, record.explicit_hash_key)))
        if entries:
            results = self.model.put_records("s", [entry for _, entry in entries], now_ms=self.now_ms)
            for (index, _), result in zip(entries, results, strict=True):
                if isinstance(result, PutFailure):
                    answers[index] = EntryAnswer(None, None, result.code, result.message)
                else:
                    answers[index] = EntryAnswer(result.shard_id, result.sequence_number)
        return [answers[index] for index in range(len(request.records))]


@pytest.fixture(scope="session")
def world() -> type[World]:
    return World
