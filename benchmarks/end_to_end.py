"""The highest rate of the whole pipeline on this machine, and what bounds it.

    python benchmarks/end_to_end.py [--events N] [--shards N] [--rates R,R,...]

A stack of its own runs with the shards' limits off; at each rate the producer, the processor and delivery run as
processes of their own, and the seconds of CPU that each used (their start included) are printed. The rate is held if
the producer reached it within 5 % and the last window closed within five seconds after the producer had ended; the
audit must pass each time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import psutil
from _commands import HELD_SHARE, HELD_WITHIN_S, LoadFigures, cpu_s, run, start

from streamgauge.infra.local.record import StackInfo
from streamgauge.infra.local.stack import load_stack


def measure(info: StackInfo, home: Path, rate: int, events: int) -> tuple[float, dict[str, float], LoadFigures]:
    """Seconds from the producer's end to the last window, CPU seconds by process, and the producer's summary."""
    servers = {process.name: psutil.Process(process.pid) for process in info.processes}
    before = {name: cpu_s(process) for name, process in servers.items()}
    processor = start(home, "process", "--until-end-of-input", "--json")
    producer = start(home, "produce", "--rate", str(rate), "--count", str(events), "--end-of-input", "--json")
    cpu: dict[str, float] = {}
    ended: dict[str, float] = {}
    running = {"producer": producer, "processor": processor}
    while running:
        for name, process in list(running.items()):
            # Before it is reaped, for its times go with it.
            if process.status() == psutil.STATUS_ZOMBIE:
                cpu[name], ended[name] = cpu_s(process), time.monotonic()
                del running[name]
        time.sleep(0.05)
    summary = msgspec.json.decode(producer.communicate()[0], type=LoadFigures)
    processor.communicate()
    if producer.returncode or processor.returncode:
        sys.exit(f"producer: exit {producer.returncode}, processor: exit {processor.returncode}")
    cpu |= {name: cpu_s(process) - before[name] for name, process in servers.items()}
    return ended["processor"] - ended["producer"], cpu, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rates", default="2000,4000,8000,12000,16000")
    arguments = parser.parse_args()
    print(f"{'rate/s':>8} {'produced/s':>11} {'drain s':>8} {'p99 ms':>8}  held  CPU seconds")
    for rate in map(int, arguments.rates.split(",")):
        # A stack for each: the audit then speaks of this rate alone.
        with tempfile.TemporaryDirectory() as name:
            home = Path(name)
            run(
                home,
                "up",
                "--detach",
                "--host",
                "local",
                "--no-limits",
                "--no-ticks",
                "--shards",
                str(arguments.shards),
            )
            try:
                drain_s, cpu, summary = measure(load_stack(home), home, rate, arguments.events)
                run(home, "audit", "--wait", "60s")
            finally:
                run(home, "down")
        held = summary.rate_per_s >= HELD_SHARE * rate and drain_s <= HELD_WITHIN_S
        used = ", ".join(f"{name} {value:.1f}" for name, value in sorted(cpu.items(), key=lambda item: -item[1]))
        print(
            f"{rate:>8,} {summary.rate_per_s:>11,.0f} {drain_s:>8.1f} {summary.latency_ms.p99 or 0:>8,}  "
            f"{'yes ' if held else 'no  '}  {used}",
            flush=True,
        )


if __name__ == "__main__":
    main()
