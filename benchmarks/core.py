"""How fast the core is: from record bytes to panes, beside decoding alone, on one core.

The job: JSON events by a seeded generator, 10,000 skewed keys, 3 % duplicates within 5,000 records, disorder up to 5 s;
duplicates removed, 10-second tumbling windows per key with count, sum, min, max, one threshold. In two forms: events in
the CloudEvents envelope inside KPL aggregates, and flat records of about 215 bytes, one a Kinesis record, read through
``[event]``.

    python benchmarks/core.py [--events N] [--rounds N] [--form kpl|flat] [--profile] [--json]

Decoding alone and the whole engine run in processes of their own, in turns; the medians are compared. Input is read
from a file batch by batch, so the peak of memory is that of a processor. Every run's panes must have the hash of what
DuckDB computes from the same events.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import pstats
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.control import EndOfInput, control_event
from streamgauge.events.envelope import encode_event
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import PaneBatch
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.parse import parse_pipeline

KEYS = 10_000
PRODUCERS = 8
DISORDER_MS = 5_000
WINDOW_MS = 10_000
EVENTS_PER_SECOND = 10_000
DUPLICATES = 0.03
DUPLICATE_DISTANCE = 5_000
BATCH_EVENTS = 4_000
AGGREGATE_BYTES = 50_000
START_MS = 1_700_000_000_000
SHARD = Shard("shardId-000000000000", FULL_RANGE)
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/readings"
ROOT = Path(__file__).parents[1]

SCHEMA = {
    "type": "object",
    "properties": {
        "value": {"type": "number"},
        "unit": {"type": "string"},
        "battery": {"type": ["integer", "null"]},
        "firmware": {"type": "string"},
    },
    "required": ["value"],
}
FLAT_SCHEMA = {
    "type": "object",
    "properties": {
        **SCHEMA["properties"],  # type: ignore[dict-item]
        **{name: {"type": "string"} for name in ("id", "producer", "at", "station", "note")},
        "seq": {"type": "integer"},
    },
    "required": ["value"],
}
PIPELINE = """
[pipeline]
name = "benchmark"
stream = "readings"
event_types = ["reading"]
schemas = "schemas"
out_of_orderness = "5s"
state_epoch = 1

[[aggregate]]
name = "per_key"
key = ["subject"]
window = { tumbling = "10s" }
measures = { n = "count()", total = "sum(data.value)", low = "min(data.value)", high = "max(data.value)" }

