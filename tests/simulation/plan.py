"""A schedule: the shape of a world and its faults, all of it drawn from one seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Literal

from simulation.faults import CELLS, Kind, PlannedFault

__all__ = ["BESIDE", "HISTORIES", "HISTORIES_EVERY", "Host", "Plan", "Shape", "is_steady", "make_plan"]

Host = Literal["puller", "kcl", "lambda"]
Shape = Literal["steady", "apart", "backlog", "burst"]
"""What producers put over time.

- ``steady``: events of now, evenly.
- ``apart``: half of the keys are well ahead in event time, so that shards stand differently; some are merged while an
  answer is lost, and right after it events are late by more than their parent would have allowed.
- ``backlog``: nothing for a while, but ticks; then what has gathered meanwhile.
- ``burst``: more events than a source's window holds while one record is stuck.
"""
Beside = Literal["nothing", "a replay", "a late start"]
"""What runs beside the pipeline: the same one under another state_epoch, over the whole stream while it is written, or
from a later instant on."""

HISTORIES: dict[Shape, tuple[int, ...]] = {"apart": (3, 13), "backlog": (6,), "burst": (9,)}
"""The seeds of what a steady stream shows too seldom: by their rest when divided by `HISTORIES_EVERY`."""
HISTORIES_EVERY = 20
BESIDE: dict[int, Beside] = {16: "a replay", 19: "a late start"}
"""What runs beside the pipeline, likewise by the rest of the seed."""

_REACHED = {
    **dict.fromkeys(("create", "list", "range", "seal", "reduce", "store_failed", "store_late"), 2),
    **dict.fromkeys(("deliver_events", "snapshot", "renew", "object", "claim"), 3),
    **dict.fromkeys(("deliver_panes", "checkpoint", "tick"), 4),
    **dict.fromkeys(("apply", "put_snapshot", "commit", "invoke"), 8),
    **dict.fromkeys(("read", "put", "archive_read", "deliver_archive"), 14),
    "event": 18,
}
"""About how often a small world reaches a step while faults may strike."""
_OTHERS = (0, 5, 11)
"""So many faults beside the first one have a seed, the next, and the one after that."""
_SELDOM = frozenset({"list", "seal", "invoke", "tick", "reduce", "checkpoint", "renew"})
_DECK = [
    (kind, place)
    for kind, place in CELLS
    for _ in range(1 + (place.partition(".")[0] in _SELDOM or kind in (Kind.STEAL, Kind.MERGE, Kind.STOPPED)))
]
"""Every cell, and those twice that often cannot strike where they are due."""


@dataclass(frozen=True)
class Plan:
    """Everything that a run depends on. The same plan gives the same run, whatever ran before it.

    `host` is how processors are driven: by reading for themselves, from a lease's checkpoint as the KCL does, or batch
    by batch as Lambda's event source does.
    """

    seed: int
    host: Host
    workers: int
    deliverers: int
    shards: int
    producers: int
    events: int
    span_ms: int
    keys: int
    wire_format: Literal["kpl", "plain"]
    limits: bool
    ticks: bool
    faults: tuple[PlannedFault, ...]
    shape: Shape = "steady"
    beside: Beside = "nothing"


def shape_of(seed: int) -> Shape:
    """What producers put in the schedule of this seed."""
    rest = seed % HISTORIES_EVERY
    return next((shape for shape, rests in HISTORIES.items() if rest in rests), "steady")


def is_steady(seed: int) -> bool:
    """Whether the schedule of this seed is one of a steady stream, and nothing runs beside the pipeline."""
    return shape_of(seed) == "steady" and seed % HISTORIES_EVERY not in BESIDE


def make_plan(seed: int) -> Plan:
    """Seek one cell of the coverage table, each in its turn; every third seed seeks it alone."""
    rng = Random(f"plan {seed}")
    kind, place = CELLS[seed % len(CELLS)]
    cells = [(kind, place)]
    cells += _others(seed)
    faults = [_fault(rng, *cell, most=3 if index == 0 else 99) for index, cell in enumerate(cells)]
    steps = {_step(place) for _, place in cells}
    faults += _enabling(rng, steps)
    kinds = {kind for kind, _ in cells}
    host: Host = rng.choice(("puller", "kcl", "lambda"))
    if steps & {"invoke", "tick"} and (_step(place) in ("invoke", "tick") or rng.random() < 0.5):
        host = "lambda"
    elif {Kind.STEAL, Kind.STOPPED} & kinds or steps & {"checkpoint", "renew"}:
        host = rng.choice(("puller", "kcl"))
    shape = shape_of(seed)
    faults += _story(rng, shape)
    results = any(step.startswith("deliver") or step == "store_late" for step in steps)
    plan = Plan(
        seed=seed,
        host=host,
        workers=rng.choice((2, 3)) if kinds & {Kind.PAUSE, Kind.STEAL} else rng.choice((1, 2, 3)),
        deliverers=2 if _step(place) in ("range", "object") and kind is Kind.PAUSE else rng.choice((1, 1, 1, 1, 2)),
        shards=rng.choice((2, 2, 3, 4)) if Kind.MERGE in kinds else rng.choice((1, 1, 1, 2, 2, 3, 4)),
        producers=rng.choice((1, 1, 2, 2, 3)),
        events=rng.choice((25, 30, 40, 50, 70)) if rng.random() < 0.985 else 300,
        span_ms=20_000 if results else rng.choice((3_000, 10_000, 20_000)),
        keys=rng.choice((2, 3, 5, 8)),
        wire_format="plain" if rng.random() < 0.2 else "kpl",
        limits=rng.random() < 0.15,
        ticks=results or rng.random() < 0.4,
        faults=tuple(faults),
        shape=shape,
        beside=BESIDE.get(seed % HISTORIES_EVERY, "nothing"),
    )
    return _shaped(plan, rng)


def _shaped(plan: Plan, rng: Random) -> Plan:
    """The world that the plan's shape needs."""
    match plan.shape:
        case "apart":
            return replace(plan, shards=rng.choice((2, 2, 4)), keys=8, events=rng.choice((50, 70)), span_ms=10_000)
        case "backlog":
            return replace(plan, span_ms=10_000, ticks=True, keys=rng.choice((2, 3)))
        case "burst":
            return replace(plan, producers=1, events=1_300, span_ms=3_000, shards=1, wire_format="kpl", limits=False)
        case _:
            return plan


