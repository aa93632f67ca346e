"""Runs the command line as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Finished:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


class Cli:
    """Runs ``streamgauge`` as a user would, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "STREAMGAUGE_HOME": str(folder),
            "NO_COLOR": "1",
        }

    def __call__(self, *arguments: str, timeout_s: float = 180, **environment: str) -> Finished:
        done = subprocess.run(
            [sys.executable, "-m", "streamgauge.cli", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Finished(done.returncode, done.stdout, done.stderr)

    def interrupted(self, *arguments: str, once: str, timeout_s: float = 60) -> Finished:
        """Run a command and press Ctrl-C once it has said something that begins with `once`."""
        command = [sys.executable, "-m", "streamgauge.cli", *arguments]
        environment = self.environment | {"STREAMGAUGE_PROGRESS_INTERVAL": "0.1"}
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if line.startswith(once):
                    process.send_signal(signal.SIGINT)
                    break
            out, rest = process.communicate(timeout=timeout_s)
            assert "Traceback" not in said + rest, said + rest
            return Finished(process.returncode, out, said + rest)

    def ok(self, *arguments: str, **environment: str) -> Finished:
        done = self(*arguments, **environment)
        assert done.status == 0, f"{arguments}: exit {done.status}\n{done.err}\n{done.out}\n{self.logs()}"
        return done

    def logs(self) -> str:
        found = sorted((self.folder / ".streamgauge" / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in found)
