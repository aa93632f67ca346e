"""``python -m mutations`` (``make mutations``): break each protection in a copy of the tree; the suite must go red.

First the named tests must pass in an untouched copy. Then, for each mutation, each of its tests must fail by what it
asserts: a source that does not even run proves nothing. Exit 0 if all are caught, 1 if one survives, 2 if there is
nothing to judge by.
"""

# ruff: noqa: T201 - a program that prints

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from xml.etree import ElementTree as ET

from mutations.catalogue import MUTATIONS, ROOT, Mutation, Stale

_COPIED = (
    "streamgauge",
    "producers",
    "processors",
    "sinks",
    "infra",
    "benchmarks",
    "docs",
    "requirements",
    "tests",
    "pyproject.toml",
)
# For the tests of one mutation, and for those of all on a busy machine.
_DEADLINE_S = 240
_UNTOUCHED_DEADLINE_S = 1_800
# Errors of a source that is broken rather than unprotected.
_BROKEN = ("NameError", "ImportError", "ModuleNotFoundError", "SyntaxError", "UnboundLocalError", "IndentationError")


@dataclass(frozen=True)
class Ran:
    """What became of the tests: names with their parameters, and what the failed ones said."""

    passed: frozenset[str]
    failed: dict[str, str]
    output: str


@dataclass(frozen=True)
class Verdict:
    """How one mutation ended; `trouble` is empty if it was caught."""

    mutation: Mutation
    caught_by: tuple[str, ...]
    seconds: float
    trouble: str


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutations", description=__doc__)
    parser.add_argument("--only", default="", help="run the mutations whose name holds this text")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.only in mutation.name]
    if not chosen:
        print(f"no mutation's name holds {arguments.only!r}", file=sys.stderr)
        return 2
    started = monotonic()
    with tempfile.TemporaryDirectory(prefix="streamgauge-mutations-") as folder:
        trees = [copy_tree(Path(folder) / str(index)) for index in range(arguments.workers)]
        print(f"{len(chosen)} mutations, {len(trees)} at a time; first their tests as they are ...", flush=True)
        trouble = check_untouched(trees[0], chosen)
        if trouble:
            print(trouble, file=sys.stderr)
            return 2
        verdicts = judge_all(chosen, trees)
    print_table(verdicts)
    survivors = [verdict for verdict in verdicts if verdict.trouble]
    print(f"\n{len(verdicts) - len(survivors)} of {len(verdicts)} caught, {monotonic() - started:.0f} s")
    for verdict in survivors:
        print(f"\nNOT CAUGHT: {verdict.mutation.name}: {verdict.trouble}", file=sys.stderr)
    return 1 if survivors else 0


def copy_tree(folder: Path) -> Path:
    folder.mkdir()
    for name in _COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".streamgauge")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def check_untouched(tree: Path, mutations: Iterable[Mutation]) -> str:
    where = subprocess.run(
        [sys.executable, "-c", "import streamgauge; print(streamgauge.__file__)"],
        cwd=tree,
        env=environment(tree),
        capture_output=True,
        text=True,
        check=True,
    )
    if not Path(where.stdout.strip()).is_relative_to(tree):
        return f"the copy's tests would import {where.stdout.strip()}, which is not in the copy"
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    ran = run_tests(tree, tests, deadline_s=_UNTOUCHED_DEADLINE_S)
    missing = [test for test in tests if not any(is_case(name, test) for name in ran.passed)]
    if ran.failed or missing:
        return f"not green before anything was changed: {sorted(ran.failed) or missing}\n{ran.output[-4000:]}"
    return ""


def judge_all(mutations: Sequence[Mutation], trees: Sequence[Path]) -> list[Verdict]:
    free: queue.Queue[Path] = queue.Queue()
    for tree in trees:
        free.put(tree)

    def judge_in_turn(mutation: Mutation) -> Verdict:
        tree = free.get()
        try:
            verdict = judge(mutation, tree)
        finally:
            free.put(tree)
        word = verdict.trouble.splitlines()[0] if verdict.trouble else "caught"
        print(f"  {mutation.name}: {word} ({verdict.seconds:.0f} s)", file=sys.stderr, flush=True)
        return verdict

    with ThreadPoolExecutor(len(trees)) as pool:
        return list(pool.map(judge_in_turn, mutations))


def judge(mutation: Mutation, tree: Path) -> Verdict:
    started = monotonic()
    paths = {edit.path for edit in mutation.edits}
    try:
        for edit in mutation.edits:
            (tree / edit.path).write_text(edit.applied(tree))
        ran = run_tests(tree, mutation.tests)
    except Stale as stale:
        return Verdict(mutation, (), monotonic() - started, f"it no longer applies: {stale}")
    except subprocess.TimeoutExpired:
        return Verdict(mutation, (), monotonic() - started, f"its tests did not end within {_DEADLINE_S} s")
    finally:
        for path in paths:
            shutil.copy(ROOT / path, tree / path)
    caught_by = tuple(test for test in mutation.tests if any(is_case(name, test) for name in ran.failed))
    broken = {name: said for name, said in ran.failed.items() if said.startswith(_BROKEN)}
    trouble = ""
    if broken:
        trouble = f"the mutation itself does not run: {broken}"
    elif missed := [test for test in mutation.tests if test not in caught_by]:
        trouble = f"still green: {', '.join(missed)}\n{ran.output[-2000:]}"
    return Verdict(mutation, caught_by, monotonic() - started, trouble)


def run_tests(tree: Path, tests: Sequence[str], *, deadline_s: float = _DEADLINE_S) -> Ran:
    report = tree / "report.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "mutations.without_shrinking"]
    options += ["--hypothesis-seed=0", "--timeout=120", f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=tree,
        env=environment(tree),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    passed: set[str] = set()
    failed: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase") if report.exists() else ():
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        trouble = case.find("failure") if case.find("failure") is not None else case.find("error")
        if trouble is not None:
            failed[name] = trouble.get("message", "")
        elif case.find("skipped") is None:
            passed.add(name)
    return Ran(frozenset(passed), failed, done.stdout + done.stderr)


def environment(tree: Path) -> dict[str, str]:
    # The path comes before that of the editable installation. Bytecode of a file that changed twice within a second and
    # kept its size would be taken for current.
    return {
        **os.environ,
        "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'tests'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }


def is_case(name: str, test: str) -> bool:
    """Whether a reported ``package.module::test[parameters]`` is a case of ``path/module.py::test``, or that one."""
    path, _, function = test.partition("::")
    module, _, reported = name.partition("::")
    chosen = reported if "[" in function else reported.partition("[")[0]
    return module == path.removesuffix(".py").replace("/", ".") and chosen == function


def print_table(verdicts: Sequence[Verdict]) -> None:
    width = max(len(verdict.mutation.name) for verdict in verdicts)
    print(f"\n{'mutation':{width}}  seconds  caught by")
    for verdict in verdicts:
        tests = [test.rpartition("::")[2] for test in verdict.caught_by] or ["NOTHING"]
        print(f"{verdict.mutation.name:{width}}  {verdict.seconds:7.1f}  {tests[0]}")
        for test in tests[1:]:
            print(f"{'':{width}}  {'':7}  {test}")


if __name__ == "__main__":
    sys.exit(main())