[[threshold]]
name = "high"
aggregate = "per_key"
raise_when = "high > 99"
clear_when = "high < 90"
"""
MAPPING = """
[event]
id = "id"
time = "at"
type = "'reading'"
key = "station"
"""


class Input(NamedTuple):
    """Events in stream order: n of them, duplicates included, which follow their first copy."""

    key: np.ndarray
    time_ms: np.ndarray
    value: np.ndarray
    origin: np.ndarray
    """The place among the distinct events."""


def generate(events: int, seed: int) -> Input:
    random = np.random.default_rng(seed)
    keys = np.minimum(random.zipf(1.2, events), 50 * KEYS) % KEYS
    arrival = np.arange(events) * 1000 // EVENTS_PER_SECOND
    time_ms = START_MS + DISORDER_MS + arrival - random.integers(0, DISORDER_MS, events)
    # Eighths, so that a sum is exact in whatever order it is computed.
    value = random.integers(0, 8 * 100, events) / 8
    origin = np.arange(events)
    again = np.flatnonzero(random.random(events) < DUPLICATES)
    places = np.concatenate([origin, again + random.integers(1, DUPLICATE_DISTANCE, len(again)) + 0.5])
    origin = np.concatenate([origin, again])[np.argsort(places, kind="stable")]
    return Input(keys[origin], time_ms[origin], value[origin], origin)


def payloads(data: Input, form: str) -> Iterator[tuple[str, bytes]]:
    sources = [f"urn:streamgauge:{uuid.UUID(int=n, version=4)}:w16384" for n in range(PRODUCERS)]
    times = np.datetime_as_string(data.time_ms.astype("datetime64[ms]"), unit="ms").tolist()
    rows = zip(data.key.tolist(), times, data.value.tolist(), data.origin.tolist(), strict=True)
    for key, at, value, origin in rows:
        producer, sequence = origin % PRODUCERS, origin // PRODUCERS
        station = f"station-{key:05}"
        if form == "flat":
            yield (
                station,
                (
                    f'{{"id":"{producer}-{sequence}","producer":"producer-{producer}","seq":{sequence},"at":"{at}Z",'
                    f'"station":"{station}","value":{value},"unit":"celsius","battery":87,"firmware":"v2.14.3-rc1",'
                    f'"note":"routine hourly reading"}}'
                ).encode(),
            )
        else:
            yield (
                station,
                (
                    f'{{"specversion":"1.0","id":"{sequence}","source":"{sources[producer]}","type":"reading",'
                    f'"time":"{at}Z","subject":"{station}","sequence":"{sequence:020}",'
                    f'"data":{{"value":{value},"unit":"celsius","battery":87,"firmware":"v2.14.3-rc1"}}}}'
                ).encode(),
            )


_HEAD = struct.Struct("<QIQI")


def write_input(path: Path, data: Input, form: str) -> int:
    """Batches of records, each ended by an empty one; returns the bytes of all payloads."""
    size = 0
    numbers = itertools.count(10**15)
    arrivals = (data.time_ms.max(), START_MS)
    with path.open("wb") as out:

        def put(key: str, body: bytes) -> None:
            out.write(_HEAD.pack(next(numbers), len(key), int(arrivals[0]), len(body)) + key.encode() + body)

        builder, pending = AggregateBuilder(), 0
        for key, payload in payloads(data, form):
            size += len(payload)
            pending += 1
            if form == "flat":
                put(key, payload)
            else:
                record = UserRecord(key, None, payload)
                if builder.count and builder.size_after(record) > AGGREGATE_BYTES:
                    put(builder.partition_key, builder.encode())
                    builder = AggregateBuilder()
                builder.add(record)
            if pending == BATCH_EVENTS:
                if builder.count:
                    put(builder.partition_key, builder.encode())
                    builder = AggregateBuilder()
                out.write(_HEAD.pack(0, 0, 0, 0))
                pending = 0
        if builder.count:
            put(builder.partition_key, builder.encode())
        end = control_event("benchmark", EndOfInput("all", 0, 1), id="end", time_ms=START_MS)
        put("end", encode_event(end))
        out.write(_HEAD.pack(0, 0, 0, 0))
    return size


def read_batches(path: Path) -> Iterator[list[StreamRecord]]:
    with path.open("rb") as source:
        batch: list[StreamRecord] = []
        while head := source.read(_HEAD.size):
            number, key_bytes, arrival, body_bytes = _HEAD.unpack(head)
            if not number:
                yield batch
                batch = []
                continue
            key = source.read(key_bytes).decode()
            batch.append(StreamRecord(str(number), key, arrival, source.read(body_bytes)))


def pipeline_of(form: str) -> Pipeline:
    schema = FLAT_SCHEMA if form == "flat" else SCHEMA
    text = PIPELINE + (MAPPING if form == "flat" else "")
    return parse_pipeline(text, file="benchmark.toml", schemas=Catalogue([EventSchema("reading", 1, schema)]))


def pane_lines(panes: PaneBatch) -> list[str]:
    columns = [panes.measures[name].values.tolist() for name in ("n", "total", "low", "high")]
    rows = zip(panes.keys, panes.window_start_ms.tolist(), *columns, strict=True)
    return [f"{key[0]} {start} {n} {total} {low} {high}" for key, start, n, total, low, high in rows]


def hash_of(lines: list[str]) -> str:
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()


def run_decode(path: Path, form: str) -> dict[str, object]:
    decoder = MsgspecDecoder(pipeline_of(form), ARN)
    events, after = 0, None
    for batch in read_batches(path):
        decoded = decoder.decode(batch, SHARD, after)
        events += len(decoded.batch)
    return {"events": events}


def run_engine(path: Path, form: str) -> dict[str, object]:
    pipeline = pipeline_of(form)
    engine = Engine(pipeline, SHARD, MsgspecDecoder(pipeline, ARN))
    panes: list[PaneBatch] = []
    crossings = 0
    for batch in read_batches(path):
        effects = engine.apply(batch)
        panes += effects.panes
        crossings += len(effects.threshold_events)
        assert not effects.late and not effects.failed
    counters = engine.counters
    duplicates = counters.duplicate_in_window + counters.duplicate_below_window + counters.duplicate_foreign
    return {
        "events": counters.accepted + duplicates,
        "accepted": counters.accepted,
        "threshold_events": crossings,
        "panes": panes,
    }


RUNS = {"decode": run_decode, "engine": run_engine}


def measure(run: str, path: Path, form: str) -> dict[str, object]:
    """One run in this process. Time spent on reading the file is part of it, for both alike."""
    begin, cpu = time.perf_counter(), time.process_time()
    result = RUNS[run](path, form)
    result |= {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
    result["peak_mb"] = peak_mb()
    panes = result.pop("panes", None)
    if isinstance(panes, list):
        lines = [line for batch in panes for line in pane_lines(batch)]
        result |= {"hash": hash_of(lines), "panes": len(lines)}
    return result


def peak_mb() -> float:
    """Of this process alone: ru_maxrss is inherited from the parent, even through exec."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def expected_hash(data: Input, folder: Path) -> str:
    # Here, so that the processes that are measured do not load them.
    import duckdb  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    _, first = np.unique(data.origin, return_index=True)
    table = pa.table({"key": data.key[first], "time_ms": data.time_ms[first], "value": data.value[first]})
    pq.write_table(table, folder / "events.parquet")
    query = f"""
        select format('station-{{:05d}}', key), time_ms - time_ms % {WINDOW_MS} as start,
               count(*), sum(value), min(value), max(value)
        from read_parquet('{folder / "events.parquet"}') group by 1, 2
    """
    rows = duckdb.sql(query).fetchall()
    return hash_of([f"{key} {start} {n} {total} {low} {high}" for key, start, n, total, low, high in rows])


