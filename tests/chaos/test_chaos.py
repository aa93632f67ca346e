"""Rounds of chaos. `make chaos ROUNDS=n SEED=s` runs as many as asked, with their seed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import TypeVar

import pytest

from chaos.kcl_rig import KclRig
from chaos.lambda_rig import LambdaRig
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
Troubles = tuple[Callable[..., None], ...]
TROUBLES: Troubles = (
    Rig.kill_processor,
    Rig.reshard,
    Rig.kill_producer,
    Rig.pause_worker,
    Rig.kill_delivery,
)
LAMBDA_TROUBLES: Troubles = (
    LambdaRig.kill_function,
    LambdaRig.reshard,
    LambdaRig.pause_function,
    LambdaRig.kill_event_source,
)
KCL_TROUBLES: Troubles = (
    KclRig.kill_launcher,
    KclRig.kill_child,
    KclRig.reshard,
    KclRig.pause_worker,
    KclRig.kill_daemon,
)
AnyRig = TypeVar("AnyRig", bound=Rig)

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


def test_whatever_befalls_the_functions_the_audit_passes_and_the_panes_are_true(tmp_path: Path) -> None:
    rounds = int(ASKED or len(LAMBDA_TROUBLES))
    rig = run_rounds(tmp_path, SEED, rounds, make=LambdaRig, troubles=LAMBDA_TROUBLES)
    assert rounds < len(LAMBDA_TROUBLES) or (rig.killed and rig.stopped)


def test_whatever_befalls_the_kcl_the_audit_passes_and_the_panes_are_true(tmp_path: Path) -> None:
    rounds = int(ASKED or len(KCL_TROUBLES))
    rig = run_rounds(tmp_path, SEED, rounds, make=KclRig, troubles=KCL_TROUBLES)
    assert rounds < len(KCL_TROUBLES) or {"launcher", "child", "zombie", "java"} <= set(rig.ended)


def run_rounds(
    folder: Path,
    seed: int,
    rounds: int,
    *,
    make: Callable[[Path, int, Random], AnyRig] = Rig,
    troubles: Troubles = TROUBLES,
) -> AnyRig:
    rig = make(folder, seed, Random(seed))
    try:
        started = monotonic()
        for number in range(rounds):
            if not ASKED and number >= len(troubles) and monotonic() > started + BUDGET_S:
                say(f"seed {seed}: {BUDGET_S:.0f} s are over after {number} of {rounds} rounds")
                break
            run_round(rig, number, troubles)
    finally:
        rig.close()
    return rig


def run_round(rig: Rig, number: int, of: Troubles) -> None:
    troubles = chosen_troubles(rig.rng, number, of)
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


def chosen_troubles(rng: Random, number: int, of: Troubles) -> list[Callable[..., None]]:
    """One in its turn, so that as many rounds have them all, and perhaps another."""
    in_turn = of[number % len(of)]
    others = [trouble for trouble in of if trouble is not in_turn]
    chosen = [in_turn, *rng.sample(others, k=rng.choice([0, 1, 1]))]
    rng.shuffle(chosen)
    return chosen
