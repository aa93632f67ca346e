"""Resharding 2 -> 4 -> 3 -> 1 under load, two workers over the local Kinesis, the engine itself: every event once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import boto3
import pytest
from botocore.config import Config

from streamgauge.events.control import EndOfInput
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.times import rfc3339
from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.infra.local.kinesis.server import LocalKinesis
from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.archive_rows import PANES, THRESHOLD_EVENTS, PaneRow, ThresholdRow, decode_rows
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.core_engine import core_engine, read_shard_state
from streamgauge.processors.commit.memory import MemoryObjectStore, MemoryReceiver, MemoryStateStore
from streamgauge.processors.commit.ports import ParentBehind, Receivers
from streamgauge.processors.commit.s3 import ArchiveReceiver
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.local import LocalProgress, LocalSettings, list_shards, run_local, stream_arn
from streamgauge.processors.hosts.parent_stream import KinesisParents
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.producers.client.producer import KinesisProducer
from streamgauge.producers.client.settings import ProducerSettings
from streamgauge.sinks.archive.panes import open_panes, pane_key
from streamgauge.sinks.archive.states import read_states

PIPELINE = """
[pipeline]
name = "demo"
stream = "observations"
event_types = ["weather.observation"]
schemas = "schemas"
out_of_orderness = "1h"

[[aggregate]]
name = "wind"
key = ["subject"]
window = { tumbling = "10s" }
measures = { observations = "count()", wind_max = "max(data.wind_speed)" }
serve = true

