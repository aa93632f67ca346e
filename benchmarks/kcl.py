"""The KCL host: user records a second per CPU second of a child, and through the whole daemon.

    python benchmarks/kcl.py [--records N] [--rounds N] [--no-daemon] [--profile]

The child alone: the lines that the daemon would write are handed to it in memory. Two contestants, interleaved, median
of the rounds: `amazon_kclpy`'s own ``KCLProcess`` with a processor that does nothing but parse each record's JSON and
checkpoint; and our child with the full core (decode, dedupe, watermark, windows, thresholds), which commits to stores
in memory, and checkpoints. For records put one by one (``plain``) and in aggregates (``kpl``), as the daemon hands them
over.

The whole daemon: a local stack without limits, N records put ahead, then ``streamgauge process --host kcl`` until their
end. Counted is from the moment at which the first child has opened its shard to the last record's commit: seconds, and
seconds of CPU of Java and of all children.
"""

from __future__ import annotations

import argparse
import base64
import cProfile
import io
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from amazon_kclpy.kcl import KCLProcess
from amazon_kclpy.v3 import processor as v3

from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.records import Shard
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.commit.memory import MemoryObjectStore, MemoryReceiver, MemoryStateStore
from streamgauge.processors.commit.ports import Receivers
from streamgauge.processors.commit.s3 import ArchiveReceiver
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.kcl.child import run_child
from streamgauge.processors.hosts.kcl.child_log import Progress, decode_entry
from streamgauge.processors.hosts.kcl.shard_processor import ShardProcessor
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.processors.hosts.shard_run import LocalSettings

PIPELINE = Path(__file__).parents[1] / "streamgauge" / "cli" / "demo_pipeline" / "pipeline.toml"
SHARD = "shardId-000000000000"
SOURCE = "urn:streamgauge:0190b2c4-0000-7000-8000-000000000000:w16384"
START_MS = 1_767_225_600_000
KEYS = 500
BATCH = 5_000
IN_AGGREGATE = 200


def event(n: int) -> bytes:
    """About 300 bytes; the demo's own type."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START_MS // 1000 + n // 1000)) + f".{n % 1000:03}Z"
    head = {
        "specversion": "1.0",
        "id": str(n),
        "source": SOURCE,
        "type": "weather.observation",
        "time": moment,
        "subject": f"station-{n * 7919 % KEYS}",
        "sequence": f"{n:020}",
    }
    data = {"wind_speed": n % 97 / 2, "wind_gust": n % 131 / 2, "temp": n % 40 - 5.5}
    return json.dumps(head | {"data": data}, separators=(",", ":")).encode()


def lines(count: int, *, is_aggregated: bool) -> list[bytes]:
    """What the daemon writes for so many user records."""
    found = [
        b'{"action":"initialize","shardId":"%s","sequenceNumber":"TRIM_HORIZON","subSequenceNumber":0}\n'
        % SHARD.encode()
    ]
    for first in range(0, count, BATCH):
        records = []
        for n in range(first, min(first + BATCH, count)):
            number, sub = (n // IN_AGGREGATE, n % IN_AGGREGATE) if is_aggregated else (n, 0)
            records.append(
                {
                    "data": base64.b64encode(event(n)).decode(),
                    "partitionKey": f"station-{n * 7919 % KEYS}",
                    "sequenceNumber": str(10**55 + number),
                    "approximateArrivalTimestamp": START_MS + n,
                    "subSequenceNumber": sub,
                    "action": "record",
                }
            )
        message = {"action": "processRecords", "records": records, "millisBehindLatest": 0}
        found.append(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    return found


# --- the child alone


class Parses(v3.RecordProcessorBase):
    """The least that a stock child can do with JSON records."""

    version = 3

    def initialize(self, given) -> None:  # noqa: ARG002 - the library's signature
        self.parsed = 0

    def process_records(self, given) -> None:
        for record in given.records:
            json.loads(record.binary_data)
            self.parsed += 1
        given.checkpointer.checkpoint()

    def lease_lost(self, given) -> None: ...
    def shard_ended(self, given) -> None: ...
    def shutdown_requested(self, given) -> None: ...


CHECKPOINTED = b'{"action":"checkpoint","sequenceNumber":null,"subSequenceNumber":null,"error":null}\n'


class Answering:
    """The daemon's side: after each checkpoint that is asked for, its answer; else the next line."""

    def __init__(self, found: list[bytes]) -> None:
        self._rest = iter(found)
        self._owed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._owed:
            self._owed = False
            return CHECKPOINTED
        return next(self._rest)

    def take(self, written: bytes) -> None:
        self._owed = b'"checkpoint"' in written


class TextPipe(io.TextIOBase):
    """The same for ``KCLProcess``, which reads and writes text."""

    def __init__(self, daemon: Answering) -> None:
        self._daemon = daemon

    def readline(self, limit: int = -1) -> str:  # type: ignore[override]  # noqa: ARG002
        return next(self._daemon, b"").decode()

    def write(self, text: str) -> int:
        self._daemon.take(text.encode())
        return len(text)


def stock(found: list[bytes]) -> int:
    pipe = TextPipe(Answering(found))
    processor = Parses()
    KCLProcess(processor, pipe, pipe, sys.stderr).run()
    return processor.parsed


