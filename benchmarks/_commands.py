"""Running the command line for a benchmark, and reading what it says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil

# A rate is held if the producer reached this share of it, and everything was committed so soon after it had ended.
HELD_WITHIN_S = 5.0
HELD_SHARE = 0.95


class Latency(msgspec.Struct):
    p99: int | None


class LoadFigures(msgspec.Struct):
    """What is read of the producer's summary."""

    rate_per_s: float
    latency_ms: Latency


def run(home: Path, *arguments: str) -> str:
    """What a command that must succeed prints."""
    done = subprocess.run(
        _command(arguments), env=_environment(home), cwd=home, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout


def start(home: Path, *arguments: str) -> psutil.Popen:
    """A command that goes on in a process of its own."""
    return psutil.Popen(
        _command(arguments), env=_environment(home), cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _command(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "streamgauge.cli", *arguments]


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "STREAMGAUGE_HOME": str(home), "NO_COLOR": "1"}
