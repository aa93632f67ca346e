"""How the suite's schedules are shared out among tests, and what a test does with its share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import Phase, settings

from simulation.coverage import encode
from simulation.faults import Tally
from simulation.plan import Plan, make_plan
from simulation.run import run_plan
from simulation.story import tell

__all__ = ["parametrize", "run_batch"]

_BATCH = 25


def parametrize(metafunc: pytest.Metafunc, seeds_of: Mapping[str, Iterable[int]]) -> None:
    """Give a test its seeds in batches; with ``--seed`` that one."""
    if "seeds" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("seed", None)
    seeds = [one] if one is not None else list(seeds_of[metafunc.function.__name__])
    batches = [seeds[first : first + _BATCH] for first in range(0, len(seeds), _BATCH)]
    metafunc.parametrize("seeds", batches, ids=lambda batch: f"{batch[0]}-{batch[-1]}")


def run_batch(seeds: Sequence[int], request: pytest.FixtureRequest) -> None:
    """Run schedules, and fail with the story of each that breaks an invariant."""
    tally = Tally()
    broken: list[str] = []
    shrinks = len(seeds) > 1 and Phase.shrink in settings().phases
    for seed in seeds:
        plan = _chosen(make_plan(seed), request.config)
        try:
            tally.add(run_plan(plan))
        except Exception as error:  # noqa: BLE001 - the seed must be told whatever went wrong
            broken.append(tell(plan, error, shrinks=shrinks))
            if not shrinks:
                break
    # Not by `record_property`, which warns where a report is asked for as JUnit writes it today.
    request.node.user_properties.append(encode(tally))
    if broken:
        pytest.fail("\n\n".join(broken), pytrace=False)


def _chosen(plan: Plan, config: pytest.Config) -> Plan:
    keep, events = config.getoption("keep", None), config.getoption("events", None)
    if keep is not None:
        plan = replace(plan, faults=tuple(plan.faults[int(index)] for index in keep.split(",") if index))
    return plan if events is None else replace(plan, events=events)
