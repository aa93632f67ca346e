"""Schedules of streams that are not steady: each is a history that the others come by too seldom."""

from __future__ import annotations

import pytest

from simulation.batches import parametrize, run_batch
from simulation.coverage import SCHEDULES
from simulation.plan import HISTORIES, HISTORIES_EVERY, Shape


def seeds_of(shape: Shape) -> list[int]:
    return sorted(seed for rest in HISTORIES[shape] for seed in range(rest, SCHEDULES, HISTORIES_EVERY))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(
        metafunc,
        {
            "test_every_invariant_holds_where_shards_that_stand_apart_are_merged": seeds_of("apart"),
            "test_every_invariant_holds_where_a_backlog_follows_idle_time": seeds_of("backlog"),
            "test_every_invariant_holds_where_a_record_is_stuck_in_a_burst": seeds_of("burst"),
        },
    )


def test_every_invariant_holds_where_shards_that_stand_apart_are_merged(
    seeds: list[int], request: pytest.FixtureRequest
) -> None:
    run_batch(seeds, request)


def test_every_invariant_holds_where_a_backlog_follows_idle_time(
    seeds: list[int], request: pytest.FixtureRequest
) -> None:
    run_batch(seeds, request)


def test_every_invariant_holds_where_a_record_is_stuck_in_a_burst(
    seeds: list[int], request: pytest.FixtureRequest
) -> None:
    run_batch(seeds, request)
