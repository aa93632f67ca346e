"""Checks of threshold events: one id for each crossing, as many as were counted, and those that the panes call for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from streamgauge.processors.commit.archive_rows import PaneRow, ThresholdRow
from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.definition import Aggregate, Measure, Threshold
from streamgauge.sinks.archive.panes import closed_panes
from streamgauge.sinks.audit.report import Check, shown
from streamgauge.sinks.audit.stores import Stores

__all__ = ["threshold_checks"]

_Crossing = tuple[tuple[str, ...], str, str]
"""Key, window start, and "raise" or "clear"."""


def threshold_checks(stores: Stores) -> Iterator[Check]:
    """All events are there, each once; per rule those that stand are the crossings of the final panes."""
    rows = stores.threshold_events
    counters = [state.engine.counters for state in stores.states]
    copies = Counter(row.id for row in rows)
    yield Check(
        name="threshold_events",
        scope="pipeline",
        expected=sum(each.threshold_events_raised + each.threshold_events_cleared for each in counters),
        found=len(rows),
        doubled=shown([name for name, count in copies.items() if count > 1]),
    )
    closed = closed_panes(stores.closed)
    for rule in stores.pipeline.thresholds:
        aggregate = stores.pipeline.aggregate(rule.aggregate)
        assert aggregate is not None, "the pipeline file was checked"
        panes = list(closed.get(rule.aggregate, {}).values())
        expected = Counter(_crossings(rule, aggregate, panes))
        found = Counter(_standing([row for row in rows if row.rule == rule.name]))
        yield Check(
            name="crossings",
            scope=rule.name,
            expected=expected.total(),
            found=found.total(),
            missing=shown([_text(crossing) for crossing in (expected - found).elements()]),
            doubled=shown([_text(crossing) for crossing in (found - expected).elements()]),
        )


def _standing(rows: Sequence[ThresholdRow]) -> Iterator[_Crossing]:
    """What was not taken back, and is no taking back itself."""
    taken_back = {row.takes_back for row in rows if row.takes_back is not None}
    for row in rows:
        if row.takes_back is None and row.id not in taken_back:
            yield tuple(row.key.values()), row.window_start, row.kind


def _crossings(rule: Threshold, aggregate: Aggregate, panes: Sequence[PaneRow]) -> Iterator[_Crossing]:
    """The rule's machine over the final panes: normal, raised, normal …, per key in window order."""
    ordered = sorted(panes, key=lambda pane: (tuple(pane.key.values()), pane.window_start))
    columns = {measure.name: _column(measure, ordered) for measure in aggregate.measures}
    raises = rule.raise_when.evaluate(columns, len(ordered)).tolist()
    clears = None if rule.clear_when is None else rule.clear_when.evaluate(columns, len(ordered)).tolist()
    raised: dict[tuple[str, ...], bool] = {}
    for index, pane in enumerate(ordered):
        key = tuple(pane.key.values())
        if clears is None or not raised.get(key, False):
            if raises[index]:
                raised[key] = True
                yield key, pane.window_start, "raise"
        elif clears[index]:
            raised[key] = False
            yield key, pane.window_start, "clear"


def _column(measure: Measure, panes: Sequence[PaneRow]) -> FieldColumn:
    values = [pane.measures.get(measure.name) for pane in panes]
    is_integer = measure.kind == "count" or (measure.is_integer and measure.kind != "mean")
    present = np.array([value is not None for value in values], dtype=np.bool_)
    filled = [0 if value is None else value for value in values]
    if is_integer:
        return FieldColumn(np.array(filled, dtype=np.int64), present)
    return FieldColumn(np.array(filled, dtype=np.float64), present)


def _text(crossing: _Crossing) -> str:
    key, start, kind = crossing
    return f"{' '.join(key)} {start}: {kind}"
