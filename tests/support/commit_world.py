"""A scripted engine, and the world outside a session."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from streamgauge.events.catalogue import Catalogue
from streamgauge.events.hash_key import FULL_RANGE, hash_key
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.commit.ancestry import Handover, Parents
from streamgauge.processors.commit.memory import MemoryObjectStore, MemoryReceiver, MemoryStateStore, no_faults
from streamgauge.processors.commit.outbox import OutboxLimits
from streamgauge.processors.commit.ports import ObjectStore, Receivers, StateStore
from streamgauge.processors.commit.s3 import ArchiveReceiver
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.core.container import Columns
from streamgauge.processors.core.counters import Counters
from streamgauge.processors.core.definition import Aggregate, Pipeline, TumblingWindow
from streamgauge.processors.core.effects import (
    Effects,
    FailedEvent,
    FailureReason,
    LateEvent,
    MeasureColumn,
    PaneBatch,
    ThresholdEvent,
)
from streamgauge.processors.core.handover import ParentState, split_outbox

SHARD = Shard("shardId-000000000000", FULL_RANGE)


def make_pipeline() -> Pipeline:
    aggregate = Aggregate(
        name="wind",
        key=("subject",),
        window=TumblingWindow(1_000),
        allowed_lateness_ms=0,
        where=None,
        measures=(),
        serve=True,
    )
    return Pipeline(
        name="weather",
        stream="observations",
        event_types=("weather.observation",),
        state_epoch=1,
        out_of_orderness_ms=0,
        future_bound_ms=0,
        resend_horizon_ms=0,
        foreign_horizon_ms=0,
        max_w=16_384,
        catalogue=Catalogue([]),
        mapping=None,
        aggregates=(aggregate,),
        thresholds=(),
    )


def make_record(number: int, kind: str = "good", *, arrival_ms: int | None = None, key: str = "lga") -> StreamRecord:
    """Record `number` of a shard; what the scripted engine makes of it is its `kind`."""
    arrival = 1_700_000_000_000 + number if arrival_ms is None else arrival_ms
    return StreamRecord(str(1_000 + number), key, arrival, json.dumps({"n": number, "kind": kind}).encode())


def make_panes(*rows: tuple[str, int, int], tombstone: bool = False) -> PaneBatch:
    """Panes of ``wind`` from (key, window start in ms, revision)."""
    numbers = np.array([[start, revision] for _, start, revision in rows], dtype=np.int64).reshape(-1, 2)
    return PaneBatch(
        aggregate="wind",
        key_fields=("subject",),
        keys=[(key,) for key, _, _ in rows],
        partition_keys=[key for key, _, _ in rows],
        window_start_ms=numbers[:, 0].copy(),
        window_end_ms=numbers[:, 0] + 1_000,
        revision=numbers[:, 1].copy(),
        event_count=numbers[:, 1] + 1,
        tombstone=np.full(len(rows), tombstone),
        measures={
            "n": MeasureColumn(numbers[:, 1] + 1, np.ones(len(rows), dtype=np.bool_)),
            "mean": MeasureColumn(numbers[:, 1] * 0.1, numbers[:, 1] > 0),
        },
    )


def make_crossing(number: int, *, key: str = "lga") -> ThresholdEvent:
    return ThresholdEvent(
        id=f"crossing-{number}",
        pipeline="weather",
        state_epoch=1,
        rule="gale",
        aggregate="wind",
        detail_type="Gale",
        key=(("subject", key),),
        partition_key=key,
        window_start_ms=1_000 * number,
        window_end_ms=1_000 * number + 1_000,
        revision=0,
        kind="raise",
        state="raised",
        reason="crossed",
        takes_back=None,
        crossing_ordinal=0,
        rule_sequence=(10**55 + number, 0, 0),
        measures=(("n", number), ("mean", 0.5), ("gust", None)),
        raise_when="n > 0",
        clear_when=None,
    )


class ScriptedEngine:
    """Each good record closes a pane of its own; other kinds fail, are late, or raise a threshold event.

    ``hold`` keeps a record's number under its partition key, as open panes are kept; ``flush`` closes all of them.
    """

    def __init__(self, columns: Columns | None) -> None:
        self.position: Position | None = None
        self.counters = Counters()
        self.watermark_ms: int | None = None
        self.input_ended = False
        self.held: list[tuple[str, int]] = []
        if columns is not None:
            state = json.loads(columns["state"][0])
            self.position = Position.parse(state["position"]) if state["position"] else None
            self.counters = Counters(positions=state["positions"], accepted=state["accepted"])
            self.input_ended = state["ended"]
            self.watermark_ms = state["watermark"]
            self.held = [(key, number) for key, number in state["held"]]

    def apply(self, records: Sequence[StreamRecord]) -> Effects:
        effects = Effects()
        for record in records:
            position = Position(int(record.sequence_number), record.sub_sequence_number or 0)
            if self.position is not None and position <= self.position:
                self.counters.redelivered += 1
                continue
            body = json.loads(record.data)
            number, kind = body["n"], body["kind"]
            if kind == "bug":
                raise RuntimeError("a bug in the engine")
            self.position = position
            self.counters.positions += 1
            if kind == "end":
                self.input_ended = True
            elif kind == "hold":
                self.counters.accepted += 1
                self.held.append((record.partition_key, number))
            elif kind == "flush":
                effects.panes += [make_panes((key, 1_000 * number, 0)) for key, number in self.held]
                self.held = []
            elif kind == "failed":
                effects.failed.append(
                    FailedEvent(position, record.arrival_ms, "lga", FailureReason.DATA, "scripted", record.data)
                )
            else:
                self.counters.accepted += 1
                effects.panes.append(make_panes(("lga", 1_000 * number, 0)))
            if kind == "late":
                effects.late.append(LateEvent(position, "wind", "s", str(number), "lga", ("lga",), 1, 0, record.data))
            if kind == "raise":
                effects.threshold_events.append(make_crossing(number))
            self.watermark_ms = record.arrival_ms
        return effects

    def snapshot(self) -> Columns:
        state = {
            "position": str(self.position) if self.position else None,
            "positions": self.counters.positions,
            "accepted": self.counters.accepted,
            "ended": self.input_ended,
            "watermark": self.watermark_ms,
            "held": self.held,
        }
        return {"state": [json.dumps(state)]}

    def open_panes(self) -> list[PaneBatch]:
        return []


def scripted_inherit(pipeline: Pipeline, child: Shard, parents: Sequence[ParentState]) -> Columns:
    """What is held under keys of the child's range; an input has ended where it has for all parents."""
    states = [json.loads((parent.columns or ScriptedEngine(None).snapshot())["state"][0]) for parent in parents]
    held = [(key, number) for state in states for key, number in state["held"] if hash_key(key) in child.hash_range]
    state = {"position": None, "positions": 0, "accepted": 0, "watermark": None, "held": held}
    return {"state": [json.dumps(state | {"ended": all(state["ended"] for state in states)})]}


