"""What docs/pipeline-file.md says of measures."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.processors.core.definition import Measure, MeasureKind
from streamgauge.processors.core.distinct import REGISTERS, STANDARD_ERROR
from streamgauge.processors.core.measures import Accumulators
from streamgauge.processors.core.pages import PAGE_OVERHEAD_BYTES
from streamgauge.processors.core.parse import parse_pipeline
from streamgauge.processors.core.quantiles import MAX_PAGES, RELATIVE_ERROR
from streamgauge.processors.core.slots import Slots

PAGE = (Path(__file__).parents[3] / "docs" / "pipeline-file.md").read_text()
ROWS = [
    [cell.strip().strip("`") for cell in line.strip("|").split("|")]
    for line in re.findall(r"^\| `\w+\(.*\|$", PAGE, re.MULTILINE)
]
FIELDS = {"n": "integer", "x": "number", "s": "string", "b": "boolean"}
HEAD = '[pipeline]\nname = "p"\nstream = "s"\nevent_types = ["t"]\nout_of_orderness = "1s"\n'
AGGREGATE = '[[aggregate]]\nname = "a"\nkey = ["subject"]\nwindow = { tumbling = "1h" }\n'


def measured(call: str) -> Measure:
    schema = {"type": "object", "properties": {name: {"type": [kind, "null"]} for name, kind in FIELDS.items()}}
    text = f'{HEAD}{AGGREGATE}measures = {{ m = "{call}" }}\n'
    catalogue = Catalogue([EventSchema("t", 1, schema)])
    return parse_pipeline(text, file="p.toml", schemas=catalogue).aggregates[0].measures[0]


def test_every_measure_is_in_the_table() -> None:
    assert [row[0].partition("(")[0] for row in ROWS] == ["count", *get_args(MeasureKind)]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_table_is_true(row: list[str]) -> None:
    call, field, gives, _, size = row
    call = call.replace("q)", "0.99)")
    fields = {"": [""], "any": ["n", "x", "s", "b"], "number": ["n", "x"]}[field]
    for name in fields:
        measure = measured(call.replace("(f", f"(data.{name}"))
        if gives in {"integer", "events"} or gives.startswith("events where"):
            assert measure.is_integer
        elif gives == "number":
            assert not measure.is_integer
        else:
            assert measure.is_integer == (name == "n")
    if field == "number":
        with pytest.raises(Exception, match="needs a number"):
            measured(call.replace("(f", "(data.s"))
    if "," not in size and "to" not in size:
        assert int(size) == held_bytes(measure)


def held_bytes(measure: Measure) -> int:
    """Of the columns that the measure brings, but for the number of values."""
    slots = Slots()
    Accumulators([measure], slots)
    counted = measure.kind == "count"
    names = [name for name in slots.names() if counted or not name.startswith(("events", "count("))]
    if counted and measure.field is not None:
        names.remove("events")
    return sum(slots.column(name).dtype.itemsize for name in names)


def test_what_sketches_hold_and_how_far_off_they_are() -> None:
    sizes = {row[0].partition("(")[0]: row[4] for row in ROWS}
    registers = 64 + PAGE_OVERHEAD_BYTES
    assert sizes["approx_distinct"] == f"{registers} to {REGISTERS // 64 * registers:,}"
    buckets = 16 * np.dtype(np.int64).itemsize + PAGE_OVERHEAD_BYTES
    assert sizes["quantile"] == f"{buckets} to {(MAX_PAGES + 1) * buckets:,}"
    assert f"{STANDARD_ERROR:.1%}".replace("%", " %") in ROWS[-2][3]
    assert RELATIVE_ERROR < 0.008 and f"within 1/{round(1 / RELATIVE_ERROR)} of" in PAGE


def test_the_example_is_a_pipeline() -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    names = tomllib.loads(example[1])["aggregate"]["measures"]
    schema = {"type": "object", "properties": {"sensor": {"type": "string"}, "temp": {"type": "number"}}}
    schema["properties"]["latency"] = {"type": "number"}
    pipeline = parse_pipeline(
        HEAD + AGGREGATE + example[1], file="p.toml", schemas=Catalogue([EventSchema("t", 1, schema)])
    )
    assert [measure.name for measure in pipeline.aggregates[0].measures] == list(names)
