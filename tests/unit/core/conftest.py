"""A shard to try things on: pipelines from TOML, events as CloudEvents, the real decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.control import EndOfInput, Tick, control_event
from streamgauge.events.envelope import Event, encode_event
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.events.times import rfc3339
from streamgauge.processors.core.container import decode_columns, encode_columns
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import Effects, PaneBatch
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.parse import parse_pipeline

SHARD = Shard("shardId-000000000000", FULL_RANGE)
SOURCE = "urn:streamgauge:00000000-0000-4000-8000-000000000001:w1024"
BASE_MS = 1_600_000_000_000
"""A multiple of every window in these tests; times are written relative to it."""
SCHEMA = {
    "type": "object",
    "properties": {
        "x": {"type": ["number", "null"]},
        "i": {"type": ["integer", "null"]},
        "zone": {"type": "string", "default": ""},
        "floor": {"type": "integer", "default": 0},
    },
}
HEAD = """
[pipeline]
name = "p"
stream = "s"
event_types = ["t"]
schemas = "schemas"
out_of_orderness = "10ms"
future_bound = "1h"
state_epoch = 1
"""


def a_pipeline(tables: str, head: str = HEAD) -> Pipeline:
    catalogue = Catalogue([EventSchema("t", 1, SCHEMA), EventSchema("other", 1, SCHEMA)])
    return parse_pipeline(head + tables, file="p.toml", schemas=catalogue)


@dataclass
class Bench:
    """One engine, fed one event a record unless told otherwise; it keeps all effects."""

    pipeline: Pipeline
    engine: Engine
    effects: Effects = field(default_factory=Effects)
    sent: int = 0

    def record(self, data: bytes, key: str, arrival: int = 0) -> StreamRecord:
        self.sent += 1
        return StreamRecord(str(1_000 + self.sent), key, BASE_MS + arrival, data)

    def event(
        self, time: int, key: str = "a", *, sequence: int | None = None, type: str = "t", **data: object
    ) -> bytes:
        number = self.sent if sequence is None else sequence
        return encode_event(
            Event(
                specversion="1.0",
                id=str(number),
                source=SOURCE,
                type=type,
                time=rfc3339(BASE_MS + time),
                subject=key,
                sequence=f"{number:020}",
                data=msgspec.Raw(msgspec.json.encode(data)),
            )
        )

    def apply(self, *records: StreamRecord) -> Effects:
        effects = self.engine.apply(records)
        self.effects.panes += effects.panes
        self.effects.threshold_events += effects.threshold_events
        self.effects.late += effects.late
        self.effects.failed += effects.failed
        return effects

    def send(self, time: int, key: str = "a", *, sequence: int | None = None, **data: object) -> Effects:
        return self.apply(self.record(self.event(time, key, sequence=sequence, **data), key))

    def control(self, body: Tick | EndOfInput) -> Effects:
        event = control_event("test", body, id=str(self.sent), time_ms=BASE_MS)
        return self.apply(self.record(encode_event(event), "control"))

    def end(self) -> Effects:
        return self.control(EndOfInput("all", 0, 1))

    def restart(self, pipeline: Pipeline | None = None) -> None:
        """Go on from a snapshot, as another process would."""
        columns = decode_columns(encode_columns(self.engine.snapshot()))
        self.pipeline = pipeline or self.pipeline
        self.engine = Engine.restore(self.pipeline, SHARD, MsgspecDecoder(self.pipeline, "arn"), columns)

    def panes(self) -> list[tuple[str, int, int, int]]:
        """Key, window start, revision and number of events of every pane so far."""
        return [row for panes in self.effects.panes for row in rows_of(panes)]

    def crossings(self) -> list[tuple[str, int, str, str]]:
        """Kind, window start, state and reason of every threshold event so far."""
        return [(e.kind, e.window_start_ms - BASE_MS, e.state, e.reason) for e in self.effects.threshold_events]


def rows_of(panes: PaneBatch) -> list[tuple[str, int, int, int]]:
    return list(
        zip(
            ["/".join(key) for key in panes.keys],
            (panes.window_start_ms - BASE_MS).tolist(),
            panes.revision.tolist(),
            panes.event_count.tolist(),
            strict=True,
        )
    )


@pytest.fixture
def pipeline_of() -> Callable[..., Pipeline]:
    return a_pipeline


@pytest.fixture
def bench_of() -> Callable[..., Bench]:
    def make(tables: str, head: str = HEAD) -> Bench:
        pipeline = a_pipeline(tables, head)
        return Bench(pipeline, Engine(pipeline, SHARD, MsgspecDecoder(pipeline, "arn")))

    return make
