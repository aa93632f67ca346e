"""Make a failing schedule smaller: fewer faults, then fewer events, with the same seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulation.plan import Plan
from simulation.run import run_plan

__all__ = ["failure_of", "shrink"]

_RUNS_MAX = 60


def failure_of(plan: Plan) -> BaseException | None:
    """What a plan fails with, or None."""
    try:
        run_plan(plan)
    except Exception as error:  # noqa: BLE001 - an error in the product is a failure like any other
        return error
    return None


def shrink(plan: Plan, fails: Callable[[Plan], bool] | None = None) -> tuple[Plan, list[int]]:
    """A smaller plan that fails too, and the indices of the faults that it keeps.

    Deterministic: faults are left out one at a time, over and over, then the number of events is halved and lessened.
    """
    fails = fails or (lambda candidate: failure_of(candidate) is not None)
    kept = list(range(len(plan.faults)))
    smallest, runs = plan, 0

    def tries(candidate: Plan) -> bool:
        nonlocal runs
        runs += 1
        return runs <= _RUNS_MAX and fails(candidate)

    at = 0
    while at < len(kept):
        fewer = kept[:at] + kept[at + 1 :]
        candidate = replace(plan, faults=tuple(plan.faults[index] for index in fewer))
        if tries(candidate):
            smallest, kept, at = candidate, fewer, 0
        else:
            at += 1
    step = smallest.events // 2
    while step:
        candidate = replace(smallest, events=smallest.events - step)
        if candidate.events > 0 and tries(candidate):
            smallest = candidate
            step = min(step, smallest.events // 2)
        else:
            step //= 2
    return smallest, kept