def scripted_keep(fresh: Columns, columns: Columns) -> Columns:
    return {"state": [json.dumps({**json.loads(columns["state"][0]), "held": []})]}


SCRIPTED_HANDOVER = Handover(scripted_inherit, split_outbox, scripted_keep)


def scripted_engine(pipeline: Pipeline, shard: Shard, columns: Columns | None) -> ScriptedEngine:
    return ScriptedEngine(columns)


@dataclass
class World:
    """Everything outside a session. `hook` may be replaced at any time: all stores and receivers call it."""

    store: StateStore
    archive: ObjectStore
    hook: Callable[[str, str], None] = no_faults
    pipeline: Pipeline = field(default_factory=make_pipeline)
    limits: OutboxLimits = field(default_factory=OutboxLimits)
    owners: Iterator[int] = field(default_factory=count)
    clock_ms: int = 1_700_000_100_000
    crossings: MemoryReceiver[ThresholdEvent] = field(init=False)
    served: MemoryReceiver[PaneBatch] = field(init=False)
    archived: ArchiveReceiver = field(init=False)

    def __post_init__(self) -> None:
        self.crossings = MemoryReceiver("crossings", self.call_hook)
        self.served = MemoryReceiver("served", self.call_hook)
        self.archived = ArchiveReceiver(self.archive)

    def call_hook(self, step: str, moment: str) -> None:
        self.hook(step, moment)

    def open(
        self,
        shard: Shard = SHARD,
        start: str = "TRIM_HORIZON",
        *,
        owner: str | None = None,
        seen_version: int | None = None,
        parents: Parents | None = None,
    ) -> ShardSession:
        return ShardSession.open(
            self.pipeline,
            shard,
            store=self.store,
            archive=self.archive,
            receivers=Receivers(self.archived, self.crossings, self.served),
            owner=owner or f"owner-{next(self.owners)}",
            now_ms=lambda: self.clock_ms,
            engine=scripted_engine,
            start=start,
            limits=self.limits,
            seen_version=seen_version,
            parents=parents or Parents(handover=SCRIPTED_HANDOVER),
        )


def memory_world() -> World:
    """A world in memory, whose `hook` is called before and after every step of it."""
    calls: list[World] = []

    def hook(step: str, moment: str) -> None:
        if calls:
            calls[0].hook(step, moment)

    world = World(MemoryStateStore(hook), MemoryObjectStore(hook))
    calls.append(world)
    return world
