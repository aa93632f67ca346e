"""The local host on the local Kinesis with the engine itself: two runs, one input, every event counted once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from uuid import uuid4

import boto3
import msgspec
import pytest
from botocore.config import Config

from streamgauge.events.control import EndOfInput, control_event
from streamgauge.events.envelope import Event, OwnSource, encode_event
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.events.records import Shard
from streamgauge.events.times import instant_ms, rfc3339
from streamgauge.infra.local.kinesis.server import LocalKinesis
from streamgauge.processors.commit.archive_rows import (
    COMMITS,
    PANES,
    THRESHOLD_EVENTS,
    CommitRow,
    FailedRow,
    PaneRow,
    ThresholdRow,
    decode_rows,
)
from streamgauge.processors.commit.core_engine import core_engine, read_shard_state
from streamgauge.processors.commit.memory import MemoryObjectStore, MemoryReceiver, MemoryStateStore
from streamgauge.processors.commit.ports import Receivers
from streamgauge.processors.commit.s3 import ArchiveReceiver
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.local import LocalProgress, LocalSettings, run_local, stream_arn
from streamgauge.processors.hosts.pipeline_file import load_pipeline

PIPELINE = """
[pipeline]
name = "demo"
stream = "observations"
event_types = ["weather.observation"]
schemas = "schemas"
out_of_orderness = "2s"

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
STATIONS = ["EWR", "JFK", "LGA", "BOS", "ORD"]
EVENTS, WINDOW_MS = 600, 10_000


@pytest.fixture
def kinesis() -> Iterator[object]:
    with LocalKinesis() as server:
        client = boto3.client(
            "kinesis",
            endpoint_url=server.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(retries={"max_attempts": 1}),
        )
        client.create_stream(StreamName="observations", ShardCount=2)
        client.get_waiter("stream_exists").wait(StreamName="observations", WaiterConfig={"Delay": 1})
        yield client
        client.close()


def make_events(seed: int) -> list[Event]:
    """Observations of all stations over five minutes, in order of time, from one source of ours."""
    rng = random.Random(seed)
    base_ms = int(time.time() * 1_000) // WINDOW_MS * WINDOW_MS - 600_000
    source = str(OwnSource(uuid4(), 16_384))
    return [
        Event(
            specversion="1.0",
            id=str(number),
            source=source,
            type="weather.observation",
            time=rfc3339(base_ms + number * 500),
            subject=rng.choice(STATIONS),
            sequence=f"{number:020}",
            data=msgspec.Raw(b'{"wind_speed": %d}' % rng.randrange(60)),
        )
        for number in range(EVENTS)
    ]


def put(kinesis, events: list[Event]) -> None:
    """Every event twice, as a retry would: alone, and in an aggregate of its station. Among them malformed ones."""
    for first in range(0, len(events), 60):
        batch = events[first : first + 60]
        entries = [{"Data": encode_event(event), "PartitionKey": event.subject} for event in batch]
        entries.append({"Data": b"{malformed", "PartitionKey": "EWR"})
        for station in STATIONS:
            builder = AggregateBuilder()
            for event in batch:
                if event.subject == station:
                    builder.add(UserRecord(station, None, encode_event(event)))
            if builder.count:
                entries.append({"Data": builder.encode(), "PartitionKey": station})
        answer = kinesis.put_records(StreamName="observations", Records=entries)
        assert answer["FailedRecordCount"] == 0


def end_input(kinesis) -> None:
    for index, hash_range in enumerate(FULL_RANGE.even_parts(2)):
        event = control_event("test", EndOfInput("input", 0, 1), id=f"end-{index}", time_ms=0)
        kinesis.put_record(
            StreamName="observations",
            Data=encode_event(event),
            PartitionKey="test",
            ExplicitHashKey=str(hash_range.first),
        )


