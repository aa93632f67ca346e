"""The processes that a demo starts beside the stack: watched, killed and ended by it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import IO

from streamgauge.cli.output import PROGRESS_INTERVAL
from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.local.stack import StackInfo

__all__ = ["Child", "Children", "last_line"]

_STOP_GRACE_S = 10.0
_LEAST_FREE_BYTES = 1_000_000


@dataclass(slots=True)
class Child:
    """A command that runs or ran: what it said is in ``log``, what it printed in ``out``."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    out: IO[bytes]

    def printed(self) -> bytes:
        """What it printed."""
        self.out.seek(0)
        return self.out.read()

    def failure(self) -> StreamgaugeError:
        """That it failed, and its last word."""
        # Somebody whose disk is full finds nothing in the log.
        is_full = disk_usage(self.log.parent).free < _LEAST_FREE_BYTES
        remedy = "The disk is full: make room, or set STREAMGAUGE_HOME to a folder on another" if is_full else None
        last = last_line(self.log) or f"exit {self.process.returncode}"
        return StreamgaugeError(f"{self.name} failed: {last}", where=str(self.log), remedy=remedy)


class Children:
    """Commands on a stack, by name."""

    def __init__(self, info: StackInfo) -> None:
        self._info = info
        self._children: dict[str, Child] = {}

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    @property
    def logs(self) -> dict[str, Path]:
        """By name what each says."""
        return {name: child.log for name, child in self._children.items()}

    def check(self) -> None:
        """Make sure that none has failed; that an audit does not hold is none.

        Raises
        ------
        StreamgaugeError
            One has.
        """
        for child in self._children.values():
            if child.process.poll() not in (None, 0, 3):
                raise child.failure()

    def start(self, name: str, arguments: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
        """Start ``streamgauge <arguments>``; its progress goes to ``<name>.log``, its JSON to a file beside it.

        `extra` is added to its environment.
        """
        logs = self._info.folder / "logs"
        log, out = logs / f"{name}.log", (logs / f"{name}.json").open("w+b")
        environment = self._info.environment(os.environ)
        environment |= {"STREAMGAUGE_HOME": self._info.home, PROGRESS_INTERVAL: "0.5", "NO_COLOR": "1", **(extra or {})}
        with log.open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "streamgauge.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        self._children[name] = Child(name, process, log, out)

    def kill_and_restart(self, name: str, arguments: Sequence[str]) -> bool:
        """Kill a process (SIGKILL) and start another in its place; False if it had ended by itself."""
        child = self._children[name]
        if child.process.poll() is not None:
            return False
        child.process.kill()
        child.process.wait()
        child.out.close()
        self.start(name, arguments)
        return True

    def close(self) -> None:
        """End what still runs."""
        for child in self._children.values():
            if child.process.poll() is None:
                child.process.terminate()
        for child in self._children.values():
            try:
                child.process.wait(_STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            child.out.close()


def last_line(log: Path | None) -> str:
    """The last line of a log that is not blank."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4_096))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
