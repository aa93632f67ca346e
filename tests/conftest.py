"""What every test shares."""

from __future__ import annotations

import os

import ci_skips
import pytest
from hypothesis import settings
from simulation.coverage import SimulationCoverage, add_options

# A loaded machine is no failure; a failing example is printed so that it can be run again. CI looks for no new ones: a
# change is not to blame for what another run of the same code would have found.
settings.register_profile("suite", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI")))
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the simulation."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse skips in CI, and gather what the simulation covered."""
    config.pluginmanager.register(ci_skips)
    config.pluginmanager.register(SimulationCoverage())
