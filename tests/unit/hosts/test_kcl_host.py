"""The daemon is kept running, ended in good order, and given up with the reason that its child gave."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.hosts.kcl.child_log import ChildLog, LogEntry, Progress
from streamgauge.processors.hosts.kcl.child_settings import ChildSettings
from streamgauge.processors.hosts.kcl.children import Children
from streamgauge.processors.hosts.kcl.daemon import CHILD_COMMAND, Daemon, LogTail, are_running
from streamgauge.processors.hosts.kcl.health import is_well, main, note
from streamgauge.processors.hosts.kcl.host import DaemonFailed, HostSettings, run_kcl
from streamgauge.processors.hosts.kcl.installation import Installation
from streamgauge.processors.hosts.kcl.properties import DaemonSettings
from streamgauge.processors.hosts.shard_run import LocalSettings

A, B = "shardId-000000000000", "shardId-000000000001"
# No process has this pid.
NOBODY = 2**22 + 1


def progress(**changes: object) -> Progress:
    values = {
        "records": 0,
        "events": 0,
        "behind_ms": 0,
        "watermark_ms": None,
        "committed": "5/0",
        "checkpoint": None,
        "committed_at_ms": None,
        "snapshot_bytes": 0,
        "outbox_entries": 0,
        "input_ended": False,
        "is_finished": False,
        "gaps": (),
        "waiting_for": None,
        "cpu_s": 0.0,
    }
    return Progress(**(values | changes))  # type: ignore[arg-type]


def entry(
    event: str, message: str = "", *, shard: str = A, pid: int = NOBODY, told: Progress | None = None
) -> LogEntry:
    return LogEntry(1, "info", event, shard, pid, message, told)


# --- what children say


def test_children_of_one_shard_are_added_up() -> None:
    children = Children()
    children.take(entry("progress", pid=1, told=progress(records=10, events=9)))
    children.take(entry("progress", pid=1, told=progress(records=20, events=19)))
    children.take(entry("progress", pid=2, told=progress(records=5, events=5)))
    children.take(entry("progress", shard=B, pid=3, told=progress(records=1, events=1)))
    assert [(shard.shard_id, shard.records, shard.events) for shard in children.progress.shards] == [
        (A, 25, 24),
        (B, 1, 1),
    ]


def test_a_shard_that_was_sealed_or_lost_is_no_longer_ours() -> None:
    children = Children()
    children.take(entry("progress", told=progress(behind_ms=700)))
    children.take(entry("progress", shard=B, told=progress(behind_ms=3)))
    children.take(entry("sealed", "done"))
    assert children.progress.behind_ms == 3
    children.take(entry("fenced", "gone", shard=B))
    assert children.progress.fenced == {B: "gone"}


def test_what_a_child_says_is_read_as_it_comes_and_other_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "children.log"
    tail = LogTail(path)
    assert tail.entries() == []
    with path.open("ab", buffering=0) as file:
        log = ChildLog(file, pid=7, now_ms=lambda: 5)
        log.shard = A
        log("started", "here")
        file.write(b"a library's warning\n")
        log("progress", "", progress=progress(records=1))
        line = msgspec.json.encode(entry("stopped"))
        file.write(line[:10])
        assert [each.event for each in tail.entries()] == ["started", "progress"]
        file.write(line[10:] + b"\n")
        assert [each.event for each in tail.entries()] == ["stopped"]


def test_a_childs_settings_go_through_its_environment() -> None:
    told = ChildSettings(
        pipeline_file="/a b/pipeline.toml",
        log_file="/l",
        live=False,
        launcher=7,
        settings=LocalSettings(accept_gap=True),
    )
    assert ChildSettings.from_environment(told.environment()) == told
    with pytest.raises(StreamgaugeError, match="process --host kcl"):
        ChildSettings.from_environment({})


# --- a daemon that is kept running


class Pretended:
    """A daemon that ends by itself, or when it is asked to."""

    def __init__(self, log: Path, *, ends: bool, says: tuple[LogEntry, ...] = ()) -> None:
        self.log = log
        self.status: int | None = 1 if ends else None
        self.asked = self.killed = False
        with log.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(each) + b"\n" for each in says))

    def ask_to_stop(self) -> None:
        self.asked = True
        self.status = 0 if self.status is None else self.status

    def wait(self, seconds: float) -> bool:
        return self.status is not None

    def kill(self) -> None:
        self.killed = True

    def last_error(self) -> str:
        return "java says why"


def run(
    tmp_path: Path,
    daemons: list[Callable[[Path], Pretended]],
    *,
    check: Callable[[], None] = lambda: None,
    is_finished: Callable[[Children], bool] = lambda children: True,
) -> tuple[list[Pretended], Children]:
    log = tmp_path / "children.log"
    started: list[Pretended] = []

    def start() -> Daemon:
        started.append(daemons.pop(0)(log))
        return started[-1]  # type: ignore[return-value]

    fast = HostSettings(backoff_s=0.001, poll_s=0.001, check_interval_s=0.0)
    children = run_kcl(start, check, tail=LogTail(log), stop=threading.Event(), settings=fast, is_finished=is_finished)
    return started, children


def ending(*says: LogEntry) -> Callable[[Path], Pretended]:
    return lambda log: Pretended(log, ends=True, says=says)


def lasting(*says: LogEntry) -> Callable[[Path], Pretended]:
    return lambda log: Pretended(log, ends=False, says=says)


def test_a_daemon_that_ends_is_started_again(tmp_path: Path) -> None:
    said = entry("progress", told=progress(records=3))
    started, children = run(tmp_path, [ending(said), ending(), lasting(said)])
    assert len(started) == 3
    assert all(daemon.killed for daemon in started), "nothing of any is left behind"
    assert children.progress.records == 3


def test_a_daemon_that_ends_again_and_again_is_given_up_with_its_childs_reason(tmp_path: Path) -> None:
    failed = entry("failed", "the table is gone")
    with pytest.raises(DaemonFailed, match=f"shard {A}: the table is gone"):
        run(tmp_path, [ending(failed)] * 9)


def test_without_a_childs_reason_the_daemons_log_is_shown(tmp_path: Path) -> None:
    with pytest.raises(DaemonFailed, match="java says why"):
        run(tmp_path, [ending()] * 9)


def test_two_hosts_that_fence_each_other_are_told_apart_from_a_zombie(tmp_path: Path) -> None:
    fenced = entry("fenced", "somebody else has claimed the shard")
    started, _ = run(tmp_path, [ending(fenced), ending(fenced), lasting()])
    assert len(started) == 3
    with pytest.raises(DaemonFailed, match="another host works on this pipeline"):
        run(tmp_path, [ending(fenced)] * 3)


def test_what_keeps_it_from_working_is_looked_at_before_each_start_and_while_it_runs(tmp_path: Path) -> None:
    def check() -> None:
        raise StreamgaugeError("there is no such stream")

    with pytest.raises(StreamgaugeError, match="no such stream"):
        run(tmp_path, [], check=check)
    answers: list[StreamgaugeError | None] = [None, StreamgaugeError("deleted")]

    def later() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    daemons: list[Pretended] = []

    def one(log: Path) -> Pretended:
        daemons.append(Pretended(log, ends=False))
        return daemons[0]

    with pytest.raises(StreamgaugeError, match="deleted"):
        run(tmp_path, [one], check=later, is_finished=lambda children: False)
    assert daemons[0].asked and daemons[0].killed


# --- the process


def test_a_daemon_runs_in_its_folder_and_its_child_has_its_interpreter_and_blanks(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    java = tmp_path / "java"
    # Does what the daemon does with its command: it splits it at blanks, and starts it where it is.
    java.write_text(f'#!/bin/sh\necho java "$@"\nexec {CHILD_COMMAND}\n')
    java.chmod(0o755)
    script = tmp_path / "it's a child"
    script.write_text('#!/bin/sh\necho child $GREETING "$1"\n')
    script.chmod(0o755)
    daemon = Daemon(
        Installation(java, (tmp_path / "one.jar", tmp_path / "two.jar")),
        DaemonSettings(
            application="app",
            stream_arn="arn:aws:kinesis:eu-west-1:1:stream/s",
            region="eu-west-1",
            worker="w",
            command=CHILD_COMMAND,
        ),
        folder=folder,
        child=[str(script), "a b"],
        environment={"GREETING": "hello", "PATH": os.environ["PATH"]},
        java_options=("-Dx=y",),
    )
    assert daemon.wait(30.0) and daemon.status == 0
    java_line, child_line = daemon.log.read_text().splitlines()
    assert java_line.startswith(f"java -Dx=y -cp {tmp_path}/one.jar:{tmp_path}/two.jar software.amazon")
    assert java_line.endswith("--properties-file kcl.properties --log-configuration logback.xml")
    assert child_line == "child hello a b"
    assert f"executableName = {CHILD_COMMAND}" in (folder / "kcl.properties").read_text()

    with daemon.log.open("a") as log:
        log.write("2026 INFO  a.b - said\n")
        assert daemon.last_error() == "child hello a b"
        log.write("2026 ERROR a.b - wrong\njava.lang.X: what\n\tat a.b\n")
        log.flush()
        assert daemon.last_error() == "2026 ERROR a.b - wrong"
        log.write("Caused by: java.lang.Y: why\n\tat c.d\n")
        log.flush()
        assert daemon.last_error() == "java.lang.Y: why"


def test_a_process_that_has_ended_does_not_run() -> None:
    assert are_running([NOBODY, os.getpid()])
    assert not are_running([NOBODY])


# --- its health


def test_a_host_is_well_while_it_says_so_every_minute(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 1, "nothing was said yet"
    note(tmp_path)
    assert main([str(tmp_path)]) == 0
    said_s = (tmp_path / "alive").stat().st_mtime
    assert is_well(tmp_path, now_s=said_s + 59) and not is_well(tmp_path, now_s=said_s + 61)
