"""Tumbling windows: when panes are emitted, corrected, forgotten."""

from __future__ import annotations

from collections.abc import Callable

from streamgauge.events.control import Tick

AGGREGATE = """
[[aggregate]]
name = "g"
key = ["subject"]
window = {{ tumbling = "100ms" }}
allowed_lateness = "{lateness}ms"
measures = {{ n = "count()", high = "max(data.x)" }}
"""
BASE_MS = 1_600_000_000_000


def test_a_pane_is_emitted_at_the_event_that_takes_the_watermark_to_its_end(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE.format(lateness=0))
    bench.send(0)
    bench.send(109)
    assert bench.panes() == []
    bench.send(110)
    assert bench.panes() == [("a", 0, 1, 1)]


def test_panes_that_close_together_come_by_window_and_key(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE.format(lateness=0))
    for key, time in [("c", 95), ("b", 105), ("b", 50), ("a", 105), ("a", 98), ("c", 101)]:
        bench.send(time, key)
    bench.send(1_000, "z")
    closed = [(start, key) for key, start, _, _ in bench.panes()]
    assert closed == [(0, "a"), (0, "b"), (0, "c"), (100, "a"), (100, "b"), (100, "c")]


def test_an_event_within_the_allowed_lateness_is_a_revision_of_its_own(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE.format(lateness=50))
    bench.send(0, x=1)
    bench.send(110)
    for x in (3, 2):
        bench.send(20, x=x)
    assert bench.panes() == [("a", 0, 1, 1), ("a", 0, 2, 2), ("a", 0, 3, 3)]
    assert [panes.measures["high"].values.tolist() for panes in bench.effects.panes] == [[1], [3], [3]]
    assert bench.engine.counters.aggregates["g"].corrections == 2


def test_a_first_event_for_a_closed_window_makes_its_first_pane_and_corrects_nothing(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE.format(lateness=50))
    bench.send(0)
    bench.send(110)
    bench.send(20, "b")
    assert bench.panes() == [("a", 0, 1, 1), ("b", 0, 1, 1)]
    assert bench.engine.counters.aggregates["g"].corrections == 0


def test_lateness_ends_where_the_watermark_reaches_the_end_plus_what_is_allowed(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE.format(lateness=50))
    bench.send(0)
    bench.send(159)
    bench.send(20)
    assert bench.panes()[-1] == ("a", 0, 2, 2)
    bench.send(160)
    bench.send(20, x=5)
    assert bench.panes()[-1] == ("a", 0, 2, 2)
    (late,) = bench.effects.late
    assert (late.aggregate, late.key, late.window_start_ms, late.time_ms) == ("g", ("a",), BASE_MS, BASE_MS + 20)
    assert (late.identity, late.partition_key) == (f"{4:020}", "a")
    assert b'"x":5' in late.payload
    assert bench.engine.counters.aggregates["g"].late == 1


def test_a_tick_closes_windows_of_a_silent_shard(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE.format(lateness=0))
    bench.send(50)
    bench.control(Tick(BASE_MS + 59))
    assert bench.panes() == []
    bench.control(Tick(BASE_MS + 60))
    assert bench.panes() == [("a", 0, 1, 1)]


def test_windows_before_the_epoch_are_aligned_like_the_others(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE.format(lateness=0))
    bench.send(-BASE_MS - 1)
    bench.send(-BASE_MS + 200)
    assert bench.panes() == [("a", -BASE_MS - 100, 1, 1)]


def test_a_pane_that_may_not_be_corrected_any_more_leaves_no_state(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE.format(lateness=50))
    for window in range(50):
        bench.send(window * 100, f"key-{window}")
    columns = bench.engine.snapshot()
    assert len(columns["aggregate.g.pane.start"]) == len(columns["aggregate.g.key.subject"]) <= 3


def test_open_panes_are_those_not_emitted_yet(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE.format(lateness=1_000))
    bench.send(0)
    bench.send(150, "b", x=7)
    bench.send(150, "a")
    (open_panes,) = bench.engine.open_panes()
    assert [key[0] for key in open_panes.keys] == ["a", "b"]
    assert open_panes.revision.tolist() == [0, 0]
    assert open_panes.event_count.tolist() == [1, 1]
    assert open_panes.measures["high"].present.tolist() == [False, True]


def test_where_leaves_events_out_and_they_raise_the_watermark_all_the_same(bench_of: Callable) -> None:
    bench = bench_of(AGGREGATE.format(lateness=0) + 'where = "data.x > 0"\n')
    bench.send(0, x=1)
    bench.send(110, x=-1)
    assert bench.panes() == [("a", 0, 1, 1)]
    assert bench.engine.counters.aggregates["g"].filtered == 1


def test_a_key_of_several_fields(bench_of: Callable) -> None:
    tables = AGGREGATE.format(lateness=0).replace('["subject"]', '["data.zone", "subject", "data.floor"]')
    bench = bench_of(tables)
    bench.send(0, "a", zone="north", floor=2)
    bench.send(0, "a", zone="north", floor=10)
    bench.restart()
    bench.send(0, "a", zone="north", floor=2)
    bench.end()
    assert bench.panes() == [("north/a/10", 0, 1, 1), ("north/a/2", 0, 1, 2)]
    assert list(bench.effects.panes[0].partition_keys) == ["a", "a"]
