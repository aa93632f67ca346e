"""What a user installs: the wheel built from the sdist, without the checkout's links in sight."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA_FILES = {
    "streamgauge/infra/template.yaml",
    "streamgauge/infra/packaging/lambda.lock",
    "streamgauge/cli/demo_pipeline/pipeline.toml",
    "streamgauge/cli/demo_pipeline/schemas/weather.observation/1.json",
    "streamgauge/py.typed",
}


def run(argv: list[str | Path], folder: Path) -> str:
    # Neither the checkout nor a service of the network may help.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "PIP_"))}
    quiet = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        list(map(str, argv)), cwd=folder, env=kept | quiet, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder], ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], source)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_its_data_files_and_nothing_beside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert names >= DATA_FILES
    assert {name.split("/")[0].split("-")[0] for name in names} == {"streamgauge"}
    modules = {name for name in names if name.endswith(".py")}
    folders = ("producers", "processors", "sinks", "infra")
    ours = {f"streamgauge/{path.relative_to(ROOT)}" for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert ours <= modules


def test_the_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).strip())
    # The dependencies are those of this environment, without the .pth file that leads to the checkout.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet", wheel], tmp_path)
    code = (
        "import streamgauge, streamgauge.producers, streamgauge.processors, streamgauge.sinks\n"
        "from streamgauge.infra.deployment import template_text\n"
        "from streamgauge.infra.local import stack\n"
        "print(streamgauge.__file__)\n"
        "print(streamgauge.infra.local.stack.__file__)\n"
        "print(template_text().splitlines()[0])"
    )
    lines = run([python, "-c", code], tmp_path).splitlines()
    assert [Path(line).is_relative_to(site) for line in lines[:2]] == [True, True], lines
    assert lines[2].startswith("AWSTemplateFormatVersion")
    version = run([tmp_path / "venv" / "bin" / "streamgauge", "--version"], tmp_path)
    assert version.startswith("streamgauge, version ")
    pipeline = site / "streamgauge/cli/demo_pipeline/pipeline.toml"
    package = ["package", "--local", "--pipeline", pipeline, "--output", tmp_path / "out"]
    built = run([tmp_path / "venv" / "bin" / "streamgauge", *package], tmp_path).strip()
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
    assert names >= {
        "streamgauge/settings.py",
        "streamgauge/processors/hosts/aws_lambda/processor.py",
        "msgspec/__init__.py",
    }
    assert not any(name.startswith(("streamgauge/cli", "streamgauge/infra", "streamgauge/sinks")) for name in names)
