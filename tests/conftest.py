"""What every test shares."""

from __future__ import annotations

import ci_skips
import pytest
from simulation.coverage import SimulationCoverage, add_options


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the simulation."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse skips in CI, and gather what the simulation covered."""
    config.pluginmanager.register(ci_skips)
    config.pluginmanager.register(SimulationCoverage())
