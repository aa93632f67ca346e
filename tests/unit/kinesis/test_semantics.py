"""The semantics of Kinesis Data Streams, each named with the page of AWS's documentation that states it.

API: the Amazon Kinesis Data Streams API Reference, page of the operation. Guide: the Developer Guide.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamgauge.events.hash_key import FULL_RANGE, MAX_HASH_KEY
from streamgauge.infra.local.kinesis.errors import (
    ExpiredIteratorException,
    ExpiredNextTokenException,
    InvalidArgumentException,
    KinesisError,
    LimitExceededException,
    ProvisionedThroughputExceededException,
    ResourceInUseException,
    ResourceNotFoundException,
    ValidationException,
)
from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.infra.local.kinesis.model import IteratorType, KinesisModel, PutEntry, PutFailure, PutResult
from streamgauge.infra.local.kinesis.streams import ShardFilter

MIB = 1024 * 1024
HOUR = 3_600_000
DAY = 24 * HOUR
T0 = 1_700_000_000_000
FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"


def model_with(shards: int = 1, *, limits: bool = False) -> KinesisModel:
    model = KinesisModel(limits=Limits(enforced=limits))
    model.create_stream("s", shards, now_ms=T0)
    return model


def put(model: KinesisModel, *data: bytes, at: int = T0, key: str = "k", hash_key: int | None = None) -> list[str]:
    return [model.put_record("s", PutEntry(key, one, hash_key), now_ms=at).sequence_number for one in data]


def iterator(
    model: KinesisModel,
    kind: IteratorType = "TRIM_HORIZON",
    *,
    shard: str = FIRST,
    at: int = T0,
    sequence: str | None = None,
    timestamp: int | None = None,
) -> str:
    return model.get_shard_iterator("s", shard, kind, now_ms=at, sequence_number=sequence, timestamp_ms=timestamp)


def data(model: KinesisModel, token: str, *, at: int = T0) -> list[bytes]:
    return [record.data for record in model.get_records(token, now_ms=at).records]


# Puts


def test_a_record_goes_to_the_shard_whose_range_holds_the_md5_of_its_key() -> None:
    """API: PutRecord."""
    model = model_with(2)
    # MD5("a") begins with 0x0c, MD5("b") with 0x92.
    assert model.put_record("s", PutEntry("a", b""), now_ms=T0).shard_id == FIRST
    assert model.put_record("s", PutEntry("b", b""), now_ms=T0).shard_id == SECOND


@pytest.mark.parametrize(
    ("hash_key", "shard"),
    [(0, FIRST), (2**127 - 1, FIRST), (2**127, SECOND), (MAX_HASH_KEY, SECOND)],
)
def test_an_explicit_hash_key_overrides_the_partition_key(hash_key: int, shard: str) -> None:
    """API: PutRecord, ExplicitHashKey."""
    for key in ("a", "b"):
        assert model_with(2).put_record("s", PutEntry(key, b"", hash_key), now_ms=T0).shard_id == shard


def test_the_partition_key_counts_towards_the_record_size() -> None:
    """API: PutRecords: the record size limit applies to the total size of the partition key and data blob."""
    model = model_with()
    for key in ("k" * 10, "é" * 5):
        fits = b"x" * (MIB - 10)
        put(model, fits[1:], fits, key=key)
        with pytest.raises(InvalidArgumentException, match="1048577 bytes"):
            put(model, fits + b"x", key=key)
    assert len(data(model, iterator(model))) == 4


def test_a_stream_with_a_larger_record_size_takes_larger_records() -> None:
    """API: UpdateMaxRecordSize."""
    model = model_with()
    model.set_max_record_size("s", 10_240, now_ms=T0)
    put(model, b"x" * (10 * MIB - 1))
    with pytest.raises(InvalidArgumentException):
        put(model, b"x" * 10 * MIB)
    with pytest.raises(ValidationException):
        model.set_max_record_size("s", 10_241, now_ms=T0)


def test_put_records_takes_500_records_and_refuses_501_and_none() -> None:
    """API: PutRecords."""
    model = model_with()
    entries = [PutEntry("k", b"%d" % index) for index in range(501)]
    results = model.put_records("s", entries[:500], now_ms=T0)
    assert all(isinstance(result, PutResult) for result in results)
    for refused in (entries, []):
        with pytest.raises(ValidationException, match="500"):
            model.put_records("s", refused, now_ms=T0)
    assert data(model, iterator(model)) == [entry.data for entry in entries[:500]]


def test_put_records_takes_10_mib_with_keys_and_refuses_a_byte_more() -> None:
    """API: PutRecords: up to a limit of 10 MiB for the entire request, including partition keys."""
    model = model_with()
    full = [PutEntry("k", b"x" * (MIB - 1)) for _ in range(10)]
    model.put_records("s", full, now_ms=T0)
    with pytest.raises(InvalidArgumentException, match="10 MB"):
        model.put_records("s", [*full[:9], PutEntry("k", b"x" * (MIB - 2)), PutEntry("k", b"x")], now_ms=T0)
    # The record after a full second one is above the bound of the call, whatever its shard would take.
    assert sum(len(one) for one in data(model, iterator(model))) == 10 * (MIB - 1)


def test_put_records_reports_a_throttled_entry_by_itself() -> None:
    """API: PutRecords: a single record failure does not stop the processing of subsequent records."""
    model = model_with(2, limits=True)
    low, high = PutEntry("k", b"x" * (MIB // 2), 0), PutEntry("k", b"y", MAX_HASH_KEY)
    results = model.put_records("s", [low, low, high], now_ms=T0)
    assert [type(result) for result in results] == [PutResult, PutFailure, PutResult]
    failure = results[1]
    assert isinstance(failure, PutFailure)
    assert failure.code == "ProvisionedThroughputExceededException"
    assert failure.message == f"Rate exceeded for shard {FIRST} in stream s under account 000000000000."


def test_sequence_numbers_rise_within_a_shard_even_when_the_clock_goes_back() -> None:
    """API: PutRecord: sequence numbers increase over time."""
    model = model_with()
    numbers = put(model, b"1", b"2") + put(model, b"3", at=T0 + HOUR) + put(model, b"4", at=T0 - HOUR)
    assert numbers == sorted(numbers, key=int)
    assert len(set(numbers)) == 4
    assert {len(number) for number in numbers} == {56}


# Rates per shard


def test_a_shard_takes_1000_records_a_second() -> None:
    """Guide: Quotas and limits."""
    model = model_with(limits=True)
    put(model, *[b"x"] * 999)
    put(model, b"x", at=T0 + 999)
    with pytest.raises(ProvisionedThroughputExceededException):
        put(model, b"x", at=T0 + 999)
    put(model, *[b"x"] * 1000, at=T0 + 1000)
    with pytest.raises(ProvisionedThroughputExceededException):
        put(model, b"x", at=T0 + 1999)


def test_a_shard_takes_1_mib_a_second_keys_included() -> None:
    """Guide: Quotas and limits."""
    model = model_with(limits=True)
    put(model, b"x" * (MIB - 3))
    put(model, b"")
    with pytest.raises(ProvisionedThroughputExceededException):
        put(model, b"x", at=T0 + 999)
    put(model, b"")
    with pytest.raises(ProvisionedThroughputExceededException):
        put(model, b"")
    put(model, b"x" * (MIB - 1), at=T0 + 1000)


def test_a_throttled_record_takes_nothing_of_the_rate() -> None:
    """Guide: Quotas and limits."""
    model = model_with(limits=True)
    put(model, b"x" * (MIB // 2))
    for _ in range(10):
        with pytest.raises(ProvisionedThroughputExceededException):
            put(model, b"x" * (MIB // 2))
    put(model, b"x" * (MIB // 2 - 2))


def test_rates_are_per_shard() -> None:
    """Guide: Quotas and limits."""
    model = model_with(2, limits=True)
    for hash_key in (0, MAX_HASH_KEY):
        put(model, *[b"x"] * 1000, hash_key=hash_key)
        with pytest.raises(ProvisionedThroughputExceededException):
            put(model, b"x", hash_key=hash_key)


def test_a_shard_answers_5_reads_a_second() -> None:
    """API: GetRecords: a limit of five transactions per second per shard."""
    model = model_with(limits=True)
    token = iterator(model)
    for _ in range(5):
        model.get_records(token, now_ms=T0 + 500)
    with pytest.raises(ProvisionedThroughputExceededException):
        model.get_records(token, now_ms=T0 + 1499)
    model.get_records(token, now_ms=T0 + 1500)


def test_a_read_of_10_mib_blocks_the_shard_for_5_seconds() -> None:
    """API: GetRecords: subsequent calls made within the next 5 seconds throw."""
    model = model_with(limits=True)
    for second in range(11):
        put(model, b"x" * (MIB - 1), at=T0 + 1000 * second)
    now = T0 + 11_000
    result = model.get_records(iterator(model, at=now), now_ms=now)
    assert sum(len(record.data) for record in result.records) == 10 * (MIB - 1)
    assert result.next_iterator is not None
    for at in (now, now + 1000, now + 4999):
        with pytest.raises(ProvisionedThroughputExceededException):
            model.get_records(result.next_iterator, now_ms=at)
    assert len(data(model, result.next_iterator, at=now + 5000)) == 1


def test_a_shard_gives_5_iterators_a_second() -> None:
    """API: GetShardIterator: a limit of five transactions per second per account per open shard."""
    model = model_with(limits=True)
    for _ in range(5):
        iterator(model)
    with pytest.raises(ProvisionedThroughputExceededException):
        iterator(model, at=T0 + 999)
    iterator(model, at=T0 + 1000)


def test_without_limits_no_rate_is_enforced() -> None:
    model = model_with()
    put(model, *[b"x" * 10_000] * 1500)
    for _ in range(20):
        assert len(data(model, iterator(model))) == 1048, "10 MiB of 10,001 bytes each"


def test_without_limits_a_mistyped_shard_count_is_refused_all_the_same() -> None:
    model = model_with()
    for action in (
        lambda: model.create_stream("t", 10**9, now_ms=T0),
        lambda: model.update_shard_count("s", 10**9, now_ms=T0),
    ):
        with pytest.raises(LimitExceededException, match="Limit: 100000"):
            action()


# Iterators


def test_each_iterator_type_begins_where_it_says() -> None:
    """API: GetShardIterator."""
    model = model_with()
    numbers = [put(model, b"%d" % index, at=T0 + index * 10)[0] for index in range(5)]
    now = T0 + 100
    assert data(model, iterator(model, "TRIM_HORIZON"), at=now) == [b"0", b"1", b"2", b"3", b"4"]
    assert data(model, iterator(model, "AT_SEQUENCE_NUMBER", sequence=numbers[2]), at=now) == [b"2", b"3", b"4"]
    assert data(model, iterator(model, "AFTER_SEQUENCE_NUMBER", sequence=numbers[2]), at=now) == [b"3", b"4"]
    assert data(model, iterator(model, "AFTER_SEQUENCE_NUMBER", sequence=numbers[4]), at=now) == []
    latest = iterator(model, "LATEST", at=now)
    assert data(model, latest, at=now) == []
    put(model, b"new", at=now)
    assert data(model, latest, at=now) == [b"new"]


@pytest.mark.parametrize(
    ("offset", "expected"), [(-5, 0), (0, 0), (1, 1), (10, 1), (11, 2), (40, 4), (41, 5), (100, 5)]
)
def test_at_timestamp_begins_with_the_first_record_from_then_on(offset: int, expected: int) -> None:
    """API: GetShardIterator, Timestamp: if no record has this exact timestamp, the next later one; LATEST if none."""
    model = model_with()
    for index in range(5):
        put(model, b"%d" % index, at=T0 + index * 10)
    token = iterator(model, "AT_TIMESTAMP", at=T0 + 100, timestamp=T0 + offset)
    assert data(model, token, at=T0 + 100) == [b"%d" % index for index in range(expected, 5)]


def test_the_shards_own_sequence_numbers_can_begin_a_read() -> None:
    """API: GetShardIterator, StartingSequenceNumber: any that DescribeStream gives."""
    model = model_with()
    put(model, b"1", b"2")
    (shard,), _ = model.list_shards("s", now_ms=T0)
    start = str(shard.starting_sequence_number)
    assert data(model, iterator(model, "AT_SEQUENCE_NUMBER", sequence=start)) == [b"1", b"2"]
    assert data(model, iterator(model, "AFTER_SEQUENCE_NUMBER", sequence=start)) == [b"1", b"2"]
    model.split_shard("s", FIRST, 2**127, now_ms=T0)
    assert shard.ending_sequence_number is not None
    end = str(shard.ending_sequence_number)
    assert data(model, iterator(model, "AT_SEQUENCE_NUMBER", sequence=end)) == []


def test_an_iterator_is_good_for_five_minutes() -> None:
    """API: GetShardIterator: a shard iterator expires 5 minutes after it is returned."""
    model = model_with()
    put(model, b"1")
    token = iterator(model)
    assert data(model, token, at=T0 + 300_000) == [b"1"]
    with pytest.raises(ExpiredIteratorException, match="300000 milliseconds"):
        model.get_records(token, now_ms=T0 + 300_001)
    following = model.get_records(token, now_ms=T0 + 300_000).next_iterator
    assert following is not None
    assert data(model, following, at=T0 + 600_000) == []


def test_an_iterator_can_be_used_again() -> None:
    """API: GetRecords: reading changes nothing."""
    model = model_with()
    put(model, b"1")
    token = iterator(model)
    assert data(model, token) == data(model, token) == [b"1"]


# Reads


def test_a_read_returns_up_to_its_limit_and_the_next_iterator_goes_on() -> None:
    """API: GetRecords, Limit."""
    model = model_with()
    put(model, *[b"%d" % index for index in range(2500)])
    token: str | None = iterator(model)
    got: list[bytes] = []
    while len(got) < 2500:
        assert token is not None
        result = model.get_records(token, now_ms=T0, limit=999)
        assert 0 < len(result.records) <= 999
        got += [record.data for record in result.records]
        token = result.next_iterator
    assert got == [b"%d" % index for index in range(2500)]


def test_the_limit_of_a_read_is_10000() -> None:
    """API: GetRecords, Limit."""
    model = model_with()
    put(model, *[b""] * 10_001)
    assert len(model.get_records(iterator(model), now_ms=T0).records) == 10_000
    for limit in (0, 10_001):
        with pytest.raises(ValidationException):
            model.get_records(iterator(model), now_ms=T0, limit=limit)


def test_millis_behind_latest_is_0_at_the_tip_only() -> None:
    """API: GetRecords, MillisBehindLatest."""
    model = model_with()
    put(model, b"1")
    put(model, b"2", at=T0 + 400)
    first = model.get_records(iterator(model), now_ms=T0 + 1000, limit=1)
    assert first.behind_ms == 600
    assert first.next_iterator is not None
    assert model.get_records(first.next_iterator, now_ms=T0 + 1000).behind_ms == 0
    put(model, b"3", at=T0 + 1000)
    assert model.get_records(first.next_iterator, now_ms=T0 + 1000, limit=1).behind_ms > 0


def test_a_closed_shard_ends_with_no_iterator_and_its_children() -> None:
    """API: GetRecords, NextShardIterator and ChildShards."""
    model = model_with()
    put(model, b"1", b"2")
    tip = iterator(model, "LATEST")
    model.split_shard("s", FIRST, 2**127, now_ms=T0)
    part = model.get_records(iterator(model), now_ms=T0, limit=1)
    assert part.next_iterator is not None
    assert part.children == []
    for token, expected in ((part.next_iterator, [b"2"]), (tip, []), (iterator(model, "LATEST"), [])):
        end = model.get_records(token, now_ms=T0)
        assert [record.data for record in end.records] == expected
        assert end.next_iterator is None
        assert end.behind_ms == 0
        assert [child.shard_id for child in end.children] == [SECOND, "shardId-000000000002"]


# Retention


def test_records_are_kept_for_24_hours() -> None:
    """Guide: Change the data retention period."""
    model = model_with()
    put(model, b"old")
    put(model, b"new", at=T0 + HOUR)
    token = iterator(model, at=T0 + DAY - 1)
    assert data(model, iterator(model, at=T0 + DAY - 1), at=T0 + DAY - 1) == [b"old", b"new"]
    result = model.get_records(token, now_ms=T0 + DAY)
    assert [record.data for record in result.records] == [b"new"], "what was trimmed meanwhile is skipped"
    assert result.behind_ms == 0
    assert result.next_iterator is not None
    assert data(model, result.next_iterator, at=T0 + DAY) == []
    assert data(model, iterator(model, at=T0 + DAY + HOUR), at=T0 + DAY + HOUR) == []


def test_a_stream_that_is_only_written_to_is_trimmed_as_well() -> None:
    """Guide: Change the data retention period."""
    model = model_with()
    put(model, *[b"old"] * 10)
    put(model, b"new", at=T0 + DAY)
    assert model.streams["s"].shards[FIRST].log.first == 10


def test_a_trimmed_sequence_number_begins_at_the_oldest_record_left() -> None:
    """Guide: Change the data retention period. Kinesis answers with what is left, and no error."""
    model = model_with()
    (old,) = put(model, b"old")
    put(model, b"new", at=T0 + HOUR)
    token = iterator(model, "AT_SEQUENCE_NUMBER", sequence=old, at=T0 + DAY)
    assert data(model, token, at=T0 + DAY) == [b"new"]


def test_a_longer_retention_does_not_bring_expired_records_back() -> None:
    """API: IncreaseStreamRetentionPeriod."""
    model = model_with()
    put(model, b"gone")
    put(model, b"kept", at=T0 + HOUR)
    model.increase_retention("s", 48, now_ms=T0 + DAY)
    assert data(model, iterator(model, at=T0 + 2 * DAY), at=T0 + 2 * DAY) == [b"kept"]


def test_a_shorter_retention_loses_what_is_older() -> None:
    """API: DecreaseStreamRetentionPeriod."""
    model = model_with()
    model.increase_retention("s", 48, now_ms=T0)
    put(model, b"old")
    put(model, b"new", at=T0 + 2 * HOUR)
    model.decrease_retention("s", 24, now_ms=T0 + DAY + HOUR)
    assert data(model, iterator(model, at=T0 + DAY + HOUR), at=T0 + DAY + HOUR) == [b"new"]


def test_a_closed_shard_expires_once_its_records_have() -> None:
    """Guide: Resharding, shard states after a reshard: OPEN, CLOSED, EXPIRED."""
    model = model_with()
    put(model, b"1")
    model.split_shard("s", FIRST, 2**127, now_ms=T0 + HOUR)
    before, after = T0 + DAY + HOUR - 1, T0 + DAY + HOUR
    assert data(model, iterator(model, at=T0 + DAY - 1), at=T0 + DAY - 1) == [b"1"]
    assert len(model.list_shards("s", now_ms=before)[0]) == 3
    assert [shard.parents for shard in model.list_shards("s", now_ms=after)[0]] == [(FIRST,), (FIRST,)]
    with pytest.raises(ResourceNotFoundException, match="does not exist"):
        iterator(model, at=after)


# Resharding


def test_a_split_divides_the_range_and_later_records_go_to_the_children() -> None:
    """API: SplitShard, NewStartingHashKey."""
    model = model_with()
    put(model, b"before", hash_key=1000)
    model.split_shard("s", FIRST, 1000, now_ms=T0)
    _, low, high = model.list_shards("s", now_ms=T0)[0]
    assert low.hash_range == (0, 999)
    assert high.hash_range == (1000, MAX_HASH_KEY)
    assert low.parents == high.parents == (FIRST,)
    put(model, b"low", hash_key=999)
    put(model, b"high", hash_key=1000)
    assert data(model, iterator(model)) == [b"before"]
    assert data(model, iterator(model, shard=low.shard_id)) == [b"low"]
    assert data(model, iterator(model, shard=high.shard_id)) == [b"high"]


def test_a_merge_joins_two_adjacent_shards_named_in_either_order() -> None:
    """API: MergeShards."""
    for one, other in ((FIRST, SECOND), (SECOND, FIRST)):
        model = model_with(2)
        model.merge_shards("s", one, other, now_ms=T0)
        closed_one, closed_other, child = model.list_shards("s", now_ms=T0)[0]
        assert child.hash_range == FULL_RANGE
        assert child.parents == (one, other)
        assert closed_one.closed_ms == closed_other.closed_ms == T0
        assert [shard.shard_id for shard in closed_one.children] == [child.shard_id]


@pytest.mark.parametrize(
    ("before", "after"), [(1, 2), (2, 4), (2, 3), (4, 5), (5, 3), (4, 2), (10, 13), (7, 7), (3, 2)]
)
def test_update_shard_count_ends_in_even_ranges(before: int, after: int) -> None:
    """API: UpdateShardCount: uniform scaling, through splits and merges."""
    model = model_with(before, limits=True)
    found, stream = model.update_shard_count("s", after, now_ms=T0)
    assert found == before
    assert [shard.hash_range for shard in stream.open] == FULL_RANGE.even_parts(after)
    for shard in stream.shards.values():
        for child in shard.children:
            assert shard.shard_id in child.parents
            assert child.starting_sequence_number > (shard.ending_sequence_number or 0)


def test_update_shard_count_makes_short_lived_shards() -> None:
    """API: UpdateShardCount: this can cause short-lived shards to be created."""
    model = model_with(2)
    model.update_shard_count("s", 3, now_ms=T0)
    shards, _ = model.list_shards("s", now_ms=T0)
    assert len(shards) == 7
    assert sum(shard.closed_ms is not None and shard.parents != () for shard in shards) == 2


@pytest.mark.parametrize(("before", "after"), [(1, 3), (5, 2), (4, 9)])
def test_update_shard_count_neither_more_than_doubles_nor_more_than_halves(before: int, after: int) -> None:
    """API: UpdateShardCount."""
    with pytest.raises(LimitExceededException, match=f"{before}, Target shard count: {after}"):
        model_with(before, limits=True).update_shard_count("s", after, now_ms=T0)
    model_with(before).update_shard_count("s", after, now_ms=T0)


def test_update_shard_count_works_ten_times_in_24_hours() -> None:
    """API: UpdateShardCount."""
    model = model_with(limits=True)
    for count in [2, 1] * 5:
        model.update_shard_count("s", count, now_ms=T0)
    with pytest.raises(LimitExceededException, match="10 times"):
        model.update_shard_count("s", 2, now_ms=T0 + DAY - 1)
    model.update_shard_count("s", 2, now_ms=T0 + DAY)


# Listing shards


def listed(model: KinesisModel, shard_filter: ShardFilter, at: int) -> list[int]:
    return [shard.index for shard in model.list_shards("s", now_ms=at, shard_filter=shard_filter)[0]]


def test_each_filter_lists_the_shards_it_names() -> None:
    """API: ShardFilter."""
    model = model_with(2)
    model.split_shard("s", FIRST, 1000, now_ms=T0 + HOUR)  # 0 -> 2, 3
    model.merge_shards("s", "shardId-000000000003", SECOND, now_ms=T0 + 2 * HOUR)  # 3, 1 -> 4
    now = T0 + 3 * HOUR
    assert listed(model, ShardFilter(), now) == [0, 1, 2, 3, 4]
    assert listed(model, ShardFilter("FROM_TRIM_HORIZON"), now) == [0, 1, 2, 3, 4]
    assert listed(model, ShardFilter("AT_TRIM_HORIZON"), now) == [0, 1]
    assert listed(model, ShardFilter("AT_LATEST"), now) == [2, 4]
    assert listed(model, ShardFilter("AFTER_SHARD_ID", shard_id=SECOND), now) == [2, 3, 4]
    for at, expected in (
        (T0 - 1, []),
        (T0, [0, 1]),
        (T0 + HOUR, [0, 1, 2, 3]),
        (T0 + HOUR + 1, [1, 2, 3]),
        (T0 + 2 * HOUR, [1, 2, 3, 4]),
        (T0 + 2 * HOUR + 1, [2, 4]),
    ):
        assert listed(model, ShardFilter("AT_TIMESTAMP", timestamp_ms=at), now) == expected
    for at, expected in (
        (T0, [0, 1, 2, 3, 4]),
        (T0 + HOUR, [0, 1, 2, 3, 4]),
        (T0 + HOUR + 1, [1, 2, 3, 4]),
        (T0 + 2 * HOUR + 1, [2, 4]),
    ):
        assert listed(model, ShardFilter("FROM_TIMESTAMP", timestamp_ms=at), now) == expected
    assert listed(model, ShardFilter("AT_TRIM_HORIZON"), T0 + DAY + HOUR) == [1, 2, 3]
    assert listed(model, ShardFilter("AT_TRIM_HORIZON"), T0 + DAY + 2 * HOUR) == [2, 4]


def test_listing_goes_on_page_by_page_with_its_filter() -> None:
    """API: ListShards, NextToken."""
    model = model_with(5)
    model.split_shard("s", FIRST, 1000, now_ms=T0)
    page, token = model.list_shards("s", now_ms=T0, shard_filter=ShardFilter("AT_LATEST"), max_results=2)
    found = [shard.index for shard in page]
    while token is not None:
        page, token = model.list_more_shards(token, now_ms=T0 + 300_000, max_results=2)
        found += [shard.index for shard in page]
    assert found == [1, 2, 3, 4, 5, 6]


def test_a_page_token_is_good_for_five_minutes() -> None:
    """API: ListShards, NextToken: tokens expire after 300 seconds."""
    model = model_with(3)
    _, token = model.list_shards("s", now_ms=T0, max_results=1)
    assert token is not None
    with pytest.raises(ExpiredNextTokenException):
        model.list_more_shards(token, now_ms=T0 + 300_001)


def test_streams_are_listed_by_name_page_by_page() -> None:
    """API: ListStreams."""
    model = KinesisModel()
    for name in ("c", "a", "b"):
        model.create_stream(name, 1, now_ms=T0)
    page, token = model.list_streams(now_ms=T0, limit=2)
    assert [stream.name for stream in page] == ["a", "b"]
    assert token is not None
    page, end = model.list_streams(now_ms=T0, next_token=token, limit=2)
    assert [stream.name for stream in page] == ["c"]
    assert end is None
    assert [stream.name for stream in model.list_streams(now_ms=T0, after_name="b")[0]] == ["c"]


def test_a_stream_created_anew_continues_above_its_old_sequence_numbers() -> None:
    """API: DeleteStream. A saved position of the old stream must not look like one of the new."""
    model = model_with()
    (old,) = put(model, b"old")
    token = iterator(model)
    model.delete_stream("s", now_ms=T0)
    model.create_stream("s", 1, now_ms=T0)
    assert int(put(model, b"new")[0]) > int(old)
    with pytest.raises(InvalidArgumentException, match="did not come from this stream"):
        iterator(model, "AFTER_SEQUENCE_NUMBER", sequence=old)
    model.delete_stream("s", now_ms=T0 + 1)
    model.create_stream("s", 1, now_ms=T0 + 1)
    with pytest.raises(ResourceNotFoundException):
        model.get_records(token, now_ms=T0 + 1)


# Refusals

Refusal = tuple[str, Callable[[KinesisModel], object], type[KinesisError], str]
OTHER = "shardId-000000000002"

REFUSALS: list[Refusal] = [
    ("API: CreateStream", lambda m: m.create_stream("s", 1, now_ms=T0), ResourceInUseException, "already exists"),
    ("API: CreateStream", lambda m: m.create_stream("a b", 1, now_ms=T0), ValidationException, "pattern"),
    ("API: CreateStream", lambda m: m.create_stream("x" * 129, 1, now_ms=T0), ValidationException, "pattern"),
    ("API: CreateStream", lambda m: m.create_stream("t", 0, now_ms=T0), ValidationException, "shardCount"),
    ("API: CreateStream", lambda m: m.create_stream("t", now_ms=T0), ValidationException, "shardCount"),
    (
        "API: CreateStream",
        lambda m: m.create_stream("t", 1, mode="ON_DEMAND", now_ms=T0),
        ValidationException,
        "ON_DEMAND",
    ),
    ("API: CreateStream", lambda m: m.create_stream("t", 20_000, now_ms=T0), LimitExceededException, "Limit: 20000"),
    ("API: DescribeStream", lambda m: m.describe("t", now_ms=T0), ResourceNotFoundException, "Stream t under account"),
    (
        "API: DescribeStream",
        lambda m: m.describe("arn:aws:kinesis:eu-west-1:000000000000:stream/s", now_ms=T0),
        ResourceNotFoundException,
        "not found",
    ),
    ("API: DeleteStream", lambda m: m.delete_stream("t", now_ms=T0), ResourceNotFoundException, "not found"),
    ("API: PutRecord", lambda m: m.put_record("t", PutEntry("k", b""), now_ms=T0), ResourceNotFoundException, "t"),
    ("API: PutRecord", lambda m: m.put_record("s", PutEntry("", b""), now_ms=T0), ValidationException, "256"),
    ("API: PutRecord", lambda m: m.put_record("s", PutEntry("k" * 257, b""), now_ms=T0), ValidationException, "256"),
    (
        "API: PutRecord",
        lambda m: m.put_record("s", PutEntry("k", b"", 2**128), now_ms=T0),
        InvalidArgumentException,
        "ExplicitHashKey",
    ),
    (
        "API: PutRecords",
        lambda m: m.put_records("s", [PutEntry("k", b""), PutEntry("", b"")], now_ms=T0),
        ValidationException,
        "records.2.member",
    ),
    ("API: GetShardIterator", lambda m: iterator(m, shard=OTHER), ResourceNotFoundException, OTHER),
    ("API: GetShardIterator", lambda m: iterator(m, "AT_TIMESTAMP"), InvalidArgumentException, "timestamp"),
    (
        "API: GetShardIterator",
        lambda m: iterator(m, "AT_TIMESTAMP", timestamp=T0 + 1),
        InvalidArgumentException,
        "cannot be greater",
    ),
    ("API: GetShardIterator", lambda m: iterator(m, "AT_SEQUENCE_NUMBER"), InvalidArgumentException, "must specify"),
    (
        "API: GetShardIterator",
        lambda m: iterator(m, "AT_SEQUENCE_NUMBER", sequence="1"),
        InvalidArgumentException,
        "did not come from this stream",
    ),
    (
        "API: GetShardIterator",
        lambda m: iterator(m, "AT_SEQUENCE_NUMBER", sequence=put(m, b"", hash_key=MAX_HASH_KEY)[0]),
        InvalidArgumentException,
        f"encodes {SECOND}",
    ),
    ("API: GetRecords", lambda m: m.get_records("AAAA", now_ms=T0), InvalidArgumentException, "Invalid ShardIterator"),
    ("API: GetRecords", lambda m: m.get_records("é", now_ms=T0), InvalidArgumentException, "Invalid ShardIterator"),
    (
        "API: ListShards",
        lambda m: m.list_more_shards(iterator(m), now_ms=T0),
        InvalidArgumentException,
        "Invalid NextToken",
    ),
    (
        "API: ListShards",
        lambda m: m.list_shards("s", now_ms=T0, created_ms=T0 - 1),
        ResourceNotFoundException,
        f"created at {T0} ms",
    ),
    (
        "API: ShardFilter",
        lambda m: m.list_shards("s", now_ms=T0, shard_filter=ShardFilter("AFTER_SHARD_ID")),
        InvalidArgumentException,
        "ShardId must",
    ),
    (
        "API: ShardFilter",
        lambda m: m.list_shards("s", now_ms=T0, shard_filter=ShardFilter("AT_TIMESTAMP")),
        InvalidArgumentException,
        "Timestamp must",
    ),
    (
        "API: ShardFilter",
        lambda m: m.list_shards("s", now_ms=T0, shard_filter=ShardFilter("FROM_TIMESTAMP", timestamp_ms=T0 + 1)),
        InvalidArgumentException,
        "future",
    ),
    ("API: SplitShard", lambda m: m.split_shard("s", OTHER, 5, now_ms=T0), ResourceNotFoundException, "Could not find"),
    ("API: SplitShard", lambda m: m.split_shard("s", FIRST, 1, now_ms=T0), InvalidArgumentException, "one plus"),
    ("API: SplitShard", lambda m: m.split_shard("s", FIRST, 2**127 - 1, now_ms=T0), InvalidArgumentException, "less"),
    (
        "API: SplitShard",
        lambda m: (m.split_shard("s", FIRST, 5, now_ms=T0), m.split_shard("s", FIRST, 7, now_ms=T0)),
        InvalidArgumentException,
        "already been merged or split",
    ),
    ("API: MergeShards", lambda m: m.merge_shards("s", FIRST, FIRST, now_ms=T0), InvalidArgumentException, "adjacent"),
    (
        "API: MergeShards",
        lambda m: (m.split_shard("s", FIRST, 5, now_ms=T0), m.merge_shards("s", OTHER, SECOND, now_ms=T0)),
        InvalidArgumentException,
        "adjacent",
    ),
    ("API: UpdateShardCount", lambda m: m.update_shard_count("s", 0, now_ms=T0), ValidationException, "at least 1"),
    (
        "API: UpdateShardCount",
        lambda m: (m.set_mode("s", "ON_DEMAND", now_ms=T0), m.update_shard_count("s", 4, now_ms=T0)),
        ValidationException,
        "ON_DEMAND",
    ),
    (
        "API: IncreaseStreamRetentionPeriod",
        lambda m: m.increase_retention("s", 8761, now_ms=T0),
        InvalidArgumentException,
        "too long",
    ),
    (
        "API: IncreaseStreamRetentionPeriod",
        lambda m: (m.increase_retention("s", 48, now_ms=T0), m.increase_retention("s", 47, now_ms=T0)),
        InvalidArgumentException,
        "can not be shorter",
    ),
    (
        "API: DecreaseStreamRetentionPeriod",
        lambda m: m.decrease_retention("s", 23, now_ms=T0),
        InvalidArgumentException,
        "too short",
    ),
    (
        "API: DecreaseStreamRetentionPeriod",
        lambda m: m.decrease_retention("s", 25, now_ms=T0),
        InvalidArgumentException,
        "can not be longer",
    ),
    (
        "API: AddTagsToStream",
        lambda m: m.add_tags("s", {str(index): "" for index in range(51)}, now_ms=T0),
        LimitExceededException,
        "more than 50 tags",
    ),
]


@pytest.mark.parametrize(
    ("page", "action", "error", "text"),
    REFUSALS,
    ids=[
        f"{page.removeprefix('API: ')}-{error.__name__}-{index}" for index, (page, _, error, _) in enumerate(REFUSALS)
    ],
)
def test_what_does_not_fit_is_refused_with_awss_error(
    page: str, action: Callable[[KinesisModel], object], error: type[KinesisError], text: str
) -> None:
    model = model_with(2, limits=True)
    with pytest.raises(error, match=f"(?i){text}"):
        action(model)
    assert error.code == error.__name__, page
