"""Shards that split and merge over several generations, against a model that knows keys and watermarks only.

What is promised. Every event is counted once, in whatever shard its copies land. An event is late by the highest
watermark of any shard that has held its key so far: by the model's rule, an event at a time. A pane's revisions count
1, 2, 3 … over all shards that held it, and the crossings are a function of the final panes. Where no event is behind
the bound, nothing is late anywhere, and the panes are those of a single shard, bit for bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_events import (
    BOUND_MS,
    PIPELINE,
    WINDOWS,
    Item,
    Result,
    Script,
    ScriptedDecoder,
    as_bytes,
    check_rule,
    check_values,
    crossings_of,
)
from window_models import FixedModel, SessionModel, Shown, Values, model_of

from streamgauge.events.hash_key import FULL_RANGE, HashRange, hash_key
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.container import Columns, decode_columns, encode_columns
from streamgauge.processors.core.engine import Engine
from streamgauge.processors.core.handover import ParentState, inherit

W = 64
SOURCES = {"urn:streamgauge:00000000-0000-4000-8000-000000000001:w64": W, "urn:of:somebody": 0}
KEYS = "abcdefgh"
NEVER = -math.inf


def record(number: int, arrival_ms: int, script: Script) -> StreamRecord:
    return StreamRecord(str(10**20 + number), "k", arrival_ms, msgspec.json.encode(script))


def identity(item: Item) -> tuple[int, int]:
    return item.source, item.sequence


# --- schedules: what happens to which shard


@dataclass(frozen=True)
class Apply:
    shard: int
    record: StreamRecord


@dataclass(frozen=True)
class Split:
    shard: int
    children: tuple[int, int]


@dataclass(frozen=True)
class Merge:
    shards: tuple[int, int]
    child: int


Step = Apply | Split | Merge


@dataclass
class Schedule:
    """Steps, and the hash range of every shard. Shard 0 is the first one."""

    steps: list[Step] = field(default_factory=list)
    ranges: dict[int, HashRange] = field(default_factory=lambda: {0: FULL_RANGE})

    def shard(self, number: int) -> Shard:
        return Shard(f"shardId-{number:012}", self.ranges[number])


@st.composite
def schedules(draw: st.DrawFn, *, behind: tuple[int, ...] = (0, 5, 20, 30), ticks: bool = False) -> Schedule:
    """A producer's own events with retries inside W, another's, reshards in between, and the end of the input."""
    schedule = Schedule()
    open_shards, clock, sent, newest = [0], 1_000, 0, [-1, -1]
    unsure: list[Item] = []
    put_before: set[tuple[int, int]] = set()

    def put(shard: int, script: Script) -> None:
        nonlocal sent
        sent += 1
        arrival = clock + draw(st.integers(-10, 10))
        schedule.steps.append(Apply(shard, record(sent, arrival, script)))

    def an_event() -> Item:
        source = draw(st.sampled_from([0, 0, 0, 1]))
        # Sequences between may be what other keys got.
        newest[source] += draw(st.sampled_from([1, 1, 1, 2, 7, 40]))
        return Item(
            newest[source],
            draw(st.sampled_from(KEYS)),
            clock - draw(st.sampled_from(behind)),
            draw(st.none() | st.integers(-5, 7)),
            draw(st.none() | st.sampled_from([0.1, 0.2, 0.3, 1e16]) | st.integers(-8, 8).map(float)),
            source=source,
        )

    for _ in range(draw(st.integers(1, 24))):
        clock += draw(st.integers(0, 25))
        kinds = ["events"] * 6 + ["split", "merge", "merge"] + ["tick"] * (2 * ticks)
        kind = draw(st.sampled_from(kinds))
        if kind == "events":
            fresh = [an_event() for _ in range(draw(st.integers(1, 4)))]
            unsure = [item for item in unsure + fresh if item.source or item.sequence > newest[0] - W]
            # What is not put now failed at its first attempt, and may come later. What W leaves behind was waited for.
            items = [item for item in fresh if item in unsure and draw(st.integers(0, 3))]
            again = [item for item in unsure if identity(item) in put_before or clock - item.time_ms <= max(behind)]
            items += [draw(st.sampled_from(again)) for _ in range(draw(st.integers(0, 2))) if again]
            put_before |= set(map(identity, items))
            for shard in open_shards:
                inside = [item for item in items if hash_key(item.key) in schedule.ranges[shard]]
                if inside:
                    put(shard, Script(events=inside))
        elif kind == "tick":
            put(draw(st.sampled_from(open_shards)), Script(tick_ms=clock + draw(st.integers(-20, 80))))
        elif kind == "split":
            shard = draw(st.sampled_from(open_shards))
            first, second = schedule.ranges[shard].even_parts(2)
            children = (len(schedule.ranges), len(schedule.ranges) + 1)
            schedule.ranges |= {children[0]: first, children[1]: second}
            place = open_shards.index(shard)
            open_shards[place : place + 1] = children
            schedule.steps.append(Split(shard, children))
        elif len(open_shards) > 1:
            place = draw(st.integers(0, len(open_shards) - 2))
            pair = (open_shards[place], open_shards[place + 1])
            child = len(schedule.ranges)
            schedule.ranges[child] = HashRange(schedule.ranges[pair[0]].first, schedule.ranges[pair[1]].last)
            open_shards[place : place + 2] = [child]
            schedule.steps.append(Merge(pair, child))
    if draw(st.booleans()):
        for shard in open_shards:
            put(shard, Script(end=("all", 0, 1)))
    return schedule


# --- the engines


@dataclass
class World:
    """One engine a shard; records wait in `waiting` until they are applied in one go."""

    schedule: Schedule
    engines: dict[int, Engine] = field(default_factory=dict)
    results: dict[int, Result] = field(default_factory=dict)
    waiting: dict[int, list[StreamRecord]] = field(default_factory=dict)
    restarts: bool = False

    def __post_init__(self) -> None:
        self.engines[0] = Engine(PIPELINE, self.schedule.shard(0), ScriptedDecoder(SOURCES))

    def flush(self, shard: int) -> None:
        effects = self.engines[shard].apply(self.waiting.pop(shard, []))
        self.results.setdefault(shard, Result()).add(effects)
        if self.restarts:
            self.engines[shard] = self.restored(shard, self.engines[shard].snapshot())

    def restored(self, shard: int, columns: Columns) -> Engine:
        saved = decode_columns(encode_columns(columns))
        return Engine.restore(PIPELINE, self.schedule.shard(shard), ScriptedDecoder(SOURCES), saved)

    def begin(self, child: int, parents: tuple[int, ...]) -> None:
        states = []
        for parent in parents:
            if parent in self.waiting:
                self.flush(parent)
            states.append(ParentState(self.schedule.shard(parent), self.engines[parent].snapshot()))
        columns = inherit(PIPELINE, self.schedule.shard(child), states)
        turned = inherit(PIPELINE, self.schedule.shard(child), states[::-1])
        assert encode_columns(columns) == encode_columns(turned)
        self.engines[child] = self.restored(child, columns)

    def run(self, cuts: Iterator[bool]) -> None:
        for step in self.schedule.steps:
            if isinstance(step, Apply):
                self.waiting.setdefault(step.shard, []).append(step.record)
                if next(cuts):
                    self.flush(step.shard)
            elif isinstance(step, Split):
                for child in step.children:
                    self.begin(child, (step.shard,))
            else:
                self.begin(step.child, step.shards)
        for shard in list(self.waiting):
            self.flush(shard)

    def counted(self, name: str) -> int:
        return sum(getattr(engine.counters, name) for engine in self.engines.values())


def run(schedule: Schedule, cuts: Iterator[bool] | None = None, *, restarts: bool = False) -> World:
    world = World(schedule, restarts=restarts)
    world.run(itertools.repeat(True) if cuts is None else cuts)
    return world


# --- the model


@dataclass
class ModelClock:
    watermark: float = NEVER
    highest: float = NEVER
    highest_arrival: float = NEVER
    latest: float = NEVER
    arrival: float = NEVER
    ends: set[tuple[str, int, int]] = field(default_factory=set)


@dataclass
class Model:
    """Events one by one. A key remembers up to where its windows have closed, wherever it was."""

    schedule: Schedule
    clocks: dict[int, ModelClock] = field(default_factory=lambda: {0: ModelClock()})
    seen: set[tuple[int, int]] = field(default_factory=set)
    closed_to: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KEYS, NEVER))
    windows: dict[str, FixedModel | SessionModel] = field(
        default_factory=lambda: {name: model_of(window, lateness, KEYS) for name, (window, lateness) in WINDOWS.items()}
    )
    history: dict[tuple[str, str, int], list[tuple[tuple[int, int], int, Values]]] = field(default_factory=dict)
    standing: dict[tuple[str, str, int], Values] = field(default_factory=dict)
    late: list[tuple[str, int, int]] = field(default_factory=list)
    accepted: int = 0
    position: tuple[int, int] = (0, 0)

    def run(self) -> None:
        for step in self.schedule.steps:
            if isinstance(step, Apply):
                self.apply(step.shard, step.record)
            elif isinstance(step, Split):
                for child in step.children:
                    self.begin(child, [self.clocks[step.shard]])
            else:
                self.begin(step.child, [self.clocks[shard] for shard in step.shards])

    def begin(self, child: int, parents: list[ModelClock]) -> None:
        started = [parent for parent in parents if parent.highest != NEVER] or parents
        lowest = min(started, key=lambda c: (c.watermark, c.highest - c.highest_arrival if c.highest > 0 else 0))
        self.clocks[child] = ModelClock(
            lowest.watermark,
            lowest.highest,
            lowest.highest_arrival,
            max(parent.latest for parent in parents),
            max(parent.arrival for parent in parents),
            set.intersection(*(parent.ends for parent in parents)),
        )

    def apply(self, shard: int, record: StreamRecord) -> None:
        clock = self.clocks[shard]
        clock.arrival = max(clock.arrival, record.arrival_ms)
        script = msgspec.json.decode(record.data, type=Script)
        self.position = (int(record.sequence_number), 0)
        for sub, item in enumerate(script.events):
            self.position = (int(record.sequence_number), sub)
            if (item.source, item.sequence) not in self.seen:
                self.seen.add((item.source, item.sequence))
                self.event(shard, clock, item)
        if script.tick_ms is not None and clock.highest != NEVER:
            idle = clock.highest - BOUND_MS + script.tick_ms - clock.highest_arrival
            self.raise_to(shard, clock, min(idle, self.end_of_latest(clock)))
        if script.end is not None and script.end not in clock.ends:
            clock.ends.add(script.end)
            if clock.highest != NEVER:
                self.raise_to(shard, clock, self.end_of_latest(clock))

    def end_of_latest(self, clock: ModelClock) -> float:
        return max(model.end_of(int(clock.latest)) for model in self.windows.values())

    def event(self, shard: int, clock: ModelClock, item: Item) -> None:
        self.accepted += 1
        closed_to = max(self.closed_to[item.key], clock.watermark)
        for name, model in self.windows.items():
            if name == "coarse" and (item.integer is None or item.integer >= 8):
                continue
            shown, late = model.add(item.key, item.time_ms, item.integer, item.number, closed_to)
            if late is not None:
                self.late.append((name, item.source, item.sequence))
            self.emit(name, shown)
        if item.time_ms > clock.highest:
            clock.highest, clock.highest_arrival = item.time_ms, clock.arrival
        clock.latest = max(clock.latest, clock.highest)
        self.raise_to(shard, clock, clock.highest - BOUND_MS)

    def raise_to(self, shard: int, clock: ModelClock, watermark: float) -> None:
        clock.watermark = max(clock.watermark, watermark)
        held = [key for key in KEYS if hash_key(key) in self.schedule.ranges[shard]]
        for key in held:
            self.closed_to[key] = max(self.closed_to[key], clock.watermark)
        for name, model in self.windows.items():
            self.emit(name, model.close("".join(held), clock.watermark))

    def emit(self, name: str, shown: list[Shown]) -> None:
        for pane in shown:
            window = name, pane.key, pane.start
            self.history.setdefault(window, []).append((self.position, pane.revision, pane.measures))
            self.standing.pop(window, None)
            if not pane.tombstone:
                self.standing[window] = pane.measures


def emitted(world: World) -> dict[tuple[str, str, int], list[tuple[object, ...]]]:
    """By aggregate, key and window: the panes emitted by all shards, those of parents first."""
    panes: dict[tuple[str, str, int], list[tuple[object, ...]]] = {}
    for shard in sorted(world.results):
        for name, rows in world.results[shard].panes.items():
            for _, key, start, _, revision, events, measures, _ in rows:
                panes.setdefault((name, str(key), int(str(start))), []).append((revision, events, measures))
    return panes


# --- the properties


BEHIND = (0, 5, 20, 35, 50, 70, 90, 120)


@settings(max_examples=100, deadline=None)
@given(schedule=schedules(behind=BEHIND, ticks=True))
def test_resharded_engines_agree_with_the_model_of_keys(schedule: Schedule) -> None:
    world, model = run(schedule), Model(schedule)
    model.run()
    assert {number: engine.watermark_ms for number, engine in world.engines.items()} == {
        number: None if clock.watermark == NEVER else clock.watermark for number, clock in model.clocks.items()
    }
    late = [
        (event.aggregate, list(SOURCES).index(event.source), int(event.identity))
        for result in world.results.values()
        for event in result.effects.late
    ]
    assert sorted(late) == sorted(model.late)
    assert world.counted("accepted") == model.accepted == len(model.seen)
    assert emitted(world) == {
        window: [
            (revision, measures["n"], tuple((name, as_bytes(name, value)) for name, value in measures.items()))
            for _, revision, measures in history
        ]
        for window, history in model.history.items()
    }


@settings(max_examples=60, deadline=None)
@given(schedule=schedules(behind=BEHIND, ticks=True))
def test_crossings_are_those_of_the_final_panes_in_whatever_shards_they_were_found(schedule: Schedule) -> None:
    world, model = run(schedule), Model(schedule)
    model.run()
    events = [event for shard in sorted(world.results) for event in world.results[shard].effects.threshold_events]
    assert len({event.id for event in events}) == len(events)
    for threshold, key in itertools.product(PIPELINE.thresholds, KEYS):
        panes = [
            (start, values)
            for (name, of, start), values in model.standing.items()
            if (name, of) == (threshold.aggregate, key)
        ]
        mine = [event for event in events if event.rule == threshold.name and event.key == (("subject", key),)]
        assert [event.rule_sequence for event in mine] == sorted({event.rule_sequence for event in mine})
        check_rule(mine, crossings_of(panes, threshold.name))
        for event in mine:
            check_values(event, model.history[threshold.aggregate, key, event.window_start_ms])


@settings(max_examples=60, deadline=None)
@given(schedule=schedules())
def test_events_within_the_bound_give_the_panes_of_a_single_shard(schedule: Schedule) -> None:
    world = run(schedule)
    assert world.counted("accepted") == len(identities(schedule))
    alone = World(Schedule())
    for step in schedule.steps:
        if isinstance(step, Apply):
            alone.waiting.setdefault(0, []).append(step.record)
    alone.flush(0)
    # Closes every window of every shard that nobody has split or merged.
    parents = {step.shard for step in schedule.steps if isinstance(step, Split)}
    parents |= {shard for step in schedule.steps if isinstance(step, Merge) for shard in step.shards}
    for number, shard in enumerate([shard for shard in world.engines if shard not in parents]):
        world.waiting[shard] = [record(10_000 + number, 10_000, Script(end=("last", 0, 1)))]
        world.flush(shard)
    alone.waiting[0] = [record(10_000, 10_000, Script(end=("last", 0, 1)))]
    alone.flush(0)
    assert not any(result.effects.late for result in [*world.results.values(), *alone.results.values()])
    assert emitted(world) == emitted(alone)
    assert all(len(revisions) == 1 for revisions in emitted(world).values())


def identities(schedule: Schedule) -> set[tuple[int, int]]:
    scripts = [msgspec.json.decode(s.record.data, type=Script) for s in schedule.steps if isinstance(s, Apply)]
    return {identity(item) for script in scripts for item in script.events}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), schedule=schedules(behind=BEHIND, ticks=True))
def test_how_records_are_cut_into_batches_changes_nothing_under_floors(data: st.DataObject, schedule: Schedule) -> None:
    cuts = data.draw(st.lists(st.booleans(), min_size=len(schedule.steps), max_size=len(schedule.steps)))
    whole, cut = run(schedule), run(schedule, iter(cuts), restarts=data.draw(st.booleans()))
    for shard, engine in whole.engines.items():
        assert encode_columns(cut.engines[shard].snapshot()) == encode_columns(engine.snapshot())
    for shard, result in whole.results.items():
        assert cut.results[shard].panes == result.panes
        assert cut.results[shard].effects == result.effects
