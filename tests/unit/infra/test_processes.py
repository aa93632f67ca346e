from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from streamgauge.infra.local.processes import (
    PortTaken,
    ProcessFailed,
    ProcessInfo,
    free_port,
    is_running,
    launch,
    log_tail,
    require_free_port,
    stop,
    wait_until_ready,
)

SLEEP = "import time\nprint('ready', flush=True)\ntime.sleep(600)"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
PARENT = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}])\n"
    "print(child.pid, flush=True)\nchild.wait()"
)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[ProcessInfo]]:
    running: list[ProcessInfo] = []
    yield running
    stop(running, grace_s=0)


def begin(started: list[ProcessInfo], folder: Path, code: str, *, ready: str = "ready") -> ProcessInfo:
    process = launch("it", [sys.executable, "-c", code], os.environ, folder / "logs" / "it.log")
    started.append(process)
    wait_until_ready(process, lambda: ready in log_tail(process), deadline_s=20)
    return process


def test_a_process_runs_until_it_is_asked_to_end(started: list[ProcessInfo], tmp_path: Path) -> None:
    process = begin(started, tmp_path, SLEEP)
    assert is_running(process)
    assert os.getsid(process.pid) == process.pid, "Ctrl-C in the terminal would reach it"
    assert stop([process], grace_s=10) == []
    assert not is_running(process) and not psutil.pid_exists(process.pid)


def test_a_process_that_ignores_the_request_is_killed_and_named(started: list[ProcessInfo], tmp_path: Path) -> None:
    process = begin(started, tmp_path, STUBBORN)
    assert stop([process], grace_s=0.1) == ["it"]
    assert not psutil.pid_exists(process.pid)


def test_children_end_with_their_parent(started: list[ProcessInfo], tmp_path: Path) -> None:
    process = begin(started, tmp_path, PARENT, ready="ready")
    child = int(log_tail(process).split()[0])
    assert psutil.pid_exists(child)
    stop([process], grace_s=10)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_recycled_pid_is_left_alone(started: list[ProcessInfo], tmp_path: Path) -> None:
    process = begin(started, tmp_path, SLEEP)
    earlier = msgspec.structs.replace(process, started=process.started - 60)
    assert not is_running(earlier)
    assert stop([earlier], grace_s=0) == []
    assert is_running(process)


def test_a_zombie_does_not_run(started: list[ProcessInfo], tmp_path: Path) -> None:
    process = begin(started, tmp_path, SLEEP)
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert not is_running(process)


def test_a_process_that_ends_while_starting_shows_its_log(started: list[ProcessInfo], tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match=r"it ended while starting\n.*the reason") as caught:
        begin(started, tmp_path, "raise SystemExit('the reason')", ready="never")
    assert caught.value.where == str(tmp_path / "logs" / "it.log")


def test_waiting_has_a_deadline(started: list[ProcessInfo], tmp_path: Path) -> None:
    process = begin(started, tmp_path, SLEEP)
    with pytest.raises(ProcessFailed, match="not ready after 0 s"):
        wait_until_ready(process, lambda: False, deadline_s=0)


def test_a_program_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match=r"it cannot be started: .*no-such-program"):
        launch("it", ["/no-such-program"], {}, tmp_path / "it.log")


def test_a_log_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(ProcessFailed, match="it cannot be started"):
        launch("it", [sys.executable, "-c", ""], {}, tmp_path / "logs" / "it.log")


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}: the port for tests cannot be opened"):
            require_free_port(port, purpose="tests")
    require_free_port(port, purpose="tests")


def test_a_free_port_can_be_opened() -> None:
    require_free_port(free_port(), purpose="tests")
