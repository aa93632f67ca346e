"""How fast decoding and the removal of duplicates are by themselves, on one core: events a second.

python benchmarks/decode.py [--repeats N]

Each line is the best of N runs over one batch of weather events in the envelope of `streamgauge.events`, put one a
record (plain) or in aggregates of 200 (kpl). Beside decoding stand its two floors: msgspec alone, on the payloads
already unpacked, and for aggregates the MD5 that their format demands.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from hashlib import md5
from time import process_time

import msgspec
import numpy as np

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.decoders import data_struct
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.events.times import rfc3339
from streamgauge.processors.core.batch import EventBatch
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.dedupe import Deduper
from streamgauge.processors.core.parse import parse_pipeline

BATCH_SIZES = (500, 2_000, 10_000)
AGGREGATED = 200
ARRIVAL_MS = 1_700_000_000_000
SHARD = Shard("shardId-000000000000", FULL_RANGE)
SOURCE = "urn:streamgauge:0190b2c4-0000-7000-8000-000000000000:w16384"
PIPELINE = """
[pipeline]
name = "bench"
stream = "observations"
event_types = ["weather"]
out_of_orderness = "5s"
[[aggregate]]
name = "wind"
key = ["subject"]
window = { tumbling = "10s" }
measures = { n = "count()", top = "max(data.gust)", mean = "mean(data.speed)" }
"""
NUMBER = {"type": ["number", "null"]}
SCHEMA = {
    "type": "object",
    "properties": {"speed": {"type": "number"}, "gust": NUMBER, "temp": NUMBER},
    "required": ["speed"],
}


def payloads(count: int) -> tuple[list[bytes], list[str]]:
    chance = random.Random(7)
    keys = [f"station-{chance.randrange(10_000)}" for _ in range(count)]
    bodies = [
        json.dumps(
            {
                "specversion": "1.0",
                "id": str(number),
                "source": SOURCE,
                "type": "weather",
                "time": rfc3339(ARRIVAL_MS + number),
                "subject": key,
                "sequence": f"{number:020}",
                "data": {
                    "speed": round(chance.uniform(0, 40), 2),
                    "gust": None if number % 7 == 0 else round(chance.uniform(0, 60), 2),
                    "temp": round(chance.uniform(-20, 35), 1),
                },
            },
            separators=(",", ":"),
        ).encode()
        for number, key in enumerate(keys)
    ]
    return bodies, keys


def plain(bodies: list[bytes], keys: list[str]) -> list[StreamRecord]:
    return [
        StreamRecord(str(10**55 + number), key, ARRIVAL_MS, body)
        for number, (body, key) in enumerate(zip(bodies, keys, strict=True))
    ]


def kpl(bodies: list[bytes], keys: list[str]) -> list[StreamRecord]:
    records = []
    for first in range(0, len(bodies), AGGREGATED):
        builder = AggregateBuilder()
        for body, key in zip(bodies[first : first + AGGREGATED], keys[first : first + AGGREGATED], strict=True):
            builder.add(UserRecord(key, None, body))
        records.append(StreamRecord(str(10**55 + first), keys[first], ARRIVAL_MS, builder.encode()))
    return records


def rate(events: int, repeats: int, run: Callable[[], object]) -> str:
    best = float("inf")
    for _ in range(repeats):
        start = process_time()
        run()
        best = min(best, process_time() - start)
    return f"{events / best / 1e6:6.2f} M/s"


def dedupe(batch: EventBatch, deduper: Deduper) -> None:
    """Judge the batch as new events: its sequences move on."""
    batch.sequence = batch.sequence + len(batch)
    deduper.apply(batch, np.zeros(len(batch), dtype=np.int64))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=15)
    repeats = arguments.parse_args().repeats
    catalogue = Catalogue([EventSchema("weather", 1, SCHEMA)])
    decoder = MsgspecDecoder(parse_pipeline(PIPELINE, file="bench", schemas=catalogue), "arn:bench")
    data = data_struct(catalogue, "weather", ["gust", "speed"])
    floor = msgspec.json.Decoder(
        msgspec.defstruct("Floor", [("subject", str), ("time", str), ("data", data)], gc=False)
    )
    for count in BATCH_SIZES:
        bodies, keys = payloads(count)
        print(f"{count} events a batch, {sum(map(len, bodies)) / count:.0f} bytes each")
        print(f"  msgspec alone        {rate(count, repeats, lambda: list(map(floor.decode, bodies)))}")  # noqa: B023
        for name, records in (("plain", plain(bodies, keys)), ("kpl", kpl(bodies, keys))):
            batch = decoder.decode(records, SHARD, None).batch
            deduper = Deduper(16_384, 86_400_000, 3_600_000)
            print(f"  decode, {name:5}        {rate(count, repeats, lambda: decoder.decode(records, SHARD, None))}")  # noqa: B023
            print(f"  dedupe, {name:5}        {rate(count, repeats, lambda: dedupe(batch, deduper))}")  # noqa: B023
        packed = [record.data[4:-16] for record in records]
        print(f"  MD5 of the aggregates{rate(count, repeats, lambda: [md5(body).digest() for body in packed])}")  # noqa: B023


if __name__ == "__main__":
    main()
