"""``python -m streamgauge.infra.local.kinesis``: readiness, options, stopping, a port in use."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from streamgauge.infra.local.kinesis.calls import Call, read_calls
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


def test_it_logs_who_called_what_on_which_stream(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    with running("--calls", str(log)) as (_, url):
        for key in ("AKIAONE", "ASIATWO"):
            with_key = {"aws_access_key_id": key, "aws_secret_access_key": "x"}
            client = boto3.client("kinesis", endpoint_url=url, region_name="us-east-1", **with_key)
            if key == "AKIAONE":
                client.create_stream(StreamName="s", ShardCount=2)
                client.put_record(StreamName="s", Data=b"x", PartitionKey="k")
            else:
                arn = client.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamARN"]
                page = client.list_shards(StreamARN=arn, MaxResults=1)
                client.list_shards(NextToken=page["NextToken"])
                shard = page["Shards"][0]["ShardId"]
                iterator = client.get_shard_iterator(StreamARN=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
                client.get_records(ShardIterator=iterator["ShardIterator"])
                with pytest.raises(client.exceptions.ResourceNotFoundException):
                    client.describe_stream(StreamName="another")
                client.list_streams()
            client.close()
    assert read_calls(log) == [
        Call("AKIAONE", "CreateStream", "s"),
        Call("AKIAONE", "PutRecord", "s"),
        Call("ASIATWO", "DescribeStreamSummary", "s"),
        Call("ASIATWO", "ListShards", "s"),
        Call("ASIATWO", "ListShards", "s"),
        Call("ASIATWO", "GetShardIterator", "s"),
        Call("ASIATWO", "GetRecords", "s"),
        Call("ASIATWO", "DescribeStream", "another"),
        Call("ASIATWO", "ListStreams", ""),
    ]


def test_a_log_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "calls"
    command = [*COMMAND, "--port", "0", "--calls", str(missing)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"local Kinesis: {missing}: no calls can be logged: No such file or directory\n"
