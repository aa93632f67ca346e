"""A schedule: the shape of a world and its faults, all of it drawn from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from simulation.faults import CELLS, Kind, PlannedFault

__all__ = ["Host", "Plan", "make_plan"]

Host = Literal["puller", "kcl", "lambda"]

_RARE_STEPS = frozenset(
    [
        "create",
        "claim",
        "snapshot",
        "store_failed",
        "store_late",
        "deliver_events",
        "range",
        "object",
        "list",
        "seal",
        "reduce",
    ]
)


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
    keys: int
    wire_format: Literal["kpl", "plain"]
    limits: bool
    ticks: bool
    faults: tuple[PlannedFault, ...]


def make_plan(seed: int) -> Plan:
    """Every cell of the coverage table is sought by every `len(CELLS)`-th seed, each third time alone."""
    rng = Random(f"plan {seed}")
    kind, place = CELLS[seed % len(CELLS)]
    step = place.partition(".")[0]
    host: Host = rng.choice(("puller", "kcl", "lambda"))
    if step == "invoke":
        host = "lambda"
    elif kind in (Kind.STEAL, Kind.STOPPED) or step == "checkpoint":
        host = rng.choice(("puller", "kcl"))
    faults = [_fault(rng, kind, place, soon=True)]
    if place.startswith("store_failed"):
        faults.append(PlannedFault(Kind.BAD_DATA, "event.before", rng.randint(1, 10), 0))
    if place.startswith("store_late"):
        faults.append(PlannedFault(Kind.LATE, "event.before", rng.randint(12, 20), 0))
    if step in ("list", "seal", "reduce"):
        change = rng.choice((Kind.SPLIT, Kind.SPLIT, Kind.MERGE, Kind.RESHARD))
        faults.append(PlannedFault(change, rng.choice(("put.before", "read.before")), 3, rng.getrandbits(16)))
    if step == "snapshot":
        faults.append(PlannedFault(Kind.CRASH, "checkpoint.after", rng.randint(1, 3), rng.getrandbits(16)))
        host = "kcl" if host == "lambda" else host
    if seed // len(CELLS) % 3:
        others = rng.choices(CELLS, k=rng.choice((1, 2, 3, 4, 6, 9)))
        faults += [_fault(rng, *cell, soon=False) for cell in others]
    shards = rng.choice((1, 1, 2, 2, 3, 4))
    if kind is Kind.MERGE:
        shards = max(shards, 2)
    return Plan(
        seed=seed,
        host=host,
        workers=2 if kind in (Kind.PAUSE, Kind.STEAL) else rng.choice((1, 2, 2, 3)),
        deliverers=2 if step in ("range", "object") and kind is Kind.PAUSE else rng.choice((1, 1, 1, 1, 2)),
        shards=shards,
        producers=rng.choice((1, 1, 2, 2, 3)),
        events=rng.choice((20, 30, 40, 60, 80, 120)) if rng.random() < 0.97 else 300,
        keys=rng.choice((2, 3, 5, 8)),
        wire_format="plain" if rng.random() < 0.2 else "kpl",
        limits=rng.random() < 0.15,
        ticks=rng.random() < 0.5,
        faults=tuple(faults),
    )


def _fault(rng: Random, kind: Kind, place: str, *, soon: bool) -> PlannedFault:
    most = 2 if place.partition(".")[0] in _RARE_STEPS else 4 if soon else 25
    if place == "event.before":
        most = 18
    return PlannedFault(kind, place, rng.randint(1, most), rng.getrandbits(16))
