"""Both functions with their wiring, against AWS in the test's own process: calls, logs, metrics, and bad input."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from aws_in_process import InProcessAws, aws_in_process
from kinesis_events import kinesis_event

from streamgauge.events.envelope import Event, encode_event
from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.local.kinesis.server import LocalKinesis
from streamgauge.processors.hosts.aws_lambda import clients, processor, tick

PIPELINE = Path(__file__).parents[2] / "streamgauge/cli/demo_pipeline/pipeline.toml"
NUMBERS = count()
SHARD_ID = "shardId-000000000000"


@dataclass
class Context:
    """The part of Lambda's context that functions look at."""

    aws_request_id: str = "request-1"
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:processor"
    left_ms: int = 60_000

    def get_remaining_time_in_millis(self) -> int:
        return self.left_ms


class Mappings:
    """Lambda's answer to who invokes the function."""

    def __init__(self, stream_arn: str) -> None:
        self.mapping: dict[str, Any] = {
            "UUID": "m-1",
            "EventSourceArn": stream_arn,
            "MaximumRetryAttempts": -1,
            "MaximumRecordAgeInSeconds": -1,
            "StartingPosition": "TRIM_HORIZON",
            "ParallelizationFactor": 1,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
        }

    def get_paginator(self, operation: str) -> Mappings:
        return self

    def paginate(self, *, FunctionName: str) -> Iterator[dict[str, Any]]:  # noqa: N803
        yield {"EventSourceMappings": [self.mapping]}


class Function:
    """A deployed function and its stream; a new one has a cold start before it."""

    def __init__(self, aws: InProcessAws, patch: pytest.MonkeyPatch, out: pytest.CaptureFixture[str]) -> None:
        self.aws = aws
        self.kinesis = boto3.client("kinesis")
        number = next(NUMBERS)
        self.stream = f"observations-{number}"
        self.kinesis.create_stream(StreamName=self.stream, ShardCount=1)
        self.kinesis.get_waiter("stream_exists").wait(StreamName=self.stream, WaiterConfig={"Delay": 1})
        described = self.kinesis.describe_stream_summary(StreamName=self.stream)
        self.stream_arn = described["StreamDescriptionSummary"]["StreamARN"]
        self.mappings = Mappings(self.stream_arn)
        self.environment = {
            "STREAMGAUGE_STREAM_ARN": self.stream_arn,
            "STREAMGAUGE_STATE_TABLE": "state",
            "STREAMGAUGE_STATE_BUCKET": "state",
            "STREAMGAUGE_ARCHIVE_BUCKET": "archive",
            "STREAMGAUGE_PANES_TABLE": "panes",
            "STREAMGAUGE_EVENT_BUS": "thresholds",
            "STREAMGAUGE_PIPELINE": str(PIPELINE),
            "POWERTOOLS_METRICS_NAMESPACE": "streamgauge",
            # Powertools keeps one logger for each service, with the output that it began with.
            "POWERTOOLS_SERVICE_NAME": f"processor {number}",
        }
        patch.setattr(clients.FunctionClients, "functions", self.mappings)
        self.calls: Counter[str] = Counter()
        self._out = out
        self.processor: processor.Processor | None = None

    def put(self, *numbers: int, gust: float = 30.0) -> None:
        for number in numbers:
            event = Event(
                specversion="1.0",
                id=str(number),
                source="urn:test",
                type="weather.observation",
                time=f"2026-03-01T10:00:{number:02}Z",
                subject="JFK",
                data=msgspec.Raw(json.dumps({"temp": 39.02, "wind_speed": 10.0, "wind_gust": gust}).encode()),
            )
            data = encode_event(event)
            self.kinesis.put_record(StreamName=self.stream, Data=data, PartitionKey="JFK")

    def batch(self) -> dict[str, Any]:
        return kinesis_event(self.kinesis, self.stream, self.stream_arn, shard_id=SHARD_ID)

    def invoke(self, event: object = None, *, cold: bool = False, context: Context | None = None) -> Any:
        if cold or self.processor is None:
            self.processor = processor.Processor(self.environment)
        return self.processor.invoke(self.batch() if event is None else event, context or Context())  # type: ignore[arg-type]

    def lines(self) -> list[dict[str, Any]]:
        """What was printed since the last look."""
        return [json.loads(line) for line in self._out.readouterr().out.splitlines()]

    def errors(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line.get("level") == "ERROR"]


