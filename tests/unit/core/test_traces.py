"""The trace of the event that decided goes on in the threshold event."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from streamgauge.events.records import StreamRecord
from streamgauge.processors.commit.snapshots import Snapshot, decode_snapshot, encode_snapshot
from streamgauge.processors.core.container import decode_columns, encode_columns
from streamgauge.processors.core.effects import Outbox

TABLES = """
[[aggregate]]
name = "g"
key = ["subject"]
window = { tumbling = "100ms" }
allowed_lateness = "300ms"
measures = { total = "sum(data.i)" }
serve = false

[[threshold]]
name = "r"
aggregate = "g"
raise_when = "total > 10"
clear_when = "total < 5"
detail_type = "R"
"""


def trace(number: int) -> str:
    return f"00-{number:032x}-{number:016x}-01"


def traced(data: bytes, traceparent: object) -> bytes:
    event = msgspec.json.decode(data)
    return msgspec.json.encode({**event, "traceparent": traceparent})


def test_a_threshold_event_bears_the_trace_of_the_event_that_decided(bench_of: Callable) -> None:
    bench = bench_of(TABLES)
    for number, (time, total) in enumerate([(0, 20), (120, 20), (50, -18), (250, 0)]):
        bench.apply(bench.record(traced(bench.event(time, i=total), trace(number)), "a"))
    found = [(event.kind, event.reason, event.traceparent) for event in bench.effects.threshold_events]
    # The second event closes the first window, the third corrects it, the fourth closes the second window.
    assert found == [
        ("raise", "crossed", trace(1)),
        ("clear", "corrected", trace(2)),
        ("raise", "crossed", trace(3)),
    ]


def test_batches_cut_differently_bear_the_same_traces(bench_of: Callable) -> None:
    found = []
    for cut in (1, 2, 3, 7, 40):
        bench = bench_of(TABLES)
        made: list[StreamRecord] = []
        for number in range(40):
            body = bench.event(number * 61, i=20 if number % 5 < 2 else -9)
            made.append(bench.record(traced(body, trace(number)) if number % 3 else body, "a"))
        for first in range(0, len(made), cut):
            bench.apply(*made[first : first + cut])
        found.append(list(bench.effects.threshold_events))
    assert len(found[0]) > 5 and {event.traceparent is None for event in found[0]} == {True, False}
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("wrong", ["", "00-1", trace(1).upper().replace("0", "A"), trace(1) + "-more", "x" * 300_000])
def test_what_is_no_trace_context_stays_out(bench_of: Callable, wrong: str) -> None:
    bench = bench_of(TABLES)
    for time in (0, 120):
        bench.apply(bench.record(traced(bench.event(time, i=20), wrong), "a"))
    assert [event.traceparent for event in bench.effects.threshold_events] == [None]


def test_time_alone_has_no_trace(bench_of: Callable) -> None:
    bench = bench_of(TABLES)
    bench.apply(bench.record(traced(bench.event(0, i=20), trace(1)), "a"))
    bench.end()
    assert [event.traceparent for event in bench.effects.threshold_events] == [None]


def test_an_outbox_of_before_there_were_traces_is_read(bench_of: Callable) -> None:
    bench = bench_of(TABLES)
    for number in (0, 1):
        bench.apply(bench.record(traced(bench.event(number * 120, i=20), trace(number)), "a"))
    outbox = Outbox(threshold_events=tuple(bench.effects.threshold_events))
    saved = encode_snapshot(Snapshot(engine={}, outbox=outbox))
    assert decode_snapshot(saved).outbox == outbox
    columns = dict(decode_columns(saved))
    (event,) = columns["outbox.threshold_events"]
    fields = msgspec.json.decode(event)
    assert fields.pop("traceparent") == trace(1)
    columns["outbox.threshold_events"] = [msgspec.json.encode(fields)]
    (old,) = decode_snapshot(encode_columns(columns)).outbox.threshold_events
    assert old.traceparent is None and old.id == outbox.threshold_events[0].id
