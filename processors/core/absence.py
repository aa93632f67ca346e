"""Rules about keys that fall silent: a key that was seen is absent once the watermark is so far past its last event.

Whether a key is absent is a function of its latest event time and the watermark, so it replays: the rule raises at the
step that takes the watermark to the latest event time plus `absent_for`, and clears at the event that moves the latest
event time so far that this holds no more. What an aggregate's filter leaves out does not count as seen; late events do.

A key costs a row of two numbers and a flag per rule, as long as the pipeline runs: it is waited for. It goes where its
key goes when a stream is resharded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.definition import Absence, Aggregate, Pipeline
from streamgauge.processors.core.effects import ThresholdEvent
from streamgauge.processors.core.keys import KeyTable
from streamgauge.processors.core.measures import Accumulators
from streamgauge.processors.core.panes import WindowEvents
from streamgauge.processors.core.slots import Slots
from streamgauge.processors.core.thresholds import RULE_PREFIX, Crossing, threshold_event_id
from streamgauge.processors.core.watermark import NEVER
from streamgauge.processors.core.windows import found_or_created

__all__ = ["SEEN", "Absences"]

SEEN = "seen"
"""Under which name the keys that were seen are saved; a pipeline that gets its first rule has none yet."""

_LAST = "last"
_RAISE, _CLEAR = "raise", "clear"


class _Seen(NamedTuple):
    """n events by key, and in stream order within one; every array has shape (n,).

    ``before`` and ``after``: the latest event time of the key, `NEVER` before its first; ``first`` and ``final``:
    whether it is the key's first and last event here; ``watermark_before`` and ``watermark`` at its step.
    """

    rows: NDArray[np.int64]
    steps: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    first: NDArray[np.bool_]
    final: NDArray[np.bool_]
    watermark_before: NDArray[np.int64]
    watermark: NDArray[np.int64]


class Absences:
    """The rules of one aggregate about absent keys.

    Parameters
    ----------
    pipeline, aggregate
        The definitions.
    keys
        The aggregate's.
    """

    def __init__(self, pipeline: Pipeline, aggregate: Aggregate, keys: KeyTable) -> None:
        self._pipeline, self._aggregate, self._keys = pipeline, aggregate, keys
        self._rules = tuple(rule for rule in pipeline.absences if rule.aggregate == aggregate.name)
        self._slots = Slots()
        self._none = Accumulators((), self._slots)
        self._slots.define(_LAST, np.int64, NEVER)
        for rule in self._rules:
            self._slots.define(_raised(rule), np.uint8)
        self._watermark_ms = NEVER

    def tables(self) -> list[tuple[str, Slots, Accumulators]]:
        """What is saved, under a prefix of its own."""
        return [(SEEN, self._slots, self._none)] if self._rules else []

    def recode(self, moved: NDArray[np.int64]) -> None:
        """Give every row its key's new code, by old code."""
        self._slots.recode(moved)

    def start(self, watermark_ms: int) -> None:
        """Begin where the watermark stands, as after a restore."""
        self._watermark_ms = watermark_ms

    def apply(self, events: WindowEvents, watermarks: NDArray[np.int64]) -> list[Crossing]:
        """What events and the watermark make of the rules, by step, key and rule."""
        if not self._rules or not len(watermarks):
            return []
        seen = self._see(events, watermarks)
        found: list[tuple[int, tuple[str, ...], int, Crossing]] = []
        for place, rule in enumerate(self._rules):
            for step, row, last_ms, kind in self._run(rule, seen, watermarks):
                key = self._keys.key(int(self._slots.code[row]))
                event = self._event(rule, key, last_ms, kind)
                found.append((step, key, place, Crossing(0, step, event)))
        if len(seen.rows):
            self._slots.column(_LAST)[seen.rows[seen.final]] = seen.after[seen.final]
        self._watermark_ms = int(watermarks[-1])
        # Stable: of one key and rule a raise comes before the clear after it.
        found.sort(key=lambda entry: entry[:3])
        return [crossing for *_, crossing in found]

    def _see(self, events: WindowEvents, watermarks: NDArray[np.int64]) -> _Seen:
        rows, _ = found_or_created(self._slots, np.zeros(len(events.codes), dtype=np.int64), events.codes)
        order = np.argsort(rows, kind="stable")
        rows, times, steps = rows[order], events.times_ms[order], events.steps[order]
        first = np.ones(len(rows), dtype=np.bool_)
        first[1:] = rows[1:] != rows[:-1]
        held = self._slots.column(_LAST)[rows].astype(np.int64)
        # The highest time so far of each key, by rank: ranks of a later key are above all earlier ones.
        by_time = np.lexsort((times, rows))
        rank = np.empty(len(rows), dtype=np.int64)
        rank[by_time] = np.arange(len(rows))
        after = np.maximum(times[by_time[np.maximum.accumulate(rank)]], held)
        before = np.where(first, held, np.roll(after, 1))
        earlier = np.concatenate([np.array([self._watermark_ms], dtype=np.int64), watermarks])
        return _Seen(rows, steps, before, after, first, np.roll(first, -1), earlier[steps], watermarks[steps])

    def _run(self, rule: Absence, seen: _Seen, watermarks: NDArray[np.int64]) -> Iterator[tuple[int, int, int, str]]:
        """Step, row, latest event time and kind of each crossing; and the rows' flags afterwards."""
        wait_ms, flags = rule.absent_for_ms, self._slots.column(_raised(rule))
        flagged = flags[seen.rows] != 0
        known = seen.before != NEVER
        due = known & (seen.before + wait_ms <= seen.watermark_before)
        # Where a key stood raised before the batch, it does until it is seen later than it had been.
        unmoved = seen.before == self._slots.column(_LAST)[seen.rows]
        was_raised = due | (flagged & unmoved)
        moved = seen.after > seen.before
        is_raised = was_raised & ~(moved & (seen.after + wait_ms > seen.watermark))
        already = np.where(seen.first, flagged, np.roll(is_raised, 1))
        previous = np.where(seen.first, 0, np.roll(seen.steps, 1))
        for at in np.flatnonzero(was_raised & ~already).tolist():
            last_ms = int(seen.before[at])
            step = max(int(np.searchsorted(watermarks, last_ms + wait_ms)), int(previous[at]))
            yield step, int(seen.rows[at]), last_ms, _RAISE
        for at in np.flatnonzero(was_raised & ~is_raised).tolist():
            yield int(seen.steps[at]), int(seen.rows[at]), int(seen.before[at]), _CLEAR
        last = self._slots.column(_LAST).astype(np.int64)
        touched = np.zeros(len(last), dtype=np.int64)
        last[seen.rows[seen.final]] = seen.after[seen.final]
        flags[seen.rows[seen.final]] = is_raised[seen.final]
        touched[seen.rows[seen.final]] = seen.steps[seen.final]
        used = self._slots.used()
        silent = used[(flags[used] == 0) & (last[used] + wait_ms <= int(watermarks[-1]))]
        flags[silent] = 1
        for row in silent.tolist():
            step = max(int(np.searchsorted(watermarks, last[row] + wait_ms)), int(touched[row]))
            yield step, row, int(last[row]), _RAISE

    def _event(self, rule: Absence, key: Sequence[str], last_ms: int, kind: str) -> partial[ThresholdEvent]:
        pipeline = self._pipeline
        return partial(
            ThresholdEvent,
            id=threshold_event_id(pipeline.name, pipeline.state_epoch, rule.name, key, last_ms, kind, 1),
            pipeline=pipeline.name,
            state_epoch=pipeline.state_epoch,
            rule=rule.name,
            aggregate=rule.aggregate,
            detail_type=rule.detail_type,
            key=tuple(zip(self._aggregate.key, key, strict=True)),
            partition_key=self._keys.partition_key(tuple(key)),
            window_start_ms=last_ms,
            window_end_ms=last_ms + rule.absent_for_ms,
            revision=1,
            kind="raise" if kind == _RAISE else "clear",
            state="raised" if kind == _RAISE else "cleared",
            reason="crossed",
            takes_back=None,
            crossing_ordinal=1,
            measures=(),
            raise_when=f"absent for {rule.absent_for_ms} ms",
            clear_when="seen again",
        )


def _raised(rule: Absence) -> str:
    return f"{RULE_PREFIX}{rule.name}).raised"
