"""The model does no I/O and reads no clock: a simulation uses it directly."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

PACKAGE = "streamgauge.infra.local.kinesis"
PURE = (
    "account",
    "administration",
    "errors",
    "faults",
    "iterators",
    "limits",
    "model",
    "sequence",
    "shards",
    "streams",
)
ALLOWED = {"__future__", "binascii", "bisect", "collections.abc", "collections", "dataclasses", "enum", "msgspec", "re"}
ALLOWED |= {"typing", "streamgauge.events.errors", "streamgauge.events.hash_key", "streamgauge.events.records"}


@pytest.mark.parametrize("module", PURE)
def test_the_model_imports_only_what_is_pure(module: str) -> None:
    spec = importlib.util.find_spec(f"{PACKAGE}.{module}")
    assert spec is not None and spec.loader is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = ALLOWED | {f"{PACKAGE}.{other}" for other in PURE}
    if module == "faults":
        allowed |= {"random"}
    assert names <= allowed


def test_importing_the_model_loads_no_server() -> None:
    import subprocess

    code = f"import sys, {PACKAGE}.model; print([m for m in ('hypercorn', 'asyncio', 'socket') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