@pytest.mark.parametrize("seed", [1])
def test_two_runs_count_every_event_once(kinesis, tmp_path, seed: int) -> None:
    (tmp_path / "schemas/weather.observation").mkdir(parents=True)
    (tmp_path / "schemas/weather.observation/1.json").write_bytes(SCHEMA)
    (tmp_path / "pipeline.toml").write_text(PIPELINE)
    pipeline = load_pipeline(tmp_path / "pipeline.toml")
    store, archive = MemoryStateStore(), MemoryObjectStore()
    crossings, served = MemoryReceiver("crossings"), MemoryReceiver("served")
    engine = core_engine(stream_arn(kinesis, "observations"))

    def open_session(shard: Shard, start: str, *, owner: str, seen_version: int | None) -> ShardSession:
        return ShardSession.open(
            pipeline,
            shard,
            store=store,
            archive=archive,
            receivers=Receivers(ArchiveReceiver(archive), crossings, served),
            owner=owner,
            seen_version=seen_version,
            now_ms=lambda: int(time.time() * 1_000),
            engine=engine,
            start=start,
        )

    def run(until: Callable[[LocalProgress], bool] | None = None) -> LocalProgress:
        stop = threading.Event()
        deadline = threading.Timer(60, stop.set)
        deadline.start()
        progress = run_local(
            pipeline,
            kinesis,
            open_session,
            store=store,
            stop=stop,
            settings=LocalSettings(read_interval_s=0.21, commit_interval_s=0.3, max_records=50),
            until_input_ended=until is None,
            on_progress=lambda progress: stop.set() if until is not None and until(progress) else None,
        )
        assert deadline.is_alive(), "the run did not end by itself"
        deadline.cancel()
        return progress

    events = make_events(seed)
    put(kinesis, events[: EVENTS // 2])
    first = run(until=lambda progress: progress.records > 100)
    put(kinesis, events[EVENTS // 2 :])
    end_input(kinesis)
    second = run()
    assert first.events > 0 and second.events > 0 and not second.fenced

    def rows(table: str, row_type: type) -> list:
        return [row for name in archive.names(f"type={table}/") for row in decode_rows(archive.objects[name], row_type)]

    expected: Counter[tuple[str, str]] = Counter()
    highest: dict[tuple[str, str], int] = {}
    for event in events:
        window = (event.subject, rfc3339(instant_ms(event.time) // WINDOW_MS * WINDOW_MS))
        expected[window] += 1
        highest[window] = max(highest.get(window, 0), msgspec.json.decode(event.data)["wind_speed"])
    panes = rows(PANES, PaneRow)
    found = {(pane.key["subject"], pane.window_start): pane for pane in panes}
    assert len(panes) == len(found), "no event was late, so every pane has one revision"
    assert {window: pane.event_count for window, pane in found.items()} == expected
    assert {window: pane.measures["wind_max"] for window, pane in found.items()} == highest
    assert {int(start) for batch in served.delivered for start in batch.window_start_ms} == {
        instant_ms(window) for _, window in expected
    }
    raised = [row for row in rows(THRESHOLD_EVENTS, ThresholdRow) if row.kind == "raise"]
    assert raised
    assert {row.id for row in rows(THRESHOLD_EVENTS, ThresholdRow)} == {event.id for event in crossings.delivered}

    commits = {row.shard_id: row for row in sorted(rows(COMMITS, CommitRow), key=lambda row: row.claim_version)}
    counters = [row.counters for row in commits.values()]
    assert sum(counter.accepted for counter in counters) == EVENTS
    assert sum(counter.duplicate_in_window for counter in counters) == EVENTS
    failed = [
        row
        for commit in rows(COMMITS, CommitRow)
        if commit.failed_object is not None
        for row in decode_rows(archive.objects[commit.failed_object], FailedRow)
    ]
    assert [row.payload for row in failed] == [b"{malformed"] * 10
    assert sum(counter.failed.get("malformed_json", 0) for counter in counters) == 10

    for row in store.rows():
        state = read_shard_state(pipeline, store, row.shard.shard_id, engine=engine)
        assert state is not None and state.engine.input_ended and len(state.outbox) == 0
        assert state.engine.counters == commits[row.shard.shard_id].counters
        assert state.engine.position == row.position == state.row.position
