"""Pane rows found by window and key, against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.processors.core.slots import Slots

PAIRS = st.tuples(st.sampled_from([-(10**15), -10, 0, 10, 20, 10_000, 10**15]), st.integers(0, 2_000))


@settings(max_examples=60, deadline=None)
@given(rounds=st.lists(st.tuples(st.sets(PAIRS, max_size=400), st.floats(0, 1)), max_size=12))
def test_rows_are_found_as_in_a_dictionary(rounds: list[tuple[set[tuple[int, int]], float]]) -> None:
    slots = Slots()
    slots.define("value", np.int64, fill=7)
    model: dict[tuple[int, int], int] = {}
    for pairs, share in rounds:
        wanted = sorted(pairs)
        starts = np.array([start for start, _ in wanted], dtype=np.int64)
        codes = np.array([code for _, code in wanted], dtype=np.int64)
        found = slots.find(starts, codes)
        assert found.tolist() == [model.get(pair, 0) for pair in wanted]
        missing = found == 0
        created = slots.create(starts[missing], codes[missing])
        assert (slots.column("value")[created] == 7).all()
        slots.column("value")[created] = 1
        fresh = [pair for pair, is_missing in zip(wanted, missing.tolist(), strict=True) if is_missing]
        model |= dict(zip(fresh, created.tolist(), strict=True))
        assert len(set(model.values())) == len(model) == len(slots)
        gone = sorted(model)[: int(share * len(model))]
        slots.free(np.array([model.pop(pair) for pair in gone], dtype=np.int64))
        assert sorted(slots.used().tolist()) == sorted(model.values())


def test_many_rows_grow_the_table() -> None:
    slots = Slots()
    codes = np.arange(50_000)
    starts = np.full(50_000, 10_000)
    created = slots.create(starts, codes)
    assert (slots.find(starts, codes) == created).all()
    assert (slots.find(starts + 1, codes) == 0).all()
