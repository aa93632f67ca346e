"""Imports point downwards only, and only under the import root."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("producers", "processors", "sinks", "infra")

# Folder -> what it may import of ours. The longest matching prefix decides.
ALLOWED: dict[str, tuple[str, ...]] = {
    "streamgauge.settings": (),
    "streamgauge.events": ("streamgauge.events",),
    "streamgauge.producers": ("streamgauge.events", "streamgauge.producers", "streamgauge.settings"),
    "streamgauge.processors.core": ("streamgauge.events", "streamgauge.processors.core"),
    "streamgauge.processors": ("streamgauge.events", "streamgauge.processors", "streamgauge.settings"),
    "streamgauge.sinks": (
        "streamgauge.events",
        "streamgauge.processors.core",
        "streamgauge.processors.commit",
        "streamgauge.sinks",
        "streamgauge.settings",
    ),
    "streamgauge.infra": (
        "streamgauge.events",
        "streamgauge.producers",
        "streamgauge.processors",
        "streamgauge.sinks",
        "streamgauge.infra",
        "streamgauge.settings",
    ),
    "streamgauge.cli": ("streamgauge",),
    "streamgauge": ("streamgauge",),
}
# What the pure parts may import from outside; the rest of the standard library is theirs but for these.
PURE_LIBRARIES = {
    "streamgauge.events": {"msgspec", "google"},
    "streamgauge.processors.core": {"msgspec", "google", "numpy", "zstandard"},
}
IMPURE_STANDARD = {"os", "time", "random", "secrets", "socket", "subprocess", "threading", "asyncio", "urllib.request"}
# Heavy libraries and where alone they may be imported.
EDGES = {
    "boto3": (
        "streamgauge.cli",
        "streamgauge.infra",
        "streamgauge.processors.responders",
        "streamgauge.processors.hosts.aws_lambda.clients",
    ),
    "pyarrow": ("streamgauge.sinks", "streamgauge.cli"),
    "duckdb": ("streamgauge.sinks", "streamgauge.cli"),
    "aws_lambda_powertools": ("streamgauge.processors.hosts.aws_lambda", "streamgauge.processors.responders"),
    "amazon_kclpy": ("streamgauge.processors.hosts.kcl",),
}


def modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            found["streamgauge." + ".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    for path in [ROOT / "streamgauge/settings.py", ROOT / "streamgauge/__init__.py"]:
        found["streamgauge." + path.stem if path.stem != "__init__" else "streamgauge"] = path
    for folder in ("events", "cli"):
        for path in (ROOT / "streamgauge" / folder).rglob("*.py"):
            found["streamgauge." + ".".join(path.relative_to(ROOT / "streamgauge").with_suffix("").parts)] = path
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


MODULES = modules()


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def rule(module: str) -> str:
    return max((prefix for prefix in ALLOWED if within(module, prefix)), key=len)


def test_the_test_sees_the_modules() -> None:
    assert len(MODULES) > 15
    assert "streamgauge.processors.core.effects" in MODULES


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downwards(module: str) -> None:
    allowed = ALLOWED[rule(module)]
    for name in imported(MODULES[module]):
        assert name.split(".")[0] not in FOLDERS, f"{module} imports {name} beside the import root"
        if within(name, "streamgauge"):
            assert any(within(name, prefix) for prefix in allowed), f"{module} may not import {name}"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if rule(name) in PURE_LIBRARIES))
def test_the_pure_parts_stay_pure(module: str) -> None:
    import sys

    for name in imported(MODULES[module]):
        if within(name, "streamgauge"):
            continue
        top = name.split(".")[0]
        assert top in PURE_LIBRARIES[rule(module)] or top in sys.stdlib_module_names, f"{module} imports {name}"
        assert name not in IMPURE_STANDARD, f"{module} imports {name}: no I/O, clock or randomness here"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_heavy_libraries_stay_at_their_edges(module: str) -> None:
    for name in imported(MODULES[module]):
        homes = EDGES.get(name.split(".")[0])
        if homes is not None:
            assert any(within(module, home) for home in homes), f"{module} imports {name}"


def test_importing_the_package_loads_no_heavy_library() -> None:
    import subprocess
    import sys

    code = "import sys, streamgauge; print([m for m in ('boto3', 'numpy', 'pyarrow', 'duckdb') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
