"""Threshold rules: crossings, and corrections of crossings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamgauge.processors.core.thresholds import threshold_event_id

BASE_MS = 1_600_000_000_000
AGGREGATE = """
[[aggregate]]
name = "g"
key = ["subject"]
window = { tumbling = "100ms" }
allowed_lateness = "10s"
measures = { n = "count()", total = "sum(data.i)" }
"""
MACHINE = (
    AGGREGATE
    + """
[[threshold]]
name = "r"
aggregate = "g"
raise_when = "total > 10"
clear_when = "total < 5"
detail_type = "R"
"""
)
PLAIN = MACHINE.replace('clear_when = "total < 5"\n', "")


def fill(bench: object, *totals: int | None, key: str = "a") -> None:
    """One pane per total, windows one after the other, and the watermark past the last."""
    for window, total in enumerate(totals):
        bench.send(window * 100, key, i=total)  # type: ignore[attr-defined]
    bench.send(len(totals) * 100 + 50, key)  # type: ignore[attr-defined]


def test_a_machine_raises_and_clears_once(bench_of: Callable) -> None:
    bench = bench_of(MACHINE)
    fill(bench, 11, 12, 7, 4, 3, 11)
    assert bench.crossings() == [
        ("raise", 0, "raised", "crossed"),
        ("clear", 300, "cleared", "crossed"),
        ("raise", 500, "raised", "crossed"),
    ]
    first = bench.effects.threshold_events[0]
    assert first.id == threshold_event_id("p", 1, "r", ["a"], BASE_MS, "raise", 1)
    assert (first.key, first.partition_key, first.revision, first.crossing_ordinal) == ((("subject", "a"),), "a", 1, 1)
    assert first.measures == (("n", 1), ("total", 11))
    assert (first.detail_type, first.raise_when, first.clear_when) == ("R", "total > 10", "total < 5")
    assert (first.window_start_ms, first.window_end_ms) == (BASE_MS, BASE_MS + 100)
    assert bench.engine.counters.threshold_events_raised == 2
    assert bench.engine.counters.threshold_events_cleared == 1


def test_without_clear_when_every_pane_raises_once(bench_of: Callable) -> None:
    bench = bench_of(PLAIN)
    fill(bench, 11, 12, 1, 13)
    assert bench.crossings() == [("raise", start, "raised", "crossed") for start in (0, 100, 300)]


def test_null_and_windows_without_events_change_nothing(bench_of: Callable) -> None:
    bench = bench_of(MACHINE)
    bench.send(0, i=11)
    bench.send(200, i=None)
    bench.send(900, i=None)
    bench.send(2_000)
    assert bench.crossings() == [("raise", 0, "raised", "crossed")]


def test_the_deciding_record_numbers_the_event(bench_of: Callable) -> None:
    bench = bench_of(MACHINE.replace('name = "r"', 'name = "r1"') + MACHINE[len(AGGREGATE) :])
    bench.send(0, i=11)
    bench.send(0, "b", i=11)
    bench.send(300, "z")
    closing = 1_000 + bench.sent
    assert [(e.key[0][1], e.rule, e.rule_sequence) for e in bench.effects.threshold_events] == [
        ("a", "r1", (closing, 0, 0)),
        ("a", "r", (closing, 0, 1)),
        ("b", "r1", (closing, 0, 2)),
        ("b", "r", (closing, 0, 3)),
    ]


def test_a_raise_that_vanishes_is_taken_back_by_a_clear(bench_of: Callable) -> None:
    bench = bench_of(MACHINE)
    fill(bench, 11, 7)
    bench.send(0, i=-5)
    raised, taken = bench.effects.threshold_events
    assert bench.crossings()[1:] == [("clear", 0, "cleared", "corrected")]
    assert taken.takes_back == raised.id
    assert (taken.revision, taken.measures) == (2, (("n", 2), ("total", 6)))


def test_a_clear_that_vanishes_is_taken_back_by_a_raise(bench_of: Callable) -> None:
    bench = bench_of(MACHINE)
    fill(bench, 11, 4)
    bench.send(100, i=2)
    assert bench.crossings()[2:] == [("raise", 100, "raised", "corrected")]
    assert bench.effects.threshold_events[2].takes_back == bench.effects.threshold_events[1].id


def test_one_correction_moves_all_later_crossings_with_the_state_after_all_of_it(bench_of: Callable) -> None:
    bench = bench_of(MACHINE)
    fill(bench, 11, 4, 11, 7)
    del bench.effects.threshold_events[:]
    # The first raise falls away, and with it the clear after it; the raise at 200 stays as it was.
    bench.send(0, i=-6)
    assert bench.crossings() == [("raise", 100, "raised", "corrected"), ("clear", 0, "raised", "corrected")]
    assert [e.rule_sequence[2] for e in bench.effects.threshold_events] == [0, 1]
    # And comes back, beside a new clear: new ids for the same windows.
    ids = {e.id for e in bench.effects.threshold_events}
    bench.send(0, i=6)
    assert bench.crossings()[2:] == [("raise", 0, "raised", "crossed"), ("clear", 100, "raised", "crossed")]
    again = bench.effects.threshold_events[2:]
    assert [event.crossing_ordinal for event in again] == [2, 2]
    assert not ids & {event.id for event in again}


def test_take_backs_come_newest_window_first_and_before_what_is_new(bench_of: Callable) -> None:
    bench = bench_of(MACHINE)
    fill(bench, 7, 11, 4, 20)
    del bench.effects.threshold_events[:]
    bench.send(0, i=4)
    assert bench.crossings() == [("clear", 100, "raised", "corrected"), ("raise", 0, "raised", "crossed")]


def test_a_correction_of_one_window_shows_the_other_windows_as_they_stand(bench_of: Callable) -> None:
    bench = bench_of(MACHINE)
    fill(bench, 7, 11, 7)
    bench.send(100, i=1)
    bench.send(0, i=4)
    taken = next(e for e in bench.effects.threshold_events if e.kind == "clear")
    assert (taken.window_start_ms, taken.revision, taken.measures) == (BASE_MS + 100, 2, (("n", 2), ("total", 12)))


def test_a_plain_rule_is_corrected_in_its_window_alone(bench_of: Callable) -> None:
    bench = bench_of(PLAIN)
    fill(bench, 11, 12)
    bench.send(0, i=-5)
    bench.send(0, i=5)
    assert bench.crossings()[2:] == [("clear", 0, "cleared", "corrected"), ("raise", 0, "raised", "crossed")]
    assert bench.effects.threshold_events[3].crossing_ordinal == 2


@pytest.mark.parametrize("lateness", ["0s", "100ms", "10s"])
def test_a_state_outlives_its_panes_and_a_restart(bench_of: Callable, lateness: str) -> None:
    bench = bench_of(MACHINE.replace("10s", lateness))
    bench.send(0, i=11)
    bench.send(5_000, "z")
    bench.restart()
    bench.send(5_000, i=12)
    bench.send(20_000, "z")
    bench.restart()
    bench.send(20_000, i=1)
    bench.send(40_000, "z")
    assert bench.crossings() == [("raise", 0, "raised", "crossed"), ("clear", 20_000, "cleared", "crossed")]


def test_keys_do_not_disturb_each_other(bench_of: Callable) -> None:
    bench = bench_of(MACHINE)
    for key, total in [("a", 11), ("b", 1), ("c", 11)]:
        bench.send(0, key, i=total)
    bench.send(300, "z")
    bench.send(0, "b", i=20)
    bench.send(0, "c", i=-9)
    found = [(e.key[0][1], e.kind) for e in bench.effects.threshold_events]
    assert found == [("a", "raise"), ("c", "raise"), ("b", "raise"), ("c", "clear")]


def test_the_id_depends_on_everything_that_names_a_crossing() -> None:
    base = ("p", 1, "r", ["a", "b"], 0, "raise", 1)
    others = [
        ("q", 1, "r", ["a", "b"], 0, "raise", 1),
        ("p", 2, "r", ["a", "b"], 0, "raise", 1),
        ("p", 1, "s", ["a", "b"], 0, "raise", 1),
        ("p", 1, "r", ["a,b"], 0, "raise", 1),
        ("p", 1, "r", ["a", "b"], 1, "raise", 1),
        ("p", 1, "r", ["a", "b"], 0, "clear", 1),
        ("p", 1, "r", ["a", "b"], 0, "raise", 2),
    ]
    ids = {threshold_event_id(*identity) for identity in [base, *others]}  # type: ignore[arg-type]
    assert len(ids) == 8
    assert all(len(found) == 32 for found in ids)
    assert threshold_event_id("p", 1, "r", ["a", "b"], 0, "raise", 1) == "278d41172eeb9a2d87d3b452b21d6cd7"
