"""The state store dies while a process works: it comes back and all goes on, or it stays away and the run says so."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import boto3
import pytest
from cli_runner import DATA, Cli

from streamgauge.infra.local.faulty_proxy import FaultyProxy, Treatment
from streamgauge.infra.local.stack import load_stack

# Generous, for a busy machine.
_DEADLINE_S = 120.0
_PART = 200


class Store:
    """The stack's DynamoDB as the processes see it, which may fall silent, and as it is."""

    def __init__(self, cli: Cli) -> None:
        info = load_stack(cli.folder)
        self._table = info.outputs["StateTableName"]
        self._client = boto3.client(
            "dynamodb",
            endpoint_url=info.aws_url,
            region_name=info.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self.down: Treatment | None = None
        self.proxy = FaultyProxy(info.aws_url, lambda _: self.down or Treatment())

    def row(self) -> dict[str, str]:
        """The only shard's row, its plain attributes."""
        rows = self._client.scan(TableName=self._table, ConsistentRead=True)["Items"]
        (row,) = (row for row in rows if row["pipeline"] == {"S": "mine#1"})
        return {name: str(next(iter(value.values()))) for name, value in row.items() if name != "snapshot"}

    @property
    def position(self) -> str | None:
        return self.row().get("position")

    @property
    def refused(self) -> int:
        return self.proxy.refused.total()


class Stack:
    """A stack with one shard, and how many events were put into it."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        cli.ok("init", "mine", "--sample", str(DATA / "weather-sample.csv"))
        cli.ok("up", "--detach", "--host", "local", "--pipeline", "mine/pipeline.toml")
        self.store = Store(cli)
        self.put = 0

    def produce(self, *options: str) -> None:
        self.cli.ok("produce", "--count", str(_PART), *options)
        self.put += _PART

    def finish(self) -> None:
        """What is left is processed by a process whose store answers; then nothing is missing, and nothing twice."""
        self.produce("--end-of-input")
        self.cli.ok("process", "--until-end-of-input", "--lease", "2s")
        panes = self.cli.ok("results", "overview", "--json").json
        assert isinstance(panes, list)
        assert sum(pane["measures"]["events"] for pane in panes) == self.put
        audited = self.cli.ok("audit", "--json").json
        assert isinstance(audited, dict)
        assert audited["audit"] == "pass"


@pytest.fixture(scope="module")
def stack(module_cli: Cli) -> Iterator[Stack]:
    stack = Stack(module_cli)
    with stack.store.proxy:
        yield stack


@contextmanager
def processing(stack: Stack, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose state store may go away; it has saved something when this is entered."""
    before = stack.store.position if stack.put else None
    stack.produce()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamgauge.cli", "process", "--json", "--lease", "2s", *options],
        cwd=stack.cli.folder,
        env=stack.cli.environment | {"AWS_ENDPOINT_URL_DYNAMODB": stack.store.proxy.url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: stack.store.proxy.passed["UpdateItem"] and stack.store.position != before, process)
        yield process
    finally:
        stack.store.down = None
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = monotonic() + _DEADLINE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert monotonic() < deadline
        sleep(0.1)


def test_a_state_store_that_comes_back_is_waited_for_and_nothing_is_lost(stack: Stack) -> None:
    store = stack.store
    with processing(stack) as process:
        owner = store.row()["owner"]
        # It refuses, and once more it only hangs.
        for down in (Treatment(refuse=True), Treatment(refuse=True, delay_s=2.0)):
            refused, since = store.refused, monotonic()
            store.down = down
            stack.produce()
            wait_for(lambda: store.refused >= refused + 3 and monotonic() > since + 4, process)  # noqa: B023
            stood_at = store.position
            store.down = None
            wait_for(lambda: store.position != stood_at, process)  # noqa: B023
        # The same process has gone on: its worker's name is the first part of the owner's.
        assert store.row()["owner"].partition(".")[0] == owner.partition(".")[0]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_DEADLINE_S)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert json.loads(out)["shards"]
    stack.finish()


def test_a_state_store_that_stays_away_ends_the_run_with_one_error_and_nothing_is_lost(stack: Stack) -> None:
    with processing(stack, "--outage", "2s") as process:
        stack.store.down = Treatment(refuse=True)
        stack.produce()
        out, err = process.communicate(timeout=_DEADLINE_S)
    assert process.returncode == 1
    assert not out
    assert "Traceback" not in err
    (error,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "DynamoDB" in error or stack.store.row()["shard_id"] in error
    stack.finish()
