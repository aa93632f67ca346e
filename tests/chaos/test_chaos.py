"""Rounds of chaos. `make chaos ROUNDS=n SEED=s` runs as many as asked, with their seed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from time import monotonic, sleep

import pytest

from chaos.rig import Rig

# Rounds share a stack, so that each also stands on what the ones before it left behind.
ROUNDS_A_STACK = 10
ASKED = os.environ.get("CHAOS_ROUNDS")
ROUNDS = int(ASKED or 20)
SEED = int(os.environ.get("CHAOS_SEED") or 1)
# On a slow machine a stack begins no more of the suite's rounds after this, but every trouble has its turn.
BUDGET_S = 95.0
TROUBLES: tuple[Callable[[Rig, int], None], ...] = (
    Rig.kill_processor,
    Rig.reshard,
    Rig.kill_producer,
    Rig.pause_worker,
    Rig.kill_delivery,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture
def rig(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    seed = SEED + request.param
    rig = Rig(tmp_path, seed, Random(seed))
    try:
        yield rig
    finally:
        rig.close()


@pytest.mark.parametrize(
    ("rig", "rounds"),
    [(first, min(ROUNDS_A_STACK, ROUNDS - first)) for first in range(0, ROUNDS, ROUNDS_A_STACK)],
    indirect=["rig"],
)
def test_whatever_is_killed_stopped_and_lost_the_audit_passes_and_the_panes_are_true(rig: Rig, rounds: int) -> None:
    started = monotonic()
    for number in range(rounds):
        if not ASKED and number >= len(TROUBLES) and monotonic() > started + BUDGET_S:
            sys.stdout.write(f"{BUDGET_S:.0f} s are over after {number} of {rounds} rounds\n")
            return
        troubles = chosen_troubles(rig.rng, number)
        rig.weather.lose, rig.weather.refuse = rig.rng.uniform(0, 0.1), rig.rng.uniform(0, 0.05)
        rig.weather.delay_s_max = rig.rng.choice([0.0, 0.05, 0.2])
        told = f"seed {rig.seed}, round {number}: {', '.join(trouble.__name__ for trouble in troubles)}, {rig.weather}"
        sys.stdout.write(f"{told}\n")
        rig.put(number)
        if not rig.workers:
            rig.work()
        for trouble in troubles:
            sleep(rig.rng.uniform(0.2, 1.2))
            trouble(rig, number)
        rig.end_input()
        rig.process_to_the_end()
        status, said = rig.audit()
        assert status == 0, f"{told}\n{said}"
        assert rig.panes() == rig.expected_panes(), told


def chosen_troubles(rng: Random, number: int) -> list[Callable[[Rig, int], None]]:
    """One in its turn, so that five rounds have them all, and perhaps another."""
    in_turn = TROUBLES[number % len(TROUBLES)]
    others = [trouble for trouble in TROUBLES if trouble is not in_turn]
    chosen = [in_turn, *rng.sample(others, k=rng.choice([0, 1, 1]))]
    rng.shuffle(chosen)
    return chosen
