"""Positions as text and in order."""

from __future__ import annotations

import pytest

from streamgauge.events.position import Position


def test_a_position_is_read_back_from_its_text() -> None:
    position = Position(49546986683135544286507457936321625675700192471156785154, 17)
    assert str(position) == "49546986683135544286507457936321625675700192471156785154/17"
    assert Position.parse(str(position)) == position


def test_positions_compare_as_numbers_and_not_as_text() -> None:
    assert Position(9, 5) < Position(10, 0) < Position(10, 2) < Position(10, 11)


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "/1", "01/1", "1/01", "-1/0", "1/1 ", "1/1\n", "a/1", "1/1/1", "\u0661/1"]
)
def test_text_that_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.parse(text)
