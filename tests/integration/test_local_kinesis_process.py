"""``python -m streamgauge.infra.local.kinesis``: readiness, options, stopping, a port in use."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest

from streamgauge.infra.local.kinesis.server import LocalKinesis, PortTaken

COMMAND = [sys.executable, "-m", "streamgauge.infra.local.kinesis"]


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([*COMMAND, "--port", "0", *options], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        yield process, line.removeprefix("listening on ").strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_stops_on_a_signal(number: signal.Signals) -> None:
    with running("--region", "eu-west-1") as (process, url):
        client = boto3.client(
            "kinesis",
            endpoint_url=url,
            region_name="eu-west-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        client.create_stream(StreamName="s", ShardCount=1)
        arn = client.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamARN"]
        assert arn == "arn:aws:kinesis:eu-west-1:000000000000:stream/s"
        # An idle connection that its client keeps open must not hold the server up.
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        client.close()


def test_without_limits_a_shard_takes_what_comes() -> None:
    with running("--no-limits") as (_, url):
        client = boto3.client(
            "kinesis",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        client.create_stream(StreamName="s", ShardCount=1)
        records = [{"Data": b"x" * 1000, "PartitionKey": "k"}] * 500
        for _ in range(5):
            assert client.put_records(StreamName="s", Records=records)["FailedRecordCount"] == 0
        client.close()


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([*COMMAND, "--port", str(port)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "Address already in use" in line
    assert "--port 0" in line


def test_a_port_that_is_no_port_is_wrong_use() -> None:
    done = subprocess.run([*COMMAND, "--port", "70000"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "70000" in done.stderr


def test_in_a_thread_too_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortTaken, match="cannot listen"):
        LocalKinesis(port=taken.getsockname()[1]).__enter__()
