"""What is put: a function of the event's number alone, which DuckDB computes by itself."""

from __future__ import annotations

import duckdb

__all__ = ["PIPELINE", "SCHEMA", "Pane", "payload", "subject", "time_ms", "true_panes"]

Pane = tuple[str, str, int, int, int]
"""Key, start of the window, and the three measures."""

_START_MS = 1_700_000_000_000
_STEP_MS = 10
_WINDOW_MS = 600_000
_KEYS = 1_000

PIPELINE = """
[pipeline]
name = "kcl"
stream = "readings"
event_types = ["reading"]
schemas = "schemas"
out_of_orderness = "6h"

[[aggregate]]
name = "by_meter"
key = ["subject"]
window = { tumbling = "10m" }
measures = { readings = "count()", total = "sum(data.value)", top = "max(data.value)" }
"""

SCHEMA = """
{
  "type": "object",
  "properties": {"n": {"type": "integer"}, "value": {"type": "integer"}},
  "required": ["n", "value"]
}
"""


def subject(n: int) -> str:
    return f"meter-{n * 7919 % _KEYS}"


def time_ms(n: int) -> int:
    return _START_MS + n * _STEP_MS


def payload(n: int) -> bytes:
    return b'{"n":%d,"value":%d}' % (n, n * 31 % 1009)


def true_panes(count: int) -> list[Pane]:
    """Every window of every key over the events 0 to `count` - 1, each counted once, by DuckDB's own arithmetic."""
    with duckdb.connect() as base:
        return base.execute(
            f"""
            SELECT 'meter-' || (n * 7919 % {_KEYS}),
                   strftime(make_timestamp(({_START_MS} + n * {_STEP_MS}) // {_WINDOW_MS} * {_WINDOW_MS} * 1000),
                            '%Y-%m-%dT%H:%M:%S.000Z'),
                   count(*), sum(n * 31 % 1009)::BIGINT, max(n * 31 % 1009)
            FROM range(?) events(n) GROUP BY ALL ORDER BY ALL
            """,
            [count],
        ).fetchall()
