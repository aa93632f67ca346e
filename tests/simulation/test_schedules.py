"""Schedules by their seeds. Replay one with ``pytest tests/simulation --seed N``.

Half of the steady streams are here; a file is what one process of the suite runs.
"""

from __future__ import annotations

import pytest

from simulation.batches import parametrize, run_batch
from simulation.coverage import SCHEDULES
from simulation.faults import CELLS
from simulation.plan import is_steady, make_plan
from simulation.shrink import shrink
from simulation.world import World


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    steady = [seed for seed in range(SCHEDULES) if is_steady(seed)]
    parametrize(metafunc, {"test_every_invariant_holds_in_every_schedule": steady[::2]})


def test_every_invariant_holds_in_every_schedule(seeds: list[int], request: pytest.FixtureRequest) -> None:
    run_batch(seeds, request)


def test_a_seed_runs_the_same_way_twice() -> None:
    for seed in (3, 77, 140, 16, 29):
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


def test_every_kind_of_fault_is_sought() -> None:
    sought = {fault.kind for seed in range(SCHEDULES) for fault in make_plan(seed).faults}
    assert sought == {kind for kind, _ in CELLS}
