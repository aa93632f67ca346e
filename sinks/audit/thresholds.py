"""Checks of threshold events: one id for each crossing, as many as were counted, and those that the panes call for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence

import numpy as np

from streamgauge.events.hash_key import HashRange, hash_key
from streamgauge.events.times import instant_ms
from streamgauge.processors.commit.archive_rows import PaneRow, ThresholdRow
from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.counters import AggregateCounters
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
        if rule.early:
            panes += [pane for pane in stores.open if pane.aggregate == rule.aggregate]
        since = _since(stores, rule)
        standing = list(_standing([row for row in rows if row.rule == rule.name]))
        before = [pane for pane in panes if _ended_before(pane, since)]
        passed = {(tuple(pane.key.values()), pane.window_start) for pane in before}
        raised = _raised_before(standing, passed)
        judged = [pane for pane in panes if (tuple(pane.key.values()), pane.window_start) not in passed]
        expected = Counter(_crossings(rule, aggregate, judged, raised))
        found = Counter(crossing for crossing in standing if crossing[:2] not in passed)
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


def _since(stores: Stores, rule: Threshold) -> list[tuple[HashRange, int]]:
    """Where the rule was added to shards that had been at work: by hash range, up to where windows had closed."""
    return [
        (state.row.shard.hash_range, state.engine.counters.aggregates[rule.aggregate].rules_since[rule.name])
        for state in stores.states
        if rule.name in state.engine.counters.aggregates.get(rule.aggregate, AggregateCounters()).rules_since
    ]


def _ended_before(pane: PaneRow, since: Sequence[tuple[HashRange, int]]) -> bool:
    """Whether the pane may have closed before the rule was there, which knows nothing of it then."""
    if not since:
        return False
    key = hash_key(pane.partition_key)
    return any(key in hash_range and instant_ms(pane.window_end) <= to_ms for hash_range, to_ms in since)


def _raised_before(
    standing: Sequence[_Crossing], passed: Container[tuple[tuple[str, ...], str]]
) -> dict[tuple[str, ...], bool]:
    """Where the rule stands for a key before the panes that are judged: a correction may have shown it an older one."""
    latest = sorted((crossing for crossing in standing if crossing[:2] in passed), key=lambda crossing: crossing[1])
    return {key: kind == "raise" for key, _, kind in latest}


def _crossings(
    rule: Threshold, aggregate: Aggregate, panes: Sequence[PaneRow], raised: dict[tuple[str, ...], bool]
) -> Iterator[_Crossing]:
    """The rule's machine over the final panes, per key in window order; `raised` is where it stands before them."""
    ordered = sorted(panes, key=lambda pane: (tuple(pane.key.values()), pane.window_start))
    columns = {measure.name: _column(measure, ordered) for measure in aggregate.measures}
    raises = rule.raise_when.evaluate(columns, len(ordered)).tolist()
    clears = None if rule.clear_when is None else rule.clear_when.evaluate(columns, len(ordered)).tolist()
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
