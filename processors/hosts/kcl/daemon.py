"""A running MultiLangDaemon: started in a folder of its own, followed by its children's log, ended in good order."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from streamgauge.processors.hosts.kcl.child_log import LogEntry, decode_entry
from streamgauge.processors.hosts.kcl.installation import Installation
from streamgauge.processors.hosts.kcl.properties import LOGBACK, DaemonSettings, daemon_properties

__all__ = ["CHILD_COMMAND", "Daemon", "LogTail", "are_running"]

CHILD_COMMAND = "/bin/sh child.sh"
"""What the daemon runs for each shard. It splits this at blanks, so no path stands in it."""

_MAIN_CLASS = "software.amazon.kinesis.multilang.MultiLangDaemon"
_TAIL_BYTES = 256 * 1024
_ERROR_CHARS = 500


class LogTail:
    """What has been appended to a file of log entries since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def entries(self) -> list[LogEntry]:
        """The new entries; lines that are none are passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                appended = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(appended)
        *lines, self._rest = (self._rest + appended).split(b"\n")
        return [entry for entry in map(decode_entry, lines) if entry is not None]


class Daemon:
    """One Java process and its children, in a process group of their own, so that Ctrl-C does not reach them.

    Parameters
    ----------
    folder
        Where properties and log are written; nobody else uses it.
    child
        The command of a child, with its interpreter.
    """

    def __init__(
        self,
        installation: Installation,
        settings: DaemonSettings,
        *,
        folder: Path,
        child: list[str],
        environment: Mapping[str, str],
        java_options: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.log = folder / "daemon.log"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kcl.properties").write_text(daemon_properties(settings), encoding="ascii")
        (folder / "logback.xml").write_text(LOGBACK)
        (folder / "child.sh").write_text("exec " + " ".join(map(_quoted, child)) + "\n")
        command = [
            str(installation.java),
            *java_options,
            "-cp",
            os.pathsep.join(map(str, installation.jars)),
            _MAIN_CLASS,
            "--properties-file",
            "kcl.properties",
            "--log-configuration",
            "logback.xml",
        ]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - a Java and jars that were checked, and no shell
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The Java process, and its group."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Let it commit, checkpoint and end: its children are told, one by one."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; whether it came."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.status is not None

    def kill(self) -> None:
        """End it and its children at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def last_error(self) -> str:
        """The last error in the daemon's log with its cause, or else the log's last line."""
        lines: list[str] = []
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        causes = [line for line in lines if line.startswith("Caused by: ")]
        errors = [line for line in lines if " ERROR " in line]
        found = causes or errors or lines or ["nothing"]
        return found[-1].removeprefix("Caused by: ")[:_ERROR_CHARS]


def are_running(pids: Iterable[int]) -> bool:
    """Whether any of the processes runs."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            return True
    return False


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"
