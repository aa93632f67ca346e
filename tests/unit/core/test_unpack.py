"""Records taken apart: sequence numbers, plain records beside aggregates, keys outside the shard."""

from __future__ import annotations

from hashlib import md5

import pytest

from streamgauge.events.hash_key import FULL_RANGE, MAX_HASH_KEY, HashRange, hash_key
from streamgauge.events.kpl import KPL_MAGIC
from streamgauge.events.kpl_message import serialize_message
from streamgauge.events.records import StreamRecord
from streamgauge.processors.core.unpack import RangeCheck, SequenceNumbers, unpack

LOW, MIDDLE, HIGH = sorted(("a", "b", "c"), key=hash_key)
CHECK = RangeCheck(HashRange(hash_key(MIDDLE), MAX_HASH_KEY))


def aggregate(table: list[str], used: list[int]) -> StreamRecord:
    records = [{"partition_key_index": index, "data": b"{}"} for index in used]
    body = serialize_message([key.encode() for key in table], [], records)
    return StreamRecord("1", table[0], 0, KPL_MAGIC + body + md5(body, usedforsecurity=False).digest())


def test_sequence_numbers_are_a_sequence_of_integers() -> None:
    numbers = SequenceNumbers(("1", str(10**55), "3"))
    assert numbers == [1, 10**55, 3]
    assert numbers[1:] == [10**55, 3]
    assert (numbers[-1], len(numbers)) == (3, 3)
    assert numbers != [1]


@pytest.mark.parametrize("payload", [KPL_MAGIC, b"\xff", b"\xf3\x89\x9a", b""])
def test_a_payload_at_or_above_the_magic_is_plain_unless_it_begins_with_it(payload: bytes) -> None:
    records = [StreamRecord(str(number), "k", 0, data) for number, data in enumerate([b"{}", payload, b"{}"])]
    unpacked = unpack(records, RangeCheck(FULL_RANGE), None)
    plain = [data for data in (b"{}", payload, b"{}") if not data.startswith(KPL_MAGIC)]
    assert unpacked.payloads == plain
    assert len(unpacked.failed) == 3 - len(plain)


def test_a_key_outside_the_shard_that_no_record_uses_makes_no_aggregate_misrouted() -> None:
    for _ in range(2):
        unpacked = unpack([aggregate([LOW, MIDDLE, HIGH], [1, 2, 1])], CHECK, None)
        assert (unpacked.partition_keys, unpacked.failed) == ([MIDDLE, HIGH, MIDDLE], [])
        unpacked = unpack([aggregate([LOW, MIDDLE, HIGH], [1, 0, 1])], CHECK, None)
        assert (unpacked.partition_keys, len(unpacked.failed)) == ([], 1)


def test_keys_that_were_seen_before_are_judged_alike() -> None:
    records = [StreamRecord(str(number), key, 0, b"{}") for number, key in enumerate([HIGH, LOW, MIDDLE, LOW])]
    assert [unpack(records, CHECK, None).outside for _ in range(2)] == [[1, 3], [1, 3]]
    assert unpack(records[2:3], CHECK, None).outside == []
