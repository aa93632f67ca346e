"""The engine whole: counting, failed events, control records, snapshots and changed pipelines."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from streamgauge.events.control import Tick, control_event
from streamgauge.events.envelope import encode_event
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.events.records import Shard
from streamgauge.processors.core.container import SnapshotError, encode_columns
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.effects import FailureReason
from streamgauge.processors.core.engine import Engine

AGGREGATE = """
[[aggregate]]
name = "g"
key = ["subject"]
window = { tumbling = "100ms" }
allowed_lateness = "50ms"
measures = { n = "count()", total = "sum(data.i)", mean = "mean(data.x)" }
serve = false
"""
RULE = """
[[threshold]]
name = "r"
aggregate = "g"
raise_when = "total > 10"
clear_when = "total < 5"
detail_type = "R"
"""


def equations_hold(bench: object) -> None:
    c = bench.engine.counters  # type: ignore[attr-defined]
    duplicates = c.duplicate_in_window + c.duplicate_below_window + c.duplicate_foreign
    others = c.type_not_read + sum(c.failed.values()) + c.control + c.ledger + c.misrouted
    assert c.positions == c.accepted + duplicates + others
    for a in c.aggregates.values():
        assert c.accepted == a.accepted_before + a.applied + a.filtered + a.late


def test_every_position_is_counted_once_by_what_became_of_it(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE + RULE)
    bench.send(0, i=1)
    bench.send(0, sequence=0, i=1)
    bench.apply(bench.record(bench.event(0, type="other"), "a"))
    bench.apply(bench.record(b"{", "a"))
    bench.send(0, i="one")
    bench.send(3_600_001)
    bench.control(Tick(0))
    bench.send(500)
    bench.send(0)
    c = bench.engine.counters
    assert (c.positions, c.accepted, c.duplicate_in_window, c.type_not_read, c.control) == (9, 3, 1, 1, 1)
    assert c.failed == {"malformed_json": 1, "data": 1, "future": 1}
    assert (c.aggregates["g"].applied, c.aggregates["g"].late) == (2, 1)
    equations_hold(bench)


def test_a_failed_event_is_stored_once_and_its_copies_are_duplicates(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    for _ in range(3):
        bench.send(3_600_001, sequence=7)
        bench.send(0, sequence=8, i="one")
    future, data = bench.effects.failed
    assert (future.reason, future.identity, future.partition_key) == (FailureReason.FUTURE, f"{7:020}", "a")
    assert future.detail == "3600001 ms past its arrival; future_bound is 3600000 ms"
    assert data.reason == FailureReason.DATA
    assert bench.engine.counters.duplicate_in_window == 4
    equations_hold(bench)


def test_an_event_at_the_future_bound_is_accepted(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    bench.send(3_600_000)
    assert bench.effects.failed == []


def test_a_control_record_that_cannot_be_read_is_a_failed_event(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    event = control_event("test", Tick(0), id="x", time_ms=0)
    bench.apply(bench.record(encode_event(msgspec.structs.replace(event, data=msgspec.Raw(b'{"at_ms":null}'))), "c"))
    bench.apply(bench.record(encode_event(msgspec.structs.replace(event, type="streamgauge.pause")), "c"))
    assert [failed.reason for failed in bench.effects.failed] == [FailureReason.DATA] * 2
    assert bench.effects.failed[0].identity == "x"
    equations_hold(bench)


def test_an_event_whose_sum_would_not_fit_fails_and_nothing_wraps(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    records = [bench.record(bench.event(0, sequence=n, i=i), "a") for n, i in enumerate([2**63 - 1, 1, -1, 1])]
    bench.apply(*records)
    (failed,) = bench.effects.failed
    assert (failed.reason, failed.identity) == (FailureReason.OVERFLOW, f"{1:020}")
    assert failed.detail == "the sum of data.i would not fit into 64 bits"
    bench.end()
    (panes,) = bench.effects.panes
    assert panes.measures["total"].values.tolist() == [2**63 - 1]
    assert panes.event_count.tolist() == [3]
    equations_hold(bench)


@pytest.mark.parametrize("restarts", [False, True])
def test_after_one_overflow_the_next_is_seen_too(bench_of: Callable, *, restarts: bool) -> None:
    bench = bench_of(AGGREGATE)
    for batch in range(3):
        bench.apply(*[bench.record(bench.event(0, sequence=2 * batch + n, i=2**62), "a") for n in range(2)])
        bench.send(0, sequence=100 + batch, i=2**62)
        if restarts:
            bench.restart()
    assert [int(failed.identity) for failed in bench.effects.failed] == [1, 100, 2, 3, 101, 4, 5, 102]
    bench.end()
    assert bench.effects.panes[0].measures["total"].values.tolist() == [2**62]
    equations_hold(bench)


def test_an_aggregate_that_is_delivered_again_from_its_middle_is_counted_once(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    builder = AggregateBuilder()
    for sequence in range(5):
        builder.add(UserRecord("a", None, bench.event(0, sequence=sequence)))
    record = bench.record(builder.encode(), "a")
    bench.apply(record)
    assert str(bench.engine.position) == f"{record.sequence_number}/4"
    bench.restart()
    bench.apply(record)
    bench.end()
    assert bench.panes() == [("a", 0, 1, 5)]
    assert bench.engine.counters.redelivered == 5
    equations_hold(bench)


def test_no_records_change_nothing(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    assert bench.engine.position is None
    before = encode_columns(bench.engine.snapshot())
    bench.apply()
    assert encode_columns(bench.engine.snapshot()) == before
    assert bench.engine.watermark_ms is None
    assert not bench.engine.input_ended


def test_the_end_of_the_input_closes_what_is_open(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    bench.send(0)
    bench.send(150)
    bench.end()
    assert bench.panes() == [("a", 0, 1, 1), ("a", 100, 1, 1)]
    assert bench.engine.input_ended
    assert bench.engine.open_panes() == []


def test_memory_does_not_grow_with_the_keys_that_have_gone(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE + RULE)
    for window in range(40):
        keys = [f"{window}-{n}" for n in range(500)]
        bench.apply(*[bench.record(bench.event(window * 200, key, i=11 * key.endswith("-7")), key) for key in keys])
    state = bench.engine._aggregates[0]
    assert len(state._keys) < 4_096 + 2 * 1_100
    assert len(state._slots) <= 1_000
    # A key that is raised has not gone.
    bench.send(40 * 200, "0-7", i=1)
    bench.send(50 * 200, "z")
    assert bench.effects.threshold_events[-1].kind == "clear"
    assert bench.effects.threshold_events[-1].key == (("subject", "0-7"),)


def test_a_snapshot_says_what_it_is(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    bench.send(0)
    columns = bench.engine.snapshot()
    assert columns["state_format"].tolist() == [1]
    assert columns["pipeline"] == ["p", "1"]
    assert columns["position"] == ["1001/0"]


def test_a_later_state_format_is_refused(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    columns = {**bench.engine.snapshot(), "state_format": np.array([2], dtype=np.int64)}
    with pytest.raises(SnapshotError, match="format 2; this release reads format 1"):
        restored(bench, columns)


def test_a_missing_column_is_named(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    columns = {name: column for name, column in bench.engine.snapshot().items() if "sum(data.i)" not in name}
    with pytest.raises(SnapshotError, match=r"aggregate 'g': the column pane.sum\(data.i\) is missing"):
        restored(bench, columns)


def restored(bench: object, columns: object) -> None:
    pipeline = bench.pipeline  # type: ignore[attr-defined]
    Engine.restore(pipeline, Shard("s", FULL_RANGE), MsgspecDecoder(pipeline, "arn"), columns)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('"100ms"', '"200ms"', "aggregate 'g': .*window was tumbling 100 ms, is now tumbling 200 ms"),
        ('"50ms"', '"60ms"', "allowed_lateness was 50 ms, is now 60 ms"),
        ('["subject"]', '["subject", "type"]', "key was subject, is now subject, type"),
        ("mean(data.x)", "max(data.x)", r"measures was .*mean = mean\(data.x\).*, is now .*mean = max\(data.x\)"),
        ("serve = false", 'where = "data.x > 0"', "where was none, is now data.x > 0"),
        ("total > 10", "total > 11", "threshold 'r': .*raise_when was total > 10, is now total > 11"),
        ('clear_when = "total < 5"\n', "", "clear_when was total < 5, is now none"),
        (RULE, "", "threshold 'r': .*it was removed"),
    ],
)
def test_a_changed_definition_is_refused(
    bench_of: Callable, pipeline_of: Callable, before: str, after: str, says: str
) -> None:
    bench = bench_of(AGGREGATE + RULE)
    bench.send(0)
    tables = (AGGREGATE + RULE).replace(before, after)
    assert tables != AGGREGATE + RULE
    with pytest.raises(SnapshotError, match=says) as refused:
        bench.restart(pipeline_of(tables))
    assert "Raise state_epoch to 2" in str(refused.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("serve = false", "serve = true"),
        ('detail_type = "R"', 'detail_type = "Other"'),
        (RULE, RULE + AGGREGATE.replace('"g"', '"second"')),
        (RULE, RULE + RULE.replace('"r"', '"second"')),
    ],
)
def test_what_the_state_does_not_depend_on_may_change(
    bench_of: Callable, pipeline_of: Callable, before: str, after: str
) -> None:
    bench = bench_of(AGGREGATE + RULE)
    bench.send(0, i=11)
    bench.restart(pipeline_of((AGGREGATE + RULE).replace(before, after)))
    bench.send(0, i=11)
    bench.send(300)
    assert ("a", 0, 1, 2) in bench.panes()
    assert bench.crossings()[0] == ("raise", 0, "raised", "crossed")
    equations_hold(bench)


def test_an_aggregate_that_is_added_counts_from_then_on(bench_of: Callable, pipeline_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    bench.send(0)
    bench.restart(pipeline_of(AGGREGATE + AGGREGATE.replace('"g"', '"second"')))
    bench.send(0)
    counters = bench.engine.counters.aggregates
    assert (counters["g"].applied, counters["second"].applied, counters["second"].accepted_before) == (2, 1, 1)
    bench.restart()
    assert bench.engine.counters.aggregates["second"].accepted_before == 1


def test_a_rule_that_is_added_is_known_to_look_at_later_windows_alone(
    bench_of: Callable, pipeline_of: Callable
) -> None:
    assert bench_of(AGGREGATE + RULE).engine.counters.aggregates["g"].rules_since == {}
    bench = bench_of(AGGREGATE)
    bench.send(0)
    bench.send(250)
    watermark_ms = bench.engine.watermark_ms
    bench.restart(pipeline_of(AGGREGATE + RULE))
    bench.send(900)
    bench.restart()
    (since,) = bench.engine.counters.aggregates["g"].rules_since.values()
    assert since == watermark_ms


def test_another_pipeline_or_epoch_is_refused(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE)
    columns = bench.engine.snapshot()
    with pytest.raises(SnapshotError, match="belongs to pipeline 'q', state_epoch 1"):
        restored(bench, {**columns, "pipeline": ["q", "1"]})
    with pytest.raises(SnapshotError, match="belongs to pipeline 'p', state_epoch 7"):
        restored(bench, {**columns, "pipeline": ["p", "7"]})


@pytest.mark.parametrize("column", [None, np.zeros(1), [b"p", b"1"]])
def test_a_column_of_another_kind_is_no_column(bench_of: Callable, column: object) -> None:
    bench = bench_of(AGGREGATE)
    with pytest.raises(SnapshotError, match="the column 'pipeline'"):
        restored(bench, {**bench.engine.snapshot(), "pipeline": column})
    with pytest.raises(SnapshotError, match="the column 'state_format'"):
        restored(bench, {**bench.engine.snapshot(), "state_format": column})
