"""A processor's memory over a long stream: ten million events through one engine, in ever new batches.

    python benchmarks/memory.py [--events N] [--batch N] [--keys N]

Events of eight producers over a fixed set of keys move through event time; every twentieth batch is followed by a
snapshot, as a commit would take it. The resident memory is printed as the stream grows: it must not grow with it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from core import ARN, PRODUCERS, SHARD, START_MS, pipeline_of

from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.events.records import StreamRecord
from streamgauge.events.times import rfc3339
from streamgauge.processors.core.container import encode_columns
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.engine import Engine

_AGGREGATE_EVENTS = 200
_SNAPSHOT_EVERY = 20
_MS_PER_EVENT = 0.1


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def batch_of(first: int, count: int, keys: int, number: int) -> tuple[list[StreamRecord], int]:
    """Records that hold the events `first` and following, and the next record's number."""
    records: list[StreamRecord] = []
    builder = AggregateBuilder()
    for event in range(first, first + count):
        producer, sequence = event % PRODUCERS, event // PRODUCERS
        at = rfc3339(START_MS + int(event * _MS_PER_EVENT))
        key = f"station-{event * 7919 % keys:05}"
        payload = (
            f'{{"specversion":"1.0","id":"{sequence}","source":"urn:streamgauge:00000000-0000-4000-8000-00000000000'
            f'{producer}:w16384","type":"reading","time":"{at}","subject":"{key}","sequence":"{sequence:020}",'
            f'"data":{{"value":{event % 800 / 8},"unit":"celsius"}}}}'
        ).encode()
        builder.add(UserRecord(key, None, payload))
        if builder.count == _AGGREGATE_EVENTS or event == first + count - 1:
            arrival = START_MS + int(event * _MS_PER_EVENT)
            records.append(StreamRecord(str(number), builder.partition_key, arrival, builder.encode()))
            number += 1
            builder = AggregateBuilder()
    return records, number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--keys", type=int, default=10_000)
    arguments = parser.parse_args()
    pipeline = pipeline_of("kpl")
    engine = Engine(pipeline, SHARD, MsgspecDecoder(pipeline, ARN))
    number, panes, snapshot_bytes = 10**15, 0, 0
    measured: list[float] = []
    begin = time.perf_counter()
    for turn, first in enumerate(range(0, arguments.events, arguments.batch)):
        records, number = batch_of(first, min(arguments.batch, arguments.events - first), arguments.keys, number)
        panes += sum(len(batch) for batch in engine.apply(records).panes)
        if turn % _SNAPSHOT_EVERY == _SNAPSHOT_EVERY - 1:
            snapshot_bytes = len(encode_columns(engine.snapshot()))
        done = first + arguments.batch
        if done % (arguments.events // 10) < arguments.batch:
            measured.append(resident_mb())
            print(
                f"{done:>12,} events  {panes:>10,} panes  {measured[-1]:7.1f} MB resident  "
                f"snapshot {snapshot_bytes / 1e6:5.2f} MB  {time.perf_counter() - begin:6.0f} s",
                flush=True,
            )
    assert engine.counters.accepted == arguments.events
    print(f"grew by {measured[-1] - measured[1]:.1f} MB from the second tenth of the stream to its end")


if __name__ == "__main__":
    main()
