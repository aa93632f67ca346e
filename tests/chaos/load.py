"""What is put: a function of seed, round and number alone, so that DuckDB can be told the truth without our code."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

__all__ = ["EVENTS_PER_ROUND", "PIPELINE", "SCHEMA", "WINDOW_MS", "Reading", "reading", "round_of"]

EVENTS_PER_ROUND = 800
WINDOW_MS = 10_000
# An hour lies between two rounds, so that the end of one round's input makes nothing of the next one late.
_ROUND_MS = 3_600_000
_STEP_MS = 100
_DISORDER_MS = 5_000
_START_MS = 1_700_000_000_000
_KEYS = 24

PIPELINE = """
[pipeline]
name = "chaos"
stream = "readings"
event_types = ["reading"]
schemas = "schemas"
out_of_orderness = "20m"

[[aggregate]]
name = "by_meter"
key = ["subject"]
window = { tumbling = "10s" }
measures = { readings = "count()", total = "sum(data.value)", top = "max(data.value)" }
serve = true

[[threshold]]
name = "high"
aggregate = "by_meter"
raise_when = "top > 900"
clear_when = "top < 600"
detail_type = "High"
"""

SCHEMA = """
{
  "type": "object",
  "properties": {"n": {"type": "integer"}, "value": {"type": "integer"}},
  "required": ["n", "value"]
}
"""


@dataclass(frozen=True)
class Reading:
    """One event; `n` is its number over all rounds, which no other event has."""

    n: int
    key: str
    time_ms: int
    value: int


def reading(seed: int, n: int) -> Reading:
    """The n-th event."""
    drawn = int.from_bytes(blake2b(f"{seed}/{n}".encode(), digest_size=12).digest(), "big")
    drawn, key = divmod(drawn, _KEYS)
    drawn, value = divmod(drawn, 1_000)
    place = n % EVENTS_PER_ROUND
    time_ms = _START_MS + round_of(n) * _ROUND_MS + place * _STEP_MS + drawn % _DISORDER_MS
    return Reading(n, f"meter-{key}", time_ms, value)


def round_of(n: int) -> int:
    """The round in which the n-th event is put."""
    return n // EVENTS_PER_ROUND
