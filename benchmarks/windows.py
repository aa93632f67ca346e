"""What a window costs: CPU per event of each kind beside tumbling windows, and of tumbling ones by the number of keys.

Events are columns already, so decoding is not in it: what is timed is `Engine.apply` (duplicates, watermark, panes),
for count, sum, min and max of an integer. All kinds run in one process, in turns; medians of CPU time are compared.
Keys are uniform, times in order with a disorder of up to 5 s.

    python benchmarks/windows.py [--events N] [--rounds N] [--keys N,N,...] [--svg FILE] [--json]

``--svg`` draws the cost by the number of keys.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.batch import Decoded, EventBatch, FieldColumn
from streamgauge.processors.core.definition import HoppingWindow, Pipeline, SessionWindow, TumblingWindow, Window
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.parse import parse_pipeline

SOURCE = "urn:streamgauge:00000000-0000-4000-8000-000000000000:w1048576"
SHARD = Shard("shardId-000000000000", FULL_RANGE)
BATCH_EVENTS = 10_000
EVENTS_PER_SECOND = 10_000
START_MS = 1_700_000_000_000
DISORDER_MS = 5_000
WINDOWS: dict[str, Window] = {
    "tumbling": TumblingWindow(60_000),
    "hopping, 12 windows an event": HoppingWindow(60_000, 5_000),
    "session": SessionWindow(10_000, 86_400_000),
}
TEXT = """
[pipeline]
name = "bench"
stream = "s"
event_types = ["t"]
schemas = "schemas"
out_of_orderness = "5s"
future_bound = "30000d"
max_w = 1048576

[[aggregate]]
name = "a"
key = ["subject"]
window = { tumbling = "1m" }
measures = { n = "count()", total = "sum(data.i)", low = "min(data.i)", high = "max(data.i)" }
"""


class Columns:
    """A decoder of events that are columns already: a record is the number of its batch."""

    def __init__(self, events: int, keys: int) -> None:
        chance = np.random.default_rng(7)
        self._times = (
            START_MS + np.arange(events) * 1_000 // EVENTS_PER_SECOND - chance.integers(0, DISORDER_MS, events)
        )
        names = [f"key-{number:07d}" for number in range(keys)]
        self._keys = [names[number] for number in chance.integers(0, keys, events).tolist()]
        self._values = chance.integers(-1_000, 1_000, events)

    def decode(self, records: Sequence[StreamRecord], shard: Shard, after: Position | None) -> Decoded:  # noqa: ARG002
        (record,) = records
        first = int(record.sequence_number) * BATCH_EVENTS
        part = slice(first, first + BATCH_EVENTS)
        keys = self._keys[part]
        n = len(keys)
        everywhere = np.ones(n, dtype=np.bool_)
        batch = EventBatch(
            record=np.zeros(n, dtype=np.int64),
            sub_sequence=np.arange(n, dtype=np.int64),
            time_ms=self._times[part],
            source=np.zeros(n, dtype=np.int64),
            sources=[SOURCE],
            source_windows=[1_048_576],
            sequence=np.arange(first, first + n, dtype=np.int64),
            ids=[""] * n,
            partition_keys=keys,
            outcome=np.zeros(n, dtype=np.uint8),
            failures={},
            fields={"subject": FieldColumn(keys, everywhere), "data.i": FieldColumn(self._values[part], everywhere)},
            payloads=[b""] * n,
        )
        return Decoded([first], np.full(1, record.arrival_ms), n - 1, batch, [], [], n, 0, 0, 0)


def pipeline(window: Window) -> Pipeline:
    schema = {"type": "object", "properties": {"i": {"type": "integer"}}, "required": ["i"]}
    parsed = parse_pipeline(TEXT, file="bench.toml", schemas=Catalogue([EventSchema("t", 1, schema)]))
    return replace(parsed, aggregates=(replace(parsed.aggregates[0], window=window),))


def cost_us(window: Window, decoder: Columns, events: int) -> tuple[float, int]:
    """CPU microseconds per event, and how many panes were emitted."""
    engine, panes = Engine(pipeline(window), SHARD, decoder), 0
    began = time.process_time()
    for number in range(events // BATCH_EVENTS):
        effects = engine.apply([StreamRecord(str(number), "k", START_MS, b"")])
        panes += sum(map(len, effects.panes))
    return (time.process_time() - began) / events * 1e6, panes


def by_kind(events: int, rounds: int, keys: int) -> dict[str, tuple[float, int]]:
    decoder = Columns(events, keys)
    costs: dict[str, list[float]] = {name: [] for name in WINDOWS}
    panes: dict[str, int] = {}
    for _ in range(rounds):
        for name, window in WINDOWS.items():
            cost, panes[name] = cost_us(window, decoder, events)
            costs[name].append(cost)
    return {name: (statistics.median(each), panes[name]) for name, each in costs.items()}


def by_keys(events: int, rounds: int, keys: Sequence[int]) -> dict[int, float]:
    decoders = {count: Columns(events, count) for count in keys}
    costs: dict[int, list[float]] = {count: [] for count in keys}
    for _ in range(rounds):
        for count, decoder in decoders.items():
            costs[count].append(cost_us(WINDOWS["tumbling"], decoder, events)[0])
    return {count: statistics.median(each) for count, each in costs.items()}


def picture(costs: dict[int, float]) -> str:
    """Microseconds per event by the number of keys, as SVG."""
    width, height, left, top = 640, 320, 60, 20
    most = max(costs.values()) * 1.1
    counts = list(costs)
    places = [left + place * (width - left - 20) / max(1, len(counts) - 1) for place in range(len(counts))]
    heights = [top + (height - 60) * (1 - cost / most) for cost in costs.values()]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(places, heights, strict=True))
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
        f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle">{cost:.2f}</text>'
        f'<text x="{x:.1f}" y="{height - 20}" text-anchor="middle">{count:,}</text>'
        for x, y, (count, cost) in zip(places, heights, costs.items(), strict=True)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<polyline points="{points}" fill="none" stroke="black"/>{marks}'
        f'<text x="{left}" y="14">CPU microseconds per event, tumbling count/sum/min/max, by the number of keys</text>'
        "</svg>\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", default="10,100,1000,10000,100000,1000000")
    parser.add_argument("--kind-keys", type=int, default=1_000, help="keys of the comparison of kinds")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    kinds = by_kind(arguments.events, arguments.rounds, arguments.kind_keys)
    keys = by_keys(arguments.events, arguments.rounds, [int(count) for count in arguments.keys.split(",")])
    base = kinds["tumbling"][0]
    if arguments.svg:
        arguments.svg.write_text(picture(keys), encoding="utf-8")
    if arguments.json:
        ratios = {name: {"us": cost, "ratio": cost / base, "panes": panes} for name, (cost, panes) in kinds.items()}
        print(json.dumps({"kinds": ratios, "keys": keys}))
        return 0
    print(f"{arguments.events:,} events, {arguments.kind_keys:,} keys")
    for name, (cost, panes) in kinds.items():
        print(f"{name:32} {cost:6.3f} us an event   {cost / base:5.2f} x tumbling   {panes:,} panes")
    for count, cost in keys.items():
        print(f"{count:>9,} keys {cost:6.3f} us an event   {cost / min(keys.values()):5.2f} x the least")
    return 0


if __name__ == "__main__":
    sys.exit(main())