def _story(rng: Random, shape: Shape) -> list[PlannedFault]:
    """What happens in every schedule of a shape."""
    if shape == "apart":
        nth = rng.randint(3, 8)
        lost = PlannedFault(Kind.ANSWER_LOST, "put.after", nth, 0)
        return [lost, PlannedFault(Kind.MERGE, "put.after", nth, rng.getrandbits(16))]
    if shape == "burst":
        return [PlannedFault(Kind.STUCK, "put.before", rng.randint(1, 3), rng.getrandbits(16))]
    return []


def _others(seed: int) -> list[tuple[Kind, str]]:
    """The faults beside the first: dealt from shuffled decks, so that all cells come equally often."""
    dealt = seed // len(_OTHERS) * sum(_OTHERS) + sum(_OTHERS[: seed % len(_OTHERS)])
    return [_card(index) for index in range(dealt, dealt + _OTHERS[seed % len(_OTHERS)])]


def _card(index: int) -> tuple[Kind, str]:
    return _shuffled(index // len(_DECK))[index % len(_DECK)]


@cache
def _shuffled(deck: int) -> list[tuple[Kind, str]]:
    return Random(f"deck {deck}").sample(_DECK, len(_DECK))


def _step(place: str) -> str:
    return place.partition(".")[0]


def _fault(rng: Random, kind: Kind, place: str, *, most: int) -> PlannedFault:
    step = _step(place)
    most = min(most, _REACHED[step]) if step != "event" else _REACHED[step]
    return PlannedFault(kind, place, rng.randint(1, most), rng.getrandbits(16))


def _enabling(rng: Random, steps: set[str]) -> list[PlannedFault]:
    """What must happen for some steps to be reached at all."""
    faults: list[PlannedFault] = []
    if "store_failed" in steps:
        faults += [PlannedFault(Kind.BAD_DATA, "event.before", nth, 0) for nth in rng.sample(range(1, 16), 2)]
    if "store_late" in steps:
        faults += [PlannedFault(Kind.LATE, "event.before", nth, 0) for nth in rng.sample(range(8, 22), 3)]
    if steps & {"list", "seal", "reduce"}:
        change = rng.choice((Kind.SPLIT, Kind.SPLIT, Kind.MERGE, Kind.RESHARD))
        at = rng.choice(("put.before", "read.before"))
        faults.append(PlannedFault(change, at, rng.randint(2, 5), rng.getrandbits(16)))
    if "snapshot" in steps:
        faults.append(PlannedFault(Kind.CRASH, "apply.after", rng.randint(2, 5), rng.getrandbits(16)))
    return faults
