"""Measures: values, nulls, integers that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from streamgauge.processors.core.batch import EventBatch, FieldColumn
from streamgauge.processors.core.definition import Measure, MeasureKind
from streamgauge.processors.core.measures import Accumulators
from streamgauge.processors.core.slots import Slots

BIG = 2**63 - 1


def a_field(values: list[float | None], *, integer: bool = False) -> dict[str, FieldColumn]:
    filled = [0 if value is None else value for value in values]
    array = np.array(filled, dtype=np.int64) if integer else np.array(filled, dtype=np.float64)
    return {"data.x": FieldColumn(array, np.array([value is not None for value in values], dtype=np.bool_))}


def accumulators_of(*kinds: MeasureKind, integer: bool = False) -> tuple[Accumulators, np.ndarray]:
    slots = Slots()
    measures = [Measure(kind, kind, "data.x", is_integer=integer and kind != "mean") for kind in kinds]
    accumulators = Accumulators([Measure("events", "count", None, is_integer=True), *measures], slots)
    return accumulators, slots.create(np.zeros(2, dtype=np.int64), np.arange(2))


def values_of(accumulators: Accumulators, slots: np.ndarray) -> dict[str, list[float | None]]:
    return {
        name: [
            value if present else None
            for value, present in zip(column.values.tolist(), column.present.tolist(), strict=True)
        ]
        for name, column in accumulators.measures(accumulators.gather(slots)).items()
    }


ALL: tuple[MeasureKind, ...] = ("count", "sum", "min", "max", "mean")


@pytest.mark.parametrize("integer", [False, True])
def test_nulls_are_left_out_and_a_pane_without_values_has_null(*, integer: bool) -> None:
    accumulators, slots = accumulators_of(*ALL, integer=integer)
    fields = a_field([3, None, -1, None], integer=integer)
    accumulators.add(slots[[0, 0, 0, 1]], fields, np.arange(4))
    assert values_of(accumulators, slots) == {
        "events": [3, 1],
        "count": [2, 0],
        "sum": [2, None],
        "min": [-1, None],
        "max": [3, None],
        "mean": [1.0, None],
    }


def test_measures_of_integers_are_integers_and_exact() -> None:
    accumulators, slots = accumulators_of("sum", "min", "max", integer=True)
    accumulators.add(slots[[0, 0]], a_field([2**62, 1], integer=True), np.arange(2))
    columns = accumulators.measures(accumulators.gather(slots))
    assert columns["sum"].values.dtype == np.int64
    assert values_of(accumulators, slots[:1])["sum"] == [2**62 + 1]


def test_a_count_of_values_leaves_their_sum_a_float() -> None:
    slots = Slots()
    measures = [Measure("n", "count", "data.x", is_integer=True), Measure("s", "sum", "data.x", is_integer=False)]
    accumulators = Accumulators(measures, slots)
    rows = slots.create(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    accumulators.add(rows, a_field([0.5]), np.arange(1))
    assert values_of(accumulators, rows)["s"] == [0.5]


def test_floats_are_added_in_stream_order_one_by_one() -> None:
    accumulators, slots = accumulators_of("sum")
    accumulators.add(slots[[0, 0, 0]], a_field([1e16, 1.0, -1e16]), np.arange(3))
    accumulators.add(slots[[0]], a_field([1.0]), np.arange(1))
    assert values_of(accumulators, slots[:1])["sum"] == [1e16 + 1.0 - 1e16 + 1.0]


@pytest.mark.parametrize("values", [[-0.0], [-0.0, 0.0], [0.0, -0.0]])
def test_a_negative_zero_is_zero(values: list[float | None]) -> None:
    accumulators, slots = accumulators_of("min", "max")
    accumulators.add(np.repeat(slots[:1], len(values)), a_field(values), np.arange(len(values)))
    columns = accumulators.measures(accumulators.gather(slots))
    assert not np.signbit(columns["min"].values[0])
    assert not np.signbit(columns["max"].values[0])


@pytest.mark.parametrize("integer", [False, True])
def test_corrections_give_every_value_in_between(*, integer: bool) -> None:
    accumulators, slots = accumulators_of(*ALL, integer=integer)
    accumulators.add(slots[[0]], a_field([5], integer=integer), np.arange(1))
    fields = a_field([1, 9, None, 7], integer=integer)
    after = accumulators.measures(accumulators.correct(slots[[0, 1, 0, 0]], fields, np.arange(4)))
    assert after["sum"].values.tolist() == [6, 9, 6, 13]
    assert after["min"].values.tolist() == [1, 9, 1, 1]
    assert after["max"].values.tolist() == [5, 9, 5, 7]
    assert after["count"].values.tolist() == [2, 1, 2, 3]
    assert after["events"].values.tolist() == [2, 1, 3, 4]
    assert values_of(accumulators, slots)["sum"] == [13, 9]


def test_an_overflow_is_told_before_anything_is_added() -> None:
    accumulators, slots = accumulators_of("sum", integer=True)
    fields = a_field([BIG, 1], integer=True)
    assert accumulators.reserve(fields, np.array([0]))
    accumulators.add(slots[[0]], fields, np.array([0]))
    assert not accumulators.reserve(fields, np.array([1]))
    assert accumulators.overflows(fields, 1, [int(slots[0])]) == "data.x"
    assert accumulators.overflows(fields, 1, [int(slots[1])]) is None
    assert accumulators.overflows(fields, 0, [0]) is None


def test_the_bound_falls_when_large_panes_have_gone() -> None:
    slots = Slots()
    accumulators = Accumulators([Measure("s", "sum", "data.x", is_integer=True)], slots)
    rows = slots.create(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    fields = a_field([BIG, 1], integer=True)
    assert accumulators.reserve(fields, np.array([0]))
    accumulators.add(rows, fields, np.array([0]))
    slots.free(rows)
    assert accumulators.reserve(fields, np.array([1]))


def test_the_smallest_integer_can_be_summed() -> None:
    accumulators, slots = accumulators_of("sum", integer=True)
    fields = a_field([-(2**63), 5], integer=True)
    assert not accumulators.reserve(fields, np.array([0]))
    assert accumulators.overflows(fields, 0, [int(slots[0])]) is None
    accumulators.add(slots[[0, 0]], fields, np.arange(2))
    assert values_of(accumulators, slots[:1])["sum"] == [-(2**63) + 5]


@pytest.mark.parametrize("kind", ["sum", "mean", "variance", "stddev"])
def test_a_measure_that_is_no_finite_number_is_null(kind: MeasureKind) -> None:
    accumulators, slots = summarised(kind)
    add(accumulators, slots[:1], [1e308, 1e308, -1e308])
    assert values_of(accumulators, slots[:1])[kind] == [None]


def test_a_variance_of_one_value_is_null_and_of_equal_ones_zero() -> None:
    accumulators, slots = summarised("variance", "stddev")
    add(accumulators, slots[:1], [0.1])
    assert values_of(accumulators, slots[:1]) == {"events": [1], "variance": [None], "stddev": [None]}
    add(accumulators, slots[:1], [0.1] * 9)
    assert values_of(accumulators, slots[:1]) == {"events": [10], "variance": [0.0], "stddev": [0.0]}


def test_panes_without_values_have_none() -> None:
    accumulators, slots = summarised("variance", "stddev", "first", "last", "approx_distinct", "quantile")
    add(accumulators, slots[:1], [None, None])
    assert values_of(accumulators, np.array([slots[0], slots[1], 0])) == {
        "events": [2, 0, 0],
        **dict.fromkeys(("variance", "stddev", "first", "last", "quantile"), [None] * 3),
        "approx_distinct": [0, 0, 0],
    }


def test_first_and_last_of_integers_are_exact_integers() -> None:
    accumulators, slots = summarised("first", "last", "approx_distinct", "quantile", "variance", integer=True)
    add(accumulators, slots[:1], [2**53 + 1, -(2**63), 2**63 - 1, 5], integer=True, times=[3, 5, 1, 4])
    columns = accumulators.measures(accumulators.gather(slots[:1]))
    assert (columns["first"].values.tolist(), columns["last"].values.tolist()) == ([2**63 - 1], [-(2**63)])
    assert columns["approx_distinct"].values.tolist() == [4]
    assert columns["quantile"].values.dtype == columns["variance"].values.dtype == np.float64


def summarised(*kinds: MeasureKind, integer: bool = False) -> tuple[Accumulators, np.ndarray]:
    slots = Slots()
    whole = {"first", "last", "sum"} if integer else set()
    measures = [
        Measure(
            kind,
            kind,
            "data.x",
            is_integer=kind in whole or kind == "approx_distinct",
            parameter="0.5" if kind == "quantile" else None,
        )
        for kind in kinds
    ]
    accumulators = Accumulators([Measure("events", "count", None, is_integer=True), *measures], slots)
    return accumulators, slots.create(np.zeros(2, dtype=np.int64), np.arange(2))


def add(
    accumulators: Accumulators,
    slot: np.ndarray,
    values: list[float | None],
    *,
    integer: bool = False,
    times: list[int] | None = None,
) -> None:
    n = len(values)
    zeros = np.zeros(n, dtype=np.int64)
    batch = EventBatch(
        record=zeros,
        sub_sequence=zeros,
        time_ms=np.array(times or range(n), dtype=np.int64),
        source=zeros,
        sources=["s"],
        source_windows=[0],
        sequence=zeros - 1,
        ids=[""] * n,
        partition_keys=[""] * n,
        outcome=np.zeros(n, dtype=np.uint8),
        failures={},
        fields=a_field(values, integer=integer),
        payloads=[b""] * n,
    )
    accumulators.add(np.repeat(slot, n), accumulators.prepare(batch), np.arange(n))
