"""From Lambda to the KCL and back, under load, with the state handed over; and both at once, which is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest
from cli_runner import Cli

from streamgauge.cli.local_stack import EVENT_SOURCE
from streamgauge.events.position import Position
from streamgauge.infra.clients import Clients
from streamgauge.infra.local.record import load_stack
from streamgauge.infra.local.stack import start_process
from streamgauge.processors.commit.dynamodb import DynamoDbStateStore
from streamgauge.processors.commit.s3 import S3ObjectStore

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_DEADLINE_S = 240.0
_POLLER = [sys.executable, "-m", "streamgauge.infra.local.event_source", "--schedule-interval", "1s"]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    runner = Cli(tmp_path)
    yield runner
    runner("down")


def test_lambda_and_the_kcl_take_over_from_each_other_and_the_audit_passes(cli: Cli) -> None:
    up = cli("up", "--host", "lambda", "--shards", "2", "--no-limits", "--detach")
    assert up.status == 0, up.err
    load = begun(cli, "produce", "--rate", "300", "--duration", "10m", "--end-of-input", "--json")
    try:
        wait(lambda: all_moved(cli, {}), "the function's first commits")
        both_at_once(cli)

        stop_poller(cli)
        before = positions(cli)
        kcl = begun(cli, "process", "--host", "kcl", "--beside-functions", "--failover", "2s", "--json")
        wait(lambda: all_moved(cli, before), "the KCL to go on where the function was", running=kcl)
        assert {owner.partition(".")[0] for owner in owners(cli)} == {"kcl"}
        assert finished(kcl, signal.SIGTERM) == 0, (cli.folder / "process.err").read_text()
        assert owners(cli) == set()

        before = positions(cli)
        start_poller(cli)
        wait(lambda: all_moved(cli, before), "the function to go on where the KCL was")
    finally:
        status = finished(load, signal.SIGINT)
    assert status == 0, (cli.folder / "produce.err").read_text()
    wait(lambda: age_ms(cli) == 0, "everything to be processed")
    audit = cli("audit", "--wait", "60s", timeout_s=_DEADLINE_S)
    assert audit.status == 0, audit.out + audit.err


def both_at_once(cli: Cli) -> None:
    """Beside the function, which is fed all the while, the KCL host is fenced; it says so and gives up."""
    done = cli("process", "--host", "kcl", "--failover", "2s", timeout_s=60)
    assert done.status == 1 and "the stack's own function processes the stream" in done.err
    done = cli("process", "--host", "kcl", "--failover", "2s", "--beside-functions", timeout_s=_DEADLINE_S)
    assert done.status == 1
    assert "another host works on this pipeline" in done.err


# --- processes


def begun(cli: Cli, *arguments: str) -> subprocess.Popen[str]:
    with (cli.folder / f"{arguments[0]}.err").open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "streamgauge.cli", *arguments],
            cwd=cli.folder,
            env=cli.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
            start_new_session=True,
        )


def finished(process: subprocess.Popen[str], number: signal.Signals) -> int:
    if process.poll() is None:
        process.send_signal(number)
    return process.wait(_DEADLINE_S)


def poller(cli: Cli) -> psutil.Process | None:
    info = load_stack(cli.folder)
    pid = next(process.pid for process in info.processes if process.name == EVENT_SOURCE)
    return psutil.Process(pid) if psutil.pid_exists(pid) else None


def stop_poller(cli: Cli) -> None:
    found = poller(cli)
    assert found is not None
    found.terminate()
    # It is nobody's child here.
    wait(lambda: not found.is_running() or found.status() == psutil.STATUS_ZOMBIE, "the poller's end")


def start_poller(cli: Cli) -> None:
    start_process(load_stack(cli.folder), EVENT_SOURCE, _POLLER, environment=cli.environment)


# --- what is seen from outside


@contextmanager
def store(cli: Cli) -> Iterator[DynamoDbStateStore]:
    info = load_stack(cli.folder)
    clients = Clients(info.endpoints, region=info.region)
    yield DynamoDbStateStore(
        clients.dynamodb,
        info.outputs["StateTableName"],
        S3ObjectStore(clients.s3, info.outputs["StateBucketName"]),
        pipeline="demo",
        state_epoch=1,
    )
    clients.dynamodb.close()
    clients.s3.close()


def positions(cli: Cli) -> dict[str, Position | None]:
    with store(cli) as rows:
        return {row.shard.shard_id: row.position for row in rows.rows()}


def all_moved(cli: Cli, before: dict[str, Position | None]) -> bool:
    now = positions(cli)
    return bool(now) and all(position not in (None, before.get(shard_id)) for shard_id, position in now.items())


def owners(cli: Cli) -> set[str]:
    with store(cli) as rows:
        return {row.owner for row in rows.rows() if row.owner is not None}


def age_ms(cli: Cli) -> int | None:
    found = cli.ok("lag", "--json").json
    assert isinstance(found, dict)
    return found["iterator_age_ms"]


def wait(condition: Callable[[], bool], what: str, *, running: subprocess.Popen[str] | None = None) -> None:
    until = monotonic() + _DEADLINE_S
    while not condition():
        assert running is None or running.poll() is None, f"it ended while the test waited for {what}"
        assert monotonic() < until, f"waited for {what}"
        sleep(0.5)
