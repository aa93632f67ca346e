"""Run one plan, and judge what it left behind."""

from __future__ import annotations

from itertools import chain
from typing import Any

from simulation.checkers.archived import check_archive
from simulation.checkers.checkpoints import check_checkpoints
from simulation.checkers.counted import check_acknowledged, check_panes
from simulation.checkers.crossings import check_crossings
from simulation.checkers.drops import check_counters
from simulation.checkers.leftovers import Leftovers, ShardFacts
from simulation.checkers.order import check_order, check_puts
from simulation.checkers.reference import Reference
from simulation.deployment import Deployment
from simulation.faults import Tally
from simulation.pipelines import STREAM, make_pipeline
from simulation.plan import Plan
from simulation.world import World
from streamgauge.events.times import instant_ms
from streamgauge.processors.commit.commit_objects import measure_rows
from streamgauge.processors.commit.core_engine import core_engine, read_shard_state

__all__ = ["Violation", "run_plan"]


class Violation(AssertionError):
    """An invariant does not hold. ``log`` is what struck, in order."""

    def __init__(self, found: list[str], log: list[str]) -> None:
        super().__init__("\n".join(found[:20]))
        self.log = log


def run_plan(plan: Plan) -> Tally:
    """Run `plan`, and return what struck where.

    Raises
    ------
    Violation, Stuck
        An invariant does not hold.
    """
    world = World(plan)
    world.run()
    world.board.tally.schedules = 1
    world.board.tally.events = len(world.attempts)
    if found := list(judge(world)):
        raise Violation(found, world.board.log)
    return world.board.tally


def judge(world: World) -> chain[str]:
    """Everything that is wrong with what a world left behind."""
    shards = [
        ShardFacts(
            state.shard_id,
            *state.hash_range,
            state.parents,
            tuple((int(state.log.at(i).sequence_number), state.log.at(i).data) for i in range(state.log.end)),
        )
        for state in world.model.streams[STREAM].shards.values()
    ]
    left = Leftovers(world.archive.objects, shards, world.bus.entries)
    # Plain records in one request may overtake one another; the producers of a burst are told not to keep the order.
    is_ordered = world.plan.wire_format == "kpl" and world.plan.shape != "burst"
    return chain(
        check_archive(left, world.attempts, world.archive.overwritten),
        check_checkpoints(world.checkpoints),
        check_puts(left, world.attempts) if is_ordered else (),
        *(judge_results(world, deployment, left) for deployment in world.deployments),
    )


def judge_results(world: World, deployment: Deployment, left: Leftovers) -> chain[str]:
    """What is wrong with the results of one deployment."""
    left = left.of_epoch(deployment.epoch)
    must_fail = {(shard_id, int(number)) for shard_id, number in world.stranger.records}
    begins_ms = {shard.shard_id: deployment.begins_of(shard.shard_id) for shard in left.shards}
    reference = Reference(left, must_fail, begins_ms)
    return chain(
        check_acknowledged(reference, world.attempts, left),
        check_panes(reference, left, _open_panes(world, deployment), _served(world, deployment)),
        check_crossings(left),
        check_order(left),
        check_counters(reference, left),
    )


def _open_panes(world: World, deployment: Deployment) -> dict[Any, dict[str, Any]]:
    """The panes that the shards' states hold open."""
    found: dict[Any, dict[str, Any]] = {}
    pipeline, store = make_pipeline(1, deployment.epoch), deployment.store
    for row in store.rows():
        if row.sealed:
            continue
        state = read_shard_state(pipeline, store, row.shard.shard_id, engine=core_engine(world.arn))
        for batch in state.engine.open_panes() if state else ():
            for key, start, count, measures in zip(
                batch.keys, batch.window_start_ms.tolist(), batch.event_count.tolist(), measure_rows(batch), strict=True
            ):
                found[batch.aggregate, key, start] = {"event_count": count, "measures": measures, "revision": 0}
    return found


def _served(world: World, deployment: Deployment) -> dict[Any, tuple[int, int]]:
    """Revision and count of every served pane."""
    import json

    found = {}
    for item in world.served.items.values():
        if not item["pane"]["S"].startswith(f"sim#{deployment.epoch}#"):
            continue
        key = tuple(json.loads(item["key"]["S"]).values())
        pane = item["aggregate"]["S"], key, instant_ms(item["window_start"]["S"])
        if not item["tombstone"]["BOOL"]:
            found[pane] = int(item["revision"]["N"]), int(item["event_count"]["N"])
    return found
