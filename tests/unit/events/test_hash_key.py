"""Hash keys and ranges at their edges."""

from __future__ import annotations

import hashlib

import pytest

from streamgauge.events.hash_key import FULL_RANGE, MAX_HASH_KEY, HashRange, hash_key


@pytest.mark.parametrize("key", ["a", "JFK", "станция", "é" * 256, "\x00", "🌪"])
def test_a_hash_key_is_the_md5_of_the_key_in_utf8_as_a_big_endian_number(key: str) -> None:
    assert hash_key(key) == int(hashlib.md5(key.encode("utf-8")).hexdigest(), 16)


def test_a_known_key_has_the_hash_key_that_kinesis_gives_it() -> None:
    # RFC 1321, section A.5: MD5 ("abc") = 900150983cd24fb0d6963f7d28e17f72
    assert hash_key("abc") == 0x900150983CD24FB0D6963F7D28E17F72


def test_both_ends_of_a_range_belong_to_it() -> None:
    part = HashRange(5, 7)
    assert [key in part for key in (4, 5, 6, 7, 8)] == [False, True, True, True, False]
    assert 0 in FULL_RANGE
    assert MAX_HASH_KEY in FULL_RANGE
    assert 2**128 not in FULL_RANGE
    assert "5" not in part


def test_the_last_of_three_parts_ends_at_the_last_hash_key() -> None:
    first, second, third = FULL_RANGE.even_parts(3)
    assert first.first == 0
    assert second.first == first.last + 1
    assert third.first == second.last + 1
    assert third.last == 2**128 - 1


def test_one_key_can_be_cut_into_one_part_only() -> None:
    assert HashRange(3, 3).even_parts(1) == [HashRange(3, 3)]
    with pytest.raises(ValueError, match="cannot cut 1 hash keys into 2 parts"):
        HashRange(3, 3).even_parts(2)


@pytest.mark.parametrize("count", [0, -1])
def test_no_parts_cannot_be_cut(count: int) -> None:
    with pytest.raises(ValueError, match="cannot cut"):
        FULL_RANGE.even_parts(count)


def test_ranges_that_only_touch_have_nothing_in_common() -> None:
    assert HashRange(0, 4).intersection(HashRange(5, 9)) is None
    assert HashRange(0, 5).intersection(HashRange(5, 9)) == HashRange(5, 5)


def test_a_range_covers_itself_and_what_lies_inside_it() -> None:
    part = HashRange(2, 8)
    assert part.covers(part)
    assert part.covers(HashRange(3, 7))
    assert not part.covers(HashRange(1, 7))
    assert not part.covers(HashRange(3, 9))
