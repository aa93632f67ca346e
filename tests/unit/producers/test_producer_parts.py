"""The producer's parts, each by itself."""

from __future__ import annotations

import itertools
import random
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.events.control import Ledger
from streamgauge.events.envelope import Event, decode_event, encode_event
from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.hash_key import FULL_RANGE, HashRange
from streamgauge.events.records import MAX_RECORD_BYTES, Shard
from streamgauge.events.shard_listing import ListedShard
from streamgauge.events.times import rfc3339
from streamgauge.producers.client.encoding import EnvelopeEncoder, InvalidPut
from streamgauge.producers.client.limiter import Limiter, TokenBucket
from streamgauge.producers.client.ports import failure_of
from streamgauge.producers.client.retrier import Failure, Retrier, classify
from streamgauge.producers.client.settings import InvalidSettings, ProducerSettings
from streamgauge.producers.client.shard_map import ShardMap
from streamgauge.producers.client.source_log import LEDGER_RANGES_MAX, RangeSet, SourceLog

UUID_A = UUID("00000000-0000-4000-8000-000000000001")
SOURCE = f"urn:streamgauge:{UUID_A}:w1024"
TEXT = st.text(min_size=1, max_size=20).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))
INSTANTS = st.integers(-62_135_596_800_000, 253_402_300_799_999)


@given(
    sequence=st.integers(0, 2**63 - 1),
    type=TEXT.filter(lambda text: not text.startswith("streamgauge")),
    subject=TEXT,
    times=st.lists(INSTANTS, min_size=1, max_size=4),
    key=st.none() | TEXT,
    schema=st.none() | TEXT,
    trace=st.none() | TEXT,
)
def test_envelopes_equal_what_the_contract_encodes(  # noqa: PLR0917
    sequence: int, type: str, subject: str, times: list[int], key: str | None, schema: str | None, trace: str | None
) -> None:
    encoder = EnvelopeEncoder(SOURCE)
    data = b'{"v": [1, "\xc3\xa9"]}'
    for time_ms in times:
        payload = encoder.encode(
            sequence, type, subject, time_ms, data, partition_key=key, dataschema=schema, traceparent=trace
        )
        event = Event(
            specversion="1.0",
            id=str(sequence),
            source=SOURCE,
            type=type,
            time=rfc3339(time_ms),
            subject=subject,
            dataschema=schema,
            partitionkey=None if key == subject else key,
            sequence=f"{sequence:020}",
            traceparent=trace,
            data=msgspec.Raw(data),
        )
        assert payload == encode_event(event)
        assert decode_event(payload).partition_key == (key or subject)


@pytest.mark.parametrize(
    ("type", "subject", "time_ms", "names"),
    [("", "k", 0, "type"), ("streamgauge.tick", "k", 0, "type"), ("t", "", 0, "subject"), ("t", "k", 10**15, "time")],
)
def test_what_no_envelope_can_hold_is_refused(type: str, subject: str, time_ms: int, names: str) -> None:
    with pytest.raises(InvalidPut, match=names):
        EnvelopeEncoder(SOURCE).encode(0, type, subject, time_ms, b"{}")


@given(
    rate=st.floats(1, 1e6),
    costs=st.lists(st.tuples(st.floats(1, 1e5), st.integers(0, 500)), min_size=1, max_size=60),
)
def test_no_second_sees_more_than_the_rate_and_one_overdraft(rate: float, costs: list[tuple[float, int]]) -> None:
    bucket = TokenBucket(rate, 0)
    now_ms = 0
    taken: list[tuple[int, float]] = []
    for cost, pause_ms in costs:
        now_ms = max(now_ms + pause_ms, 0)
        ready_ms = bucket.ready_ms(cost, now_ms)
        assert ready_ms >= now_ms
        now_ms = ready_ms
        assert bucket.ready_ms(cost, now_ms) <= now_ms + 1, "a wait must not repeat for ever"
        bucket.take(cost, now_ms)
        taken.append((now_ms, cost))
    most_at_once = max(cost for cost, _ in costs) + max(rate * 0.03, 1)
    for start_ms, _ in taken:
        within = sum(cost for at_ms, cost in taken if start_ms <= at_ms < start_ms + 1_000)
        assert within <= rate + most_at_once + 1e-6 * rate + 1


def test_a_throttled_shard_is_left_alone_until_it_has_refilled() -> None:
    limiter = Limiter(1_000, 1_000)
    assert limiter.ready_ms("a", 30, 0) == 0
    limiter.drain("a", 0)
    assert limiter.ready_ms("a", 30, 0) == 30
    assert limiter.ready_ms("b", 30, 0) == 0


@given(st.lists(st.integers(0, 60), max_size=80))
def test_ranges_hold_what_was_put_in(numbers: list[int]) -> None:
    ranges = RangeSet()
    for number in numbers:
        ranges.add(number)
    found = ranges.ranges()
    assert [n for first, last in found for n in range(first, last + 1)] == sorted(set(numbers))
    assert all(after[0] > before[1] + 1 for before, after in itertools.pairwise(found))


