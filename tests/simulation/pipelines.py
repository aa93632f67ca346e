"""The pipeline of all simulated worlds, in two versions of the code that read the same state."""

from __future__ import annotations

from functools import cache

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.processors.core.definition import HoppingWindow, Pipeline, SessionWindow, Window
from streamgauge.processors.core.parse import parse_pipeline

__all__ = [
    "ALL_TYPES",
    "BOUND_MS",
    "FUTURE_BOUND_MS",
    "LATENESS_MS",
    "NOT_READ",
    "OTHER_WINDOWS",
    "STREAM",
    "WIND",
    "WINDOW_MS",
    "make_pipeline",
]

STREAM = "observations"
WIND = "weather.wind"
NOT_READ = "weather.tide"
ALL_TYPES = (WIND, NOT_READ)

BOUND_MS = 3_000
FUTURE_BOUND_MS = 60_000
WINDOW_MS = {"gusts": 5_000, "places": 12_000}
LATENESS_MS = {"gusts": 4_000, "places": 0}
OTHER_WINDOWS: dict[str, tuple[Window, int]] = {
    "hops": (HoppingWindow(6_000, 2_000), 3_000),
    "visits": (SessionWindow(2_000, 9_000), 4_000),
}
"""By aggregate that is not tumbling, its window and allowed lateness."""

_TEXT = """
[pipeline]
name = "sim"
stream = "observations"
event_types = ["weather.wind"]
schemas = "schemas"
out_of_orderness = "3s"
future_bound = "60s"
state_epoch = %d

[[aggregate]]
name = "gusts"
key = ["subject"]
window = { tumbling = "5s" }
allowed_lateness = "4s"
serve = true

[aggregate.measures]
n = "count()"
top = "max(data.speed)"
total = "sum(data.n)"
mean = "mean(data.speed)"
spread = "variance(data.speed)"
latest = "last(data.n)"
high = "quantile(data.speed, 0.9)"

[[aggregate]]
name = "places"
key = ["subject", "data.place"]
window = { tumbling = "12s" }
where = "data.speed < 90"
measures = { low = "min(data.speed)", kinds = "approx_distinct(data.n)" }

[[aggregate]]
name = "hops"
key = ["subject"]
window = { hopping = "6s", every = "2s" }
allowed_lateness = "3s"
measures = { n = "count()", top = "max(data.speed)" }

[[aggregate]]
name = "visits"
key = ["subject"]
window = { session = "2s", max_length = "9s" }
allowed_lateness = "4s"
measures = { n = "count()", top = "max(data.speed)" }
serve = true

[[threshold]]
name = "gale"
aggregate = "gusts"
raise_when = "top > 60"
clear_when = "top < 50"
detail_type = "Gale"

[[threshold]]
name = "surge"
aggregate = "hops"
raise_when = "top > 60"
clear_when = "top < 50"

[[threshold]]
name = "spell"
aggregate = "visits"
raise_when = "top > 60"
clear_when = "top < 50"

[[threshold]]
name = "calm"
aggregate = "places"
raise_when = "low < 20"
detail_type = "Calm"
"""

_FIELDS: dict[str, object] = {
    "n": {"type": "integer"},
    "speed": {"type": "number", "minimum": 0, "maximum": 100},
    "place": {"type": "string"},
}


@cache
def make_pipeline(version: int, epoch: int = 1) -> Pipeline:
    """Version 1, or 2, whose catalogue has a newer schema besides."""
    schemas = [EventSchema(WIND, 1, {"type": "object", "properties": _FIELDS, "required": ["n", "speed", "place"]})]
    if version == 2:
        fields = {**_FIELDS, "unit": {"type": "string", "default": "kn"}}
        schemas.append(
            EventSchema(WIND, 2, {"type": "object", "properties": fields, "required": ["n", "speed", "place"]})
        )
    tide = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    return parse_pipeline(_TEXT % epoch, file="sim.toml", schemas=Catalogue([*schemas, EventSchema(NOT_READ, 1, tide)]))
