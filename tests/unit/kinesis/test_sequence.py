"""Sequence numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.infra.local.kinesis.sequence import LAST_INDEX, SequenceNumbers, parse_sequence_number

SECONDS = st.integers(0, 2**36 - 1)
SHARDS = st.integers(0, 2**32 - 1)
INDICES = st.integers(0, LAST_INDEX)


@given(SECONDS, SHARDS, INDICES, SECONDS)
def test_a_number_has_56_digits_and_comes_apart_again(created: int, shard: int, index: int, arrival: int) -> None:
    number = SequenceNumbers(created, shard).number(index, arrival * 1000 + 7)
    assert len(str(number)) == 56
    assert parse_sequence_number(number) == (created, shard, index, arrival)


@given(SECONDS, SHARDS, st.tuples(INDICES, SECONDS), st.tuples(INDICES, SECONDS))
def test_within_a_shard_the_index_decides_whatever_the_clock_said(
    created: int, shard: int, one: tuple[int, int], other: tuple[int, int]
) -> None:
    numbers = SequenceNumbers(created, shard)
    if one[0] != other[0]:
        first, second = numbers.number(one[0], one[1] * 1000), numbers.number(other[0], other[1] * 1000)
        assert (first < second) == (one[0] < other[0])


@given(st.integers(0, 2**36 - 2), st.tuples(SHARDS, INDICES, SECONDS), st.tuples(SHARDS, INDICES, SECONDS))
def test_a_shard_created_a_second_later_is_above_whatever_the_indices(
    created: int, parent: tuple[int, int, int], child: tuple[int, int, int]
) -> None:
    (parent_index, high, late), (child_index, low, early) = parent, child
    ending = SequenceNumbers(created, parent_index).number(high, late * 1000)
    starting = SequenceNumbers(created + 1, child_index).number(low, early * 1000)
    assert starting > ending


@pytest.mark.parametrize("number", [0, -1, 1, 2**185, 2**185 + 3, 2**300])
def test_other_numbers_are_told_apart(number: int) -> None:
    with pytest.raises(ValueError, match="not a sequence number"):
        parse_sequence_number(number)
