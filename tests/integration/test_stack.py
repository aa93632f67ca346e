"""The local stack as a whole: two servers in processes of their own, and the template deployed to them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import msgspec
import psutil
import pytest
from botocore.exceptions import ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.clients import Clients, NotLocal
from streamgauge.infra.deployment import DeploymentFailed
from streamgauge.infra.local.processes import PortTaken, ProcessFailed, free_port, is_running
from streamgauge.infra.local.stack import (
    StackInfo,
    StackRunning,
    StackSettings,
    dead_processes,
    load_stack,
    read_stack,
    start_process,
    start_stack,
    stop_stack,
)

# Little of the environment of the tests matters here, and no endpoint of it.
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
SETTINGS = StackSettings(
    stack_name="streamgauge-demo",
    parameters={
        "PipelineName": "demo",
        "StreamName": "observations",
        "ShardCount": "3",
        "RetentionHours": "48",
        "EventType": "weather.observation",
        "EventTableName": "weather_observation",
        "EventDataType": "struct<temp:double>",
    },
    pipeline_file=Path("pipeline.toml"),
)
SLEEP = [sys.executable, "-c", "import time\ntime.sleep(600)"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[StackInfo]:
    info = start_stack(home, SETTINGS, environment=PLAIN)
    yield info
    stop_stack(info)


@pytest.fixture(scope="module")
def clients(stack: StackInfo) -> Clients:
    return Clients(stack.endpoints, region=stack.region)


def test_the_record_names_what_runs(stack: StackInfo, home: Path) -> None:
    assert load_stack(home) == stack
    assert [process.name for process in stack.processes] == ["ministack", "kinesis"]
    assert dead_processes(stack) == []
    assert Path(stack.pipeline_file).is_absolute() and stack.home == str(home)
    assert all(Path(log).exists() for log in stack.logs.values())


def test_everything_listens_on_loopback_alone(stack: StackInfo) -> None:
    for process in stack.processes:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        listening = [
            connection.laddr.ip
            for member in family
            for connection in member.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == ["127.0.0.1"], process.name


def test_the_stream_is_in_our_kinesis_with_its_name_shards_and_retention(stack: StackInfo, clients: Clients) -> None:
    summary = clients.kinesis.describe_stream_summary(StreamName="observations")["StreamDescriptionSummary"]
    assert summary["StreamARN"] == stack.outputs["StreamArn"]
    assert (summary["OpenShardCount"], summary["RetentionPeriodHours"]) == (3, 48)
    assert clients.kinesis.list_streams()["StreamNames"] == [stack.outputs["StreamName"]]


def receive(clients: Clients, queue: str, count: int) -> list[Mapping[str, object]]:
    bodies: list[Mapping[str, object]] = []
    deadline = monotonic() + 20
    while len(bodies) < count and monotonic() < deadline:
        answer = clients.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            bodies.append(json.loads(message["Body"]))
            clients.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def test_a_threshold_event_comes_off_the_queue_and_other_events_do_not(stack: StackInfo, clients: Clients) -> None:
    bus = stack.outputs["EventBusName"]
    sources = ["somebody.else", "streamgauge.demo"]
    answer = clients.events.put_events(
        Entries=[
            {"EventBusName": bus, "Source": source, "DetailType": "Gale", "Detail": json.dumps({"state": "raised"})}
            for source in sources
        ]
    )
    assert answer["FailedEntryCount"] == 0
    # The other one was put first, so it would have come by now.
    received = receive(clients, stack.outputs["ThresholdQueueUrl"], 1)
    assert [(body["source"], body["detail-type"], body["detail"]) for body in received] == [
        ("streamgauge.demo", "Gale", {"state": "raised"})
    ]
    assert receive_now(clients, stack.outputs["ThresholdQueueUrl"]) == []
    assert receive_now(clients, stack.outputs["ThresholdDlqUrl"]) == []


def receive_now(clients: Clients, queue: str) -> list[object]:
    return list(clients.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=0).get("Messages", []))


def test_a_conditional_write_is_refused_with_the_row_that_is_there(stack: StackInfo, clients: Clients) -> None:
    table = stack.outputs["StateTableName"]
    row = {"pipeline": {"S": "demo#1"}, "shard_id": {"S": "shardId-000000000000"}, "claim_version": {"N": "1"}}
    clients.dynamodb.put_item(TableName=table, Item=row)
    with pytest.raises(ClientError) as caught:
        clients.dynamodb.put_item(
            TableName=table,
            Item={**row, "claim_version": {"N": "2"}},
            ConditionExpression="claim_version = :seen",
            ExpressionAttributeValues={":seen": {"N": "0"}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert caught.value.response["Error"]["Code"] == "ConditionalCheckFailedException"
    assert caught.value.response["Item"] == row  # type: ignore[typeddict-item]


def test_of_racing_first_writes_of_an_object_one_wins(stack: StackInfo, clients: Clients) -> None:
    bucket = stack.outputs["ArchiveBucketName"]
    refused: list[str] = []

    def put(writer: int) -> int | None:
        try:
            clients.s3.put_object(Bucket=bucket, Key="type=a/one", Body=str(writer).encode(), IfNoneMatch="*")
        except ClientError as error:
            refused.append(error.response["Error"]["Code"])
            return None
        return writer

    with ThreadPoolExecutor(8) as pool:
        winners = [writer for writer in pool.map(put, range(24)) if writer is not None]
    assert refused == ["PreconditionFailed"] * 23
    assert [clients.s3.get_object(Bucket=bucket, Key="type=a/one")["Body"].read()] == [
        str(winner).encode() for winner in winners
    ]


def test_the_glue_table_projects_its_partitions(stack: StackInfo, clients: Clients) -> None:
    found = clients.glue.get_table(DatabaseName=stack.outputs["GlueDatabaseName"], Name="weather_observation")
    parameters = found["Table"]["Parameters"]
    place = f"s3://{stack.outputs['ArchiveBucketName']}/type=weather.observation/"
    assert parameters["storage.location.template"] == place + "dt=${dt}/hour=${hour}/"
    assert found["Table"]["StorageDescriptor"]["Location"] == place
    columns = {column["Name"]: column["Type"] for column in found["Table"]["StorageDescriptor"]["Columns"]}
    assert columns["data"] == "struct<temp:double>"


def test_a_second_start_in_one_home_is_refused(stack: StackInfo, home: Path) -> None:
    with pytest.raises(StackRunning, match=r"runs already.*streamgauge down") as caught:
        start_stack(home, SETTINGS, environment=PLAIN)
    assert caught.value.where == str(home)
    assert load_stack(home) == stack


def test_a_process_beside_the_servers_gets_the_endpoints(stack: StackInfo, home: Path) -> None:
    code = "import os, time\nprint(os.environ['AWS_ENDPOINT_URL_KINESIS'], flush=True)\ntime.sleep(600)"
    info = start_process(stack, "helper", [sys.executable, "-c", code], environment=PLAIN)
    log = Path(info.logs["helper"])
    deadline = monotonic() + 20
    while not log.read_text() and monotonic() < deadline:
        sleep(0.02)
    assert log.read_text().strip() == stack.kinesis_url
    assert load_stack(home) == info
    with pytest.raises(StackRunning, match="helper runs already"):
        start_process(info, "helper", SLEEP, environment=PLAIN)
    os.kill(info.processes[-1].pid, signal.SIGKILL)
    while not dead_processes(info) and monotonic() < deadline:
        sleep(0.02)
    assert [process.name for process in dead_processes(info)] == ["helper"]
    again = start_process(info, "helper", SLEEP, environment=PLAIN)
    assert [process.name for process in again.processes] == ["ministack", "kinesis", "helper"]
    assert dead_processes(again) == []


def refused_of_a_flood(info: StackInfo) -> int:
    """How many of 5,000 records, put into one shard as fast as can be, were refused."""
    kinesis = Clients(info.endpoints, region=info.region).kinesis
    flood = [{"Data": b"x", "PartitionKey": "one"} for _ in range(500)]
    return sum(kinesis.put_records(StreamName="observations", Records=flood)["FailedRecordCount"] for _ in range(10))


def test_stopping_ends_all_and_a_stale_record_is_replaced(tmp_path: Path) -> None:
    first = start_stack(tmp_path, SETTINGS, environment=PLAIN)
    first = start_process(first, "helper", SLEEP, environment=PLAIN)
    assert refused_of_a_flood(first) > 0
    body = (first.folder / "stack.json").read_bytes()
    assert stop_stack(first) == []
    assert not any(map(is_running, first.processes))
    assert read_stack(tmp_path) is None
    # As a machine that was switched off leaves it; nobody has the ports now.
    (first.folder / "stack.json").write_bytes(body)
    ports = {"AWS_ENDPOINT_URL": first.aws_url, "AWS_ENDPOINT_URL_KINESIS": first.kinesis_url}
    second = start_stack(tmp_path, replace(SETTINGS, limits=False), environment={**PLAIN, **ports})
    try:
        assert refused_of_a_flood(second) == 0
        assert (second.aws_url, second.kinesis_url) == (first.aws_url, first.kinesis_url)
        assert load_stack(tmp_path) == second
    finally:
        stop_stack(second)


def test_a_failed_deployment_names_the_resource_and_leaves_nothing(tmp_path: Path) -> None:
    bad = replace(SETTINGS, parameters={**SETTINGS.parameters, "ShardCount": "0"})
    with pytest.raises(DeploymentFailed, match="ShardCount"):
        start_stack(tmp_path, bad, environment=PLAIN)
    assert_nothing_left(tmp_path)


def test_a_start_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("streamgauge.infra.local.stack.deploy_locally", interrupt)
    with pytest.raises(KeyboardInterrupt):
        start_stack(tmp_path, SETTINGS, environment=PLAIN)
    assert_nothing_left(tmp_path)


def test_a_server_that_does_not_start_shows_why_and_stops_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamgauge.infra.local.servers.KINESIS_MODULE", "streamgauge.no_such_module")
    with pytest.raises(ProcessFailed, match=r"kinesis ended while starting\n(.*\n)*.*no_such_module"):
        start_stack(tmp_path, SETTINGS, environment=PLAIN)
    assert_nothing_left(tmp_path)


def assert_nothing_left(home: Path) -> None:
    assert read_stack(home) is None
    assert not [process.pid for process in psutil.process_iter() if belongs_to(process, home)]


def belongs_to(process: psutil.Process, home: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.pid != os.getpid() and any(str(home) in file.path for file in process.open_files())
    return False


@pytest.mark.parametrize("server", ["aws", "kinesis"])
def test_a_port_already_taken_is_named_before_anything_starts(tmp_path: Path, server: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = free_port()
        ports = (port, other) if server == "aws" else (other, port)
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}"):
            start_stack(tmp_path, replace(SETTINGS, aws_port=ports[0], kinesis_port=ports[1]), environment=PLAIN)
    assert_nothing_left(tmp_path)


def test_endpoints_elsewhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotLocal, match=r"AWS_ENDPOINT_URL: .*not on this machine"):
        start_stack(tmp_path, SETTINGS, environment={**PLAIN, "AWS_ENDPOINT_URL": "https://example.com"})
    assert_nothing_left(tmp_path)


def test_two_starts_at_once_do_not_meet(tmp_path: Path) -> None:
    outcomes: list[StackInfo | StreamgaugeError] = []

    def start() -> None:
        try:
            outcomes.append(start_stack(tmp_path, SETTINGS, environment=PLAIN))
        except StreamgaugeError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    started = [outcome for outcome in outcomes if isinstance(outcome, StackInfo)]
    try:
        assert len(started) == 1
        assert [type(outcome) for outcome in outcomes if outcome not in started] == [StackRunning]
    finally:
        for info in started:
            stop_stack(info)


def test_a_start_that_was_killed_is_known_to_down(tmp_path: Path) -> None:
    info = start_stack(tmp_path, SETTINGS, environment=PLAIN)
    half = msgspec.structs.replace(info, outputs={}, processes=info.processes[:1])
    (info.folder / "stack.json").write_bytes(msgspec.json.encode(half))
    try:
        with pytest.raises(StackRunning):
            start_stack(tmp_path, SETTINGS, environment=PLAIN)
        known = read_stack(tmp_path)
        assert known is not None
        stop_stack(known)
        assert not is_running(info.processes[0])
    finally:
        (info.folder / "stack.json").write_bytes(msgspec.json.encode(info))
        stop_stack(info)
