"""The aggregated record format against a second implementation, aws_kinesis_agg, in both directions."""

from __future__ import annotations

import base64
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamgauge.events.hash_key import MAX_HASH_KEY
from streamgauge.events.kpl import (
    KPL_MAGIC,
    AggregateBuilder,
    CorruptAggregate,
    UserRecord,
    decode_aggregate,
    is_aggregate,
)

_path = list(sys.path)
from aws_kinesis_agg.aggregator import AggRecord  # noqa: E402
from aws_kinesis_agg.deaggregator import deaggregate_records  # noqa: E402

# It puts its own folder in front of everything.
sys.path[:] = _path

keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=24) | st.sampled_from(["JFK", "LGA"])
hash_keys = st.integers(0, MAX_HASH_KEY) | st.sampled_from([0, 1, MAX_HASH_KEY])
# 128 bytes is where a length takes a second byte.
payloads = st.binary(max_size=300) | st.integers(100, 140).map(bytes)
user_records = st.lists(st.builds(UserRecord, keys, st.none() | hash_keys, payloads), min_size=1, max_size=300)
some_records = st.lists(st.builds(UserRecord, keys, st.none() | hash_keys, payloads), min_size=1, max_size=12)


def built(records: list[UserRecord]) -> AggregateBuilder:
    builder = AggregateBuilder()
    for record in records:
        builder.add(record)
    return builder


def read_by_the_other(data: bytes) -> list[dict[str, object]]:
    lambda_record = {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "sequenceNumber": "1",
            "approximateArrivalTimestamp": 1.0,
            "partitionKey": "outer",
            "data": base64.b64encode(data),
        }
    }
    return [record["kinesis"] for record in deaggregate_records([lambda_record])]


@given(some_records)
def test_what_we_write_the_other_implementation_reads(records: list[UserRecord]) -> None:
    # Where any record has an explicit hash key, the other reads an absent index as 0: compare those that have one.
    read = read_by_the_other(built(records).encode())
    assert [base64.b64decode(str(one["data"], "ascii")) for one in read if isinstance(one["data"], bytes)] == [
        record.data for record in records
    ]
    assert [one["partitionKey"] for one in read] == [record.partition_key for record in records]
    assert [one["subSequenceNumber"] for one in read] == list(range(len(records)))
    for one, record in zip(read, records, strict=True):
        if record.explicit_hash_key is not None:
            assert one["explicitHashKey"] == str(record.explicit_hash_key)


@given(some_records)
def test_what_the_other_implementation_writes_we_read(records: list[UserRecord]) -> None:
    other = AggRecord()
    for record in records:
        explicit = None if record.explicit_hash_key is None else str(record.explicit_hash_key)
        assert other.add_user_record(record.partition_key, record.data, explicit)
    _, _, data = other.get_contents()
    assert decode_aggregate(data).user_records() == records


@given(some_records)
def test_both_implementations_write_the_same_bytes(records: list[UserRecord]) -> None:
    other = AggRecord()
    for record in records:
        explicit = None if record.explicit_hash_key is None else str(record.explicit_hash_key)
        other.add_user_record(record.partition_key, record.data, explicit)
    assert built(records).encode() == other.get_contents()[2]


@given(user_records)
def test_an_aggregate_is_read_back_whole(records: list[UserRecord]) -> None:
    data = built(records).encode()
    assert is_aggregate(data)
    decoded = decode_aggregate(data)
    assert decoded.user_records() == records
    assert len(set(decoded.partition_keys)) == len(decoded.partition_keys)


@given(user_records)
@example([UserRecord(f"key {i}", i, bytes(i)) for i in range(300)])
def test_the_size_is_known_exactly_before_each_record_is_added(records: list[UserRecord]) -> None:
    builder = AggregateBuilder()
    for place, record in enumerate(records):
        expected = builder.size_after(record)
        builder.add(record)
        assert builder.size_bytes == expected
        # Encoding after every record of a long list would take the time of its square.
        if place < 4 or place in (126, 127, 128, 129) or place == len(records) - 1:
            assert len(builder.encode()) == expected


@pytest.mark.parametrize(
    "size", [0, 1, 122, 123, 124, 125, 126, 127, 128, 16_375, 16_380, 16_384, 1_000_000, 2_097_152]
)
def test_the_size_is_exact_where_lengths_take_another_byte(size: int) -> None:
    builder = AggregateBuilder()
    record = UserRecord("k", None, bytes(size))
    expected = builder.size_after(record)
    builder.add(record)
    assert len(builder.encode()) == expected == builder.size_bytes


def test_the_size_is_exact_where_a_table_index_takes_another_byte() -> None:
    builder = AggregateBuilder()
    for index in range(16_390):
        record = UserRecord(str(index), index, b"")
        expected = builder.size_after(record)
        builder.add(record)
        if index in (0, 127, 128, 16_383, 16_384):
            assert len(builder.encode()) == expected == builder.size_bytes


@given(some_records, st.data())
def test_one_flipped_bit_never_passes(records: list[UserRecord], data: st.DataObject) -> None:
    intact = built(records).encode()
    bit = data.draw(st.integers(len(KPL_MAGIC) * 8, len(intact) * 8 - 1))
    altered = bytearray(intact)
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptAggregate):
        decode_aggregate(bytes(altered))


@given(some_records, st.data())
def test_a_truncated_aggregate_never_passes(records: list[UserRecord], data: st.DataObject) -> None:
    intact = built(records).encode()
    with pytest.raises(CorruptAggregate):
        decode_aggregate(intact[: data.draw(st.integers(0, len(intact) - 1))])


@given(st.binary(max_size=200))
def test_any_bytes_are_an_aggregate_or_refused(body: bytes) -> None:
    from hashlib import md5

    data = KPL_MAGIC + body + md5(body, usedforsecurity=False).digest()
    try:
        decoded = decode_aggregate(data)
    except CorruptAggregate:
        return
    assert len(decoded.user_records()) == len(decoded.payloads) > 0
