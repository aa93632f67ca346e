"""The poller's core over time: windows, lanes, reading ahead, back-off, reshards, settings that change."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from event_source_pages import KINESIS, MAPPINGS, ON_FAILURE, RESHARDING, STREAM_QUOTAS, says
from event_source_world import (
    ERROR,
    FUNCTION_ARN,
    QUEUE_ARN,
    ROLE_ARN,
    SHARD,
    STREAM_ARN,
    SUCCESS,
    T0,
    THROTTLE,
    Answer,
    Call,
    ScriptedShard,
    World,
    mapping,
    partial,
    record,
)
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.events.records import StreamRecord
from streamgauge.infra.local.event_source.actions import Patience
from streamgauge.infra.local.event_source.mapping import MappingRefused

WINDOW = {"MaximumBatchingWindowInSeconds": 10}


@says(KINESIS)
def test_an_event_is_the_one_of_awss_guide() -> None:
    world = World(mapping(), [StreamRecord("495", "1", T0 + 987, b"Hello, this is a test.")]).run()

    assert world.calls[0].event == {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "1",
                    "sequenceNumber": "495",
                    "data": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
                    "approximateArrivalTimestamp": 1_700_000_000.987,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"{SHARD}:495",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": ROLE_ARN,
                "awsRegion": "us-east-1",
                "eventSourceARN": STREAM_ARN,
            }
        ]
    }


@says(ON_FAILURE)
def test_a_failure_record_is_the_one_of_awss_guide() -> None:
    settings = mapping(MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": QUEUE_ARN}})
    world = World(settings, [record(7), record(8, at_ms=250)], lambda _call: ERROR, patience=Patience()).run()
    told = world.failures[0]

    assert told.destination == QUEUE_ARN
    assert told.record.document == {
        "requestContext": {
            "requestId": "r",
            "functionArn": FUNCTION_ARN,
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 2,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2023-11-14T22:13:20.200Z",
        "KinesisBatchInfo": {
            "shardId": SHARD,
            "startSequenceNumber": "7",
            "endSequenceNumber": "7",
            "approximateArrivalOfFirstRecord": "2023-11-14T22:13:20.000Z",
            "approximateArrivalOfLastRecord": "2023-11-14T22:13:20.000Z",
            "batchSize": 1,
            "streamArn": STREAM_ARN,
        },
    }
    assert told.record.object_key("u") == f"aws/lambda/a1b2/{SHARD}/2023/11/14/2023-11-14T22.13.20-u"
    assert json.loads(told.record.text(is_with_payload=False)) == told.record.document
    with_payload = json.loads(told.record.text(is_with_payload=True))
    assert json.loads(with_payload["payload"]) == world.calls[0].event


@says(ON_FAILURE)
def test_records_too_old_to_be_invoked_with_have_no_answer_to_tell_of() -> None:
    settings = mapping(MaximumRecordAgeInSeconds=60, DestinationConfig={"OnFailure": {"Destination": QUEUE_ARN}})
    document = World(settings, [record(1, at_ms=-61_000)]).run().failures[0].record.document

    assert "responseContext" not in document
    assert document["requestContext"] == {
        "requestId": "",
        "functionArn": FUNCTION_ARN,
        "condition": "RecordAgeExceeded",
        "approximateInvokeCount": 0,
    }


@says(MAPPINGS)
def test_a_window_gathers_what_arrives_in_it() -> None:
    world = World(mapping(**WINDOW), [record(1), record(2, at_ms=4_000), record(3, at_ms=9_000)]).run(9_999)
    assert world.batches == []

    assert world.run(11_000).batches == [[1, 2, 3]]
    assert world.calls[0].at_ms == 10_000


@says(MAPPINGS)
def test_a_full_batch_does_not_wait_for_its_window() -> None:
    world = World(mapping(**WINDOW, BatchSize=2), [record(number) for number in (1, 2, 3)]).run(9_000)

    assert world.batches == [[1, 2]]
    assert world.run(11_000).batches == [[1, 2], [3]]


@says(MAPPINGS)
def test_the_next_window_begins_when_the_call_has_ended() -> None:
    records = [record(1), record(2, at_ms=11_000), record(3, at_ms=15_000)]
    world = World(mapping(**WINDOW), records, call_ms=3_000).run()

    assert [(call.at_ms, call.records) for call in world.calls] == [(10_000, [1]), (23_000, [2, 3])]


def test_a_window_without_records_is_followed_by_the_next_one() -> None:
    world = World(mapping(**WINDOW), [record(1), record(2, at_ms=36_000)]).run()

    assert [(call.at_ms, call.records) for call in world.calls] == [(10_000, [1]), (40_000, [2])]


def test_a_retry_waits_for_no_window() -> None:
    world = World(mapping(**WINDOW), [record(1)], lambda call: ERROR if call.number == 0 else SUCCESS).run()

    assert [call.at_ms for call in world.calls] == [10_000, 10_200]


@says(KINESIS)
def test_one_batch_of_a_shard_is_in_flight_at_a_time() -> None:
    world = World(mapping(BatchSize=1), [record(number) for number in range(1, 6)], call_ms=1_000).run()

    assert [call.at_ms for call in world.calls] == [0, 1_000, 2_000, 3_000, 4_000]


@says(KINESIS)
def test_shards_do_not_wait_for_each_other() -> None:
    shards = {f"shard-{number}": ScriptedShard([record(1), record(2)]) for number in range(3)}
    world = World(mapping(BatchSize=1), shards, lambda call: ERROR if call.shard_id == "shard-0" else SUCCESS)
    world.run(1_000)

    assert world.poller.checkpoints == {"shard-0": None, "shard-1": "2", "shard-2": "2"}


@says(KINESIS, MAPPINGS)
def test_a_factor_runs_batches_side_by_side_and_keeps_each_keys_order() -> None:
    records = [record(number, key=f"k{number % 20}") for number in range(1, 201)]
    world = World(mapping(ParallelizationFactor=4, BatchSize=7), records, call_ms=1_000).run()
    by_key: dict[int, list[int]] = defaultdict(list)
    for call in world.calls:
        for number in call.records:
            by_key[number % 20].append(number)

    assert len([call for call in world.calls if call.at_ms == 0]) == 4
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert sum(map(len, by_key.values())) == 200
    assert world.poller.checkpoints == {SHARD: "200"}


def test_the_checkpoint_waits_for_the_slowest_lane() -> None:
    records = [record(number, key=f"k{number % 20}") for number in range(1, 101)]
    world = World(mapping(ParallelizationFactor=4), records, lambda call: ERROR if 30 in call.records else SUCCESS)
    world.run(1_000)
    blocked = next(call.records for call in world.calls if 30 in call.records)

    assert world.poller.checkpoints == {SHARD: str(min(blocked) - 1) if min(blocked) > 1 else None}


def test_back_off_doubles_up_to_its_most_and_begins_anew_after_success() -> None:
    patience = Patience(backoff_ms_first=100, backoff_ms_max=400)
    world = World(
        mapping(BatchSize=1),
        [record(1), record(2)],
        lambda call: ERROR if call.number in {0, 1, 2, 3, 5} else SUCCESS,
        patience=patience,
    ).run()
    times = [call.at_ms for call in world.calls]

    assert [later - earlier for earlier, later in pairwise(times)] == [100, 200, 400, 400, 0, 100]


@says(STREAM_QUOTAS)
def test_a_shard_is_read_less_than_three_times_a_second_however_much_there_is() -> None:
    world = World(mapping(), [record(number, at_ms=number) for number in range(1, 60_000, 10)]).run(60_000)
    times = [at for at, _ in world.reads]

    assert max(sum(1 for at in times if start <= at < start + 1_000) for start in times) <= 3
    assert len(times) > 120


def test_a_blocked_shard_is_not_read_without_bound() -> None:
    patience = Patience(buffered_records_max=50)
    world = World(
        mapping(), [record(number, at_ms=10 * number) for number in range(1, 60_000)], lambda _: ERROR,
        patience=patience,
    ).run()  # fmt: skip

    assert len(world.reads) < 6
    assert world.poller.wake_ms() is not None


def test_bytes_bound_it_too() -> None:
    patience = Patience(buffered_bytes_max=1_000)
    records = [record(number, at_ms=1_000 * number) for number in range(1, 50)]
    world = World(mapping(), records, lambda _: ERROR, patience=patience).run()

    assert len(world.reads) < 30


def test_a_read_that_fails_is_repeated_from_the_same_place() -> None:
    world = World(mapping(), [record(1), record(2, at_ms=5_000)])
    world.run(1_000)
    world.read_fails = True
    world.run(30_000)
    world.read_fails = False
    world.run(60_000)

    assert world.batches == [[1], [2]]
    assert next(read.after for at, read in world.reads if at > 1_000) == "1"


@says(KINESIS)
def test_a_disabled_mapping_goes_on_where_it_was_when_it_is_enabled_again() -> None:
    settings = mapping(BatchSize=1)
    world = World(settings, [record(number, at_ms=2_000 * number) for number in range(1, 11)]).run(8_000)
    reads = len(world.reads)
    world.poller.configure(replace(settings, is_enabled=False))
    world.run(30_000)

    assert world.batches == [[1], [2], [3]]
    assert len(world.reads) == reads
    world.poller.configure(settings)
    assert world.run(60_000).batches == [[number] for number in range(1, 11)]


def test_a_call_in_flight_when_the_mapping_is_disabled_still_counts() -> None:
    settings = mapping()
    world = World(settings, [record(1)], call_ms=5_000).run(1_000)
    world.poller.configure(replace(settings, is_enabled=False))
    world.run(10_000)

    assert world.poller.checkpoints == {SHARD: "1"}


def test_settings_that_change_hold_for_the_next_batch() -> None:
    world = World(mapping(BatchSize=1), [record(number) for number in range(1, 6)], call_ms=1_000).run(500)
    world.poller.configure(mapping(BatchSize=4))

    assert world.run().batches == [[1], [2, 3, 4, 5]]
    with pytest.raises(MappingRefused, match="ParallelizationFactor"):
        world.poller.configure(mapping(ParallelizationFactor=2))


def resharded() -> dict[str, ScriptedShard]:
    """Split at 10 s, seen at once; the left child is merged with a third shard at 20 s."""
    return {
        "a": ScriptedShard([record(1), record(2, at_ms=9_900)], closes_ms=10_000),
        "b": ScriptedShard([record(3)], closes_ms=20_000),
        "a-left": ScriptedShard([record(11, at_ms=10_050)], ("a",), closes_ms=20_000, listed_ms=10_000),
        "a-right": ScriptedShard([record(12, at_ms=10_050)], ("a",), listed_ms=10_000),
        "merged": ScriptedShard([record(21, at_ms=20_050)], ("a-left", "b"), listed_ms=20_000),
    }


@says(RESHARDING)
def test_children_come_after_their_parents() -> None:
    world = World(mapping(), resharded(), call_ms=3_000).run()
    ended = {number: index for index, call in enumerate(world.done) for number in call.records}
    at = {number: call.at_ms for call in world.calls for number in call.records}

    assert set(at) == {1, 2, 3, 11, 12, 21}
    assert min(at[11], at[12]) >= at[2] + 3_000
    assert at[21] >= max(at[11], at[3]) + 3_000
    assert ended[21] == max(ended.values())


@says(RESHARDING)
def test_a_child_waits_as_long_as_its_parent_is_blocked() -> None:
    world = World(mapping(), resharded(), lambda call: ERROR if 2 in call.records else SUCCESS).run(120_000)

    assert {number for call in world.calls for number in call.records} == {1, 2, 3}


def test_children_start_soon_after_their_parents_end() -> None:
    world = World(mapping(), resharded(), patience=Patience(list_interval_ms=600_000)).run()
    at = {number: call.at_ms for call in world.calls for number in call.records}

    assert at[12] < 11_500


@says(RESHARDING)
def test_records_of_a_stream_that_was_resharded_long_ago_are_read_in_order_too() -> None:
    shards = {name: replace(shard, listed_ms=0) for name, shard in resharded().items()}
    world = World(mapping(), {**dict(reversed(shards.items()))}).run()
    order = [number for call in world.calls for number in call.records]

    assert order.index(2) < min(order.index(11), order.index(12))
    assert order.index(21) > max(order.index(11), order.index(3))


@says(KINESIS)
def test_latest_skips_what_was_closed_and_misses_nothing_of_what_is_opened_later() -> None:
    shards = {
        "old": ScriptedShard([record(1, at_ms=-9_000)], closes_ms=-5_000),
        "open": ScriptedShard([record(2, at_ms=-4_000), record(3, at_ms=500)], ("old",), closes_ms=5_000),
        "later": ScriptedShard([record(4, at_ms=5_001)], ("open",), listed_ms=5_000),
    }
    world = World(mapping(StartingPosition="LATEST"), shards, patience=Patience(list_interval_ms=30_000)).run()

    assert [call.records for call in world.calls] == [[3], [4]]


def test_a_shard_without_records_makes_no_call_and_lets_its_children_begin() -> None:
    shards = {
        "a": ScriptedShard([], closes_ms=1_000),
        "b": ScriptedShard([record(1, at_ms=1_100)], ("a",), listed_ms=1_000),
    }
    world = World(mapping(), shards).run()

    assert [(call.shard_id, call.records) for call in world.calls] == [("b", [1])]


def test_a_parent_that_is_gone_from_the_stream_is_not_waited_for() -> None:
    world = World(mapping(), {"b": ScriptedShard([record(1)], ("gone",))}).run()

    assert world.batches == [[1]]


def test_what_was_counted() -> None:
    function = {0: THROTTLE, 1: ERROR, 2: partial("2")}
    world = World(
        mapping(FunctionResponseTypes=["ReportBatchItemFailures"]),
        [record(1), record(2)],
        lambda call: function.get(call.number, SUCCESS),
    ).run()
    counters = world.poller.counters

    assert (counters.invocations, counters.function_errors, counters.not_invoked) == (3, 2, 1)
    assert (counters.records_done, counters.records_given_up, counters.records_filtered) == (2, 0, 0)


@dataclass(frozen=True)
class Plan:
    """Settings and verdicts of a run that is drawn."""

    keys: list[str]
    verdicts: list[str]
    factor: int
    batch_size: int
    is_bisecting: bool
    retries: int
    window_s: int


PLANS = st.builds(
    Plan,
    keys=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40),
    verdicts=st.lists(st.sampled_from(["ok", "error", "throttle", "partial"]), max_size=30),
    factor=st.integers(1, 4),
    batch_size=st.integers(1, 8),
    is_bisecting=st.booleans(),
    retries=st.sampled_from([-1, 0, 2]),
    window_s=st.sampled_from([0, 1]),
)


@given(plan=PLANS)
def test_no_record_is_skipped_and_no_key_is_overtaken(plan: Plan) -> None:
    finished: list[int] = []

    def function(call: Call) -> Answer:
        verdict = plan.verdicts[call.number] if call.number < len(plan.verdicts) else "ok"
        if verdict == "partial":
            middle = len(call.records) // 2
            finished.extend(call.records[:middle])
            return partial(str(call.records[middle]))
        if verdict == "ok":
            finished.extend(call.records)
        return {"ok": SUCCESS, "error": ERROR, "throttle": THROTTLE}[verdict]

    settings = mapping(
        ParallelizationFactor=plan.factor,
        BatchSize=plan.batch_size,
        BisectBatchOnFunctionError=plan.is_bisecting,
        MaximumRetryAttempts=plan.retries,
        MaximumBatchingWindowInSeconds=plan.window_s,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        DestinationConfig={"OnFailure": {"Destination": QUEUE_ARN}},
    )
    records = [record(number, key, at_ms=100 * number) for number, key in enumerate(plan.keys, start=1)]
    patience = Patience(backoff_ms_max=1_000, list_interval_ms=60_000)
    world = World(settings, records, function, call_ms=50, patience=patience).run(90_000)
    given_up = [
        int(one["eventID"].partition(":")[2])
        for sent in world.failures
        for one in json.loads(sent.record.payload)["Records"]
    ]

    assert sorted(finished + given_up) == list(range(1, len(plan.keys) + 1))
    assert world.poller.checkpoints == {SHARD: str(len(plan.keys))}
    for key in set(plan.keys):
        mine = [number for number in finished if plan.keys[number - 1] == key]
        assert mine == sorted(mine)