def ours(found: list[bytes]) -> int:
    pipeline = load_pipeline(PIPELINE)
    store, archive = MemoryStateStore(), MemoryObjectStore()
    to = Receivers(ArchiveReceiver(archive), MemoryReceiver("thresholds"), MemoryReceiver("panes"))
    engine = core_engine("arn:aws:kinesis:us-east-1:000000000000:stream/observations")

    def open_session(shard: Shard, start: str, *, owner: str, seen_version: int | None) -> ShardSession:
        return ShardSession.open(
            pipeline,
            shard,
            store=store,
            archive=archive,
            receivers=to,
            owner=owner,
            now_ms=lambda: START_MS,
            engine=engine,
            start=start,
            seen_version=seen_version,
        )

    daemon = Answering(found)
    child = ShardProcessor(
        pipeline.stream,
        OneShard(),
        store,
        open_session,
        settings=LocalSettings(),
        say=Quiet(),  # type: ignore[arg-type]
    )
    run_child(daemon, daemon.take, child)
    row = store.row(SHARD)
    assert row is not None and row.position is not None
    return Quiet.events


class OneShard:
    def list_shards(self, **arguments: object) -> dict[str, object]:  # noqa: ARG002
        keys = {"StartingHashKey": "0", "EndingHashKey": str(FULL_RANGE.last)}
        numbers = {"StartingSequenceNumber": "0"}
        return {"Shards": [{"ShardId": SHARD, "HashKeyRange": keys, "SequenceNumberRange": numbers}]}


class Quiet:
    shard = ""
    events = 0

    def __call__(self, *entry: str, progress: Progress | None = None, **more: str) -> None:  # noqa: ARG002
        if progress is not None:
            Quiet.events = progress.events


def rate(run: Callable[[list[bytes]], int], found: list[bytes], count: int) -> float:
    began = time.process_time()
    run(found)
    return count / (time.process_time() - began)


def child_alone(count: int, rounds: int) -> None:
    print(f"the child alone, {count:,} user records of {len(event(count))} bytes; per CPU second:")
    for name, is_aggregated in (("plain", False), ("kpl", True)):
        found = lines(count, is_aggregated=is_aggregated)
        rates = [(rate(stock, found, count), rate(ours, found, count)) for _ in range(rounds)]
        theirs, our = (statistics.median(column) for column in zip(*rates, strict=True))
        print(f"  {name:5}  KCLProcess with json.loads {theirs:9,.0f}   ours {our:9,.0f}   {our / theirs:.1f} times")


def profile(count: int) -> None:
    found = lines(count, is_aggregated=True)
    profiler = cProfile.Profile()
    profiler.runcall(ours, found)
    out = io.StringIO()
    pstats.Stats(profiler, stream=out).sort_stats("tottime").print_stats(14)
    print("what bounds the child (kpl):")
    print("\n".join(line for line in out.getvalue().splitlines()[6:] if line.strip()))


# --- the whole daemon


def streamgauge(home: Path, *arguments: str) -> None:
    environment = {**os.environ, "STREAMGAUGE_HOME": str(home), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "streamgauge.cli", *arguments]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr}{done.stdout}")


def whole_daemon(count: int, wire: str, shards: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, logs = Path(folder), Path(folder) / "logs"
        streamgauge(home, "up", "--host", "local", "--shards", str(shards), "--no-limits", "--no-ticks", "--detach")
        try:
            streamgauge(home, "produce", "--count", str(count), "--rate", "1000000", "--format", wire, "--end-of-input")
            samples = run_host(home, logs)
        finally:
            streamgauge(home, "down")
        report(wire, shards, logs, samples)


def run_host(home: Path, logs: Path) -> list[tuple[float, float]]:
    """Run it to the end of the input; when Java had used how many seconds of CPU."""
    environment = {**os.environ, "STREAMGAUGE_HOME": str(home), "NO_COLOR": "1"}
    arguments = ["process", "--host", "kcl", "--until-end-of-input", "--logs", str(logs)]
    launcher = psutil.Popen(
        [sys.executable, "-m", "streamgauge.cli", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    samples = [(0.0, 0.0)]
    while launcher.poll() is None:
        for process in launcher.children():
            try:
                if "java" in process.name():
                    times = process.cpu_times()
                    samples.append((time.time(), times.user + times.system))
            except psutil.Error:
                continue
        time.sleep(0.05)
    if launcher.returncode:
        sys.exit((logs / "daemon.log").read_text()[-3000:])
    return samples


def report(wire: str, shards: int, logs: Path, samples: list[tuple[float, float]]) -> None:
    entries = [entry for line in (logs / "children.log").read_bytes().splitlines() if (entry := decode_entry(line))]
    told = [(entry.time_ms / 1000, entry.pid, entry.progress) for entry in entries if entry.progress is not None]
    first, last = {pid: each for _, pid, each in reversed(told)}, {pid: each for _, pid, each in told}
    records = sum(each.records for each in last.values())
    children_s = sum(each.cpu_s - first[pid].cpu_s for pid, each in last.items())
    begun = min(at for at, _, _ in told)
    # Afterwards children only say that nothing has come.
    ended = max(min(at for at, pid, each in told if (pid, each.records) == (of, last[of].records)) for of in last)
    java_s = java_at(samples, ended) - java_at(samples, begun)
    print(f"  {wire:5}  {records:,} user records over {shards} shards in {ended - begun:.1f} s", end="")
    print(f": {records / (ended - begun):,.0f}/s; per CPU second of Java {records / java_s:,.0f}", end="")
    print(f", of the children {records / children_s:,.0f}")


def java_at(samples: list[tuple[float, float]], at: float) -> float:
    return max(used for when, used in samples if when <= at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--no-daemon", action="store_true")
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    child_alone(asked.records, asked.rounds)
    if asked.profile:
        profile(asked.records)
    if not asked.no_daemon:
        print("the whole daemon:")
        for wire in ("plain", "kpl"):
            whole_daemon(asked.records, wire, asked.shards)


if __name__ == "__main__":
    main()
