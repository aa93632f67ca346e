"""Schedules by their seeds. Replay one with ``pytest tests/simulation --seed N``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from simulation.coverage import SCHEDULES, encode
from simulation.faults import CELLS, Tally
from simulation.plan import Plan, make_plan
from simulation.run import run_plan
from simulation.shrink import shrink
from simulation.story import tell
from simulation.world import World

_BATCH = 25


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" in metafunc.fixturenames:
        seed = metafunc.config.getoption("seed", None)
        batches = [range(first, first + _BATCH) for first in range(0, SCHEDULES, _BATCH)] if seed is None else [[seed]]
        metafunc.parametrize("seeds", batches, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")


def test_every_invariant_holds_in_every_schedule(
    seeds: list[int], request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    tally = Tally()
    broken: list[str] = []
    for seed in seeds:
        plan = _chosen(make_plan(seed), request.config)
        try:
            tally.add(run_plan(plan))
        except Exception as error:  # noqa: BLE001 - the seed must be told whatever went wrong
            broken.append(tell(plan, error, shrinks=len(seeds) > 1))
    record_property(*encode(tally))
    if broken:
        pytest.fail("\n\n".join(broken), pytrace=False)


def test_a_seed_runs_the_same_way_twice() -> None:
    for seed in (3, 77, 140):
        worlds = [World(make_plan(seed)) for _ in range(2)]
        for world in worlds:
            world.run()
        assert worlds[0].board.log == worlds[1].board.log
        assert worlds[0].archive.objects == worlds[1].archive.objects
        assert worlds[0].bus.entries == worlds[1].bus.entries


def test_a_failing_schedule_shrinks_to_what_makes_it_fail() -> None:
    plan = next(plan for plan in map(make_plan, range(1_000)) if len(plan.faults) > 5 and plan.events > 60)
    culprit = plan.faults[3]

    smallest, kept = shrink(plan, lambda candidate: culprit in candidate.faults and candidate.events >= 17)

    assert (smallest.faults, kept, smallest.events) == ((culprit,), [3], 17)


def _chosen(plan: Plan, config: pytest.Config) -> Plan:
    keep, events = config.getoption("keep", None), config.getoption("events", None)
    if keep is not None:
        plan = replace(plan, faults=tuple(plan.faults[int(index)] for index in keep.split(",") if index))
    return plan if events is None else replace(plan, events=events)


def test_every_kind_of_fault_is_sought() -> None:
    sought = {fault.kind for seed in range(SCHEDULES) for fault in make_plan(seed).faults}
    assert sought == {kind for kind, _ in CELLS}
