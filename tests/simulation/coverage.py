"""What the simulation adds to pytest: options to replay a schedule, and the table of which fault hit which step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulation.faults import CELLS, Tally

__all__ = ["LEAST_HITS", "SCHEDULES", "SimulationCoverage", "add_options"]

SCHEDULES = 2_000
"""In the normal suite."""
LEAST_HITS = 20
"""So often each fault hits each step where it makes sense, over the normal suite."""

_PROPERTY = "simulation"


def add_options(parser: pytest.Parser) -> None:
    """Options of ``pytest tests/simulation``."""
    group = parser.getgroup("simulation")
    group.addoption("--seed", type=int, help="run one schedule of the simulation")
    group.addoption("--keep", help="of that schedule only these faults, by index: 0,3 (empty: none)")
    group.addoption("--events", type=int, help="and only so many events")


class SimulationCoverage:
    """Gathers the tallies of all batches, from other processes too, and fails the run where a fault hit too seldom."""

    def __init__(self) -> None:
        self._tally = Tally()

    def pytest_ignore_collect(self, collection_path: Path, config: pytest.Config) -> bool | None:
        """One schedule is run once."""
        is_other = collection_path.name in ("test_histories.py", "test_schedules_beside.py")
        return True if is_other and config.getoption("seed", None) is not None else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if report.when == "call" and name == _PROPERTY:
                self._tally.add(decode(str(value)))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_whole and self._tally.short_of(LEAST_HITS) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        tally = self._tally
        if not tally.schedules:
            return
        terminalreporter.section("simulation: which fault hit which step how often (before/after it)")
        terminalreporter.write_line(tally.table())
        terminalreporter.write_line(f"{tally.schedules} schedules, {tally.events} events, {len(CELLS)} cells")
        if self._is_whole:
            for kind, place, hits in tally.short_of(LEAST_HITS):
                terminalreporter.write_line(f"TOO SELDOM: {kind} at {place}: {hits} of {LEAST_HITS}", red=True)

    @property
    def _is_whole(self) -> bool:
        return self._tally.schedules >= SCHEDULES


def encode(tally: Tally) -> tuple[str, str]:
    """A tally as a property of a test."""
    hits = [[kind, place, count] for (kind, place), count in tally.hits.items()]
    return _PROPERTY, json.dumps([tally.schedules, tally.events, hits])


def decode(text: str) -> Tally:
    """Read what `encode` wrote."""
    tally = Tally()
    tally.schedules, tally.events, hits = json.loads(text)
    tally.hits.update({(kind, place): count for kind, place, count in hits})
    return tally
