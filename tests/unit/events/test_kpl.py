"""Corrupt aggregates: told apart from plain records, and named."""

from __future__ import annotations

from hashlib import md5

import pytest

from streamgauge.events.hash_key import hash_key
from streamgauge.events.kpl import (
    KPL_MAGIC,
    AggregateBuilder,
    CorruptAggregate,
    UserRecord,
    decode_aggregate,
    is_aggregate,
)


def sealed(body: bytes) -> bytes:
    return KPL_MAGIC + body + md5(body, usedforsecurity=False).digest()


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field, written out by hand; content of at most 127 bytes."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def record(key: int | None = 0, hashed: int | None = None, data: bytes | None = b"x", tags: bytes = b"") -> bytes:
    body = b"" if key is None else bytes([1 << 3, key])
    body += b"" if hashed is None else bytes([2 << 3, hashed])
    body += b"" if data is None else field(3, data)
    return field(3, body + tags)


GOOD = field(1, b"JFK") + record()


def test_bytes_written_by_hand_from_the_format_are_read() -> None:
    body = field(1, b"JFK") + field(1, b"LGA") + field(2, b"340282366920938463463374607431768211455")
    decoded = decode_aggregate(sealed(body + record(1, data=b"a") + record(0, 0, b"b")))
    assert decoded.user_records() == [UserRecord("LGA", None, b"a"), UserRecord("JFK", 2**128 - 1, b"b")]
    assert (decoded.key_index, decoded.hash_index) == ([1, 0], [-1, 0])


def test_tags_and_unknown_fields_are_read_over() -> None:
    tags = field(4, field(1, b"name") + field(2, b"value"))
    assert decode_aggregate(sealed(field(1, b"JFK") + record(tags=tags) + field(9, b"later"))).payloads == [b"x"]


@pytest.mark.parametrize("data", [b"", b"{}", b"\xf3\x89\x9a", b"\xf3\x89\x9a\xc3" + bytes(40)])
def test_a_plain_record_is_no_aggregate(data: bytes) -> None:
    assert not is_aggregate(data)
    with pytest.raises(CorruptAggregate, match="magic"):
        decode_aggregate(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (KPL_MAGIC, "truncated: 4 bytes"),
        (KPL_MAGIC + bytes(15), "truncated: 19 bytes"),
        (sealed(GOOD)[:-1], "MD5 digest"),
        (sealed(GOOD) + b"\n", "MD5 digest"),
        (sealed(GOOD).replace(b"JFK", b"JFL"), "MD5 digest"),
        (KPL_MAGIC + GOOD + bytes(16), "MD5 digest"),
        (sealed(GOOD[:-1]), "no protobuf message"),
        (sealed(b"\xff" * 12), "no protobuf message"),
        (sealed(b""), "no user record"),
        (sealed(field(1, b"JFK")), "no user record"),
        (sealed(field(1, b"JFK") + record(key=None)), "lacks a required field"),
        (sealed(field(1, b"JFK") + record(data=None)), "lacks a required field"),
        (sealed(field(1, b"JFK") + record(tags=field(4, b""))), "lacks a required field"),
        (sealed(record()), "user record 0 has partition key index 0, but the table holds 0"),
        (sealed(GOOD + record(1)), "user record 1 has partition key index 1, but the table holds 1"),
        (sealed(GOOD + record(0, 0)), "user record 1 has explicit hash key index 0, but the table holds 0"),
        (sealed(field(2, b"5") + GOOD + record(0, 1)), "explicit hash key index 1, but the table holds 1"),
        (sealed(field(1, b"\xc3\x28") + record()), "partition key 0 is not UTF-8"),
        (sealed(field(1, b"\xed\xa0\x80") + record()), "partition key 0 is not UTF-8"),
        (sealed(field(2, b"-1") + GOOD), "explicit hash key 0 is no decimal"),
        (sealed(field(2, b"1_0") + GOOD), "explicit hash key 0 is no decimal"),
        (sealed(field(2, b"") + GOOD), "explicit hash key 0 is no decimal"),
        (sealed(field(2, b"0x1") + GOOD), "explicit hash key 0 is no decimal"),
        (sealed(field(2, b"340282366920938463463374607431768211456") + GOOD), "explicit hash key 0 is no decimal"),
        (sealed(field(2, b"9" * 100) + GOOD), "explicit hash key 0 is no decimal"),
    ],
)
def test_a_corrupt_aggregate_is_refused_whole_and_says_what_is_wrong(data: bytes, message: str) -> None:
    assert is_aggregate(data)
    with pytest.raises(CorruptAggregate, match=message) as caught:
        decode_aggregate(data)
    assert str(caught.value).startswith("aggregated record: ")


def test_an_aggregate_goes_under_the_key_and_hash_key_of_its_first_record() -> None:
    builder = AggregateBuilder()
    builder.add(UserRecord("JFK", None, b"a"))
    builder.add(UserRecord("LGA", 7, b"b"))
    assert (builder.partition_key, builder.hash_key, builder.count) == ("JFK", hash_key("JFK"), 2)
    explicit = AggregateBuilder()
    explicit.add(UserRecord("LGA", 7, b"b"))
    explicit.add(UserRecord("JFK", None, b"a"))
    assert (explicit.partition_key, explicit.hash_key) == ("LGA", 7)


@pytest.mark.parametrize("key", [-1, 2**128])
def test_a_hash_key_that_no_shard_holds_is_not_added(key: int) -> None:
    builder = AggregateBuilder()
    with pytest.raises(ValueError, match="outside 0 to 2\\*\\*128 - 1"):
        builder.add(UserRecord("JFK", key, b"a"))
    assert builder.count == 0
    assert builder.size_bytes == len(KPL_MAGIC) + 16


def test_a_repeated_partition_key_is_stored_once() -> None:
    builder = AggregateBuilder()
    for _ in range(3):
        builder.add(UserRecord("a station with a long name", None, b"x"))
    assert builder.encode().count(b"a station with a long name") == 1
