"""What the processor's package costs: its size, the first invocation of a process, the ones after it, and memory.

    python benchmarks/lambda_package.py [--cold N] [--warm N] [--events N] [--lambda-platform] [--json]

The package is built for this interpreter and run by MiniStack as the demo runs it; a batch is aggregated records of the
demo's events. `cold` is the wall time of the first invocation of a fresh process: unpacking, interpreter, imports,
clients, the claim of the shard, and the batch. `warm` is that of the invocations after it, MiniStack's way there and
back included. With --lambda-platform the package for Lambda
itself is built as well, which asks the package index.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil

from streamgauge.cli.context import DEMO_PIPELINE
from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.events.times import rfc3339
from streamgauge.infra.clients import Clients
from streamgauge.infra.deployment import stack_name, stack_parameters
from streamgauge.infra.local.functions import temporary_folder
from streamgauge.infra.local.stack import StackInfo, StackSettings, start_stack, stop_stack
from streamgauge.infra.packaging.build import build_package
from streamgauge.infra.packaging.lock import Target
from streamgauge.processors.hosts.pipeline_file import load_pipeline

SOURCE = "urn:streamgauge:00000000-0000-4000-8000-000000000001:w16384"
KEYS = 60
AGGREGATE_EVENTS = 200


def aggregates(count: int, *, begin: int) -> list[dict[str, object]]:
    """Entries of PutRecords with `count` events, numbered from `begin`."""
    found, builder = [], AggregateBuilder()
    for number in range(begin, begin + count):
        key = f"station-{number % KEYS}"
        payload = {
            "specversion": "1.0",
            "id": str(number),
            "source": SOURCE,
            "type": "weather.observation",
            "time": rfc3339(1_767_225_600_000 + number * 10),
            "subject": key,
            "sequence": f"{number:020}",
            "data": {"wind_speed": number % 37 / 2, "temp": 11.5},
        }
        builder.add(UserRecord(key, None, json.dumps(payload).encode()))
        if builder.count == AGGREGATE_EVENTS or number == begin + count - 1:
            found.append({"PartitionKey": builder.partition_key, "Data": builder.encode()})
            builder = AggregateBuilder()
    return found


def batches(clients: Clients, info: StackInfo, *, count: int, events: int) -> Iterator[str]:
    """Payloads of an event source, of records that are in the stream."""
    stream, arn = info.outputs["StreamName"], info.outputs["StreamArn"]
    iterator = clients.kinesis.get_shard_iterator(
        StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    for number in range(count):
        clients.kinesis.put_records(StreamName=stream, Records=aggregates(events, begin=number * events))
        answer = clients.kinesis.get_records(ShardIterator=iterator)
        iterator = answer["NextShardIterator"]
        yield json.dumps(
            {
                "Records": [
                    {
                        "kinesis": {
                            "kinesisSchemaVersion": "1.0",
                            "partitionKey": record["PartitionKey"],
                            "sequenceNumber": record["SequenceNumber"],
                            "data": base64.b64encode(record["Data"]).decode(),
                            "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
                        },
                        "eventSource": "aws:kinesis",
                        "eventVersion": "1.0",
                        "eventID": f"shardId-000000000000:{record['SequenceNumber']}",
                        "eventName": "aws:kinesis:record",
                        "invokeIdentityArn": "arn:aws:iam::000000000000:role/processor",
                        "awsRegion": info.region,
                        "eventSourceARN": arn,
                    }
                    for record in answer["Records"]
                ]
            }
        )


def workers(info: StackInfo) -> list[psutil.Process]:
    root = f"{temporary_folder(info.folder)}/"
    return [
        child
        for child in psutil.Process(info.processes[0].pid).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and any(argument.startswith(root) for argument in child.cmdline())
    ]


def invoke(functions, name: str, payload: str) -> float:
    begin = time.perf_counter()
    answer = functions.invoke(FunctionName=name, Payload=payload)
    body = answer["Payload"].read()
    seconds = time.perf_counter() - begin
    assert "FunctionError" not in answer, body
    assert json.loads(body) == {"batchItemFailures": []}, body
    return seconds


def peak_bytes(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure(home: Path, arguments: argparse.Namespace) -> dict[str, float]:
    pipeline = load_pipeline(DEMO_PIPELINE)
    package = build_package(DEMO_PIPELINE, home / "package", target=None, say=lambda _: None)
    settings = StackSettings(
        stack_name(pipeline.name), stack_parameters(pipeline, shards=1), DEMO_PIPELINE, limits=False, package=package
    )
    found: dict[str, float] = {"unpacked_bytes": package.unpacked_bytes, "zip_bytes": package.packed_bytes}
    if arguments.lambda_platform:
        uploaded = build_package(DEMO_PIPELINE, home / "aws", target=Target("3.13", "arm64"), say=lambda _: None)
        found |= {"lambda_unpacked_bytes": uploaded.unpacked_bytes, "lambda_zip_bytes": uploaded.packed_bytes}
    info = start_stack(home, settings, environment=os.environ)
    try:
        clients = Clients(info.endpoints, region=info.region)
        functions = boto3.client(
            "lambda",
            endpoint_url=info.aws_url,
            region_name=info.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        payloads = batches(clients, info, count=arguments.cold + arguments.warm, events=arguments.events)
        name = info.outputs["ProcessorFunctionName"]
        cold: list[float] = []
        warm: list[float] = []
        for _ in range(arguments.cold):
            for worker in workers(info):
                # MiniStack, whose child it is, finds it dead at the next invocation.
                worker.kill()
            cold.append(invoke(functions, name, next(payloads)))
        warm.extend(invoke(functions, name, payload) for payload in payloads)
        (worker,) = workers(info)
        found |= {
            "cold_s": statistics.median(cold),
            "warm_s": statistics.median(warm),
            "warm_s_p99": statistics.quantiles(warm, n=100)[98],
            "peak_memory_bytes": peak_bytes(worker),
        }
    finally:
        stop_stack(info)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", type=int, default=5)
    parser.add_argument("--warm", type=int, default=100)
    parser.add_argument("--events", type=int, default=2_000, help="events of a batch")
    parser.add_argument("--lambda-platform", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments)
    if arguments.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        shown = f"{value / 1e6:10.1f} MB" if name.endswith("bytes") else f"{value * 1_000:10.0f} ms"
        print(f"{name.removesuffix('_bytes').replace('_s', ''):18} {shown}")
    print(f"a batch: {arguments.events:,} events in {-(-arguments.events // AGGREGATE_EVENTS):,} records")


if __name__ == "__main__":
    main()