[[threshold]]
name = "gale"
aggregate = "wind"
raise_when = "wind_max > 45"
clear_when = "wind_max < 40"
detail_type = "Gale"
"""
SCHEMA = b'{"type": "object", "properties": {"wind_speed": {"type": "number"}}, "required": ["wind_speed"]}'
STREAM = "observations"
STATIONS = [f"station-{number}" for number in range(40)]
WINDOW_MS = 10_000
PUT_FAST = ProducerSettings(aggregate_linger_ms=10, request_linger_ms=2, backoff_base_ms=5, backoff_max_ms=50)


class Shared:
    """One store for several threads: each call is one step, as it is in DynamoDB."""

    def __init__(self, inner: object) -> None:
        self._inner = inner
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self._inner, name)

        def call(*arguments: object, **named: object) -> object:
            with self._lock:
                return method(*arguments, **named)

        return call


class Region:
    """The stream, the stores, and what was put into the stream."""

    def __init__(self, kinesis, pipeline: Pipeline) -> None:
        self.kinesis = kinesis
        self.pipeline = pipeline
        self.store = Shared(MemoryStateStore())
        self.archive = MemoryObjectStore()
        self.crossings = MemoryReceiver("crossings")
        self.served = MemoryReceiver("served")
        self.engine = core_engine(stream_arn(kinesis, STREAM))
        self.expected: Counter[tuple[str, str]] = Counter()
        self._rng = random.Random(5)
        self._base_ms = int(time.time() * 1_000) // WINDOW_MS * WINDOW_MS - 600_000
        self._put = 0

    def put(self, producer: KinesisProducer, count: int) -> None:
        """Events of all stations, in order of time; some are sent twice, as a retry would."""
        for _ in range(count):
            station = self._rng.choice(STATIONS)
            at_ms = self._base_ms + self._put * 60
            self._put += 1
            copies = 2 if self._rng.random() < 0.1 else 1
            data = b'{"wind_speed": %d}' % self._rng.randrange(60)
            producer.put("weather.observation", station, at_ms, data, copies=copies)
            self.expected[station, rfc3339(at_ms // WINDOW_MS * WINDOW_MS)] += 1

    def open(self, shard, start: str, *, owner: str, seen_version: int | None, **parents: object) -> ShardSession:
        return ShardSession.open(
            self.pipeline,
            shard,
            store=self.store,
            archive=self.archive,
            receivers=Receivers(ArchiveReceiver(self.archive), self.crossings, self.served),
            owner=owner,
            seen_version=seen_version,
            now_ms=lambda: int(time.time() * 1_000),
            engine=self.engine,
            start=start,
            parents=Parents(**parents),
        )

    def work(self) -> LocalProgress:
        return run_local(
            self.pipeline,
            self.kinesis,
            self.open,
            store=self.store,
            stop=self.stop,
            settings=LocalSettings(
                read_interval_s=0.05,
                commit_interval_s=0.1,
                max_records=20,
                lease_s=1.5,
                survey_interval_s=0.1,
                claim_interval_s=0.02,
            ),
            until_input_ended=True,
        )

    # --- the stream's operator ------------------------------------------------------------------------------------

    def open_shards(self) -> list:
        listed = list_shards(self.kinesis, STREAM)
        closed = {parent for shard in listed for parent in shard.parents}
        return sorted((shard for shard in listed if shard.shard_id not in closed), key=lambda shard: shard.hash_range)

    def split(self, shard) -> None:
        middle = (shard.hash_range.first + shard.hash_range.last) // 2 + 1
        self.kinesis.split_shard(StreamName=STREAM, ShardToSplit=shard.shard_id, NewStartingHashKey=str(middle))
        self.wait()

    def merge(self, left, right) -> None:
        self.kinesis.merge_shards(StreamName=STREAM, ShardToMerge=left.shard_id, AdjacentShardToMerge=right.shard_id)
        self.wait()

    def wait(self) -> None:
        def is_active() -> bool:
            summary = self.kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
            return summary["StreamStatus"] == "ACTIVE"

        wait_until(is_active)

    def reshard(self, producer: KinesisProducer, *, each: int) -> None:
        """2 -> 4 -> 3 -> 1, with `each` events put before every step and after the last."""
        steps: list[Callable[[], None]] = [
            lambda: self.split(self.open_shards()[0]),
            lambda: self.split(self.open_shards()[-1]),
            lambda: self.merge(*self.open_shards()[1:3]),
            lambda: self.merge(*self.open_shards()[:2]),
            lambda: self.merge(*self.open_shards()[:2]),
        ]
        for step in steps:
            self.put(producer, each)
            step()
        self.put(producer, each)
        assert [shard.hash_range for shard in self.open_shards()] == [FULL_RANGE]

    # --- what came out ----------------------------------------------------------------------------------------------

    def rows(self, table: str, row_type: type) -> list:
        names = self.archive.names(f"type={table}/")
        return [row for name in names for row in decode_rows(self.archive.objects[name], row_type)]

    def check(self) -> None:
        """Final panes hold exactly what was put; nothing was late, so each pane came once."""
        panes = self.rows(PANES, PaneRow)
        found = {(pane.key["subject"], pane.window_start): pane.event_count for pane in panes}
        assert len(found) == len(panes)
        assert found == self.expected
        assert {row.id for row in self.rows(THRESHOLD_EVENTS, ThresholdRow)} == {
            event.id for event in self.crossings.delivered
        }
        states = [
            read_shard_state(self.pipeline, self.store, row.shard.shard_id, engine=self.engine)
            for row in self.store.rows()
        ]
        counters = [state.engine.counters for state in states if state is not None]
        assert sum(counter.accepted for counter in counters) == self.expected.total()
        assert sum(counter.aggregates["wind"].late for counter in counters) == 0
        rows = self.store.rows()
        assert [row.sealed for row in rows] == [True] * (len(rows) - 1) + [False]
        assert all(row.reduced or row.snapshot_sha256 is None for row in rows if row.sealed)


def check_open_panes(region: Region) -> None:
    """Each window is open in one shard only, whether or not its ancestors still hold it."""
    states = read_states(region.pipeline, region.store, region.engine)
    panes = [pane_key(pane) for pane in open_panes(states, region.pipeline)]
    assert panes and len(panes) == len(set(panes))


def wait_until(holds: Callable[[], bool], *, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)


@pytest.fixture
def region(tmp_path) -> Iterator[Region]:
    (tmp_path / "schemas/weather.observation").mkdir(parents=True)
    (tmp_path / "schemas/weather.observation/1.json").write_bytes(SCHEMA)
    (tmp_path / "pipeline.toml").write_text(PIPELINE)
    with LocalKinesis(limits=Limits(enforced=False)) as server:
        client = boto3.client(
            "kinesis",
            endpoint_url=server.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(retries={"max_attempts": 1}, max_pool_connections=20),
        )
        client.create_stream(StreamName=STREAM, ShardCount=2)
        client.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1})
        region = Region(client, load_pipeline(tmp_path / "pipeline.toml"))
        region.stop = threading.Event()
        yield region
        region.stop.set()
        client.close()


def test_two_workers_count_every_event_once_through_reshards_under_load(region: Region) -> None:
    results: list[LocalProgress] = []
    workers = [threading.Thread(target=lambda: results.append(region.work())) for _ in range(2)]
    producer = KinesisProducer(region.kinesis, stream=STREAM, settings=PUT_FAST)
    try:
        for worker in workers:
            worker.start()
        region.reshard(producer, each=1_500)
        producer.close(end_of_input=EndOfInput("input", 0, 1), timeout_s=60)
        for worker in workers:
            worker.join(90)
        assert not any(worker.is_alive() for worker in workers), "a worker did not end by itself"
    finally:
        region.stop.set()
        producer.close(timeout_s=10)
        for worker in workers:
            worker.join(30)
    assert len(results) == 2
    assert all(progress.events > 0 for progress in results), "one of the workers had nothing to do"
    region.check()


def test_a_stream_that_was_resharded_while_nobody_processed_it_is_caught_up_with(region: Region) -> None:
    producer = KinesisProducer(region.kinesis, stream=STREAM, settings=PUT_FAST)
    region.put(producer, 300)
    producer.flush(30)
    stop, region.stop = region.stop, threading.Event()
    first = threading.Thread(target=region.work)
    first.start()
    wait_until(lambda: len([row for row in region.store.rows() if row.position is not None]) == 2)
    region.stop.set()
    first.join(30)
    region.stop = stop
    # One child has saved what it inherited, its sibling has not begun.
    region.split(region.open_shards()[0])
    for shard in region.open_shards()[:1]:
        parents = {"stream": KinesisParents(region.kinesis, STREAM, sleep=lambda seconds: None)}
        region.open(shard, "TRIM_HORIZON", owner="child.1", seen_version=None, **parents).release()
    check_open_panes(region)
    region.merge(*region.open_shards()[:2])
    region.reshard(producer, each=200)
    producer.close(end_of_input=EndOfInput("input", 0, 1), timeout_s=60)
    region.work()
    region.check()


def test_a_child_that_reads_its_ancestors_itself_comes_to_the_same(region: Region) -> None:
    """As the KCL and Lambda need it: nobody else works, every parent is abandoned, and applied by its child."""
    producer = KinesisProducer(region.kinesis, stream=STREAM, settings=PUT_FAST)
    region.reshard(producer, each=100)
    producer.close(end_of_input=EndOfInput("input", 0, 1), timeout_s=60)
    clock = [0.0]
    stream = KinesisParents(region.kinesis, STREAM, sleep=lambda seconds: None)
    parents = {"stream": stream, "watch": ClaimWatch(lambda: clock[0]), "abandoned_after_s": 30}
    (last,) = region.open_shards()
    for attempt in range(20):
        try:
            session = region.open(last, "TRIM_HORIZON", owner=f"child.{attempt}", seen_version=None, **parents)
        except ParentBehind:
            clock[0] += 31
            continue
        break
    assert attempt > 0
    check_open_panes(region)
    # The rest is the host's as ever.
    session.release()
    region.work()
    region.check()
