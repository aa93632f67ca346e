"""What measures cost per event, and what many keys cost, on one core.

    python benchmarks/measures.py [--events N] [--keys N] [--rounds N] [--most-keys N] [--picture FILE] [--json]

Decoded batches of 4,000 events go through an engine with one aggregate: removal of duplicates, watermark, panes, their
closing. Each measure runs by itself, in turns, and its median cost per event is given as a ratio to count, sum, min and
max together, in the same run; besides, the bytes that a pane of it holds at the end of a window of 20 events.

Then keys are many, from 10 to a million, with 4 events each in a window whatever their number: the cost per event is
drawn, from record bytes to panes, and without decoding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _picture import Line, write_picture
from core import ARN, SHARD

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.batch import Decoded, EventBatch, FieldColumn
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.parse import parse_pipeline

BATCH_EVENTS = 4_000
PRODUCERS = 8
START_MS = 1_700_000_000_000
EVENTS_PER_PANE = 20
EVENTS_PER_PANE_OF_MANY = 4
BASE = "count, sum, min, max"
MEASURES = {
    BASE: {"n": "count()", "total": "sum(data.value)", "low": "min(data.value)", "high": "max(data.value)"},
    "mean": {"m": "mean(data.value)"},
    "variance": {"m": "variance(data.value)"},
    "first": {"m": "first(data.value)"},
    "last": {"m": "last(data.value)"},
    "approx_distinct of numbers": {"m": "approx_distinct(data.value)"},
    "approx_distinct of strings": {"m": "approx_distinct(data.user)"},
    "quantile": {"m": "quantile(data.value, 0.99)"},
}
SCHEMA = {
    "type": "object",
    "properties": {"value": {"type": "number"}, "user": {"type": "string"}},
    "required": ["value", "user"],
}
PIPELINE = """
[pipeline]
name = "benchmark"
stream = "readings"
event_types = ["reading"]
out_of_orderness = "0s"

[[aggregate]]
name = "per_key"
key = ["subject"]
window = {{ tumbling = "{window_ms}ms" }}
measures = {{ {measures} }}
"""


class Load(NamedTuple):
    """`events` of `keys` keys, a millisecond each, in windows of `window_ms`."""

    events: int
    keys: int
    window_ms: int


class Cost(NamedTuple):
    """Nanoseconds per event, panes that were closed, and bytes per pane of a snapshot before compression."""

    ns_per_event: float
    panes: int
    bytes_per_pane: float


class Prepared:
    """A decoder whose batches are made beforehand: `batch` is what the next call gives."""

    def __init__(self, batch: EventBatch) -> None:
        self.batch = batch

    def decode(self, records: Sequence[StreamRecord], shard: Shard, after: Position | None) -> Decoded:  # noqa: ARG002
        return Decoded(
            sequence_numbers=[int(record.sequence_number) for record in records],
            arrival_ms=np.array([record.arrival_ms for record in records], dtype=np.int64),
            last_sub_sequence=len(self.batch) - 1,
            batch=self.batch,
            controls=[],
            failed=[],
            positions=len(self.batch),
            ledger=0,
            misrouted=0,
            redelivered=0,
        )


def pipeline_of(measures: dict[str, str], window_ms: int) -> Pipeline:
    text = ", ".join(f'{name} = "{call}"' for name, call in measures.items())
    catalogue = Catalogue([EventSchema("reading", 1, SCHEMA)])
    return parse_pipeline(PIPELINE.format(window_ms=window_ms, measures=text), file="p.toml", schemas=catalogue)


def batches(load: Load, seed: int) -> Iterator[EventBatch]:
    random = np.random.default_rng(seed)
    keys = [f"station-{number:07}" for number in range(load.keys)]
    users = [f"user-{number:05}" for number in range(10_000)]
    for first in range(0, load.events, BATCH_EVENTS):
        n = min(BATCH_EVENTS, load.events - first)
        number = np.arange(first, first + n)
        there = np.ones(n, dtype=np.bool_)
        subjects = [keys[key] for key in random.integers(0, load.keys, n).tolist()]
        fields = {
            "subject": FieldColumn(subjects, there),
            "data.value": FieldColumn(random.lognormal(3.0, 1.0, n), there),
            "data.user": FieldColumn([users[user] for user in random.integers(0, len(users), n).tolist()], there),
        }
        yield EventBatch(
            record=np.zeros(n, dtype=np.int64),
            sub_sequence=np.arange(n),
            time_ms=START_MS + number,
            source=number % PRODUCERS,
            sources=[f"urn:streamgauge:00000000-0000-4000-8000-00000000000{source}:w16384" for source in range(8)],
            source_windows=[16_384] * PRODUCERS,
            sequence=number // PRODUCERS,
            ids=[],
            partition_keys=subjects,
            outcome=np.zeros(n, dtype=np.uint8),
            failures={},
            fields=fields,
            payloads=[b""] * n,
        )


def run(measures: dict[str, str], load: Load, seed: int) -> Cost:
    """Feed an engine; only its own time counts."""
    pipeline = pipeline_of(measures, load.window_ms)
    spent, panes = 0.0, 0
    engine: Engine | None = None
    bytes_per_pane = 0.0
    for number, batch in enumerate(batches(load, seed)):
        decoder = Prepared(batch)
        if engine is None:
            engine = Engine(pipeline, SHARD, decoder)
        engine._decoder = decoder
        record = StreamRecord(str(10**20 + number), "k", int(batch.time_ms[-1]), b"")
        begun = time.process_time()
        effects = engine.apply([record])
        spent += time.process_time() - begun
        panes += sum(map(len, effects.panes))
        if number * BATCH_EVENTS % load.window_ms > 0.9 * load.window_ms and not bytes_per_pane:
            bytes_per_pane = saved_bytes(engine)
    assert engine is not None
    return Cost(1e9 * spent / load.events, panes, bytes_per_pane or saved_bytes(engine))


def saved_bytes(engine: Engine) -> float:
    """Bytes per pane, but for the pane's key."""
    prefix = "aggregate.per_key."
    columns = {name: column for name, column in engine.snapshot().items() if name.startswith(prefix)}
    size = sum(column.nbytes for column in columns.values() if isinstance(column, np.ndarray))
    return size / max(len(columns[f"{prefix}pane.start"]), 1)