@pytest.fixture(scope="module")
def aws() -> Iterator[InProcessAws]:
    # The one in the test's process reshards wrongly.
    with LocalKinesis() as kinesis, aws_in_process() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.endpoint_url)
        yield found


@pytest.fixture
def function(aws: InProcessAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Function:
    aws.clear()
    return Function(aws, monkeypatch, capsys)


DONE: dict[str, list[object]] = {"batchItemFailures": []}


def test_a_batch_is_counted_and_said_so(function: Function) -> None:
    function.put(1, 2, 3)
    batch = function.batch()
    assert function.invoke(batch) == DONE
    logged, metrics = function.lines()
    first, _, last = (record["kinesis"]["sequenceNumber"] for record in batch["Records"])
    assert logged | {"message": "batch", "request_id": "request-1", "shard": SHARD_ID, "events": 3} == logged
    assert (logged["first"], logged["last"], logged["claims"], logged["cold_start"]) == (first, last, 1, True)
    (described,) = metrics["_aws"]["CloudWatchMetrics"]
    assert (described["Namespace"], described["Dimensions"]) == ("streamgauge", [["pipeline"]])
    assert metrics["pipeline"] == "demo" and metrics["Events"] == [3.0]
    row = function.aws.dynamodb.get_item(
        TableName="state", Key={"pipeline": {"S": "demo#1"}, "shard_id": {"S": SHARD_ID}}
    )["Item"]
    assert metrics["StateSize"] == [float(row["snapshot_bytes"]["N"])]


def test_metrics_tell_events_of_every_kind_apart(function: Function) -> None:
    function.put(10, 1, 1)
    function.put(32, gust=70.0)
    function.put(10)
    function.put(50, 3)
    function.kinesis.put_record(StreamName=function.stream, Data=b"no event", PartitionKey="JFK")
    assert function.invoke() == DONE
    _, metrics = function.lines()
    expected = {"Events": 8, "DuplicatesForeign": 2, "Failed": 1, "ThresholdEvents": 1, "Redelivered": 0, "Late": 1}
    assert {name: metrics[name][0] for name in expected} == expected
    assert {"IteratorAge", "WatermarkLag", "CommitTime", "OutboxEntries"} <= metrics.keys()


def test_no_payload_is_ever_logged(function: Function) -> None:
    function.put(1)
    function.kinesis.put_record(StreamName=function.stream, Data=b"very secret", PartitionKey="JFK")
    batch = function.batch()
    function.invoke(batch)
    batch["Records"][1]["kinesis"]["data"] = ["very secret"]
    with pytest.raises(StreamgaugeError):
        function.invoke(batch)
    for text in (json.dumps(line) for line in function.lines()):
        assert "secret" not in text and "JFK" not in text and "temp" not in text


def test_a_warm_invocation_writes_the_row_once_and_what_is_in_the_archive(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = boto3.Session()
    session.events.register("before-call", lambda model, **_: function.calls.update([model.name]))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    function.put(1, 2)
    function.invoke(cold=True)
    cold = Counter(function.calls)
    assert cold == {
        "ListShards": 1,
        "Query": 1,
        "GetItem": 3,
        "PutItem": 1,
        "UpdateItem": 2,
        "GetShardIterator": 1,
        "GetRecords": 1,
        "PutObject": 1,
    }
    function.put(3)
    batch = function.batch()
    function.calls.clear()
    assert function.invoke(batch) == DONE
    assert function.calls == {"UpdateItem": 1, "PutObject": 1}, "the row, and the commit's object in the archive"


def test_a_batch_that_is_not_done_in_time_names_where_it_is_to_go_on(function: Function) -> None:
    function.put(1, 2, 3)
    batch = function.batch()
    function.invoke({"Records": batch["Records"][:1]})
    answer = function.invoke(batch, context=Context(left_ms=0))
    second = batch["Records"][1]["kinesis"]["sequenceNumber"]
    assert answer == {"batchItemFailures": [{"itemIdentifier": second}]}
    assert function.invoke({"Records": batch["Records"][1:]}) == DONE
    (warning,) = [line for line in function.lines() if line.get("level") == "WARNING"]
    assert warning["failed_from"] == second and warning["why"] == "the time of the invocation is used up"


# --- bad input: one clear line, and the batch is not lost ------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [{}, None, {"Records": [{"messageId": "1", "body": "x", "eventSource": "aws:sqs"}]}],
    ids=["empty", "none", "sqs"],
)
def test_a_payload_that_is_no_kinesis_event_is_one_line(function: Function, payload: object) -> None:
    with pytest.raises(StreamgaugeError):
        processor.Processor(function.environment).invoke(payload, Context())  # type: ignore[arg-type]
    (error,) = function.errors()
    assert "no batch of Kinesis records" in error["message"] and "event source mapping" in error["remedy"]


def test_a_record_of_another_stream_is_one_line_and_none_of_its_batch_is_counted(function: Function) -> None:
    function.put(1, 2)
    batch = function.batch()
    batch["Records"][1]["eventSourceARN"] = function.stream_arn + "-old"
    with pytest.raises(StreamgaugeError):
        function.invoke(batch)
    (error,) = function.errors()
    assert "comes from" in error["message"] and "Remove the event source mapping" in error["remedy"]
    assert function.aws.dynamodb.scan(TableName="state")["Count"] == 0
    assert function.invoke() == DONE


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("STREAMGAUGE_STATE_TABLE", "", "not set: STREAMGAUGE_STATE_TABLE"),
        ("STREAMGAUGE_STREAM_ARN", "", "not set: STREAMGAUGE_STREAM_ARN"),
        ("STREAMGAUGE_PIPELINE", "nowhere/pipeline.toml", "there is no such file"),
        ("STREAMGAUGE_ACCEPT_GAP", "maybe", "neither true nor false"),
        ("STREAMGAUGE_ABANDONED_AFTER_S", "soon", "is no number of seconds"),
        ("STREAMGAUGE_ABANDONED_AFTER_S", "0", "is no number of seconds"),
        ("STREAMGAUGE_ABANDONED_AFTER_S", "nan", "is no number of seconds"),
    ],
)
def test_a_wrong_environment_is_one_line_and_the_batch_comes_back(
    function: Function, name: str, value: str, said: str
) -> None:
    function.put(1)
    right = function.environment.get(name)
    function.environment[name] = value
    for _ in range(2):
        with pytest.raises(StreamgaugeError):
            function.invoke(cold=True)
        (error,) = function.errors()
        assert said in error["message"] and (name in error["message"] or error["where"])
    if right is None:
        del function.environment[name]
    else:
        function.environment[name] = right
    assert function.invoke(cold=True) == DONE


