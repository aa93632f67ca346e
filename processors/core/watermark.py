"""Event time of one shard: the watermark, decided event by event in stream order.

The watermark is the highest event time E of the accepted, non-duplicate events so far, less the out-of-orderness bound;
it never falls. Where no events come, only ticks and the end of the input raise it, and never past the end of the
windows that contain E: so what waits is closed, and nothing that could still come is made late before its time.

An event is judged by the watermark that it itself has raised. That is the same as judging it by the one before it: an
event at t raises the watermark to t - bound at most, which lies before the end of the window that contains t. Where the
shard's parents had closed windows beyond its watermark, the event is judged by the floor there (see `floors`).

See ``docs/adr/0008-panes-watermarks-thresholds.md`` and ``docs/adr/0017-resharding.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamgauge.events.control import END_OF_INPUT, TICK, EndOfInput, Tick
from streamgauge.events.envelope import Event, InvalidEvent
from streamgauge.events.hash_key import HashRange
from streamgauge.processors.core.columns import integers, texts
from streamgauge.processors.core.container import Columns
from streamgauge.processors.core.definition import Window
from streamgauge.processors.core.floors import NEVER, Floor, Floors

__all__ = ["NEVER", "Timeline", "Watermark", "parse_control"]


class Timeline(NamedTuple):
    """The watermark after each step; a step is an accepted event or a control record, in stream order.

    watermarks : int64, shape (steps,)
        Milliseconds, or `NEVER`; not falling.
    event_steps : int64, shape (n,)
        The step of each of the n events.
    closed_to_ms : int64, shape (n,)
        Up to where windows have closed for each event: the watermark at its step, or the floor of its key.
    floors
        As they were before the first step; None if the shard had none.
    """

    watermarks: NDArray[np.int64]
    event_steps: NDArray[np.int64]
    closed_to_ms: NDArray[np.int64]
    floors: Floors | None = None


def parse_control(event: Event) -> Tick | EndOfInput:
    """What a control record says.

    Raises
    ------
    InvalidEvent
        Of an unknown type, or with data that do not fit it.
    """
    try:
        if event.type == TICK:
            return msgspec.json.decode(event.data, type=Tick)
        if event.type == END_OF_INPUT:
            end = msgspec.json.decode(event.data, type=EndOfInput)
            if not 0 <= end.part < end.parts:
                raise InvalidEvent(f"part {end.part} of {end.parts} parts", where="data")
            return end
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent(str(error), where="data") from error
    raise InvalidEvent("no control record of this release", where=f"type {event.type!r}")


class Watermark:
    """The clock of one shard.

    Configuration: the out-of-orderness bound and the windows of the pipeline's aggregates. Saved: all the rest.

    Parameters
    ----------
    bound_ms
        How far events may be behind the newest one without being late.
    windows
        Of every aggregate.
    """

    def __init__(self, bound_ms: int, windows: Sequence[Window]) -> None:
        self._bound_ms = bound_ms
        self._windows = tuple(windows)
        self._watermark_ms = NEVER
        self._highest_ms = NEVER
        self._highest_arrival_ms = NEVER
        self._arrival_ms = NEVER
        # The latest event time that any pane of the shard may hold: E, but after a merge another parent's may be later.
        self._latest_ms = NEVER
        self._floors = Floors()
        self._parts: dict[tuple[str, int], set[int]] = {}
        self._input_ended = False

    @property
    def watermark_ms(self) -> int | None:
        """Event time up to which the shard is taken to be complete; None before the first accepted event."""
        return None if self._watermark_ms == NEVER else self._watermark_ms

    @property
    def input_ended(self) -> bool:
        """Whether all parts of an input have ended here, and no event has been accepted since."""
        return self._input_ended

    @property
    def floors(self) -> Floors:
        """Up to where windows had closed before the shard began; empty once the watermark has passed it."""
        return self._floors

    @property
    def closed_to_ms(self) -> int:
        """The latest instant up to which the windows of any key have closed; `NEVER` before the first event."""
        return max([self._watermark_ms, *self._floors.closed_to_ms()])

    def arrivals(self, arrival_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """The running maximum of arrival over all records of the shard so far, control records included."""
        running = np.maximum(np.maximum.accumulate(arrival_ms), self._arrival_ms)
        if len(running):
            self._arrival_ms = int(running[-1])
        return running

    def floors_ms(self, partition_keys: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """The floors of the partition keys at `rows`, `NEVER` where there is none; None if the shard has no floors."""
        return self._floors.of([partition_keys[row] for row in rows.tolist()]) if self._floors else None

    def run(
        self,
        times_ms: NDArray[np.int64],
        arrival_ms: NDArray[np.int64],
        controls: Sequence[tuple[int, Tick | EndOfInput]],
        floors_ms: NDArray[np.int64] | None = None,
    ) -> Timeline:
        """Let accepted events and control records pass.

        Parameters
        ----------
        times_ms, arrival_ms : int64, shape (n,)
            Event times, and the running maximum of arrival at each.
        controls
            In stream order, each with the number of events that stand before it.
        floors_ms : int64, shape (n,)
            As `floors_ms` gave them.
        """
        n = len(times_ms)
        watermarks = np.empty(n + len(controls), dtype=np.int64)
        begin = 0
        for passed, (place, control) in enumerate(controls):
            watermarks[begin + passed : place + passed] = self._events(times_ms[begin:place], arrival_ms[begin:place])
            if isinstance(control, Tick):
                self._tick(control)
            else:
                self._end_of_input(control)
            watermarks[place + passed] = self._watermark_ms
            begin = place
        watermarks[begin + len(controls) :] = self._events(times_ms[begin:], arrival_ms[begin:])
        steps = np.arange(n, dtype=np.int64)
        if controls:
            steps += np.searchsorted(np.array([place for place, _ in controls]), steps, side="right")
        closed_to_ms = watermarks[steps] if controls else watermarks
        floors = None
        if floors_ms is not None:
            closed_to_ms = np.maximum(closed_to_ms, floors_ms)
            floors = self._floors.copy()
            self._floors.drop(self._watermark_ms)
        return Timeline(watermarks, steps, closed_to_ms, floors)

    def _events(self, times_ms: NDArray[np.int64], arrival_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(times_ms):
            return times_ms
        highest = np.maximum(np.maximum.accumulate(times_ms), self._highest_ms)
        watermarks: NDArray[np.int64] = np.maximum(highest - self._bound_ms, self._watermark_ms)
        last = int(highest[-1])
        if last > self._highest_ms:
            self._highest_ms = last
            self._highest_arrival_ms = int(arrival_ms[np.searchsorted(highest, last)])
            self._latest_ms = max(self._latest_ms, last)
        self._watermark_ms = int(watermarks[-1])
        self._input_ended = False
        return watermarks

    def _tick(self, tick: Tick) -> None:
        # A duplicate gives the same bound again, one that runs behind a lower one: neither moves the maximum.
        if self._highest_ms != NEVER:
            idle_ms = tick.at_ms - self._highest_arrival_ms
            self._raise(min(self._highest_ms - self._bound_ms + idle_ms, self._end_of_latest()))

    def _end_of_input(self, end: EndOfInput) -> None:
        parts = self._parts.setdefault((end.input, end.parts), set())
        before = len(parts)
        parts.add(end.part)
        # A copy of a part does not end the input anew: events of another may have come in between.
        if before < len(parts) == end.parts:
            self._input_ended = True
            if self._highest_ms != NEVER:
                self._raise(self._end_of_latest())

    def _raise(self, to_ms: int) -> None:
        self._watermark_ms = max(self._watermark_ms, to_ms)

    def _end_of_latest(self) -> int:
        """The latest end of any aggregate's window that contains the latest event time."""
        latest = self._latest_ms
        return max((window.latest_end_ms(latest) for window in self._windows), default=latest)

    def inherit(self, hash_range: HashRange, parents: Sequence[tuple[HashRange, Watermark]]) -> None:
        """Begin, fresh as this one is, where the parents have ended.

        Watermark, E and A come together from the parent with the lowest watermark that has seen an event; what the
        others had closed beyond it becomes floors. Of inputs that end, the parts count that every parent has seen.

        Parameters
        ----------
        hash_range
            Of the shard that begins.
        parents
            With the hash range of each. They do not overlap.
        """
        clocks = [parent for _, parent in parents]
        self._arrival_ms = max(parent._arrival_ms for parent in clocks)
        started = [parent for parent in clocks if parent._highest_ms != NEVER]
        if started:
            lowest = min(started, key=Watermark._pace)
            self._watermark_ms, self._highest_ms = lowest._watermark_ms, lowest._highest_ms
            self._highest_arrival_ms = lowest._highest_arrival_ms
            self._latest_ms = max(parent._latest_ms for parent in started)
        floors: list[Floor] = []
        for parent_range, parent in parents:
            common = parent_range.intersection(hash_range)
            if common is not None:
                floors += parent._floors.over(common, parent._watermark_ms)
        self._floors = Floors(floor for floor in floors if floor.closed_to_ms > self._watermark_ms)
        for end, parts in clocks[0]._parts.items():
            held = parts.intersection(*(parent._parts.get(end, set()) for parent in clocks[1:]))
            if held:
                self._parts[end] = held
        self._input_ended = all(parent._input_ended for parent in clocks)

    def _pace(self) -> tuple[int, int, int]:
        """Orders clocks by watermark, and equal ones by how far a tick would take them."""
        return self._watermark_ms, self._highest_ms - self._highest_arrival_ms, self._highest_ms

    def columns(self) -> Columns:
        """What a snapshot must hold."""
        parts = sorted((name, count, part) for (name, count), seen in self._parts.items() for part in seen)
        return {
            "clock": np.array(
                [self._watermark_ms, self._highest_ms, self._highest_arrival_ms, self._arrival_ms], dtype=np.int64
            ),
            "latest": np.array([self._latest_ms], dtype=np.int64),
            **self._floors.columns(),
            "input_ended": np.array([self._input_ended], dtype=np.bool_),
            "input": [name for name, _, _ in parts],
            "input_parts": np.array([count for _, count, _ in parts], dtype=np.int64),
            "input_part": np.array([part for _, _, part in parts], dtype=np.int64),
        }

    def restore(self, columns: Columns) -> None:
        """Replace the state by what `columns` returned."""
        clock = integers(columns, "clock").tolist()
        self._watermark_ms, self._highest_ms, self._highest_arrival_ms, self._arrival_ms = clock
        # States from before there were merges have no such column.
        self._latest_ms = int(integers(columns, "latest")[0]) if "latest" in columns else self._highest_ms
        self._floors = Floors.restore(columns)
        self._input_ended = bool(columns["input_ended"][0])
        self._parts = {}
        counts, parts = integers(columns, "input_parts").tolist(), integers(columns, "input_part").tolist()
        for name, count, part in zip(texts(columns, "input"), counts, parts, strict=True):
            self._parts.setdefault((name, count), set()).add(part)
