"""The template's functions in the local stack: what they see, and that none of them outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.infra.local.functions import CODE_BUCKET, end_functions, temporary_folder
from streamgauge.infra.local.stack import StackInfo, StackSettings, start_stack, stop_stack
from streamgauge.infra.packaging.archive import Archived, write_archive

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
PARAMETERS = {
    "PipelineName": "demo",
    "StreamName": "observations",
    "ShardCount": "1",
    "EventType": "weather.observation",
    "EventTableName": "weather_observation",
    "EventDataType": "struct<temp:double>",
}
# Answers with what it sees; asked to, it does not answer for an hour.
HANDLER = b"""
import os, pathlib, time
def handler(event, context):
    if "busy" in event:
        pathlib.Path(event["busy"]).touch()
        time.sleep(3600)
    return {"environment": dict(os.environ), "code": __file__}
"""


def lambda_client(url: str):
    config = Config(retries={"total_max_attempts": 1}, read_timeout=60)
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("lambda", endpoint_url=url, region_name="us-east-1", config=config, **keys)


def functions(info: StackInfo) -> list[psutil.Process]:
    root = str(temporary_folder(info.folder))
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(root in each for each in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Archived:
    folder = "streamgauge/processors/hosts/aws_lambda/"
    names = ("streamgauge", "streamgauge/processors", "streamgauge/processors/hosts", folder.rstrip("/"))
    files: dict[str, bytes | Path] = {f"{name}/__init__.py": b"" for name in names}
    files |= {f"{folder}processor.py": HANDLER, f"{folder}tick.py": HANDLER}
    return write_archive(files, tmp_path_factory.mktemp("package"), stem="test", level=0)


@pytest.fixture
def settings(package: Archived) -> StackSettings:
    return StackSettings("streamgauge-demo", PARAMETERS, Path("pipeline.toml"), package=package)


@pytest.fixture
def stack(tmp_path: Path, settings: StackSettings) -> Iterator[StackInfo]:
    info = start_stack(tmp_path, settings, environment={**PLAIN, "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9"})
    yield info
    stop_stack(info)


def invoke(info: StackInfo, output: str, event: dict[str, object]):
    client = lambda_client(info.aws_url)
    return client.invoke(FunctionName=info.outputs[output], Payload=json.dumps(event))


def test_a_function_runs_the_packages_code_with_the_stacks_endpoints_and_the_users_own(
    stack: StackInfo, package: Archived
) -> None:
    s3 = boto3.client("s3", endpoint_url=stack.aws_url, aws_access_key_id="test", aws_secret_access_key="test")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=CODE_BUCKET)["Contents"]]
    assert [key for key in keys if key.endswith(".zip")] == [package.path.name]
    for output, service in (("ProcessorFunctionName", "processor"), ("TickFunctionName", "tick")):
        answer = json.loads(invoke(stack, output, {})["Payload"].read())
        seen = answer["environment"]
        assert seen["AWS_ENDPOINT_URL"] == stack.aws_url
        assert seen["AWS_ENDPOINT_URL_KINESIS"] == stack.kinesis_url
        assert seen["AWS_ENDPOINT_URL_SQS"] == "http://127.0.0.1:9"
        assert seen["STREAMGAUGE_STREAM_ARN"] == stack.outputs["StreamArn"]
        assert seen["POWERTOOLS_SERVICE_NAME"] == service
        assert answer["code"].startswith(str(temporary_folder(stack.folder)))


def test_no_function_outlives_the_stack_not_even_one_whose_ministack_was_killed(
    tmp_path: Path, settings: StackSettings
) -> None:
    info = start_stack(tmp_path, settings, environment=PLAIN)
    try:
        busy = tmp_path / "busy"

        def call() -> None:
            try:
                invoke(info, "ProcessorFunctionName", {"busy": str(busy)})
            except (BotoCoreError, ClientError):
                return

        calling = threading.Thread(target=call)
        calling.start()
        until = monotonic() + 60
        while not busy.exists():
            assert monotonic() < until
            sleep(0.05)
        ministack = psutil.Process(info.processes[0].pid)
        ministack.send_signal(signal.SIGKILL)
        ministack.wait(10)
        calling.join(30)
        assert functions(info) != []
    finally:
        stop_stack(info)
    assert functions(info) == []
    assert not temporary_folder(info.folder).exists()


def test_what_a_killed_stack_left_behind_is_ended_by_the_next_start(tmp_path: Path) -> None:
    folder = temporary_folder(tmp_path / ".streamgauge")
    folder.mkdir(parents=True)
    script = folder / "worker.py"
    script.write_text("import time\ntime.sleep(3600)\n")
    left = subprocess.Popen([sys.executable, str(script)])
    other = subprocess.Popen([sys.executable, "-c", "import time\ntime.sleep(3600)"], cwd=folder)
    try:
        end_functions(tmp_path / ".streamgauge")
        assert left.poll() is not None
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
