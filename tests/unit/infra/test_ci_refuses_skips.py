from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "support" / "ci_skips.py"
SKIPPING = {
    "test_mark.py": "import pytest\n@pytest.mark.skip(reason='why')\ndef test_it(): pass\n",
    "test_call.py": "import pytest\ndef test_it(): pytest.skip('why')\n",
    "test_fixture.py": "import pytest\n@pytest.fixture\ndef it(): pytest.skip('why')\ndef test_it(it): pass\n",
    "test_module.py": "import pytest\npytest.importorskip('no_such_module', reason='why')\ndef test_it(): pass\n",
}
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail(reason='why')\ndef test_it(): assert False\n"


def run(folder: Path, ci: str) -> tuple[int, set[str]]:
    """Exit code, and the files in which something failed."""
    shutil.copy(PLUGIN, folder / "conftest.py")
    for name, body in {**SKIPPING, "test_expected.py": EXPECTED_FAILURE}.items():
        (folder / name).write_text(body)
    options = ["-q", "-rfE", "-c", os.devnull, "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "."],
        cwd=folder,
        env=environment | {"CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, set(re.findall(r"^(?:FAILED|ERROR) (test_\w+\.py)", done.stdout, re.MULTILINE))


def test_a_skip_fails_in_ci_but_not_an_expected_failure(tmp_path: Path) -> None:
    assert run(tmp_path, ci="true") == (pytest.ExitCode.TESTS_FAILED, set(SKIPPING))


def test_a_skip_passes_elsewhere(tmp_path: Path) -> None:
    assert run(tmp_path, ci="") == (pytest.ExitCode.OK, set())


def test_the_suite_itself_uses_it(request: pytest.FixtureRequest) -> None:
    assert any(
        plugin.__name__ == "ci_skips"
        for plugin in request.config.pluginmanager.get_plugins()
        if hasattr(plugin, "__name__")
    )
