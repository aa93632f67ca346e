"""One aggregate of one shard: its keys, its panes and the rules over them, and how they are saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.absence import SEEN, Absences
from streamgauge.processors.core.batch import EventBatch, FieldColumn
from streamgauge.processors.core.columns import integers, texts
from streamgauge.processors.core.container import Column, Columns, SnapshotError
from streamgauge.processors.core.counters import AggregateCounters
from streamgauge.processors.core.definition import Aggregate, Pipeline
from streamgauge.processors.core.effects import PaneBatch
from streamgauge.processors.core.floors import Floors
from streamgauge.processors.core.keys import Key, KeyTable
from streamgauge.processors.core.measures import Accumulators
from streamgauge.processors.core.pane_kinds import new_panes
from streamgauge.processors.core.panes import Placed, WindowEvents
from streamgauge.processors.core.slots import Slots
from streamgauge.processors.core.thresholds import RULE_PREFIX, Crossing, Rule
from streamgauge.processors.core.watermark import NEVER, Timeline

__all__ = ["AggregateState", "Applied", "Selection"]

# So many keys that nothing needs may be held beside as many as are needed.
_FORGOTTEN_KEYS_MIN = 4_096


class Selection(NamedTuple):
    """What an aggregate makes of a decoded batch of n events, before it is known which of them are accepted.

    passed : bool, shape (n,), or None where there is no filter
    codes : int64, shape (n,)
    fields
        The batch's, and what the measures need besides.
    """

    passed: NDArray[np.bool_] | None
    codes: NDArray[np.int64]
    fields: Mapping[str, FieldColumn]


class Applied(NamedTuple):
    """What came of a timeline. ``late`` are rows of the batch with the step and window start of each."""

    panes: PaneBatch | None
    crossings: list[Crossing]
    late: list[tuple[int, int, int]]


class AggregateState:
    """The live state of one aggregate. All of it is saved.

    Parameters
    ----------
    pipeline, aggregate
        The definitions.
    counters
        Where its events are counted.
    """

    def __init__(self, pipeline: Pipeline, aggregate: Aggregate, counters: AggregateCounters) -> None:
        self._aggregate = aggregate
        self._counters = counters
        self._forget_above = _FORGOTTEN_KEYS_MIN
        self._keys = KeyTable(aggregate.key)
        self._slots = Slots()
        self._panes = new_panes(aggregate, self._keys, self._slots)
        self._rules = [
            Rule(pipeline, aggregate, threshold, keys=self._keys, slots=self._slots, panes=self._panes)
            for threshold in pipeline.thresholds
            if threshold.aggregate == aggregate.name
        ]
        self._absences = Absences(pipeline, aggregate, self._keys)
        self._panes.looks_early = any(rule.is_early for rule in self._rules)

    def select(self, batch: EventBatch) -> Selection:
        """Look at all events of a batch."""
        where, n = self._aggregate.where, len(batch)
        return Selection(
            passed=None if where is None else where.evaluate(batch.fields, n),
            codes=self._keys.codes(batch.fields, n),
            fields=self._panes.accumulators.prepare(batch),
        )

    def reserve(self, batch: EventBatch, rows: NDArray[np.int64]) -> bool:
        """Whether the events at `rows` can be applied for certain without a sum of integers leaving 64 bits."""
        return self._panes.reserve(batch.fields, rows)

    def overflows(self, batch: EventBatch, row: int, selection: Selection, closed_to_ms: int) -> str | None:
        """The field whose sum of integers the event at `row`, applied next, would take out of 64 bits."""
        if selection.passed is not None and not selection.passed[row]:
            return None
        placed = Placed(row, int(batch.time_ms[row]), int(selection.codes[row]), closed_to_ms)
        return self._panes.overflows(selection.fields, placed)

    def apply(self, batch: EventBatch, rows: NDArray[np.int64], selection: Selection, timeline: Timeline) -> Applied:
        """Apply the accepted events at `rows`, which make up the events of `timeline`."""
        steps, closed_to_ms = timeline.event_steps, timeline.closed_to_ms
        if selection.passed is not None:
            passed = selection.passed[rows]
            self._counters.filtered += len(rows) - int(np.count_nonzero(passed))
            rows, steps, closed_to_ms = rows[passed], steps[passed], closed_to_ms[passed]
        events = WindowEvents(batch.time_ms[rows], selection.codes[rows], steps, closed_to_ms, rows, selection.fields)
        emission, too_late = self._panes.apply(events, timeline)
        self._counters.cut_sessions += self._panes.cut_sessions
        self._panes.cut_sessions = 0
        in_part = int(np.count_nonzero(too_late.in_part))
        self._counters.late += len(too_late.which) - in_part
        self._counters.late_in_part += in_part
        self._counters.applied += len(rows) - len(too_late.which) + in_part
        panes, crossings = None, []
        if emission is not None:
            again = ~emission.closing & (emission.rows.revision[: len(emission)] > 1)
            self._counters.corrections += len(np.unique(emission.steps[again]))
            panes = self._panes.revisions(emission)
            # By row, then by rule: a row's decisions belong together.
            crossings = [crossing for rule in self._rules for crossing in rule.read(emission)]
            crossings.sort(key=lambda crossing: crossing.row)
        crossings += self._absences.apply(events, timeline.watermarks)
        self._let_go(int(timeline.watermarks[-1]) if len(timeline.watermarks) else NEVER)
        which = too_late.which
        late = zip(rows[which].tolist(), steps[which].tolist(), too_late.start_ms.tolist(), strict=True)
        return Applied(panes, crossings, list(late))

    def key_of(self, selection: Selection, row: int) -> Key:
        """The key of the event at `row`."""
        return self._keys.key(int(selection.codes[row]))

    def open_panes(self, floors: Floors) -> PaneBatch:
        """The panes of open windows, by window and key."""
        rows = self._panes.open_rows(floors)
        return self._panes.batch(rows, self._panes.accumulators.measures(rows.gathered), len(rows))

    def _let_go(self, watermark_ms: int) -> None:
        for slots in self._panes.expired(watermark_ms):
            for rule in self._rules:
                rule.settle(slots)
            self._slots.free(slots)

    def forget_keys(self) -> None:
        """Forget keys that no pane and no rule needs, if they are many. No `Selection` outlives this."""
        if len(self._keys) > self._forget_above:
            moved = self._keys.keep(self._live_keys())
            self._panes.recode(moved)
            self._absences.recode(moved)
            # Twice what is live: looking at all keys costs no more than their coming did.
            self._forget_above = _FORGOTTEN_KEYS_MIN + 2 * len(self._keys)

    def _tables(self) -> list[tuple[str, Slots, Accumulators]]:
        return [*self._panes.tables(), *self._absences.tables()]

    def _live_keys(self) -> NDArray[np.bool_]:
        live = self._keys.used()
        for _, slots, _ in self._tables():
            live[slots.code[slots.used()]] = True
        return live

    def columns(self) -> dict[str, Column]:
        """What a snapshot must hold: by key and window, so it is a function of the events so far alone."""
        codes = np.flatnonzero(self._live_keys())
        keys = self._keys.keys(codes)
        order = sorted(range(len(keys)), key=keys.__getitem__)
        codes, keys = codes[order], [keys[place] for place in order]
        place = np.zeros(len(self._keys), dtype=np.int64)
        place[codes] = np.arange(len(codes))
        columns: dict[str, Column] = {
            f"key.{field}": [key[part] for key in keys] for part, field in enumerate(self._aggregate.key)
        }
        columns |= {f"flag.{name}": self._keys.flags(name)[codes] for name in self._keys.flag_names()}
        for prefix, table, accumulators in self._tables():
            slots = table.used()
            at, starts = place[table.code[slots]], table.start[slots]
            by_window = np.lexsort((at, starts))
            slots = slots[by_window]
            columns |= {f"{prefix}.key": at[by_window], f"{prefix}.start": starts[by_window]}
            columns |= {f"{prefix}.{name}": table.column(name)[slots] for name in table.names()}
            columns |= {f"{prefix}.{name}": column for name, column in accumulators.columns(slots).items()}
        return columns

    def restore(self, columns: Columns, watermark_ms: int, *, closed_to_ms: int) -> None:
        """Fill the empty state with what `columns` returned; a rule that it does not know begins from nothing.

        Parameters
        ----------
        closed_to_ms
            As `Watermark.closed_to_ms`: a rule that is new looks at no window that has ended by then.
        """
        if closed_to_ms > NEVER:
            self._counters.rules_since |= {rule.name: closed_to_ms for rule in self._rules if not rule.is_in(columns)}
        parts = [texts(columns, f"key.{field}") for field in self._aggregate.key]
        codes = self._keys.insert(list(zip(*parts, strict=True)))
        for name in self._keys.flag_names():
            column = columns.get(f"flag.{name}")
            if isinstance(column, np.ndarray):
                self._keys.flags(name)[codes] = column
        for prefix, table, accumulators in self._tables():
            if prefix == SEEN and f"{prefix}.key" not in columns:
                continue
            slots = table.create(integers(columns, f"{prefix}.start"), codes[integers(columns, f"{prefix}.key")])
            for name in table.names():
                column = columns.get(f"{prefix}.{name}")
                if isinstance(column, np.ndarray):
                    table.column(name)[slots] = column
                elif not name.startswith(RULE_PREFIX):
                    raise SnapshotError(
                        f"the column {prefix}.{name} is missing", where=f"aggregate {self._aggregate.name!r}"
                    )
            below = f"{prefix}."
            beside = {name.removeprefix(below): column for name, column in columns.items() if name.startswith(below)}
            accumulators.restore(beside, slots)
        self._panes.index(watermark_ms)
        self._absences.start(watermark_ms)