def benchmark(form: str, events: int, rounds: int, seed: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "input"
        data = generate(events, seed)
        size = write_input(path, data, form)
        expected = expected_hash(data, folder)
        results: dict[str, list[dict[str, float]]] = {run: [] for run in RUNS}
        for _ in range(rounds):
            for run in RUNS:
                command = [sys.executable, __file__, "--run", run, "--input", str(path), "--form", form]
                out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
                results[run].append(json.loads(out))
        for result in results["engine"]:
            assert result["hash"] == expected, "the panes are not those that DuckDB computes"
    medians = {run: statistics.median(r["cpu_seconds"] for r in results[run]) for run in RUNS}
    n = len(data.key)
    return {
        "form": form,
        "events": n,
        "bytes_per_event": round(size / n),
        **{
            f"{run}_events_per_second": round(n / statistics.median(r["seconds"] for r in results[run])) for run in RUNS
        },
        **{f"{run}_cpu_seconds": round(medians[run], 3) for run in RUNS},
        **{f"{run}_peak_mb": round(max(r["peak_mb"] for r in results[run])) for run in RUNS},
        "ratio": round(medians["decode"] / medians["engine"], 3),
        "panes": results["engine"][0]["panes"],
        "threshold_events": results["engine"][0]["threshold_events"],
        "hash": expected[:16],
    }


def profile(form: str, events: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "input"
        write_input(path, generate(events, seed), form)
        run_engine(path, form)
        profiler = cProfile.Profile()
        profiler.enable()
        run_engine(path, form)
        profiler.disable()
    stats = pstats.Stats(profiler, stream=sys.stdout)
    stats.sort_stats("tottime").print_stats(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--form", choices=["kpl", "flat"])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", choices=list(RUNS), help=argparse.SUPPRESS)
    parser.add_argument("--input", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(measure(arguments.run, arguments.input, arguments.form)))
        return
    forms = [arguments.form] if arguments.form else ["kpl", "flat"]
    for form in forms:
        if arguments.profile:
            profile(form, arguments.events, arguments.seed)
            continue
        result = benchmark(form, arguments.events, arguments.rounds, arguments.seed)
        if arguments.json:
            print(json.dumps(result))
        else:
            print("\n".join(f"{name:>28}  {value}" for name, value in result.items()), end="\n\n")


if __name__ == "__main__":
    main()
