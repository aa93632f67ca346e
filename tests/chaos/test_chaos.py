"""Rounds of chaos. `make chaos ROUNDS=n SEED=s` runs as many as asked, with their seed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from time import monotonic, sleep

import pytest

from chaos.rig import IN_THIS_PROCESS, Rig

# Rounds share a stack, so that each also stands on what the ones before it left behind. A round mostly waits, for
# leases to end and for whoever takes over, so two stacks run side by side.
STACKS = 2
ASKED = os.environ.get("CHAOS_ROUNDS")
ROUNDS = int(ASKED or 20)
SEED = int(os.environ.get("CHAOS_SEED") or 1)
# Twice what they take on two cores. On a machine that is slower still, a stack begins no more rounds after this; it
# always has five.
BUDGET_S = 480.0
TROUBLES: tuple[Callable[[Rig, int], None], ...] = (
    Rig.kill_processor,
    Rig.reshard,
    Rig.kill_producer,
    Rig.pause_worker,
    Rig.kill_delivery,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600 + 60 * ROUNDS)]


def test_whatever_is_killed_stopped_and_lost_the_audit_passes_and_the_panes_are_true(tmp_path: Path) -> None:
    shares = [len(range(index, ROUNDS, STACKS)) for index in range(STACKS)]
    with ThreadPoolExecutor(STACKS) as pool:
        runs = [
            pool.submit(run_rounds, tmp_path / str(index), SEED + index, share)
            for index, share in enumerate(shares)
            if share
        ]
    for run in runs:
        run.result()


def run_rounds(folder: Path, seed: int, rounds: int) -> None:
    rig = Rig(folder, seed, Random(seed))
    try:
        started = monotonic()
        for number in range(rounds):
            if not ASKED and number >= len(TROUBLES) and monotonic() > started + BUDGET_S:
                say(f"seed {seed}: {BUDGET_S:.0f} s are over after {number} of {rounds} rounds")
                return
            run_round(rig, number)
    finally:
        rig.close()


def run_round(rig: Rig, number: int) -> None:
    troubles = chosen_troubles(rig.rng, number)
    rig.weather.lose, rig.weather.refuse = rig.rng.uniform(0, 0.1), rig.rng.uniform(0, 0.05)
    rig.weather.delay_s_max = rig.rng.choice([0.0, 0.05, 0.2])
    told = f"seed {rig.seed}, round {number}: {', '.join(trouble.__name__ for trouble in troubles)}, {rig.weather}"
    say(told)
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


def say(text: str) -> None:
    with IN_THIS_PROCESS:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def chosen_troubles(rng: Random, number: int) -> list[Callable[[Rig, int], None]]:
    """One in its turn, so that five rounds have them all, and perhaps another."""
    in_turn = TROUBLES[number % len(TROUBLES)]
    others = [trouble for trouble in TROUBLES if trouble is not in_turn]
    chosen = [in_turn, *rng.sample(others, k=rng.choice([0, 1, 1]))]
    rng.shuffle(chosen)
    return chosen
