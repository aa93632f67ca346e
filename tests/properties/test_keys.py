"""Keys and their codes, however they are found, against a dictionary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.processors.core import key_index, keys
from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.keys import Key, KeyTable

texts = st.sampled_from(
    ["", "a", "b", "a\0", "\0", "é", "station-1", "x" * 8, "x" * 9, "x" * 63, "x" * 64, "y" * 65, "ü" * 33]
)
texts |= st.text(max_size=3)
batches = st.lists(st.tuples(st.lists(st.tuples(texts, texts), max_size=30), st.booleans()), max_size=8)


def columns_of(wanted: Sequence[Key], fields: Sequence[str]) -> dict[str, FieldColumn]:
    there = np.ones(len(wanted), dtype=np.bool_)
    return {field: FieldColumn([key[place] for key in wanted], there) for place, field in enumerate(fields)}


@pytest.mark.parametrize("many", [0, 5, 10**9], ids=["in arrays", "in arrays when there are some", "in a dictionary"])
@pytest.mark.parametrize("probes", [256, 1], ids=["", "where hashes are unfair"])
@settings(max_examples=40, deadline=None)
@given(data=st.data(), rounds=batches, one=st.booleans())
def test_codes_are_as_in_a_dictionary(
    many: int, probes: int, data: st.DataObject, rounds: list[tuple[list[Key], bool]], *, one: bool
) -> None:
    fields = ("subject",) if one else ("subject", "data.x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_MANY", many)
        patch.setattr(key_index, "_MAX_PROBES", probes)
        table = KeyTable(fields)
        model: dict[Key, int] = {}
        for pairs, inserted in rounds:
            wanted = [pair[: len(fields)] for pair in pairs]
            expected = [model.setdefault(key, len(model)) for key in wanted]
            columns = columns_of(wanted, fields)
            found = table.insert(wanted) if inserted else table.codes(columns, len(wanted))
            assert found.tolist() == expected
            assert len(table) == len(model)
            assert table.keys(np.arange(len(table))) == list(model)
            if data.draw(st.booleans()):
                live = np.array(
                    data.draw(st.lists(st.booleans(), min_size=len(model), max_size=len(model))), dtype=bool
                )
                moved = table.keep(live)
                model = {key: code for code, key in enumerate(key for key, code in model.items() if live[code])}
                assert [int(code) for code in moved if code >= 0] == list(range(len(model)))


def test_many_keys_are_found_in_arrays_again_and_again() -> None:
    table = KeyTable(("subject",))
    names = [f"station-{number}" for number in range(50_000)]
    codes = table.codes(columns_of([(name,) for name in names], ("subject",)), len(names))
    assert codes.tolist() == list(range(50_000))
    assert isinstance(table._index, key_index.DictIndex)
    turned = names[::-1]
    assert (
        table.codes(columns_of([(name,) for name in turned], ("subject",)), len(turned)).tolist()
        == codes[::-1].tolist()
    )
    assert isinstance(table._index, key_index.WordIndex)
    assert table.codes(columns_of([("z" * 40,), ("station-7",)], ("subject",)), 2).tolist() == [50_000, 7]
    assert table.codes(columns_of([("z" * 400,), ("station-7",)], ("subject",)), 2).tolist() == [50_001, 7]
    assert isinstance(table._index, key_index.DictIndex)
