"""The other half of the steady streams, and those over which the pipeline runs under two state_epochs at once."""

from __future__ import annotations

import pytest

from simulation.batches import parametrize, run_batch
from simulation.coverage import SCHEDULES
from simulation.plan import BESIDE, HISTORIES_EVERY, is_steady


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    steady = [seed for seed in range(SCHEDULES) if is_steady(seed)]
    beside = {what: range(rest, SCHEDULES, HISTORIES_EVERY) for rest, what in BESIDE.items()}
    parametrize(
        metafunc,
        {
            "test_every_invariant_holds_in_every_other_schedule": steady[1::2],
            "test_every_invariant_holds_for_a_replay_that_overlaps_the_live_run": beside["a replay"],
            "test_every_invariant_holds_for_a_pipeline_that_begins_at_an_instant": beside["a late start"],
        },
    )


def test_every_invariant_holds_in_every_other_schedule(seeds: list[int], request: pytest.FixtureRequest) -> None:
    run_batch(seeds, request)


def test_every_invariant_holds_for_a_replay_that_overlaps_the_live_run(
    seeds: list[int], request: pytest.FixtureRequest
) -> None:
    run_batch(seeds, request)


def test_every_invariant_holds_for_a_pipeline_that_begins_at_an_instant(
    seeds: list[int], request: pytest.FixtureRequest
) -> None:
    run_batch(seeds, request)
