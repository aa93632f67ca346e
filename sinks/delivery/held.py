"""Records that wait for their range: where it ends, what it comes to, and which inputs end in it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from streamgauge.events.records import StreamRecord
from streamgauge.sinks.archive import layout
from streamgauge.sinks.archive.ranges import RangeObject
from streamgauge.sinks.delivery.parquet import encode_parquet
from streamgauge.sinks.delivery.rows import Row
from streamgauge.sinks.delivery.settings import DeliverySettings

__all__ = ["Held", "Inputs", "encode_held", "full_range"]

_HOUR_MS = 3_600_000


class Held(NamedTuple):
    """A record that was read, and its rows."""

    record: StreamRecord
    rows: list[Row]


class Inputs(NamedTuple):
    """Which parts of which inputs have ended in the shard, and whether the shard ends with an ended input."""

    parts: Mapping[str, tuple[int, ...]]
    ended: bool

    def after(self, held: Sequence[Held]) -> Inputs:
        """As they are behind these records."""
        parts, ended = dict(self.parts), self.ended
        for row in (row for entry in held for row in entry.rows):
            end = row.end_of_input
            if end is None:
                ended = ended and row.table in (layout.CONTROL, layout.LEDGER)
                continue
            name = f"{end.parts}:{end.input}"
            seen = {*parts.pop(name, ()), end.part}
            if len(seen) == end.parts:
                ended = True
            else:
                parts[name] = tuple(sorted(seen))
        return Inputs(parts, ended)


def full_range(held: Sequence[Held], settings: DeliverySettings) -> int:
    """How many of the records fill a range, by rows, bytes or hour; 0 if they do not."""
    rows = size = 0
    hour: int | None = None
    for index, (record, record_rows) in enumerate(held):
        arrival_hour = record.arrival_ms // _HOUR_MS
        if hour is not None and arrival_hour > hour:
            return index
        hour = arrival_hour if hour is None else hour
        rows += len(record_rows)
        size += len(record.data)
        if rows >= settings.max_rows or size >= settings.max_bytes:
            return index + 1
    return 0


def encode_held(
    shard_id: str, held: Sequence[Held], schemas: Mapping[str, pa.Schema]
) -> tuple[dict[str, bytes], tuple[RangeObject, ...]]:
    """The objects that a range comes to: their bytes by name, and what is written down of them."""
    if not held:
        return {}, ()
    stem = f"{shard_id}-{held[0].record.sequence_number}-{held[-1].record.sequence_number}"
    parts: dict[layout.Partition, list[Mapping[str, object]]] = defaultdict(list)
    known: dict[tuple[str, int], layout.Partition] = {}
    for record, rows in held:
        hour = record.arrival_ms // _HOUR_MS
        for row in rows:
            partition = known.get((row.table, hour))
            if partition is None:
                partition = known[row.table, hour] = layout.partition_of(row.table, record.arrival_ms)
            parts[partition].append(row.columns)
    bodies: dict[str, bytes] = {}
    objects: list[RangeObject] = []
    for partition in sorted(parts):
        name = f"{partition.prefix}{stem}.parquet"
        bodies[name] = encode_parquet(parts[partition], schemas[partition.table])
        objects.append(RangeObject(name, len(parts[partition])))
    return bodies, tuple(objects)