def compare(load: Load, rounds: int) -> dict[str, dict[str, float]]:
    costs: dict[str, list[Cost]] = {name: [] for name in MEASURES}
    # What is made once, such as tables of constants, is nobody's cost.
    for measures in MEASURES.values():
        run(measures, Load(BATCH_EVENTS, 10, 100), seed=0)
    for number in range(rounds):
        for name, measures in MEASURES.items():
            costs[name].append(run(measures, load, seed=number))
    medians = {name: statistics.median(cost.ns_per_event for cost in each) for name, each in costs.items()}
    return {
        name: {
            "ns_per_event": round(median, 1),
            "ratio": round(median / medians[BASE], 2),
            "bytes_per_pane": round(costs[name][0].bytes_per_pane),
        }
        for name, median in medians.items()
    }


def records_of(batch: EventBatch, first: int) -> list[StreamRecord]:
    """The events of a batch as plain records of JSON."""
    values = batch.fields["data.value"].values
    assert isinstance(values, np.ndarray)
    times = np.datetime_as_string(batch.time_ms.astype("datetime64[ms]"), unit="ms").tolist()
    rows = zip(
        batch.partition_keys, times, values.tolist(), batch.source.tolist(), batch.sequence.tolist(), strict=True
    )
    return [
        StreamRecord(
            str(10**20 + first + place),
            key,
            START_MS + first + place,
            (
                f'{{"specversion":"1.0","id":"{sequence}","source":"{batch.sources[source]}","type":"reading",'
                f'"time":"{at}Z","subject":"{key}","sequence":"{sequence:020}",'
                f'"data":{{"value":{value},"user":"nobody","unit":"celsius","battery":87}}}}'
            ).encode(),
        )
        for place, (key, at, value, source, sequence) in enumerate(rows)
    ]


def run_from_bytes(measures: dict[str, str], load: Load, seed: int) -> float:
    """Nanoseconds per event, decoding included."""
    pipeline = pipeline_of(measures, load.window_ms)
    engine = Engine(pipeline, SHARD, MsgspecDecoder(pipeline, ARN))
    spent = 0.0
    for number, batch in enumerate(batches(load, seed)):
        records = records_of(batch, number * BATCH_EVENTS)
        begun = time.process_time()
        engine.apply(records)
        spent += time.process_time() - begun
    assert engine.counters.accepted == load.events
    return 1e9 * spent / load.events


def by_keys(most: int, rounds: int) -> dict[str, dict[int, float]]:
    """Nanoseconds per event by the number of keys, with the same number of events in a pane."""
    runs: dict[str, Callable[[Load, int], float]] = {
        f"{BASE}, from bytes": lambda load, seed: run_from_bytes(MEASURES[BASE], load, seed)
    }
    for name in (BASE, "variance", "approx_distinct of strings", "quantile"):
        runs[name] = lambda load, seed, name=name: run(MEASURES[name], load, seed).ns_per_event
    found: dict[str, dict[int, float]] = {name: {} for name in runs}
    keys = 10
    while keys <= most:
        window_ms = EVENTS_PER_PANE_OF_MANY * keys
        # One window at least, and enough batches to measure.
        load = Load(max(window_ms + 1, 200_000), keys, window_ms)
        for name, cost in runs.items():
            found[name][keys] = round(statistics.median(cost(load, number) for number in range(rounds)), 1)
        keys *= 10
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most-keys", type=int, default=1_000_000)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    load = Load(arguments.events, arguments.keys, EVENTS_PER_PANE * arguments.keys)
    costs = compare(load, arguments.rounds)
    keys = by_keys(arguments.most_keys, max(1, arguments.rounds // 2))
    spread = {name: round(max(each.values()) / min(each.values()), 2) for name, each in keys.items()}
    if arguments.picture:
        lines = [Line(name, list(each.items())) for name, each in keys.items()]
        write_picture(
            arguments.picture,
            lines,
            title="Cost of an event by the number of keys",
            x="keys",
            y="nanoseconds per event",
        )
    if arguments.json:
        print(json.dumps({"measures": costs, "by_keys": keys, "spread": spread}))
        return
    for name, cost in costs.items():
        print(
            f"{name:28} {cost['ns_per_event']:8.1f} ns/event  x{cost['ratio']:<6} {cost['bytes_per_pane']:6} bytes/pane"
        )
    for name, each in keys.items():
        text = "  ".join(f"{count:,}: {ns:.0f}" for count, ns in each.items())
        print(f"{name:28} ns/event by keys  {text}  (x{spread[name]})")


if __name__ == "__main__":
    main()
