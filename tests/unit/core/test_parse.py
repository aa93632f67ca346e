"""A pipeline file is read whole, or refused with file and line."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from decode_world import CATALOGUE

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.core.definition import Measure, Pipeline, TumblingWindow
from streamgauge.processors.core.parse import parse_pipeline

GOOD = """\
# A pipeline.
[pipeline]
name = "weather"
stream = "observations"
event_types = ["weather"]
schemas = "schemas"
out_of_orderness = "2h"

[[aggregate]]
name = "hourly"
key = ["subject"]
window = { tumbling = "1h" }
measures = { n = "count()", values = "count(data.temp)", top = "max(data.temp)", total = "sum( data.count )" }

[[aggregate]]
name = "daily"
key = ["partitionkey", "type"]
window = { tumbling = "1d" }
allowed_lateness = "1h30m"
where = "data.temp < 50 and data.wet is not None"
serve = true
[aggregate.measures]
mean = "mean(data.count)"
low = "min(data.count)"

[[threshold]]
name = "hot"
aggregate = "hourly"
raise_when = "top > 40 and n >= 3"
clear_when = "top < 30"
detail_type = "Too hot"

[[threshold]]
name = "many"
aggregate = "daily"
raise_when = "mean > 100"
"""


def parsed(text: str = GOOD, catalogue: Catalogue = CATALOGUE) -> Pipeline:
    return parse_pipeline(text, file="p.toml", schemas=catalogue)


def refused(text: str) -> str:
    with pytest.raises(StreamgaugeError) as refusal:
        parsed(text)
    return str(refusal.value)


def test_a_whole_file_is_read() -> None:
    pipeline = parsed()
    hourly, daily = pipeline.aggregates
    assert (pipeline.name, pipeline.stream, pipeline.event_types) == ("weather", "observations", ("weather",))
    assert hourly.measures == (
        Measure("n", "count", None, is_integer=True),
        Measure("values", "count", "data.temp", is_integer=True),
        Measure("top", "max", "data.temp", is_integer=False),
        Measure("total", "sum", "data.count", is_integer=True),
    )
    assert daily.measures == (
        Measure("mean", "mean", "data.count", is_integer=False),
        Measure("low", "min", "data.count", is_integer=True),
    )
    assert (daily.window, daily.allowed_lateness_ms, daily.serve) == (TumblingWindow(86_400_000), 5_400_000, True)
    assert daily.where is not None and daily.where.names == ("data.temp", "data.wet")
    hot, many = pipeline.thresholds
    assert (hot.detail_type, many.detail_type) == ("Too hot", "many")
    assert hot.clear_when is not None and many.clear_when is None
    assert pipeline.aggregate("daily") is daily and pipeline.aggregate("none") is None


def test_a_rule_has_a_severity() -> None:
    hot, many = parsed(GOOD.replace('detail_type = "Too hot"', 'severity = "critical"')).thresholds
    assert (hot.severity, many.severity) == ("critical", "warning")


def test_every_measure_is_read_with_its_kind() -> None:
    def of(call: str) -> Measure:
        return parsed(GOOD.replace("min(data.count)", call)).aggregates[1].measures[1]

    assert of("variance(data.count)") == Measure("low", "variance", "data.count", is_integer=False)
    assert of("stddev( data.temp )") == Measure("low", "stddev", "data.temp", is_integer=False)
    assert of("first(data.count)") == Measure("low", "first", "data.count", is_integer=True)
    assert of("last(data.temp)") == Measure("low", "last", "data.temp", is_integer=False)
    assert of("quantile(data.count,0.50)") == Measure(
        "low", "quantile", "data.count", is_integer=False, parameter="0.50"
    )
    assert of("quantile(data.temp, 1)").call == "quantile(data.temp, 1)"
    for field in ("data.station", "data.wet", "data.temp", "data.count", "subject"):
        assert of(f"approx_distinct({field})") == Measure("low", "approx_distinct", field, is_integer=True)


def test_what_is_left_out_has_its_default() -> None:
    pipeline = parsed()
    assert (pipeline.state_epoch, pipeline.max_w, pipeline.mapping, pipeline.warnings) == (1, 65_536, None, ())
    assert (pipeline.out_of_orderness_ms, pipeline.future_bound_ms) == (7_200_000, 3_600_000)
    assert (pipeline.resend_horizon_ms, pipeline.foreign_horizon_ms) == (86_400_000, 3_600_000)
    hourly = pipeline.aggregates[0]
    assert (hourly.allowed_lateness_ms, hourly.where, hourly.serve) == (0, None, False)


def test_decoding_is_told_each_named_field_once() -> None:
    assert parsed().named_fields == (
        "subject", "data.temp", "data.count", "partitionkey", "type", "data.wet",
    )  # fmt: skip


def test_an_event_table_is_read_and_warns_without_an_id() -> None:
    event = '[event]\ntime = "at"\ntype = "\'weather\'"\nkey = "station"\n'
    text = GOOD.replace('["partitionkey", "type"]', '["subject"]') + event
    pipeline = parsed(text)
    assert pipeline.mapping is not None and pipeline.mapping.time.path == ("at",)
    assert pipeline.warnings == ("without an id the producers' own retries are not removed",)
    assert parsed(text + 'id = "n"\n').warnings == ()


MISTAKES = {
    "no TOML": ("out_of_orderness =", "out_of_orderness =  = ", 7, "not TOML"),
    "a key twice": ('name = "hourly"', 'name = "hourly"\nname = "x"', 11, "not TOML"),
    "an unknown table": ("# A pipeline.", "[sink]", 1, "unknown table or key 'sink'"),
    "an unknown array of tables": ("# A pipeline.", "[[agregate]]", 1, "Did you mean aggregate"),
    "an unknown key": ('schemas = "schemas"', 'shemas = "schemas"', 6, "shemas: unknown key. Did you mean schemas"),
    "a missing name": ('name = "weather"\n', "", 2, "lacks 'name'"),
    "a missing bound": ('out_of_orderness = "2h"\n', "", 2, "lacks 'out_of_orderness'"),
    "a number as a name": ('name = "weather"', "name = 5", 3, "name: must be text in quotes, not 5"),
    "a bad name": ('name = "weather"', 'name = "we ather"', 3, "is no name"),
    "a bad stream": ('stream = "observations"', 'stream = "a/b"', 4, "no stream name"),
    "an unknown type": ('["weather"]', '["weather", "storm"]', 5, "unknown event type 'storm'"),
    "a reserved type": ('["weather"]', '["streamgauge.tick"]', 5, "reserved"),
    "types that are no list": ('["weather"]', '"weather"', 5, "must be a list"),
    "a type twice": ('["weather"]', '["weather", "weather"]', 5, "twice"),
    "no types": ('["weather"]', "[]", 5, "must be a list"),
    "a bad duration": ('"2h"', '"2 hours"', 7, "not a duration"),
    "a number as a duration": ('"2h"', "7200", 7, "not a duration in quotes"),
    "a max_w that is no power": ('schemas = "schemas"', "max_w = 5000", 6, "power of two"),
    "a max_w that is no number": ('schemas = "schemas"', "max_w = true", 6, "whole number"),
    "a state_epoch of zero": ('schemas = "schemas"', "state_epoch = 0", 6, "at least 1"),
    "an aggregate called twice": ('name = "daily"', 'name = "hourly"', 16, "two aggregates called 'hourly'"),
    "a rule called twice": ('name = "many"', 'name = "hot"', 34, "two thresholds called 'hot'"),
    "a key that is no field": ('["partitionkey", "type"]', '["subject", "data.place"]', 17, "unknown field"),
    "a key too coarse": ('["partitionkey", "type"]', '["type"]', 17, "does not determine the partition key"),
    "a key that is a boolean": ('["partitionkey", "type"]', '["subject", "data.wet"]', 17, "is a boolean"),
    "a key that is a number": ('["partitionkey", "type"]', '["subject", "data.temp"]', 17, "is a number"),
    "a key that may be null": ('["partitionkey", "type"]', '["subject", "data.station"]', 17, "null or absent"),
    "no window": ('window = { tumbling = "1d" }\n', "", 15, "lacks 'window'"),
    "a window of nothing": ('tumbling = "1d"', 'tumbling = "0s"', 18, "at least 1 ms"),
    "a hop of nothing": ('{ tumbling = "1d" }', '{ hopping = "1h", every = "0s" }', 18, "every: must be at least 1 ms"),
    "no hop": ('{ tumbling = "1d" }', '{ hopping = "1h" }', 18, "lacks 'every'"),
    "a hop that does not divide": ('{ tumbling = "1d" }', '{ hopping = "1h", every = "7m" }', 18, "must divide"),
    "a hop past the size": ('{ tumbling = "1d" }', '{ hopping = "1h", every = "2h" }', 18, "must divide"),
    "too many hops": ('{ tumbling = "1d" }', '{ hopping = "1d", every = "1s" }', 18, "86400 windows; at most 1440"),
    "two kinds of window": ('{ tumbling = "1d" }', '{ tumbling = "1d", hopping = "1d" }', 18, "not both"),
    "a session of nothing": ('{ tumbling = "1d" }', '{ session = "0s" }', 18, "session: must be at least 1 ms"),
    "a session without bound": ('{ tumbling = "1d" }', '{ session = "2d" }', 18, "must be bounded by a max_length"),
    "a bound below the gap": ('{ tumbling = "1d" }', '{ session = "2h", max_length = "1h" }', 18, "at least its gap"),
    "no kind of window": ('{ tumbling = "1d" }', "{ }", 18, "says nothing of its kind"),
    "an unknown kind of window": ('{ tumbling = "1d" }', '{ sliding = "1d" }', 18, "unknown key"),
    "a hop of a tumbling window": ('"1d" }', '"1d", every = "1h" }', 18, "unknown key"),
    "an offset": ('"1d" }', '"1d", offset = "1h" }', 18, "not supported in this version"),
    "an unknown time zone": ('"1d" }', '"1d", time_zone = "Mars/Olympus" }', 18, "no time zone 'Mars/Olympus'"),
    "a window that is a text": ('{ tumbling = "1d" }', '"1d"', 18, "must be a table"),
    "a bad where": ("data.temp < 50", "data.tmp < 50", 20, "column 1.*unknown name 'data.tmp'"),
    "a where that is no predicate": ('"data.temp < 50 and data.wet is not None"', '"data.temp"', 20, "true or false"),
    "a serve that is a text": ("serve = true", 'serve = "yes"', 21, "true or false"),
    "no measures": ('mean = "mean(data.count)"\nlow = "min(data.count)"\n', "", 22, "at least one"),
    "a measure that is no call": ("mean(data.count)", "data.count", 23, "is no measure"),
    "an unknown measure": ("min(data.count)", "median(data.count)", 24, "unknown measure 'median'"),
    "a measure by another name": ("min(data.count)", "avg(data.count)", 24, "unknown measure 'avg'. Did you mean mean"),
    "a measure of two fields": ("min(data.count)", "min(data.count, data.temp)", 24, "takes a field and nothing else"),
    "a quantile of no number": (
        "min(data.count)",
        "quantile(data.count)",
        24,
        "which one. Such as quantile.data.count, 0",
    ),
    "a quantile of an empty one": ("min(data.count)", "quantile(data.count, )", 24, "needs to know which one"),
    "a quantile beyond 1": ("min(data.count)", "quantile(data.count, 1.01)", 24, "from 0 to 1.*not 1.01"),
    "a quantile in percent": ("min(data.count)", "quantile(data.count, 99)", 24, "from 0 to 1"),
    "a negative quantile": ("min(data.count)", "quantile(data.count, -0.5)", 24, "from 0 to 1"),
    "a quantile that is no number": ("min(data.count)", "quantile(data.count, nan)", 24, "from 0 to 1"),
    "a quantile in powers": ("min(data.count)", "quantile(data.count, 1e-2)", 24, "from 0 to 1"),
    "a quantile of many places": ("min(data.count)", "quantile(data.count, 0.1234567)", 24, "6 places at most"),
    "a variance of a text": ("min(data.count)", "variance(data.station)", 24, "variance needs a number.*is a string"),
    "a last text": ("min(data.count)", "last(data.station)", 24, "last needs a number"),
    "a first boolean": ("min(data.count)", "first(data.wet)", 24, "first needs a number"),
    "a measure of nothing": ("min(data.count)", "min()", 24, "needs a field"),
    "a measure of a text": ("min(data.count)", "min(data.station)", 24, "is a string"),
    "a measure of an unknown field": ("min(data.count)", "min(data.cont)", 24, "unknown field"),
    "a measure that no expression could name": ("low =", "low-est =", 24, "letters, digits and _"),
    "a measure called like a keyword": ("low =", "not =", 24, "letters, digits and _"),
    "a rule over an unknown aggregate": ('aggregate = "hourly"', 'aggregate = "hurly"', 28, "no aggregate 'hurly'"),
    "a rule over an unknown measure": ("top > 40", "tip > 40", 29, "column 1.*unknown name 'tip'.*top"),
    "a bad clear_when": ("top < 30", "top <", 30, "not an expression"),
    "a long detail_type": ("Too hot", "x" * 129, 31, "128"),
    "an unknown severity": (
        'detail_type = "Too hot"',
        'severity = "fatal"',
        31,
        "'fatal' is none of info, warning, critical",
    ),
    "an early look at a mean": (
        'aggregate = "daily"',
        'aggregate = "daily"\nearly = true',
        36,
        "mean of 'daily' cannot",
    ),
    "an early look that is a text": ('aggregate = "daily"', 'aggregate = "daily"\nearly = "yes"', 36, "true or false"),
    "absence and a condition": (
        'aggregate = "daily"',
        'aggregate = "daily"\nabsent_for = "1h"',
        37,
        "raise_when: unknown",
    ),
    "absence of nothing": ('raise_when = "mean > 100"', 'absent_for = "0s"', 36, "at least 1 ms"),
    "an early aggregate": ("serve = true", "early = true", 21, "unknown key"),
}


@pytest.mark.parametrize(("old", "new", "line", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_with_its_line(old: str, new: str, line: int, said: str) -> None:
    assert GOOD.count(old) >= 1
    text = refused(GOOD.replace(old, new, 1))
    assert re.match(rf"p\.toml, line {line}\b", text), text
    assert re.search(said, text), text


@pytest.mark.parametrize(
    ("event", "line", "said"),
    [
        ('time = "at"\ntype = "\'weather\'"\n', 38, "key"),
        ('time = "at"\ntype = "\'tide\'"\nkey = "k"\n', 40, "'tide' is not among event_types"),
        ('time = "at"\ntyp = "kind"\nkey = "k"\n', 40, "typ: unknown key. Did you mean type"),
        ('time = "at"\ntype = "kind"\nkey = "k"\ntime_format = "%H"\n', 42, "time zone"),
        ('time = "at"\ntype = "kind"\nkey = 5\n', 41, "must be text"),
    ],
)
def test_a_mistake_in_the_event_table_is_refused_with_its_line(event: str, line: int, said: str) -> None:
    text = refused(GOOD.replace('["partitionkey", "type"]', '["subject"]') + "\n[event]\n" + event)
    assert text.startswith(f"p.toml, line {line}: ") and said in text, text


def test_a_mapped_pipelines_key_needs_the_subject() -> None:
    text = refused(GOOD + '[event]\ntime = "at"\ntype = "\'weather\'"\nkey = "station"\n')
    assert text.startswith("p.toml, line 17: ") and "'subject'" in text


def test_tables_and_arrays_of_tables_are_not_taken_for_each_other() -> None:
    assert refused("a = 1\n").startswith("p.toml, line 1: unknown table or key 'a'")
    assert refused("\n[aggregate]\n") == "p.toml, line 2: aggregate must be an array of tables, [[aggregate]]"
    assert refused("[[pipeline]]\n") == "p.toml, line 1: pipeline must be one table, [pipeline]"
    assert refused("threshold = [5]\n").startswith("p.toml, line 1: threshold must be an array of tables")


def test_an_empty_file_is_refused() -> None:
    assert refused("") == "p.toml, line 1: the table [pipeline] is missing"


def test_types_that_disagree_about_a_field_may_be_read_until_it_is_named() -> None:
    odd = EventSchema("odd", 1, {"type": "object", "properties": {"count": {"type": "string"}}})
    base = [CATALOGUE.get("weather", version) for version in (1, 2)]
    catalogue = Catalogue([*base, odd])
    text = GOOD.replace('["weather"]', '["weather", "odd"]')
    with pytest.raises(StreamgaugeError, match=r"line 13: total: data\.count is string in odd, integer in another"):
        parsed(text, catalogue)
    unnamed = text.replace("data.count", "data.temp")
    assert parsed(unnamed, catalogue).event_types == ("weather", "odd")


def test_an_integer_read_together_with_a_number_is_a_number() -> None:
    text = GOOD.replace('["weather"]', '["weather", "tide"]')
    assert not parsed(text).aggregates[0].measures[3].is_integer


def test_lines_are_found_past_comments_texts_and_dotted_keys() -> None:
    dotted = GOOD.replace(
        '[aggregate.measures]\nmean = "mean(data.count)"\nlow = "min(data.count)"\n',
        'measures.mean = """mean(\ndata.count)"""\nmeasures.low = "lowest(data.count)"\n',
    )
    assert refused(dotted).startswith("p.toml, line 24: low: unknown measure")


def test_pipelines_of_equal_files_are_equal() -> None:
    assert parsed() == parsed()
    assert replace(parsed(), name="x") != parsed()
