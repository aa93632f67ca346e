"""Pipelines, events and readable outcomes for tests of decoding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.hash_key import FULL_RANGE, HashRange
from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.batch import Decoded, Outcome
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.parse import parse_pipeline

OWN = "urn:streamgauge:0190b2c4-0000-7000-8000-000000000000:w1024"
ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/observations"
ARRIVAL_MS = 1_700_000_000_000
SHARD = Shard("shardId-000000000000", FULL_RANGE)
BASE = 10**55

_WEATHER_1 = {
    "type": "object",
    "properties": {
        "temp": {"type": ["number", "null"], "minimum": -60, "maximum": 60},
        "count": {"type": "integer"},
        "wet": {"type": "boolean"},
        "station": {"type": "string"},
        "inner": {"type": "object", "properties": {"level": {"type": ["integer", "null"]}}},
        "unused": {"type": "integer"},
    },
    "required": ["count"],
}
_WEATHER_2 = {
    **_WEATHER_1,
    "$id": "https://example.org/weather/2",
    "properties": {**_WEATHER_1["properties"], "quality": {"type": "string", "default": "unknown"}},  # type: ignore[dict-item]
    "required": ["count"],
}
_TIDE = {"type": "object", "properties": {"count": {"type": "number"}, "wet": {"type": "boolean"}}}

CATALOGUE = Catalogue(
    [
        EventSchema("weather", 1, _WEATHER_1),
        EventSchema("weather", 2, _WEATHER_2),
        EventSchema("tide", 1, _TIDE),
        EventSchema("noise", 1, _TIDE),
    ]
)

_HEAD = """
[pipeline]
name = "p"
stream = "observations"
event_types = [{types}]
out_of_orderness = "1h"
max_w = 16384
"""
_WEATHER_AGGREGATE = """
[[aggregate]]
name = "a"
key = ["subject"]
window = { tumbling = "1h" }
where = "data.wet == True or data.station != 'x' or data.quality == 'bad' or data.inner.level > 0"
measures = { n = "count()", t = "max(data.temp)", c = "sum(data.count)" }
"""
_TWO_TYPES_AGGREGATE = """
[[aggregate]]
name = "a"
key = ["subject", "type", "source"]
window = { tumbling = "1h" }
where = "data.wet"
measures = { c = "sum(data.count)", t = "max(data.temp)" }
"""


def pipeline(text: str) -> Pipeline:
    return parse_pipeline(text, file="pipeline.toml", schemas=CATALOGUE)


WEATHER = pipeline(_HEAD.format(types='"weather"') + _WEATHER_AGGREGATE)
BY_PARTITION_KEY = pipeline(
    _HEAD.format(types='"weather"') + _WEATHER_AGGREGATE.replace('["subject"]', '["subject", "partitionkey"]')
)
TWO_TYPES = pipeline(_HEAD.format(types='"weather", "tide"') + _TWO_TYPES_AGGREGATE)


def mapped(event: str, types: str = '"weather"') -> Pipeline:
    aggregate = _WEATHER_AGGREGATE if types == '"weather"' else _TWO_TYPES_AGGREGATE
    return pipeline(_HEAD.format(types=types) + "[event]\n" + event + aggregate)


MAPPED = mapped('id = "n"\ntime = "at"\ntype = "\'weather\'"\nkey = "station"\n')


def event(number: int = 0, /, *, drop: Iterable[str] = (), data: object = None, **changes: object) -> bytes:
    """One CloudEvent of ours; `changes` are attributes."""
    attributes: dict[str, object] = {
        "specversion": "1.0",
        "id": str(number),
        "source": OWN,
        "type": "weather",
        "time": "2024-02-29T23:59:59.123Z",
        "subject": "k",
        "sequence": f"{number:020}",
        "data": {"temp": 1.5, "count": 3, "wet": True, "station": "s", "unused": 1} if data is None else data,
        **changes,
    }
    for name in drop:
        del attributes[name]
    return json.dumps(attributes, ensure_ascii=False).encode()


def plain(payloads: Sequence[bytes], *, key: str = "k", base: int = BASE) -> list[StreamRecord]:
    return [StreamRecord(str(base + index), key, ARRIVAL_MS, payload) for index, payload in enumerate(payloads)]


def aggregate(payloads: Sequence[bytes], *, keys: Sequence[str] | str = "k", number: int = BASE) -> StreamRecord:
    builder = AggregateBuilder()
    names = [keys] * len(payloads) if isinstance(keys, str) else keys
    for payload, key in zip(payloads, names, strict=True):
        builder.add(UserRecord(key, None, payload))
    return StreamRecord(str(number), names[0], ARRIVAL_MS, builder.encode())


def shard_without(key_hash: int) -> Shard:
    """A shard that holds every hash key but the lower half up to `key_hash`."""
    return Shard("shardId-000000000001", HashRange(key_hash + 1, FULL_RANGE.last))


@dataclass(frozen=True)
class Told:
    """One position's outcome, comparable. ``what``: read, type_not_read, control, or the failure's reason."""

    what: str
    detail: str = ""
    source: str | None = None
    identity: str | None = None
    time_ms: int = 0
    fields: tuple[tuple[str, object], ...] = ()


def tell(decoded: Decoded) -> dict[tuple[int, int], Told]:
    """Every position that is named, by offset of its record from `BASE` and sub-sequence number."""
    told: dict[tuple[int, int], Told] = {}
    batch = decoded.batch
    n = len(batch)
    arrays = (batch.record, batch.sub_sequence, batch.time_ms, batch.source, batch.sequence, batch.outcome)
    assert all(len(array) == n for array in arrays)
    assert len(batch.ids) == len(batch.partition_keys) == n
    assert len(set(batch.sources)) == len(batch.sources) == len(batch.source_windows)
    assert list(zip(batch.record, batch.sub_sequence, strict=True)) == sorted(
        zip(batch.record, batch.sub_sequence, strict=True)
    )
    for row in range(n):
        source = batch.sources[batch.source[row]]
        window = batch.source_windows[batch.source[row]]
        identity = f"{batch.sequence[row]:020}" if window > 0 else batch.ids[row]
        place = (decoded.sequence_numbers[batch.record[row]] - BASE, int(batch.sub_sequence[row]))
        if batch.outcome[row] == Outcome.FAILED:
            reason, detail = batch.failures[row]
            told[place] = Told(str(reason), detail, source, identity)
        elif batch.outcome[row] == Outcome.TYPE_NOT_READ:
            told[place] = Told("type_not_read", "", source, identity)
        else:
            values = {}
            for name, column in batch.fields.items():
                assert len(column.values) == len(column.present) == n
                value = column.values[row] if isinstance(column.values, list) else column.values[row].item()
                if not column.present[row]:
                    assert value in ("", 0, False)
                values[name] = value if column.present[row] else None
            told[place] = Told("read", "", source, identity, int(batch.time_ms[row]), tuple(sorted(values.items())))
    for failed in decoded.failed:
        place = (failed.position.sequence_number - BASE, failed.position.sub_sequence_number)
        assert place not in told
        told[place] = Told(str(failed.reason), failed.detail, failed.source, failed.identity)
    for control in decoded.controls:
        place = (decoded.sequence_numbers[control.record] - BASE, control.sub_sequence)
        assert place not in told
        told[place] = Told("control", control.event.type)
    assert set(batch.failures) == {row for row in range(n) if batch.outcome[row] == Outcome.FAILED}
    assert decoded.positions == len(told) + decoded.ledger + decoded.misrouted
    return dict(sorted(told.items()))
