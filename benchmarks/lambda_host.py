"""What Lambda as the host holds on this machine, what bounds it, and how soon a threshold event arrives.

    python benchmarks/lambda_host.py [--events N] [--shards N] [--rates R,R,...] [--crossings N]

Rates: a stack of its own, with the shards' limits off, whose template's function, warm by then, processes the stream;
the producer runs as a process of its own. A rate is held if the producer reached it within 5 % and everything was
committed within five seconds after it had ended; the audit must pass. Seconds of CPU are those of each process since
the producer's start; `functions` are all processes that MiniStack has started for invocations and that still live.

Crossings: two stacks at a time, one whose function processes the stream and one with `streamgauge process`. A crossing
is due when the record is put that lets the watermark pass its window; it has arrived when the queue behind EventBridge
gives it. The two hosts take turns, with a random pause before each crossing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
import psutil
from _commands import HELD_SHARE, HELD_WITHIN_S, LoadFigures, cpu_s, run, start

from streamgauge.cli.context import DEMO_PIPELINE, Workplace
from streamgauge.cli.function_watch import FunctionWatch
from streamgauge.events.times import rfc3339
from streamgauge.infra.clients import Clients
from streamgauge.infra.local.functions import temporary_folder
from streamgauge.infra.local.record import StackInfo
from streamgauge.infra.local.stack import load_stack
from streamgauge.processors.hosts.pipeline_file import load_pipeline

_GIVE_UP_S = 120.0
_STEP_MS = 60_000
_WINDOW_AND_BOUND_MS = 12_000


@contextmanager
def stack(host: str, *options: str) -> Iterator[tuple[Path, StackInfo, Workplace]]:
    """A stack that is gone afterwards."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        run(home, "up", "--detach", "--host", host, "--no-ticks", *options)
        try:
            info = load_stack(home)
            yield home, info, Workplace(Clients(info.endpoints, region=info.region), info.outputs, DEMO_PIPELINE)
        finally:
            run(home, "down")


# --- rates -----------------------------------------------------------------------------------------------------------


def functions_cpu_s(info: StackInfo) -> float:
    code, found = f"{temporary_folder(info.folder)}/", 0.0
    for process in psutil.process_iter(["cmdline"]):
        if any(argument.startswith(code) for argument in process.info["cmdline"] or ()):
            found += cpu_s(process)
    return found


def all_cpu_s(info: StackInfo) -> dict[str, float]:
    found = {process.name: cpu_s(psutil.Process(process.pid)) for process in info.processes}
    return found | {"functions": functions_cpu_s(info)}


def measure(rate: int, events: int, shards: int) -> None:
    with stack("lambda", "--no-limits", "--shards", str(shards)) as (home, info, place):
        watch = FunctionWatch(place, load_pipeline(DEMO_PIPELINE))
        run(home, "produce", "--rate", "500", "--count", "500")
        wait_for(watch, lambda: watch.events >= 500)
        before = all_cpu_s(info)
        producer = start(home, "produce", "--rate", str(rate), "--count", str(events), "--end-of-input", "--json")
        while producer.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)
        ended, producer_cpu = time.monotonic(), cpu_s(producer)
        summary = msgspec.json.decode(producer.communicate()[0], type=LoadFigures)
        if producer.returncode:
            sys.exit(f"producer: exit {producer.returncode}")
        wait_for(watch, lambda: watch.input_ended)
        drain_s = time.monotonic() - ended
        cpu = {name: value - before.get(name, 0.0) for name, value in all_cpu_s(info).items()}
        cpu["producer"] = producer_cpu
        run(home, "audit", "--wait", "60s")
    held = summary.rate_per_s >= HELD_SHARE * rate and drain_s <= HELD_WITHIN_S
    used = ", ".join(f"{name} {value:.1f}" for name, value in sorted(cpu.items(), key=lambda item: -item[1]))
    print(
        f"{rate:>8,} {summary.rate_per_s:>11,.0f} {drain_s:>8.1f} {summary.latency_ms.p99 or 0:>8,}  "
        f"{'yes ' if held else 'no  '}  {used}",
        flush=True,
    )