@given(st.lists(st.sampled_from(["settle", "acknowledge", "refused", "unknown", "wait"]), max_size=200))
def test_a_ledger_divides_all_sequences(fates: list[str]) -> None:
    log = SourceLog(UUID_A, 1_024)
    expected: dict[str, set[int]] = {"acknowledged": set(), "in_doubt": set(), "given_up": set()}
    for fate in fates:
        n = log.assign()
        if fate == "settle":
            log.settle(n)
        elif fate == "acknowledge":
            log.acknowledge(n)
        elif fate != "wait":
            log.abandon(n, known_refused=fate == "refused")
        names = {"refused": "given_up", "unknown": "in_doubt", "wait": "in_doubt"}
        expected[names.get(fate, "acknowledged")].add(n)
    stated = log.statement(final=False)
    for name, numbers in expected.items():
        assert [n for first, last in getattr(stated, name) for n in range(first, last + 1)] == sorted(numbers)


def test_a_ledger_that_would_be_too_long_is_cut_towards_doubt() -> None:
    log = SourceLog(UUID_A, 65_536)
    for n in range(30_000):
        log.assign()
        if n % 2:
            log.settle(n)
        elif n == 29_000:
            log.abandon(n, known_refused=True)
    stated = log.statement(final=False)
    assert len(stated.acknowledged) == LEDGER_RANGES_MAX
    assert len(msgspec.json.encode(stated)) < MAX_RECORD_BYTES // 4
    assert stated.given_up == [(29_000, 29_000)]
    parts = sorted([*stated.acknowledged, *stated.in_doubt, *stated.given_up])
    assert parts[0][0] == 0
    assert parts[-1][1] == 29_999
    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(parts))


def test_a_source_with_too_many_holes_in_its_ledger_should_end() -> None:
    log = SourceLog(UUID_A, 1_024)
    for n in range(2 * LEDGER_RANGES_MAX):
        assert not log.is_stuck
        log.assign()
        if n % 2:
            log.settle(n)
        else:
            log.abandon(n, known_refused=True)
            log.release(n)
        if log.is_stuck:
            break
    assert n == 2 * LEDGER_RANGES_MAX - 2


def test_w_counts_from_the_oldest_place_held() -> None:
    log = SourceLog(UUID_A, 1_024)
    for _ in range(1_024):
        assert log.has_room
        log.assign()
    assert not log.has_room
    for n in range(1, 1_024):
        log.settle(n)
    assert not log.has_room
    assert not log.is_stuck
    log.abandon(0, known_refused=False)
    assert log.is_stuck
    log.release(0)
    assert log.has_room
    assert log.oldest_held == 1_024
    assert log.statement(final=True) == Ledger([(1, 1_023)], [(0, 0)], [], final=True)


def test_the_map_predicts_open_shards_and_knows_who_lacks_a_record() -> None:
    first, second = FULL_RANGE.even_parts(2)
    quarter, other = first.even_parts(2)
    shards = [
        ListedShard(Shard("p", first), is_open=False),
        ListedShard(Shard("b", second), is_open=True),
        ListedShard(Shard("p1", quarter, ("p",)), is_open=True),
        ListedShard(Shard("p2", other, ("p",)), is_open=True),
    ]
    found = ShardMap(shards)
    assert [found.predict(key) for key in (0, quarter.last, other.first, second.first, second.last)] == [
        "p1",
        "p1",
        "p2",
        "b",
        "b",
    ]
    assert [shard.shard_id for shard in found.uncovered({"p"})] == ["b"]
    assert [shard.shard_id for shard in found.uncovered({"p1", "b"})] == ["p2"]
    merged = ShardMap([ListedShard(Shard("m", FULL_RANGE, ("p", "b")), is_open=True), *shards[:1]])
    assert [shard.shard_id for shard in merged.uncovered({"p"})] == ["m"]
    assert merged.uncovered({"p", "b"}) == []
    assert found.hash_range("p") == first
    assert found.hash_range("x") is None
    hole = ShardMap([ListedShard(Shard("late", HashRange(5, 9)), is_open=True)])
    assert hole.predict(0) == hole.predict(10) == "late"


def test_an_unknown_error_code_is_never_success_nor_proof_of_absence() -> None:
    assert classify("SomethingNew") is Failure.LOST
    assert classify("InternalFailure") is Failure.LOST
    assert classify("ProvisionedThroughputExceededException") is Failure.REFUSED
    assert classify("AccessDeniedException") is Failure.PERMANENT


def test_what_a_client_raises_is_classified() -> None:
    class ClientError(Exception):
        def __init__(self) -> None:
            self.response = {"Error": {"Code": "LimitExceededException", "Message": "slow down"}}

    class ParamValidationError(Exception):
        pass

    assert failure_of(ClientError()) == (Failure.REFUSED, "LimitExceededException: slow down")
    assert failure_of(TimeoutError("no answer")) == (Failure.LOST, "TimeoutError: no answer")
    assert failure_of(ParamValidationError("x"))[0] is Failure.PERMANENT


def test_back_off_is_bounded() -> None:
    retrier = Retrier(random.Random(1), base_ms=50, max_ms=5_000)
    delays = [retrier.delay_ms(attempts) for attempts in range(500)]
    assert min(delays) >= 1 and max(delays) <= 5_001
    assert all(retrier.delay_ms(0) <= 51 for _ in range(100))


@pytest.mark.parametrize(
    "options",
    [
        {"wire_format": "avro"},
        {"window": 1_000},
        {"window": 512},
        {"window": 2_097_152},
        {"aggregate_bytes_max": 2**21},
        {"request_records_max": 501},
        {"resend_horizon_ms": 0},
    ],
)
def test_settings_out_of_range_are_refused_by_name(options: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings, match=next(iter(options))) as caught:
        ProducerSettings(**options)  # type: ignore[arg-type]
    assert isinstance(caught.value, StreamgaugeError)
