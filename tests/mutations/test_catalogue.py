"""That every mutation still fits the source; whether each is caught, `make mutations` tells."""

from __future__ import annotations

import ast

import pytest

from mutations.catalogue import MUTATIONS, ROOT, Mutation

# What may be removed without anybody noticing is not protected: each of these must turn a test red.
PROTECTIONS = {
    "kcl",
    "claim and fencing",
    "position skip",
    "anti-replay window",
    "joining of bitmaps at a merge",
    "floors",
    "sealing",
    "whole-aggregate check",
    "resend of the whole aggregate",
    "W's back-pressure",
    "place in W of a given-up event",
    "outbox",
    "delivery after the snapshot",
    "revision condition",
    "failed events listed by the commit",
    "order of puts",
    "event-by-event watermark",
    "cap on ticks",
    "re-run of the threshold machine",
    "take-back of a vanished clear",
    "functions' permissions",
    "incidents",
    "functions' package",
    "local stack",
    "event source poller",
    "Lambda host",
    "measures",
    "expressions",
    "keys",
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_a_mutation_still_applies_and_leaves_python(mutation: Mutation) -> None:
    for edit in mutation.edits:
        text = edit.applied(ROOT)
        if edit.path.endswith(".py"):
            ast.parse(text)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_the_tests_that_a_mutation_names_exist(mutation: Mutation) -> None:
    assert mutation.tests
    for test in mutation.tests:
        path, _, name = test.partition("::")
        functions = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(node, "name")}
        assert name.partition("[")[0] in functions, test


def test_every_protection_has_a_mutation() -> None:
    names = [mutation.name for mutation in MUTATIONS]
    assert len(set(names)) == len(names)
    assert {name.partition(", ")[0] for name in names} == PROTECTIONS
