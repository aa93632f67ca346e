"""The engine of one shard: records in, effects out. Pure: no I/O, no clock; what it needs to know stands in records.

What comes out depends on the records alone, not on how they were cut into calls: every decision (duplicate, late,
closed, crossed) is that of treating the events one by one in stream order.

Saved are the position, the memory of duplicates, the watermark, the panes and rules of every aggregate, and the
counters: named typed columns, see ``docs/adr/0010-snapshot-container.md``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamgauge.events.envelope import InvalidEvent
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.batch import EventBatch, Outcome
from streamgauge.processors.core.columns import texts
from streamgauge.processors.core.container import Columns
from streamgauge.processors.core.counters import AggregateCounters, Counters
from streamgauge.processors.core.decode import Decoder
from streamgauge.processors.core.dedupe import Verdict
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import (
    Effects,
    FailureReason,
    LateEvent,
    PaneBatch,
)
from streamgauge.processors.core.shard_state import (
    check_state,
    columns_below,
    new_aggregates,
    new_counters,
    new_deduper,
    new_watermark,
    state_columns,
)
from streamgauge.processors.core.thresholds import Crossing
from streamgauge.processors.core.watermark import NEVER, Timeline, parse_control
from streamgauge.processors.core.work import Control, Work

__all__ = ["Engine"]


class Engine:
    """One shard's state.

    After an exception the state is undefined: throw the engine away and restore the last snapshot.

    Parameters
    ----------
    pipeline, shard
        What is computed, and where.
    decoder
        Reads records into columns.
    """

    def __init__(self, pipeline: Pipeline, shard: Shard, decoder: Decoder) -> None:
        self._pipeline = pipeline
        self._shard = shard
        self._decoder = decoder
        self._position: Position | None = None
        self._counters = new_counters(pipeline)
        self._deduper = new_deduper(pipeline)
        self._watermark = new_watermark(pipeline)
        self._aggregates = new_aggregates(pipeline, self._counters)

    @property
    def position(self) -> Position | None:
        """The last applied position; records at or below it are skipped."""
        return self._position

    @property
    def counters(self) -> Counters:
        """What became of every position so far."""
        return self._counters

    @property
    def watermark_ms(self) -> int | None:
        """Event time up to which the shard is taken to be complete; None before the first accepted event."""
        return self._watermark.watermark_ms

    @property
    def input_ended(self) -> bool:
        """Whether all parts of an input have ended here, and no event has been accepted since."""
        return self._watermark.input_ended

    def open_panes(self) -> list[PaneBatch]:
        """Panes of windows that the watermark has not reached the end of, as they stand: revision 0, never emitted."""
        floors = self._watermark.floors
        return [panes for aggregate in self._aggregates if len(panes := aggregate.open_panes(floors))]

    def apply(self, records: Sequence[StreamRecord]) -> Effects:
        """Apply records in stream order.

        Parameters
        ----------
        records
            Of this shard, following those of the last call; some may have been applied before.

        Returns
        -------
        What came of them, each list in stream order.
        """
        decoded = self._decoder.decode(records, self._shard, self._position)
        batch, counters = decoded.batch, self._counters
        counters.positions += decoded.positions
        counters.ledger += decoded.ledger
        counters.misrouted += decoded.misrouted
        counters.redelivered += decoded.redelivered
        arrival_ms = self._watermark.arrivals(decoded.arrival_ms)
        event_arrival_ms = arrival_ms[batch.record]
        verdicts = self._deduper.apply(batch, event_arrival_ms)
        selections = [aggregate.select(batch) for aggregate in self._aggregates]
        work = Work(decoded, arrival_ms, selections, Effects(failed=list(decoded.failed)))
        rows = self._judge(work, verdicts, event_arrival_ms)
        self._advance(work, rows, self._controls(work))
        for failed in work.effects.failed:
            counters.failed[failed.reason] = counters.failed.get(failed.reason, 0) + 1
        work.effects.failed.sort(key=lambda failed: failed.position)
        if decoded.sequence_numbers:
            reached = Position(decoded.sequence_numbers[-1], decoded.last_sub_sequence)
            self._position = reached if self._position is None else max(self._position, reached)
        for aggregate in self._aggregates:
            aggregate.forget_keys()
        return work.effects

    def _judge(self, work: Work, verdicts: NDArray[np.uint8], arrival_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows that may be accepted; the others are counted, and the failed ones among them stored."""
        batch, counters = work.batch, self._counters
        counts = np.bincount(verdicts, minlength=len(Verdict)).tolist()
        counters.duplicate_in_window += counts[Verdict.DUPLICATE_IN_WINDOW]
        counters.duplicate_below_window += counts[Verdict.DUPLICATE_BELOW_WINDOW]
        counters.duplicate_foreign += counts[Verdict.DUPLICATE_FOREIGN]
        new = verdicts == Verdict.NEW
        counters.type_not_read += int(np.count_nonzero(new & (batch.outcome == Outcome.TYPE_NOT_READ)))
        for row, (reason, detail) in batch.failures.items():
            if new[row]:
                work.effects.failed.append(work.failed(row, reason, detail))
        read = new & (batch.outcome == Outcome.READ)
        bound_ms = self._pipeline.future_bound_ms
        future = read & (batch.time_ms - arrival_ms > bound_ms)
        if future.any():
            for row in np.flatnonzero(future).tolist():
                ahead = int(batch.time_ms[row] - arrival_ms[row])
                detail = f"{ahead} ms past its arrival; future_bound is {bound_ms} ms"
                work.effects.failed.append(work.failed(row, FailureReason.FUTURE, detail))
            read &= ~future
        return np.flatnonzero(read)

    def _controls(self, work: Work) -> list[Control]:
        controls: list[Control] = []
        for control in work.decoded.controls:
            try:
                controls.append(Control(control.record, control.sub_sequence, parse_control(control.event)))
            except InvalidEvent as error:
                work.effects.failed.append(work.failed_control(control, str(error)))
        self._counters.control += len(controls)
        return controls

    def _advance(self, work: Work, rows: NDArray[np.int64], controls: list[Control]) -> None:
        """Let rows and controls pass in stream order: all at once where no sum of integers can overflow."""
        # Not all(): each aggregate must raise its bounds.
        safe = [aggregate.reserve(work.batch, rows) for aggregate in self._aggregates]
        if all(safe):
            self._pass(work, rows, controls)
            return
        places = self._places(work.batch, rows, controls)
        for index in range(len(rows) + 1):
            for control in [control for control, place in zip(controls, places, strict=True) if place == index]:
                self._pass(work, rows[:0], [control])
            if index < len(rows):
                self._advance_one(work, rows[index : index + 1])

    def _advance_one(self, work: Work, row: NDArray[np.int64]) -> None:
        closed_to_ms = NEVER if self.watermark_ms is None else self.watermark_ms
        floors_ms = self._watermark.floors_ms(work.batch.partition_keys, row)
        if floors_ms is not None:
            closed_to_ms = max(closed_to_ms, int(floors_ms[0]))
        for aggregate, selection in zip(self._aggregates, work.selections, strict=True):
            field = aggregate.overflows(work.batch, int(row[0]), selection, closed_to_ms)
            if field is not None:
                detail = f"the sum of {field} would not fit into 64 bits"
                work.effects.failed.append(work.failed(int(row[0]), FailureReason.OVERFLOW, detail))
                return
        self._pass(work, row, [])

    def _places(self, batch: EventBatch, rows: NDArray[np.int64], controls: list[Control]) -> list[int]:
        """For each control the number of rows before it; it has its record to itself, being a plain one."""
        found: list[int] = np.searchsorted(batch.record[rows], [control.record for control in controls]).tolist()
        return found

    def _pass(self, work: Work, rows: NDArray[np.int64], controls: list[Control]) -> None:
        batch = work.batch
        self._counters.accepted += len(rows)
        places = self._places(batch, rows, controls)
        timeline = self._watermark.run(
            batch.time_ms[rows],
            work.arrival_ms[batch.record[rows]],
            list(zip(places, [control.body for control in controls], strict=True)),
            self._watermark.floors_ms(batch.partition_keys, rows),
        )
        crossings: list[Crossing] = []
        late: list[tuple[int, LateEvent]] = []
        for state, selection, aggregate in zip(
            self._aggregates, work.selections, self._pipeline.aggregates, strict=True
        ):
            applied = state.apply(batch, rows, selection, timeline)
            if applied.panes is not None:
                work.effects.panes.append(applied.panes)
            crossings += applied.crossings
            for row, step, start_ms in applied.late:
                late.append((step, work.late(row, aggregate.name, state.key_of(selection, row), start_ms)))
        # Both sorts are stable: within a step the order of the aggregates, and what each made of it, remain.
        late.sort(key=lambda entry: entry[0])
        work.effects.late.extend(event for _, event in late)
        crossings.sort(key=lambda crossing: crossing.step)
        self._number(work, crossings, self._step_positions(work, rows, controls, timeline) if crossings else [])

    def _step_positions(
        self, work: Work, rows: NDArray[np.int64], controls: list[Control], timeline: Timeline
    ) -> list[tuple[int, int, int]]:
        """By step: the index of its record, its sub-sequence number, and its row in the batch or, of a control, -1."""
        batch, steps = work.batch, len(timeline.watermarks)
        record, sub_sequence = np.empty(steps, dtype=np.int64), np.empty(steps, dtype=np.int64)
        row = np.full(steps, -1, dtype=np.int64)
        row[timeline.event_steps] = rows
        record[timeline.event_steps] = batch.record[rows]
        sub_sequence[timeline.event_steps] = batch.sub_sequence[rows]
        of_controls = np.setdiff1d(np.arange(steps), timeline.event_steps)
        record[of_controls] = [control.record for control in controls]
        sub_sequence[of_controls] = [control.sub_sequence for control in controls]
        return list(zip(record.tolist(), sub_sequence.tolist(), row.tolist(), strict=True))

    def _number(self, work: Work, crossings: list[Crossing], positions: list[tuple[int, int, int]]) -> None:
        """Give each threshold event its rule_sequence: its deciding position, and a running index within that.

        And the trace of the event that decided.
        """
        last_step, index = -1, 0
        traceparent: str | None = None
        for crossing in crossings:
            record, sub_sequence, row = positions[crossing.step]
            if crossing.step != last_step:
                index, traceparent = -1, work.traceparent(row) if row >= 0 else None
            index, last_step = index + 1, crossing.step
            event = crossing.event(
                rule_sequence=(work.decoded.sequence_numbers[record], sub_sequence, index), traceparent=traceparent
            )
            work.effects.threshold_events.append(event)
            if event.kind == "raise":
                self._counters.threshold_events_raised += 1
            else:
                self._counters.threshold_events_cleared += 1

    def snapshot(self) -> Columns:
        """Everything that `restore` needs, as columns that the engine does not change afterwards."""
        return state_columns(
            self._pipeline,
            position=self._position,
            counters=self._counters,
            watermark=self._watermark,
            deduper=self._deduper,
            aggregates=self._aggregates,
        )

    @classmethod
    def restore(cls, pipeline: Pipeline, shard: Shard, decoder: Decoder, columns: Columns) -> Engine:
        """The engine that `snapshot` was called on.

        Raises
        ------
        SnapshotError
            The columns are those of another pipeline, of an aggregate or threshold that was changed since, or of a
            format that this release does not read.
        """
        check_state(pipeline, shard, columns)
        engine = cls(pipeline, shard, decoder)
        engine._restore(columns)
        return engine

    def _restore(self, columns: Columns) -> None:
        position = texts(columns, "position")
        self._position = Position.parse(position[0]) if position else None
        self._watermark.restore(columns_below(columns, "watermark."))
        self._deduper.restore(columns_below(columns, "dedupe."))
        (counters,) = texts(columns, "counters")
        self._counters = msgspec.json.decode(counters, type=Counters)
        saved = set(self._counters.aggregates)
        for aggregate in self._pipeline.aggregates:
            if aggregate.name not in saved:
                fresh = AggregateCounters(accepted_before=self._counters.accepted)
                self._counters.aggregates[aggregate.name] = fresh
        self._aggregates = new_aggregates(self._pipeline, self._counters)
        watermark_ms = NEVER if self.watermark_ms is None else self.watermark_ms
        for aggregate, state in zip(self._pipeline.aggregates, self._aggregates, strict=True):
            if aggregate.name in saved:
                below = columns_below(columns, f"aggregate.{aggregate.name}.")
                state.restore(below, watermark_ms, closed_to_ms=self._watermark.closed_to_ms)
