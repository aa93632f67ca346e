"""Delivery, queries and the audit over the local stack: boto3 and pyarrow against its two endpoints."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import time

import pytest
from archive_world import CATALOGUE, OURS, PIPELINE, T0, event

from streamgauge.events.control import EndOfInput, Ledger, control_event, ledger_event
from streamgauge.events.envelope import encode_event
from streamgauge.infra.clients import LOCAL_CREDENTIALS, Clients
from streamgauge.infra.local.stack import StackInfo, StackSettings, start_stack, stop_stack
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.commit.memory import MemoryReceiver, MemoryStateStore
from streamgauge.processors.commit.ports import Receivers
from streamgauge.processors.commit.s3 import ArchiveReceiver, S3ObjectStore
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.core.effects import PaneBatch, ThresholdEvent
from streamgauge.processors.core.parse import parse_pipeline
from streamgauge.sinks.archive.files import ArchiveFiles, ArchiveUnavailable
from streamgauge.sinks.archive.objects import S3Objects
from streamgauge.sinks.archive.tables import ArchiveTables
from streamgauge.sinks.audit.audit import audit
from streamgauge.sinks.delivery.delivery import Delivery, run_delivery
from streamgauge.sinks.delivery.settings import DeliverySettings
from streamgauge.sinks.delivery.stream import ShardReader, list_shards
from streamgauge.sinks.queries.sql import query

SETTINGS = StackSettings(
    stack_name="archive-in-s3",
    parameters={
        "PipelineName": "weather",
        "StreamName": "observations",
        "ShardCount": "2",
        "EventType": "weather.observation",
        "EventTableName": "weather_observation",
        "EventDataType": "struct<temp:double>",
    },
    pipeline_file=Path("pipeline.toml"),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackInfo]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    info = start_stack(tmp_path_factory.mktemp("home"), SETTINGS, environment=plain)
    yield info
    stop_stack(info)


@pytest.fixture
def clients(stack: StackInfo) -> Clients:
    return Clients(stack.endpoints, region=stack.region)


def bucket(stack: StackInfo, name: str) -> ArchiveFiles:
    return ArchiveFiles.bucket(
        name,
        endpoint=stack.aws_url,
        region=stack.region,
        access_key=LOCAL_CREDENTIALS.access_key,
        secret_key=LOCAL_CREDENTIALS.secret_key,
    )


def now_ms() -> int:
    return int(time() * 1000)


def test_what_two_deliverers_wrote_to_s3_is_queried_and_audited(stack: StackInfo, clients: Clients) -> None:
    stream, archive = "observations", stack.outputs["ArchiveBucketName"]
    records = [
        (f"k{number % 5}", event(number, subject=f"k{number % 5}", at_ms=T0 + number * 500)) for number in range(200)
    ]
    ledger = ledger_event(OURS, Ledger([(0, 199)], [], [], final=True), number=0, time_ms=T0)
    records.append((OURS, encode_event(ledger)))
    clients.kinesis.put_records(
        StreamName=stream, Records=[{"PartitionKey": key, "Data": data} for key, data in records]
    )
    end = encode_event(control_event("test", EndOfInput("test", 0, 1), id="end", time_ms=T0))
    for shard in list_shards(clients.kinesis, stream):
        clients.kinesis.put_record(
            StreamName=stream, PartitionKey="x", ExplicitHashKey=str(shard.shard.hash_range.first), Data=end
        )

    def deliver() -> int:
        delivery = Delivery(
            clients.kinesis,
            stream=stream,
            stream_arn=stack.outputs["StreamArn"],
            objects=S3Objects(clients.s3, archive),
            catalogue=CATALOGUE,
            settings=DeliverySettings(max_rows=40),
        )
        return run_delivery(delivery, stop=threading.Event(), now_ms=now_ms, until_end_of_input=True).objects

    with ThreadPoolExecutor() as pool:
        deliveries = [pool.submit(deliver) for _ in range(2)]
        assert sum(each.result(timeout=60) for each in deliveries) > 4
    files = bucket(stack, archive)
    pipeline = parse_pipeline(PIPELINE, file="pipeline.toml", schemas=CATALOGUE)
    sql = "SELECT count(*) AS n, count(DISTINCT sequence) AS different FROM weather_observation"
    assert query(sql, ArchiveTables(files, CATALOGUE), pipeline).objects() == [{"n": 200, "different": 200}]
    store, engine = MemoryStateStore(), core_engine(stack.outputs["StreamArn"])
    objects = S3ObjectStore(clients.s3, archive)
    crossings: MemoryReceiver[ThresholdEvent] = MemoryReceiver("crossings")
    served: MemoryReceiver[PaneBatch] = MemoryReceiver("served")
    for shard in list_shards(clients.kinesis, stream):
        session = ShardSession.open(
            pipeline,
            shard.shard,
            store=store,
            archive=objects,
            receivers=Receivers(ArchiveReceiver(objects), crossings, served),
            owner=shard.shard.shard_id,
            now_ms=now_ms,
            engine=engine,
        )
        session.apply(ShardReader(clients.kinesis, stream, shard.shard.shard_id, after=None).read().records)
        session.commit()
    result = audit(pipeline, files=files, store=store, engine=engine)
    assert result.failed == []
    victim = next(name for name in files.names("type=streamgauge_panes/"))
    clients.s3.delete_object(Bucket=archive, Key=victim)
    assert "windows" in {check.name for check in audit(pipeline, files=files, store=store, engine=engine).failed}


def test_of_many_creators_of_a_name_one_wins(stack: StackInfo, clients: Clients) -> None:
    objects = S3Objects(clients.s3, stack.outputs["ArchiveBucketName"])
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: objects.create("race/name", str(number).encode()), range(16)))
    assert won.count(True) == 1
    assert objects.get("race/name") == str(won.index(True)).encode()
    assert objects.get("race/other") is None
    assert objects.names("race/") == ["race/name"]


def test_an_archive_that_does_not_answer_is_a_clear_error(stack: StackInfo) -> None:
    files = bucket(stack, "there-is-no-such-bucket")
    with pytest.raises(ArchiveUnavailable, match="there-is-no-such-bucket"):
        files.read("delivery/x")
