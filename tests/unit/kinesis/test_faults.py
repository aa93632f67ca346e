"""Faults by injection, in the model."""

from __future__ import annotations

from random import Random

import pytest

from streamgauge.infra.local.kinesis.errors import (
    AnswerLost,
    ExpiredIteratorException,
    InternalFailure,
    ProvisionedThroughputExceededException,
    ServiceUnavailable,
)
from streamgauge.infra.local.kinesis.faults import Fault, Faults, RandomFaults, Rule, ScriptedFaults
from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.infra.local.kinesis.model import KinesisModel, PutEntry, PutFailure

T0 = 1_700_000_000_000
FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"


def model_with(faults: Faults | None = None) -> KinesisModel:
    model = KinesisModel(limits=Limits(enforced=False))
    model.create_stream("s", 2, now_ms=T0)
    model.faults = faults or Faults()
    return model


def stored(model: KinesisModel) -> list[bytes]:
    model.faults = Faults()
    return [
        record.data
        for shard in (FIRST, SECOND)
        for record in model.get_records(
            model.get_shard_iterator("s", shard, "TRIM_HORIZON", now_ms=T0), now_ms=T0
        ).records
    ]


ENTRIES = [PutEntry("k", b"%d" % index, 0) for index in range(6)]


def test_chosen_entries_fail_and_the_others_are_put() -> None:
    model = model_with(ScriptedFaults(Rule(Fault.INTERNAL_FAILURE, entries=(1, 4), times=None)))
    results = model.put_records("s", ENTRIES, now_ms=T0)
    failed = {index: result for index, result in enumerate(results) if isinstance(result, PutFailure)}
    assert set(failed) == {1, 4}
    assert {failure.code for failure in failed.values()} == {"InternalFailure"}
    assert stored(model) == [b"0", b"2", b"3", b"5"]


def test_a_lost_answer_comes_after_the_effect() -> None:
    model = model_with(ScriptedFaults(Rule(Fault.LOSE_ANSWER, operation="PutRecords")))
    with pytest.raises(AnswerLost):
        model.put_records("s", ENTRIES[:2], now_ms=T0)
    model.put_records("s", ENTRIES[:2], now_ms=T0)
    assert stored(model) == [b"0", b"1", b"0", b"1"]


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault.UNAVAILABLE, ServiceUnavailable), (Fault.INTERNAL_FAILURE, InternalFailure)]
)
def test_a_call_that_fails_has_no_effect(fault: Fault, error: type[Exception]) -> None:
    model = model_with(ScriptedFaults(Rule(fault)))
    with pytest.raises(error):
        model.put_record("s", ENTRIES[0], now_ms=T0)
    assert stored(model) == []
    model.faults = ScriptedFaults(Rule(fault))
    with pytest.raises(error):
        model.split_shard("s", FIRST, 1000, now_ms=T0)
    assert len(model.streams["s"].shards) == 2


def test_a_shard_can_be_throttled_alone() -> None:
    model = model_with(ScriptedFaults(Rule(Fault.THROTTLE, shard_id=SECOND, times=None)))
    high = PutEntry("k", b"high", 2**128 - 1)
    with pytest.raises(ProvisionedThroughputExceededException):
        model.put_record("s", high, now_ms=T0)
    model.put_record("s", ENTRIES[0], now_ms=T0)
    (result,) = model.put_records("s", [high], now_ms=T0)
    assert isinstance(result, PutFailure)
    token = model.get_shard_iterator("s", SECOND, "TRIM_HORIZON", now_ms=T0)
    with pytest.raises(ProvisionedThroughputExceededException):
        model.get_records(token, now_ms=T0)
    assert stored(model) == [b"0"]


def test_reads_can_be_empty_and_iterators_expire_early_without_loss() -> None:
    model = model_with()
    model.put_records("s", ENTRIES, now_ms=T0)
    token = model.get_shard_iterator("s", FIRST, "TRIM_HORIZON", now_ms=T0)
    model.faults = ScriptedFaults(Rule(Fault.EMPTY_READ, times=2), Rule(Fault.EXPIRE_ITERATOR))
    with pytest.raises(ExpiredIteratorException):
        model.get_records(token, now_ms=T0)
    for _ in range(2):
        result = model.get_records(token, now_ms=T0 + 5)
        assert result.records == []
        assert result.behind_ms == 5, "an empty read is not the tip"
        assert result.next_iterator is not None
        token = result.next_iterator
    assert len(model.get_records(token, now_ms=T0).records) == 6


def test_an_empty_read_never_ends_a_closed_shard_that_has_records() -> None:
    model = model_with()
    model.put_record("s", ENTRIES[0], now_ms=T0)
    model.split_shard("s", FIRST, 1000, now_ms=T0)
    model.faults = ScriptedFaults(Rule(Fault.EMPTY_READ))
    result = model.get_records(model.get_shard_iterator("s", FIRST, "TRIM_HORIZON", now_ms=T0), now_ms=T0)
    assert result.records == []
    assert result.next_iterator is not None
    assert result.children == []


def test_a_rule_passes_over_calls_and_strikes_as_often_as_it_says() -> None:
    model = model_with(ScriptedFaults(Rule(Fault.UNAVAILABLE, operation="PutRecord", skip=1, times=2)))
    outcomes = []
    for entry in ENTRIES[:5]:
        try:
            model.put_record("arn:aws:kinesis:us-east-1:000000000000:stream/s", entry, now_ms=T0)
            outcomes.append(True)
        except ServiceUnavailable:
            outcomes.append(False)
    assert outcomes == [True, False, False, True, True]


def test_random_faults_repeat_with_their_seed() -> None:
    def run(seed: int) -> list[bool]:
        shares = {Fault.THROTTLE: 0.25}
        model = model_with(RandomFaults(Random(seed), shares))
        entries = [PutEntry("k", b"", 0)] * 400
        return [isinstance(result, PutFailure) for result in model.put_records("s", entries, now_ms=T0)]

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert 60 < sum(run(1)) < 140
    always = model_with(RandomFaults(Random(1), {Fault.THROTTLE: 1.0}))
    assert all(isinstance(result, PutFailure) for result in always.put_records("s", ENTRIES, now_ms=T0))
