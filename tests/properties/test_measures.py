"""Measures with more state than a number, each by itself: cut, turned around, merged, and held against exact values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.processors.core import quantiles
from streamgauge.processors.core.batch import EventBatch, FieldColumn
from streamgauge.processors.core.definition import Measure
from streamgauge.processors.core.distinct import STANDARD_ERROR
from streamgauge.processors.core.hashes import hashes
from streamgauge.processors.core.measures import Accumulators
from streamgauge.processors.core.quantiles import RELATIVE_ERROR, bucket_of, value_of
from streamgauge.processors.core.slots import Slots

Row = tuple[int, float | None, int, int]
"""Pane, value, time and source of an event; its place in the list is its sequence."""

QUANTILES = ("0", "0.01", "0.25", "0.5", "0.9", "0.999", "1")
MEASURES = (
    Measure("n", "count", None, is_integer=True),
    Measure("values", "count", "data.x", is_integer=True),
    Measure("total", "sum", "data.x", is_integer=False),
    Measure("low", "min", "data.x", is_integer=False),
    Measure("high", "max", "data.x", is_integer=False),
    Measure("mean", "mean", "data.x", is_integer=False),
    Measure("variance", "variance", "data.x", is_integer=False),
    Measure("stddev", "stddev", "data.x", is_integer=False),
    Measure("first", "first", "data.x", is_integer=False),
    Measure("last", "last", "data.x", is_integer=False),
    Measure("distinct", "approx_distinct", "data.x", is_integer=True),
    *(Measure(f"q{text}", "quantile", "data.x", is_integer=False, parameter=text) for text in QUANTILES),
)
ORDERED = {"total", "mean", "variance", "stddev"}
"""Measures whose last bits depend on the order in which values are added."""
PANES = 4

odd_values = st.sampled_from([0.1, 0.2, 1e16, -1e16, 1e-300, -0.0, 5e-324, 1e150, -1e150])
values = st.none() | st.integers(-8, 8).map(float) | st.floats(-1e9, 1e9) | odd_values
rows_of_events = st.lists(
    st.tuples(st.integers(0, PANES - 1), values, st.integers(0, 3), st.integers(0, 2)), max_size=60
)


def batch_of(rows: Sequence[Row], sequences: Sequence[int]) -> EventBatch:
    n = len(rows)
    present = np.array([row[1] is not None for row in rows], dtype=np.bool_)
    column = np.array([row[1] or 0.0 for row in rows], dtype=np.float64)
    zeros = np.zeros(n, dtype=np.int64)
    return EventBatch(
        record=zeros,
        sub_sequence=zeros,
        time_ms=np.array([row[2] for row in rows], dtype=np.int64),
        source=np.array([row[3] for row in rows], dtype=np.int64),
        sources=["a", "b", "c"],
        source_windows=[1024] * 3,
        sequence=np.array(sequences, dtype=np.int64),
        ids=[""] * n,
        partition_keys=[""] * n,
        outcome=np.zeros(n, dtype=np.uint8),
        failures={},
        fields={"data.x": FieldColumn(column, present)},
        payloads=[b""] * n,
    )


class Table:
    """Four panes and their accumulators."""

    def __init__(self) -> None:
        self.slots = Slots()
        self.accumulators = Accumulators(MEASURES, self.slots)
        self.panes = self.slots.create(np.zeros(PANES, dtype=np.int64), np.arange(PANES))

    def add(self, rows: Sequence[Row], sequences: Sequence[int]) -> None:
        if rows:
            batch = batch_of(rows, sequences)
            panes = self.panes[[row[0] for row in rows]]
            self.accumulators.add(panes, self.accumulators.prepare(batch), np.arange(len(rows)))

    def results(self) -> list[dict[str, bytes | None]]:
        return as_bytes(self.accumulators, self.accumulators.gather(self.panes), PANES)

    def state(self) -> dict[str, bytes]:
        """All that a snapshot would hold."""
        saved = {name: self.slots.column(name)[self.panes] for name in self.slots.names()}
        return {name: np.asarray(c).tobytes() for name, c in {**saved, **self.accumulators.columns(self.panes)}.items()}


def as_bytes(accumulators: Accumulators, gathered: dict[str, np.ndarray], n: int) -> list[dict[str, bytes | None]]:
    measures = accumulators.measures(gathered)
    return [
        {name: column.values[row].tobytes() if column.present[row] else None for name, column in measures.items()}
        for row in range(n)
    ]


def number(value: bytes | None, measure: str) -> float | None:
    if value is None:
        return None
    return np.frombuffer(value, dtype=np.int64 if measure in {"n", "values", "distinct"} else np.float64)[0].item()


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_events, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_how_values_are_cut_into_batches_changes_no_byte(rows: list[Row], cuts: list[int]) -> None:
    whole, cut = Table(), Table()
    whole.add(rows, range(len(rows)))
    for first, after in itertools.pairwise([0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]):
        cut.add(rows[first:after], range(first, after))
    assert cut.results() == whole.results()
    assert cut.state() == whole.state()


@settings(max_examples=100, deadline=None)
@given(data=st.data(), rows=rows_of_events)
def test_the_order_of_values_changes_only_the_last_bits_of_sums(data: st.DataObject, rows: list[Row]) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    straight, turned = Table(), Table()
    straight.add(rows, range(len(rows)))
    turned.add([rows[place] for place in order], order)
    for one, other in zip(straight.results(), turned.results(), strict=True):
        assert {n: v for n, v in one.items() if n not in ORDERED} == {
            n: v for n, v in other.items() if n not in ORDERED
        }


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_events)
def test_corrections_give_what_stood_after_each_event(rows: list[Row]) -> None:
    one_by_one, at_once = Table(), Table()
    expected = []
    for place, row in enumerate(rows):
        one_by_one.add([row], [place])
        expected.append(one_by_one.results()[row[0]])
    batch = batch_of(rows, range(len(rows)))
    panes = at_once.panes[np.array([row[0] for row in rows], dtype=np.int64)]
    gathered = at_once.accumulators.correct(panes, at_once.accumulators.prepare(batch), np.arange(len(rows)))
    assert as_bytes(at_once.accumulators, gathered, len(rows)) == expected
    assert at_once.state() == one_by_one.state()


@settings(max_examples=100, deadline=None)
@given(data=st.data(), rows=rows_of_events, first_parts=st.integers(1, 3))
def test_merge_of_partial_panes_equals_the_whole(data: st.DataObject, rows: list[Row], first_parts: int) -> None:
    """Panes 1 to 3 are merged into pane 0, which then takes what comes later."""
    split = data.draw(st.integers(0, len(rows)))
    parts, whole = Table(), Table()
    parts.add([(row[0] % (first_parts + 1), *row[1:]) for row in rows[:split]], range(split))
    target = parts.panes[:1]
    for part in range(1, first_parts + 1):
        before = parts.state()
        parts.accumulators.merge(target, parts.accumulators, parts.panes[part : part + 1])
        untouched = [np.frombuffer(parts.state()[n])[1:] for n in parts.slots.names() if n.startswith("sum")]
        assert all((u == np.frombuffer(before[n])[1:]).all() for u, n in zip(untouched, ["sum(data.x)"], strict=True))
    parts.add([(0, *row[1:]) for row in rows[split:]], range(split, len(rows)))
    whole.add([(0, *row[1:]) for row in rows], range(len(rows)))
    merged, straight = parts.results()[0], whole.results()[0]
    numbers = [abs(row[1]) for row in rows if row[1] is not None]
    for name, value in straight.items():
        if name not in ORDERED:
            assert merged[name] == value, name
        elif (exact := number(value, name)) is not None:
            ours = number(merged[name], name)
            assert ours is not None
            # Of values that cancel each other out little is left of a sum.
            size = max(numbers) ** 2 * 1e-15 if name == "variance" else max(numbers) * 1e-7
            assert math.isclose(ours, exact, rel_tol=1e-9, abs_tol=1e-12 + len(numbers) * size)


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_events, other=st.booleans())
def test_an_empty_pane_changes_nothing_on_either_side(rows: list[Row], *, other: bool) -> None:
    table, elsewhere = Table(), Table()
    table.add([(row[0] % 2, *row[1:]) for row in rows], range(len(rows)))
    before, state = table.results(), table.state()
    empty = elsewhere if other else table
    table.accumulators.merge(table.panes[:2], empty.accumulators, empty.panes[2:])
    assert table.results() == before
    assert table.state() == state
    elsewhere.accumulators.merge(elsewhere.panes[:2], table.accumulators, table.panes[:2])
    assert elsewhere.state() == state


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_events)
def test_rows_that_are_given_back_leave_nothing_behind(rows: list[Row]) -> None:
    table, fresh = Table(), Table()
    table.add(rows, range(len(rows)))
    table.slots.free(table.panes)
    table.panes = table.slots.create(np.ones(PANES, dtype=np.int64), np.arange(PANES))
    assert table.state() == fresh.state()
    table.add(rows, range(len(rows)))
    fresh.add(rows, range(len(rows)))
    assert table.results() == fresh.results()
    assert table.state() == fresh.state()


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_events, more=rows_of_events)
def test_what_was_saved_and_restored_goes_on_as_before(rows: list[Row], more: list[Row]) -> None:
    table, restored = Table(), Table()
    table.add(rows, range(len(rows)))
    restored.slots.free(restored.panes)
    restored.panes = restored.slots.create(np.zeros(PANES, dtype=np.int64), np.arange(PANES) + 7)[::-1]
    for name in table.slots.names():
        restored.slots.column(name)[restored.panes] = table.slots.column(name)[table.panes]
    restored.accumulators.restore(table.accumulators.columns(table.panes), restored.panes)
    assert restored.state() == table.state()
    for each in (table, restored):
        each.add(more, range(1_000, 1_000 + len(more)))
    assert restored.state() == table.state()


# --- against exact values


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_events)
def test_the_first_and_the_last_are_those_by_time_source_and_sequence(rows: list[Row]) -> None:
    from streamgauge.processors.core.hashes import text_digest

    table = Table()
    for first in range(0, len(rows), 5):
        table.add(rows[first : first + 5], range(first, min(first + 5, len(rows))))
    for pane, found in enumerate(table.results()):
        mine = sorted(
            (row[2], text_digest("abc"[row[3]]), place, row[1] + 0.0)
            for place, row in enumerate(rows)
            if row[0] == pane and row[1] is not None
        )
        assert number(found["first"], "first") == (mine[0][-1] if mine else None)
        assert number(found["last"], "last") == (mine[-1][-1] if mine else None)


def exact_variance(numbers: Sequence[float]) -> Fraction | None:
    if len(numbers) < 2:
        return None
    exact = [Fraction(value) for value in numbers]
    mean = sum(exact) / len(exact)
    return sum((value - mean) ** 2 for value in exact) / (len(exact) - 1)


@settings(max_examples=150, deadline=None)
@given(numbers=st.lists(st.floats(-1e9, 1e9) | odd_values, max_size=60), offset=st.sampled_from([0.0, 1e6, -1e12]))
def test_the_variance_is_exact_to_rounding_however_large_the_mean(numbers: list[float], offset: float) -> None:
    numbers = [value + offset for value in numbers]
    table = Table()
    table.add([(0, value, 0, 0) for value in numbers], range(len(numbers)))
    found, exact = number(table.results()[0]["variance"], "variance"), exact_variance(numbers)
    if exact is None:
        assert found is None
        return
    assert found is not None
    n = len(numbers)
    assert abs(Fraction(found) - exact) <= exact * Fraction(2.0**-52 * n**1.5) + Fraction(5e-324) * n


FAR_APART = {
    "a large mean": lambda random: random.normal(1e9, 1.0, 40_000),
    "a first value far off": lambda random: np.concatenate([[-1e12], random.normal(1e9, 1.0, 40_000)]),
    "a jump": lambda random: np.concatenate([random.normal(1e9, 1.0, 20_000), random.normal(0.0, 1e-3, 20_000)]),
    "a trend": lambda random: np.arange(40_000) * 1e6 + random.normal(0.0, 1e-3, 40_000),
}


@pytest.mark.parametrize("values_of", FAR_APART.values(), ids=FAR_APART)
def test_the_variance_of_many_values_keeps_13_digits(values_of: Callable[[np.random.Generator], np.ndarray]) -> None:
    numbers = values_of(np.random.default_rng(1))
    table = Table()
    for first in range(0, len(numbers), 1_234):
        part = numbers[first : first + 1_234].tolist()
        table.add([(0, value, 0, 0) for value in part], range(len(part)))
    found, exact = number(table.results()[0]["variance"], "variance"), exact_variance(numbers.tolist())
    assert found is not None and exact is not None
    assert abs(Fraction(found) / exact - 1) < 1e-13


def test_sketches_of_many_values_merge_into_that_of_all() -> None:
    numbers = np.random.default_rng(1).lognormal(3.0, 4.0, 3_000).tolist()
    whole, parts = Table(), Table()
    whole.add([(0, value, 0, 0) for value in numbers], range(len(numbers)))
    # A third of the values is in both.
    parts.add([(0, value, 0, 0) for value in numbers[:2_000]], range(2_000))
    parts.add([(1, value, 0, 0) for value in numbers[1_000:]], range(1_000, 3_000))
    parts.accumulators.merge(parts.panes[:1], parts.accumulators, parts.panes[1:2])
    assert parts.results()[0]["distinct"] == whole.results()[0]["distinct"]
    whole.add([(0, value, 0, 0) for value in numbers[1_000:2_000]], range(1_000))
    for text in QUANTILES:
        assert parts.results()[0][f"q{text}"] == whole.results()[0][f"q{text}"]


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_events)
def test_a_quantile_lies_within_the_stated_error_of_the_exact_one(rows: list[Row]) -> None:
    table = Table()
    table.add(rows, range(len(rows)))
    for pane, found in enumerate(table.results()):
        mine = sorted(row[1] for row in rows if row[0] == pane and row[1] is not None)
        for text in QUANTILES:
            estimate = number(found[f"q{text}"], "q")
            if not mine:
                assert estimate is None
                continue
            exact = mine[max(math.ceil(Fraction(text) * len(mine)), 1) - 1]
            assert estimate is not None
            # Subnormal numbers count as zero.
            assert abs(estimate - exact) <= abs(exact) * RELATIVE_ERROR * (1 + 1e-12) + 2.3e-308


@settings(max_examples=150, deadline=None)
@given(one=st.floats(allow_nan=False, allow_infinity=False), other=st.floats(allow_nan=False, allow_infinity=False))
def test_buckets_are_in_the_order_of_values_and_stand_for_what_is_near(one: float, other: float) -> None:
    low, high = bucket_of(np.array(sorted([one, other])))
    assert low <= high
    (stands_for,) = value_of(bucket_of(np.array([one])))
    assert abs(stands_for - one) <= abs(one) * RELATIVE_ERROR * (1 + 1e-12) + 2.3e-308
    assert bucket_of(np.array([-one])) == -bucket_of(np.array([one]))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), exponents=st.lists(st.integers(-300, 300), min_size=1, max_size=40))
def test_of_values_too_far_apart_those_closest_to_zero_count_as_zero(data: st.DataObject, exponents: list[int]) -> None:
    signs = data.draw(st.lists(st.sampled_from([1, -1]), min_size=len(exponents), max_size=len(exponents)))
    numbers = [sign * 2.0**exponent for sign, exponent in zip(signs, exponents, strict=True)]
    most = 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantiles, "MAX_PAGES", most)
        straight, parts, turned = Table(), Table(), Table()
        order = data.draw(st.permutations(range(len(numbers))))
        straight.add([(0, value, 0, 0) for value in numbers], range(len(numbers)))
        turned.add([(0, numbers[place], 0, 0) for place in order], order)
        for place, value in enumerate(numbers):
            parts.add([(place % 3, value, 0, 0)], [place])
        parts.accumulators.merge(parts.panes[:1], parts.accumulators, parts.panes[1:2])
        parts.accumulators.merge(parts.panes[:1], parts.accumulators, parts.panes[2:3])
        found = straight.results()[0]
        assert turned.results()[0] == {**found, **{n: turned.results()[0][n] for n in ORDERED}}
        for text in QUANTILES:
            assert parts.results()[0][f"q{text}"] == found[f"q{text}"]
    kept = sorted({*numbers}, key=lambda value: (abs(value), value < 0))[-most:]
    collapsed = sorted(value if value in kept else 0.0 for value in numbers)
    for text in QUANTILES:
        exact = collapsed[max(math.ceil(Fraction(text) * len(collapsed)), 1) - 1]
        estimate = number(found[f"q{text}"], "q")
        assert estimate is not None
        assert abs(estimate - exact) <= abs(exact) * RELATIVE_ERROR * (1 + 1e-12)


def test_the_number_of_distinct_values_is_within_the_stated_error() -> None:
    """64 panes of 10 to 100,000 values: the root of the mean square error, and the worst of them."""
    for n, bound in ((10, 0.06), (100, 0.02), (1_000, 0.02), (10_000, 0.02), (100_000, 0.02)):
        errors = []
        for seed in range(16):
            table = Table()
            distinct = np.random.default_rng(seed).permutation(np.arange(n) * 7 + seed).astype(np.float64)
            batch = batch_of([], [])
            batch.fields = {"data.x": FieldColumn(distinct, np.ones(n, dtype=np.bool_))}
            summary = table.accumulators._summaries
            (sketch,) = [each for each in summary if type(each).__name__ == "Distinct"]
            for _ in range(2):
                sketch.add(np.repeat(table.panes[:1], n), sketch.prepare(batch), np.arange(n))
            errors.append(int(sketch.results(table.panes[:1])["approx_distinct(data.x)"][0]) / n - 1)
        assert np.sqrt(np.mean(np.square(errors))) < bound
        assert max(map(abs, errors)) < 4 * STANDARD_ERROR + 1 / n


# --- hashes


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(max_size=20) | st.sampled_from(["", "é", "x" * 300, "a\0", "a"]), max_size=12))
def test_a_texts_hash_does_not_depend_on_its_neighbours(texts: list[str]) -> None:
    there = np.ones(len(texts), dtype=np.bool_)
    together = hashes(FieldColumn(texts, there)).tolist()
    alone = [hashes(FieldColumn([text], there[:1])).tolist()[0] for text in texts]
    assert together == alone
    assert len(set(together)) == len(set(texts))


def test_hashes_are_for_ever() -> None:
    """Saved registers depend on them: a change here would count every value twice."""
    there = np.ones(3, dtype=np.bool_)
    numbers = hashes(FieldColumn(np.array([0, 1, -1], dtype=np.int64), there)).tolist()
    floats = hashes(FieldColumn(np.array([0.0, -0.0, 1.5]), there)).tolist()
    booleans = hashes(FieldColumn(np.array([True, False, True]), there)).tolist()
    texts = hashes(FieldColumn(["", "user-1", "Zürich, Hauptbahnhof"], there)).tolist()
    assert floats[0] == floats[1] == numbers[0]
    assert booleans == [numbers[1], numbers[0], numbers[1]]
    assert [f"{value:016x}" for value in numbers] == PINNED[:3]
    assert [f"{value:016x}" for value in (floats[2], *texts)] == PINNED[3:]


PINNED = [
    "ef7d4e1b7eea08d1",
    "78945d24c6e7cf07",
    "8fb2fee597027027",
    "888cb62fcc401040",
    "ef7d4e1b7eea08d1",
    "fcc1b1f0ef74c455",
    "9fd99a09ddd73630",
]
