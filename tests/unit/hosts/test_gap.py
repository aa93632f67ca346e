"""What lies between a state and where its host goes on is read from the stream, and nothing else."""

from __future__ import annotations

import pytest
from scripted_kinesis import ScriptedKinesis, ScriptedShard, client_error

from streamgauge.events.position import Position
from streamgauge.events.records import StreamRecord
from streamgauge.processors.hosts.gap import read_gap
from streamgauge.processors.hosts.shard_reader import Gap, ShardReader, TryLater

SHARD = "shardId-000000000000"
RECORDS = [StreamRecord(str(number), "k", 1_000 + number, b"{}") for number in range(10, 20)]


def read(
    shard: ScriptedShard, *, after: int | None, until: int | None, gaps: list[str] | None = None
) -> list[list[int]]:
    reader = ShardReader(
        ScriptedKinesis({SHARD: shard}),  # type: ignore[arg-type]
        "s",
        SHARD,
        start="TRIM_HORIZON",
        after=None if after is None else Position(after, 0),
        on_gap=None if gaps is None else gaps.append,
    )
    batches = read_gap(reader, until=until, sleep=lambda seconds: None)
    return [[int(record.sequence_number) for record in batch] for batch in batches]


def test_it_ends_before_the_record_that_the_host_delivers() -> None:
    assert read(ScriptedShard(RECORDS), after=11, until=16) == [[11, 12, 13], [14, 15]]


def test_a_state_without_a_position_begins_at_its_start() -> None:
    assert read(ScriptedShard(RECORDS), after=None, until=12) == [[10, 11]]


def test_where_nothing_is_between_the_record_at_the_position_is_read_all_the_same() -> None:
    shard = ScriptedShard(RECORDS)
    assert read(shard, after=14, until=15) == [[14]]
    assert shard.reads == 1


def test_without_an_end_it_goes_as_far_as_the_stream() -> None:
    assert read(ScriptedShard(RECORDS), after=13, until=None) == [[13, 14, 15], [16, 17, 18], [19]]


def test_a_closed_shard_ends_it() -> None:
    assert read(ScriptedShard(RECORDS, is_closed=True), after=17, until=99) == [[17, 18, 19]]


def test_an_end_that_never_comes_ends_at_the_tip() -> None:
    assert read(ScriptedShard(RECORDS), after=17, until=99) == [[17, 18, 19]]


def test_a_position_that_does_not_come_back_stops_it() -> None:
    with pytest.raises(Gap):
        read(ScriptedShard(RECORDS), after=5, until=12)
    with pytest.raises(Gap):
        read(ScriptedShard([]), after=5, until=12)


def test_an_accepted_gap_is_named_and_the_rest_is_read() -> None:
    gaps: list[str] = []
    assert read(ScriptedShard(RECORDS), after=5, until=12, gaps=gaps) == [[10, 11]]
    assert gaps == ["10"]


def test_throttling_is_waited_out_but_not_for_ever() -> None:
    throttled = client_error("ProvisionedThroughputExceededException")
    assert read(ScriptedShard(RECORDS, faults=[throttled] * 7), after=14, until=15) == [[14]]
    with pytest.raises(TryLater):
        read(ScriptedShard(RECORDS, faults=[throttled] * 8), after=14, until=15)
