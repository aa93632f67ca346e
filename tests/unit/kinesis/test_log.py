"""A shard's log: positions, time and trimming over many chunks."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import example, given, settings

from streamgauge.events.records import StreamRecord
from streamgauge.infra.local.kinesis.limits import RateWindow
from streamgauge.infra.local.kinesis.shards import RecordLog

COUNT = 5_000


def log_of(arrivals: list[int]) -> RecordLog:
    log = RecordLog()
    for index, arrival in enumerate(arrivals):
        log.append(StreamRecord(str(index), "k", arrival, b""))
    return log


def kept(log: RecordLog, position: int = 0) -> list[int]:
    records, _ = log.read(position, records=10 * COUNT, max_bytes=10**9)
    return [int(record.sequence_number) for record in records]


def test_positions_stay_valid_while_the_oldest_records_go() -> None:
    log = log_of(list(range(COUNT)))
    for until in (-1, 0, 1022, 1023, 1024, 3333, COUNT - 2):
        log.trim(until)
        assert log.first == until + 1
        assert kept(log) == list(range(until + 1, COUNT))
        assert kept(log, 4000) == list(range(max(4000, until + 1), COUNT))
        assert log.position_at(4500) == max(4500, until + 1)
    log.trim(COUNT)
    assert kept(log) == []
    assert log.first == log.end == COUNT
    log.append(StreamRecord("after", "k", COUNT, b""))
    assert log.read(0, records=9, max_bytes=9)[0][0].sequence_number == "after"


def test_trimmed_records_are_freed() -> None:
    log = log_of(list(range(COUNT)))
    log.trim(COUNT - 10)
    assert sum(map(len, log._chunks)) <= 1024


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 900)), min_size=1, max_size=8),
    st.integers(-1, 61),
    st.integers(-1, 61),
)
@example(runs=[(1, 125), (0, 900)], trim=1, at=1)
@settings(max_examples=50)
def test_a_timestamp_finds_the_first_record_that_arrived_from_then_on(
    runs: list[tuple[int, int]], trim: int, at: int
) -> None:
    # The clock goes forwards and back, over several chunks.
    arrivals = [arrival for arrival, length in runs for _ in range(length)]
    log = log_of(arrivals)
    log.trim(trim)
    expected = next((place for place in range(log.first, log.end) if arrivals[place] >= at), log.end)
    assert log.position_at(at) == expected


def test_a_read_ends_before_the_record_that_would_not_fit() -> None:
    log = RecordLog()
    for size in (60, 40, 1, 200, 1):
        log.append(StreamRecord("0", "k", 0, b"x" * (size - 1)))
    assert [log.read(at, records=9, max_bytes=100)[1] for at in range(5)] == [100, 41, 1, 200, 1]


@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 120)), max_size=60))
def test_a_rate_is_kept_over_any_time(uses: list[tuple[int, int]]) -> None:
    window, now, taken = RateWindow(100), 0, 0
    for wait, amount in uses:
        now += wait
        if window.admits(amount, now):
            window.take(amount)
            taken += amount
    # A whole second's worth may be used at each end; a use larger than that is paid for later.
    assert taken <= 100 * (now // 1000 + 2) + 20
