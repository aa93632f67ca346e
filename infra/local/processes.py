"""The local stack's processes: started apart from their starter, known by pid and start time, stopped by pid."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep

import msgspec
import psutil

from streamgauge.events.errors import StreamgaugeError

__all__ = [
    "LOOPBACK",
    "PortTaken",
    "ProcessFailed",
    "ProcessInfo",
    "free_port",
    "is_running",
    "launch",
    "log_tail",
    "require_free_port",
    "stop",
    "wait_until_ready",
]

LOOPBACK = "127.0.0.1"

_POLL_S = 0.02
# Start times are computed from the boot time, which moves a little when the clock is adjusted.
_START_TOLERANCE_S = 2.0
_KILL_WAIT_S = 5.0
_TAIL_LINES = 15

# Popen objects of our own children: one that is forgotten while its process runs warns, and leaves a zombie behind.
_children: dict[int, subprocess.Popen[bytes]] = {}


class PortTaken(StreamgaugeError):
    """Somebody listens on the port already."""


class ProcessFailed(StreamgaugeError):
    """A process of the stack ended, or did not become ready in time."""


class ProcessInfo(msgspec.Struct, frozen=True):
    """A process. `started` (seconds since the epoch) tells it apart from a later one that was given its pid."""

    name: str
    pid: int
    started: float
    log: str


def free_port() -> int:
    """A loopback port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def require_free_port(port: int, *, purpose: str) -> None:
    """Make sure that the port can be bound, before anything is started.

    Raises
    ------
    PortTaken
        It cannot.
    """
    with socket.socket() as probe:
        # As servers bind: a port whose last connections are still fading away is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise PortTaken(
                f"the port for {purpose} cannot be opened: {os.strerror(error.errno or 0)}",
                where=f"{LOOPBACK}:{port}",
                remedy="Stop what listens there, or choose another port",
            ) from error


def launch(name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> ProcessInfo:
    """Start a process in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it.

    Its output goes to `log`, which is begun anew.

    Raises
    ------
    ProcessFailed
        It cannot be started.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            child = subprocess.Popen(  # noqa: S603 - the command is the caller's, and no shell reads it
                list(argv),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise ProcessFailed(f"{name} cannot be started: {error}", where=str(log)) from error
    _children[child.pid] = child
    # Not yet waited for, so even a child that has ended already can still be asked.
    return ProcessInfo(name=name, pid=child.pid, started=psutil.Process(child.pid).create_time(), log=str(log))


def is_running(process: ProcessInfo) -> bool:
    """Whether this very process still runs; another one under its pid does not count, nor does a zombie."""
    return _find(process) is not None


def log_tail(process: ProcessInfo) -> str:
    """The last lines of what the process wrote."""
    try:
        text = Path(process.log).read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])


def wait_until_ready(process: ProcessInfo, ready: Callable[[], bool], *, deadline_s: float) -> None:
    """Wait until `ready` holds while the process runs.

    Raises
    ------
    ProcessFailed
        The process ended, or `deadline_s` passed; with the end of its log.
    """
    until = monotonic() + deadline_s
    while True:
        # In this order: what answers while our process is gone is somebody else.
        answered = ready()
        if not is_running(process):
            raise ProcessFailed(f"{process.name} ended while starting\n{log_tail(process)}", where=process.log)
        if answered:
            return
        if monotonic() > until:
            raise ProcessFailed(
                f"{process.name} was not ready after {deadline_s:g} s\n{log_tail(process)}", where=process.log
            )
        sleep(_POLL_S)


def stop(processes: Iterable[ProcessInfo], *, grace_s: float) -> list[str]:
    """Ask all of them to end (SIGTERM), with the children that they have; kill what remains after `grace_s`.

    Returns
    -------
    The names of those that had to be killed.
    """
    wanted = list(processes)
    leaders = {process.pid: process for info in wanted if (process := _find(info)) is not None}
    family = dict(leaders)
    for leader in leaders.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            family |= {child.pid: child for child in leader.children(recursive=True)}
            leader.terminate()
    # A leader ends its children in order; those that outlive it are ended here.
    psutil.wait_procs(leaders.values(), timeout=grace_s)
    survivors = [process for process in family.values() if process.is_running()]
    for process in survivors:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(survivors, timeout=_KILL_WAIT_S)
    for info in wanted:
        child = _children.get(info.pid)
        if child is not None and child.poll() is not None:
            del _children[info.pid]
    killed = {process.pid for process in survivors}
    return [info.name for info in wanted if info.pid in killed & leaders.keys()]


def _find(info: ProcessInfo) -> psutil.Process | None:
    try:
        process = psutil.Process(info.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if abs(process.create_time() - info.started) > _START_TOLERANCE_S:
            return None
    except psutil.NoSuchProcess:
        return None
    return process
