"""What a shard's state costs: many keys, each with a few open windows, saved and read back on one core.

    python benchmarks/state.py [--keys N] [--windows N] [--rounds N] [--json]

Events of eight producers fall into every window of every key, at random values; nothing closes. Then, the least CPU
time of some rounds: `save` is gathering the columns from the engine and encoding the session's snapshot, as each commit
does; `restore` is decoding it and building the engine, as each claim does. What was restored must give the same bytes
again.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable

from core import ARN, PIPELINE, PRODUCERS, SCHEMA, SHARD, START_MS, WINDOW_MS

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.events.records import StreamRecord
from streamgauge.events.times import rfc3339
from streamgauge.processors.commit.snapshots import Snapshot, decode_snapshot, encode_snapshot
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import Outbox
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.parse import parse_pipeline

LIMIT_S = 0.5
_AGGREGATE_EVENTS = 200
_BATCH_RECORDS = 20


def pipeline_of(windows: int) -> Pipeline:
    """So patient that none of the windows closes."""
    text = PIPELINE.replace('out_of_orderness = "5s"', f'out_of_orderness = "{windows * WINDOW_MS // 1000}s"')
    return parse_pipeline(text, file="state.py", schemas=Catalogue([EventSchema("reading", 1, SCHEMA)]))


def fill(engine: Engine, keys: int, windows: int) -> None:
    """One event in each window of each key, then as many again anywhere, so that no column compresses to nothing."""
    rng = random.Random(1)
    names = [f"{rng.getrandbits(48):012x}" for _ in range(keys)]
    places = [*range(keys * windows), *(rng.randrange(keys * windows) for _ in range(keys * windows))]
    builder, records, number = AggregateBuilder(), [], 10**15
    for event, place in enumerate(places):
        producer, sequence = event % PRODUCERS, event // PRODUCERS
        key = names[place % keys]
        payload = (
            f'{{"specversion":"1.0","id":"{sequence}","source":"urn:streamgauge:00000000-0000-4000-8000-00000000000'
            f'{producer}:w16384","type":"reading","time":"{rfc3339(START_MS + place // keys * WINDOW_MS)}",'
            f'"subject":"{key}","sequence":"{sequence:020}",'
            f'"data":{{"value":{rng.uniform(-20, 45):.2f},"unit":"celsius"}}}}'
        ).encode()
        builder.add(UserRecord(key, None, payload))
        if builder.count == _AGGREGATE_EVENTS or event == len(places) - 1:
            records.append(StreamRecord(str(number), builder.partition_key, START_MS, builder.encode()))
            builder, number = AggregateBuilder(), number + 1
        if len(records) == _BATCH_RECORDS:
            engine.apply(records)
            records = []
    engine.apply(records)


def least_s(rounds: int, work: Callable[[], object]) -> float:
    """The least CPU time of several rounds: what disturbs them only adds."""
    found = []
    for _ in range(rounds):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    pipeline = pipeline_of(arguments.windows)
    engine = Engine(pipeline, SHARD, MsgspecDecoder(pipeline, ARN))
    fill(engine, arguments.keys, arguments.windows)
    panes = sum(map(len, engine.open_panes()))
    assert panes == arguments.keys * arguments.windows, f"{panes} panes are open"

    def save(engine: Engine = engine) -> bytes:
        return encode_snapshot(Snapshot(engine.snapshot(), Outbox()))

    def restore() -> Engine:
        return Engine.restore(pipeline, SHARD, MsgspecDecoder(pipeline, ARN), decode_snapshot(body).engine)

    body = save()
    assert save(restore()) == body, "what was restored is not what was saved"
    save_s, restore_s = least_s(arguments.rounds, save), least_s(arguments.rounds, restore)
    if arguments.json:
        print(json.dumps({"open_panes": panes, "bytes": len(body), "save_s": save_s, "restore_s": restore_s}))
        return
    print(f"{arguments.keys:,} keys with {arguments.windows} open windows each: {panes:,} panes")
    print(f"snapshot  {len(body):>12,} bytes  {len(body) / panes:.1f} a pane")
    for name, seconds in (("save", save_s), ("restore", restore_s)):
        print(f"{name:8}  {seconds:>12.3f} CPU s  (limit {LIMIT_S} s)")


if __name__ == "__main__":
    main()