def test_a_broken_pipeline_file_is_one_line_with_its_place(function: Function, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(PIPELINE.read_text().replace('"10s"', '"10 parsecs"'))
    (tmp_path / "schemas").symlink_to(PIPELINE.parent / "schemas")
    function.environment["STREAMGAUGE_PIPELINE"] = str(file)
    function.put(1)
    with pytest.raises(StreamgaugeError):
        function.invoke(cold=True)
    (error,) = function.errors()
    assert "10 parsecs" in error["message"] and f"{file}, line" in error["where"]


def test_a_relative_pipeline_file_lies_in_the_package(function: Function, tmp_path: Path) -> None:
    (tmp_path / "pipeline").symlink_to(PIPELINE.parent)
    del function.environment["STREAMGAUGE_PIPELINE"]
    function.environment["LAMBDA_TASK_ROOT"] = str(tmp_path)
    function.put(1)
    assert function.invoke(cold=True) == DONE


def test_an_unsafe_event_source_is_one_line_and_nothing_is_claimed(function: Function) -> None:
    function.put(1)
    function.mappings.mapping["MaximumRetryAttempts"] = 3
    with pytest.raises(StreamgaugeError):
        function.invoke()
    (error,) = function.errors()
    assert "MaximumRetryAttempts is 3" in error["message"] and "none is lost" in error["remedy"]
    assert function.aws.dynamodb.scan(TableName="state")["Count"] == 0
    function.mappings.mapping["MaximumRetryAttempts"] = -1
    assert function.invoke() == DONE


def test_a_gap_is_one_line_that_names_the_setting_which_accepts_it(function: Function) -> None:
    function.put(1)
    function.invoke()
    position = function.batch()["Records"][0]["kinesis"]["sequenceNumber"]
    function.kinesis.delete_stream(StreamName=function.stream)
    function.kinesis.get_waiter("stream_not_exists").wait(StreamName=function.stream, WaiterConfig={"Delay": 1})
    function.kinesis.create_stream(StreamName=function.stream, ShardCount=1)
    function.kinesis.get_waiter("stream_exists").wait(StreamName=function.stream, WaiterConfig={"Delay": 1})
    function.put(2)
    function.lines()
    with pytest.raises(StreamgaugeError):
        function.invoke(cold=True)
    (error,) = function.errors()
    assert position in error["message"] and "STREAMGAUGE_ACCEPT_GAP=true" in error["remedy"]
    function.environment["STREAMGAUGE_ACCEPT_GAP"] = "true"
    assert function.invoke(cold=True) == DONE


@pytest.mark.parametrize("warm", [False, True])
def test_a_state_table_that_is_gone_is_one_line_and_the_batch_comes_back(function: Function, warm: bool) -> None:
    if warm:
        function.put(1)
        function.invoke()
        function.lines()
    function.put(2)
    function.aws.dynamodb.delete_table(TableName="state")
    with pytest.raises(StreamgaugeError):
        function.invoke()
    (error,) = function.errors()
    assert "ResourceNotFoundException" in error["message"] and "DynamoDB table state" in error["where"]
    assert "Check that it exists" in error["remedy"]
    function.aws.make_table("state")
    assert function.invoke() == DONE


def test_an_unexpected_error_is_one_line_with_its_traceback(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.put(1)
    monkeypatch.setattr(processor, "batch_metrics", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        function.invoke()
    (error,) = function.errors()
    assert error["message"] == "unexpected: ZeroDivisionError" and "batch_metrics" in json.dumps(error)


# --- the tick function -----------------------------------------------------------------------------------------------


def test_a_tick_reaches_the_processor_and_lets_its_windows_close(function: Function) -> None:
    function.put(1, gust=70.0)
    ticker = tick.Ticker(function.environment)
    assert ticker.invoke(Context()) == {"put": 1, "failed": 0, "started": 0, "waiting": 0}  # type: ignore[arg-type]
    logged, metrics = function.lines()
    assert logged["message"] == "tick" and metrics["TicksPut"] == [1.0]
    assert function.invoke() == DONE
    assert function.lines()[1]["Events"] == [2.0]


def test_a_tick_begins_the_empty_child_of_a_split(function: Function) -> None:
    function.put(1, 2)
    function.invoke()
    function.kinesis.split_shard(StreamName=function.stream, ShardToSplit=SHARD_ID, NewStartingHashKey=str(2**127))
    ticker = tick.Ticker(function.environment)
    assert ticker.invoke(Context()) == {"put": 2, "failed": 0, "started": 2, "waiting": 0}  # type: ignore[arg-type]
    rows = function.aws.dynamodb.scan(TableName="state")["Items"]
    assert {row["shard_id"]["S"]: row["sealed"]["BOOL"] for row in rows} == {
        SHARD_ID: True,
        "shardId-000000000001": False,
        "shardId-000000000002": False,
    }


def test_an_error_of_the_tick_function_is_one_line(function: Function) -> None:
    del function.environment["STREAMGAUGE_EVENT_BUS"]
    with pytest.raises(StreamgaugeError):
        tick.Ticker(function.environment).invoke(Context())  # type: ignore[arg-type]
    (error,) = function.errors()
    assert "not set: STREAMGAUGE_EVENT_BUS" in error["message"]


# --- imports ---------------------------------------------------------------------------------------------------------


def test_importing_the_handlers_does_nothing_but_import() -> None:
    code = (
        "import boto3, sys;"
        "from streamgauge.processors.hosts.aws_lambda import processor, tick;"
        "assert boto3.DEFAULT_SESSION is None and callable(processor.handler) and callable(tick.handler);"
        "print([m for m in ('pyarrow', 'duckdb', 'aws_xray_sdk', 'click') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert (out.stdout.strip(), out.stderr) == ("[]", "")


def test_where_there_is_a_daemon_invocations_are_traced() -> None:
    """In a process of its own: tracing wraps botocore."""
    code = (
        "import os; from streamgauge.processors.hosts.aws_lambda.observed import Observed\n"
        "with Observed(os.environ).segment('batch'): pass"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(30)
        environment = {
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
            "LAMBDA_TASK_ROOT": "/var/task",
            "_X_AMZN_TRACE_ID": f"Root=1-{'5' * 8}-{'a' * 24};Parent={'b' * 16};Sampled=1",
        }
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        header, _, body = daemon.recv(65_536).partition(b"\n")
    traced = json.loads(body)
    assert json.loads(header)["format"] == "json"
    assert (traced["name"], traced["trace_id"]) == ("## batch", f"1-{'5' * 8}-{'a' * 24}")
