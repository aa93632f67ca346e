"""Measures over what records bring: envelope attributes, strings, mapped records that have neither id nor source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

BASE_MS = 1_600_000_000_000
TABLES = """
[[aggregate]]
name = "a"
key = ["subject"]
window = { tumbling = "1s" }
allowed_lateness = "1h"

[aggregate.measures]
sources = "approx_distinct(source)"
types = "approx_distinct(type)"
zones = "approx_distinct(data.zone)"
opening = "first(data.x)"
closing = "last(data.i)"
middle = "quantile(data.i, 0.5)"
"""
EVENT = """
[pipeline]
name = "p"
stream = "s"
event_types = ["t"]
out_of_orderness = "10ms"
[event]
time = "floor"
time_format = "epoch_ms"
type = "'t'"
key = "zone"
"""


def values_of(bench: Any) -> dict[str, Any]:
    (panes,) = bench.effects.panes
    assert not bench.effects.failed
    return {name: column.values.tolist() for name, column in panes.measures.items()}


def test_attributes_and_strings_are_counted_apart(bench_of: Callable[..., Any]) -> None:
    bench = bench_of(TABLES)
    for time, zone in ((5, "ü"), (4, "v"), (3, "ü")):
        bench.send(time, x=time / 2, i=time, zone=zone)
    bench.end()
    found = values_of(bench)
    assert (found["sources"], found["types"], found["zones"]) == ([1], [1], [2])
    assert (found["opening"], found["closing"]) == ([1.5], [5])


def test_of_records_that_nothing_tells_apart_the_value_decides(bench_of: Callable[..., Any]) -> None:
    bench = bench_of(TABLES, EVENT)
    for x in (3, 1, 2):
        body = msgspec.json.encode({"floor": BASE_MS + 5, "x": x, "i": x, "zone": "k"})
        bench.apply(bench.record(body, "k"))
    bench.restart()
    bench.end()
    found = values_of(bench)
    assert (found["opening"], found["closing"], found["sources"]) == ([1.0], [3], [1])


@pytest.mark.parametrize("text", [b"1e999", b"-1e999", b"NaN", b"Infinity", b"1.5", b"9223372036854775808"])
def test_numbers_that_do_not_exist_fail_their_event_and_no_other(bench_of: Callable[..., Any], text: bytes) -> None:
    """1.5 and 2**63 are no integers of 64 bits; the others are no numbers at all."""
    bench = bench_of(TABLES)
    field = b'"i":' if text in {b"1.5", b"9223372036854775808"} else b'"x":'
    body = bench.event(5, x=7.25, i=7)
    bench.apply(bench.record(body.replace(field + (b"7" if field == b'"i":' else b"7.25"), field + text), "a"))
    bench.send(6, x=3.0, i=3)
    bench.end()
    assert [str(failed.reason) in {"data", "malformed_json"} for failed in bench.effects.failed] == [True]
    (panes,) = bench.effects.panes
    assert panes.event_count.tolist() == [1]
    assert panes.measures["opening"].values.tolist() == [3.0]