def wait_for(watch: FunctionWatch, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _GIVE_UP_S
    while not condition():
        watch.look()
        if time.monotonic() > until:
            sys.exit(f"not processed after {_GIVE_UP_S:.0f} s: {watch.error()}")
        time.sleep(0.1)


# --- crossings -------------------------------------------------------------------------------------------------------


class Detail(msgspec.Struct):
    """What is read of a threshold event."""

    state: str


class Message(msgspec.Struct):
    detail: Detail


@dataclass
class Contestant:
    """A stack with its host; `waits_s` are from due to arrived."""

    place: Workplace
    waits_s: list[float]
    time_ms: int

    def cross(self, number: int) -> None:
        """Put a gust, then what closes its window; wait for the event that says so."""
        self._put(f"gust-{number}", self.time_ms, gust=70.0)
        due = time.monotonic()
        # Without a gust of its own, it clears the alarm when its window closes, at the next crossing.
        self._put(f"calm-{number}", self.time_ms + _WINDOW_AND_BOUND_MS, gust=10.0)
        self.time_ms += _STEP_MS
        self.waits_s.append(self._raised_at() - due)

    def _put(self, name: str, time_ms: int, *, gust: float) -> None:
        event = {
            "specversion": "1.0",
            "id": name,
            "source": "urn:benchmark",
            "type": "weather.observation",
            "time": rfc3339(time_ms),
            "subject": "JFK",
            "data": {"temp": 39.02, "wind_speed": 10.0, "wind_gust": gust},
        }
        stream = self.place.output("StreamName")
        self.place.clients.kinesis.put_record(StreamName=stream, Data=json.dumps(event).encode(), PartitionKey="JFK")

    def _raised_at(self) -> float:
        sqs, queue = self.place.clients.sqs, self.place.output("ThresholdQueueUrl")
        until = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < until:
            answer = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1, MaxNumberOfMessages=10)
            arrived = time.monotonic()
            for message in answer.get("Messages", []):
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                if msgspec.json.decode(message["Body"], type=Message).detail.state == "raised":
                    return arrived
        sys.exit("a threshold event has not arrived")


def crossings(count: int) -> None:
    rng = Random(1)
    with stack("lambda") as (_, _, on_lambda), stack("local") as (home, _, on_local):
        worker = start(home, "process")
        begin_ms = time.time_ns() // 1_000_000 - 24 * 3_600_000
        contestants = {
            "lambda": Contestant(on_lambda, [], begin_ms // 10_000 * 10_000),
            "local": Contestant(on_local, [], begin_ms // 10_000 * 10_000),
        }
        try:
            for number in range(count + 1):
                for contestant in contestants.values():
                    time.sleep(rng.uniform(0.0, 1.0))
                    contestant.cross(number)
        finally:
            worker.terminate()
            worker.communicate()
    print(f"\ndue to received, {count} crossings each, the first one (a cold start) left out:")
    for name, contestant in contestants.items():
        show(name, contestant.waits_s)


def show(name: str, waits_s: list[float]) -> None:
    first, *rest = waits_s
    quantile: Callable[[float], float] = lambda share: sorted(rest)[min(len(rest) - 1, int(share * len(rest)))]  # noqa: E731
    figures: Mapping[str, float] = {
        "p50": statistics.median(rest),
        "p90": quantile(0.9),
        "p99": quantile(0.99),
        "the first": first,
    }
    print(f"{name:>8}  " + ", ".join(f"{what} {value * 1_000:,.0f} ms" for what, value in figures.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rates", default="1000,2000,4000,8000")
    parser.add_argument("--crossings", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.crossings:
        crossings(arguments.crossings)
    print(f"\n{'rate/s':>8} {'produced/s':>11} {'drain s':>8} {'p99 ms':>8}  held  CPU seconds")
    for rate in map(int, filter(None, arguments.rates.split(","))):
        measure(rate, arguments.events, arguments.shards)


if __name__ == "__main__":
    main()
