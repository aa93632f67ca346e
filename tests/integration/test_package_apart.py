"""The package under a MiniStack that has nothing of what the package must bring: what is not in it, is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from kinesis_events import kinesis_event
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from streamgauge.events.envelope import decode_event
from streamgauge.infra.clients import Clients
from streamgauge.infra.deployment import stack_parameters
from streamgauge.infra.local.deploying import deploy_locally
from streamgauge.infra.local.functions import end_functions, function_endpoints, provide_code
from streamgauge.infra.local.mirror import mirror_streams
from streamgauge.infra.local.processes import LOOPBACK, free_port, stop
from streamgauge.infra.local.servers import launch_kinesis, launch_ministack, wait_for_server
from streamgauge.infra.packaging.build import build_package
from streamgauge.infra.packaging.lock import locked
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.settings import Endpoints

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "streamgauge/cli/demo_pipeline/pipeline.toml"
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "test",
    "type": "weather.observation",
    "subject": "EWR",
    "time": "2026-01-01T00:00:00Z",
    "data": {"wind_speed": 3.5, "temp": 1.0},
}
OF_MINISTACK = ("ministack", "boto3", "aws-sam-translator")


def needed_by(names: tuple[str, ...]) -> set[str]:
    """Distributions, and all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


@pytest.fixture(scope="session")
def ministack_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with MiniStack, and nothing of ours."""
    folder = tmp_path_factory.mktemp("ministack")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    wanted = needed_by(OF_MINISTACK)
    lines = [
        each.requirement for each in locked((ROOT / "requirements/dev.lock").read_text(), None) if each.name in wanted
    ]
    assert len(lines) == len(wanted)
    (folder / "requirements.txt").write_text("\n".join(lines))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-compile"]
    done = subprocess.run(
        [*pip, "--require-hashes", "-r", str(folder / "requirements.txt")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = subprocess.run([python, "-c", "import numpy"], capture_output=True, text=True, check=False, env=PLAIN)
    assert "No module named 'numpy'" in found.stderr
    return python


@dataclass(frozen=True)
class Apart:
    clients: Clients
    outputs: dict[str, str]

    def invoke(self, output: str, event: object) -> object:
        answer = self.clients.functions.invoke(FunctionName=self.outputs[output], Payload=json.dumps(event))
        body = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, body
        return body


@pytest.fixture(scope="session")
def apart(ministack_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    folder = tmp_path_factory.mktemp("apart")
    pipeline = load_pipeline(PIPELINE)
    package = build_package(PIPELINE, folder, target=None, say=print)
    urls = [f"http://{LOOPBACK}:{free_port()}" for _ in range(2)]
    endpoints = Endpoints(*urls)
    ports = [int(url.rpartition(":")[2]) for url in urls]
    ministack = launch_ministack(
        ports[0],
        folder=folder,
        environment=PLAIN,
        endpoints=function_endpoints(endpoints, PLAIN),
        python=str(ministack_python),
    )
    kinesis = launch_kinesis(ports[1], folder=folder, environment=PLAIN, limits=True)
    try:
        for process, url in zip((ministack, kinesis), urls, strict=True):
            wait_for_server(process, url, deadline_s=60)
        clients = Clients(endpoints, region="us-east-1")
        outputs = deploy_locally(
            clients,
            name="streamgauge-apart",
            parameters={**stack_parameters(pipeline, shards=1), **provide_code(clients, package)},
            deadline_s=120,
        )
        mirror_streams("streamgauge-apart", endpoints, deadline_s=30)
        yield Apart(clients, outputs)
    finally:
        stop([ministack, kinesis], grace_s=5)
        end_functions(folder)


def test_the_processor_processes_with_what_the_package_brings(apart: Apart) -> None:
    stream, arn = apart.outputs["StreamName"], apart.outputs["StreamArn"]
    kinesis = apart.clients.kinesis
    put = kinesis.put_record(StreamName=stream, PartitionKey="EWR", Data=json.dumps(EVENT).encode())
    batch = kinesis_event(kinesis, stream, arn, shard_id=put["ShardId"])
    assert apart.invoke("ProcessorFunctionName", batch) == {"batchItemFailures": []}
    rows = apart.clients.dynamodb.scan(TableName=apart.outputs["StateTableName"])["Items"]
    assert put["SequenceNumber"] in json.dumps([str(row) for row in rows])


def test_the_tick_function_ticks_with_what_the_package_brings(apart: Apart) -> None:
    answer = apart.invoke("TickFunctionName", {})
    assert isinstance(answer, dict)
    assert (answer["put"], answer["failed"]) == (1, 0)
    kinesis, stream = apart.clients.kinesis, apart.outputs["StreamName"]
    iterator = kinesis.get_shard_iterator(
        StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )
    records = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    assert decode_event(records[-1]["Data"]).type == "streamgauge.tick"
