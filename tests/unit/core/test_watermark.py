"""The watermark: events, ticks, the end of the input."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streamgauge.events.control import EndOfInput, Tick, control_event
from streamgauge.events.envelope import Event, InvalidEvent
from streamgauge.processors.core.definition import TumblingWindow
from streamgauge.processors.core.watermark import NEVER, Watermark, parse_control

BOUND_MS = 10
SIZE_MS = 100


def a_watermark(*sizes: int) -> Watermark:
    return Watermark(BOUND_MS, [TumblingWindow(size) for size in sizes or (SIZE_MS,)])


def run(
    watermark: Watermark, times: list[int], *controls: tuple[int, Tick | EndOfInput], arrival: int = 0
) -> tuple[list[int], list[int]]:
    times_ms = np.array(times, dtype=np.int64)
    timeline = watermark.run(times_ms, np.full(len(times), arrival, dtype=np.int64), controls)
    return timeline.watermarks.tolist(), timeline.event_steps.tolist()


def test_it_is_the_highest_event_time_less_the_bound() -> None:
    watermark = a_watermark()
    assert watermark.watermark_ms is None
    assert run(watermark, [50, 20, 70]) == ([40, 40, 60], [0, 1, 2])
    assert run(watermark, [65, 71])[0] == [60, 61]
    assert watermark.watermark_ms == 61


def test_a_tick_without_events_does_nothing() -> None:
    watermark = a_watermark()
    assert run(watermark, [], (0, Tick(10**9)))[0] == [NEVER]
    assert watermark.watermark_ms is None


def test_a_tick_adds_the_idle_time_since_the_newest_event_arrived() -> None:
    watermark = a_watermark()
    run(watermark, [50], arrival=1_000)
    assert run(watermark, [], (0, Tick(1_025)))[0] == [65]


def test_a_tick_raises_to_the_end_of_the_window_of_the_newest_event_at_most() -> None:
    watermark = a_watermark()
    run(watermark, [50], arrival=1_000)
    assert run(watermark, [], (0, Tick(10**12)))[0] == [100]


def test_the_longest_window_decides_how_far_a_tick_raises() -> None:
    watermark = a_watermark(40, 70)
    run(watermark, [50], arrival=0)
    assert run(watermark, [], (0, Tick(10**12)))[0] == [80]


def test_idle_time_counts_from_the_last_rise_and_not_from_the_last_event() -> None:
    watermark = a_watermark()
    run(watermark, [50], arrival=1_000)
    run(watermark, [50, 30], arrival=5_000)
    assert run(watermark, [], (0, Tick(1_030)))[0] == [70]


@pytest.mark.parametrize("again", [Tick(1_025), Tick(1_000), Tick(0), Tick(-(2**62))])
def test_repeated_and_backward_ticks_are_harmless(again: Tick) -> None:
    watermark = a_watermark()
    run(watermark, [50], arrival=1_000)
    run(watermark, [], (0, Tick(1_025)))
    assert run(watermark, [], (0, again))[0] == [65]


def test_controls_take_their_place_between_events() -> None:
    watermark = a_watermark()
    watermarks, steps = run(watermark, [50, 60, 70], (0, Tick(5)), (1, Tick(5)), (1, Tick(10)), (3, Tick(500)))
    assert watermarks == [NEVER, 40, 45, 50, 50, 60, 100]
    assert steps == [1, 4, 5]


def test_arrival_is_a_running_maximum_over_calls() -> None:
    watermark = a_watermark()
    assert watermark.arrivals(np.array([5, 3, 8])).tolist() == [5, 5, 8]
    assert watermark.arrivals(np.array([6, 9])).tolist() == [8, 9]
    assert watermark.arrivals(np.array([], dtype=np.int64)).tolist() == []
    assert watermark.arrivals(np.array([1])).tolist() == [9]


def test_the_end_of_input_acts_when_all_its_parts_have_arrived() -> None:
    watermark = a_watermark()
    run(watermark, [50])
    run(watermark, [], (0, EndOfInput("a", 0, 2)), (0, EndOfInput("a", 0, 2)), (0, EndOfInput("b", 1, 2)))
    assert (watermark.watermark_ms, watermark.input_ended) == (40, False)
    run(watermark, [], (0, EndOfInput("a", 1, 2)))
    assert (watermark.watermark_ms, watermark.input_ended) == (100, True)


def test_input_goes_on_with_the_next_accepted_event_and_a_copy_of_its_end_changes_nothing() -> None:
    watermark = a_watermark()
    end = (0, EndOfInput("a", 0, 1))
    run(watermark, [50], (1, end[1]))
    assert watermark.input_ended
    run(watermark, [150])
    assert not watermark.input_ended
    run(watermark, [], end)
    assert (watermark.watermark_ms, watermark.input_ended) == (140, False)


def test_an_input_without_events_ends_too() -> None:
    watermark = a_watermark()
    run(watermark, [], (0, EndOfInput("a", 0, 1)))
    assert (watermark.watermark_ms, watermark.input_ended) == (None, True)


def test_a_restored_watermark_goes_on_as_if_nothing_had_happened() -> None:
    watermark, restored = a_watermark(), a_watermark()
    watermark.arrivals(np.array([1_000]))
    run(watermark, [50], (1, EndOfInput("a", 0, 2)), arrival=1_000)
    restored.restore(watermark.columns())
    for one in (watermark, restored):
        assert run(one, [], (0, Tick(1_020)), (0, EndOfInput("a", 1, 2)))[0] == [60, 100]
        assert one.arrivals(np.array([1])).tolist() == [1_000]
        assert one.input_ended


def a_control(type_: str, data: bytes) -> Event:
    event = control_event("x", Tick(1), id="1", time_ms=0)
    return msgspec.structs.replace(event, type=type_, data=msgspec.Raw(data))


@pytest.mark.parametrize(
    ("type_", "data", "says"),
    [
        ("streamgauge.tick", b'{"at_ms":"now"}', "at_ms"),
        ("streamgauge.tick", b"null", "data"),
        ("streamgauge.end_of_input", b'{"input":"a","part":2,"parts":2}', "part 2 of 2"),
        ("streamgauge.end_of_input", b'{"input":"a","part":-1,"parts":2}', "part -1"),
        ("streamgauge.pause", b"{}", "no control record of this release"),
    ],
)
def test_a_control_record_that_says_nothing_is_refused(type_: str, data: bytes, says: str) -> None:
    with pytest.raises(InvalidEvent, match=says):
        parse_control(a_control(type_, data))
