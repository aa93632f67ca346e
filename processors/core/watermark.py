"""Event time of one shard: the watermark, decided event by event in stream order.

The watermark is the highest event time E of the accepted, non-duplicate events so far, less the out-of-orderness bound;
it never falls. Where no events come, only ticks and the end of the input raise it, and never past the end of the
windows that contain E: so what waits is closed, and nothing that could still come is made late before its time.

An event is judged by the watermark that it itself has raised. That is the same as judging it by the one before it: an
event at t raises the watermark to t - bound at most, which lies before the end of the window that contains t.

See ``docs/adr/0008-panes-watermarks-thresholds.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamgauge.events.control import END_OF_INPUT, TICK, EndOfInput, Tick
from streamgauge.events.envelope import Event, InvalidEvent
from streamgauge.processors.core.columns import integers, texts
from streamgauge.processors.core.container import Columns
from streamgauge.processors.core.definition import TumblingWindow

__all__ = ["NEVER", "Timeline", "Watermark", "parse_control"]

NEVER = int(np.iinfo(np.int64).min)
"""Stands for no instant yet: before every other."""


class Timeline(NamedTuple):
    """The watermark after each step; a step is an accepted event or a control record, in stream order.

    watermarks : int64, shape (steps,)
        Milliseconds, or `NEVER`; not falling.
    event_steps : int64, shape (n,)
        The step of each of the n events.
    """

    watermarks: NDArray[np.int64]
    event_steps: NDArray[np.int64]


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

    def __init__(self, bound_ms: int, windows: Sequence[TumblingWindow]) -> None:
        self._bound_ms = bound_ms
        self._windows = tuple(windows)
        self._watermark_ms = NEVER
        self._highest_ms = NEVER
        self._highest_arrival_ms = NEVER
        self._arrival_ms = NEVER
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

    def arrivals(self, arrival_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """The running maximum of arrival over all records of the shard so far, control records included."""
        running = np.maximum(np.maximum.accumulate(arrival_ms), self._arrival_ms)
        if len(running):
            self._arrival_ms = int(running[-1])
        return running

    def run(
        self,
        times_ms: NDArray[np.int64],
        arrival_ms: NDArray[np.int64],
        controls: Sequence[tuple[int, Tick | EndOfInput]],
    ) -> Timeline:
        """Let accepted events and control records pass.

        Parameters
        ----------
        times_ms, arrival_ms : int64, shape (n,)
            Event times, and the running maximum of arrival at each.
        controls
            In stream order, each with the number of events that stand before it.
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
        return Timeline(watermarks, steps)

    def _events(self, times_ms: NDArray[np.int64], arrival_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(times_ms):
            return times_ms
        highest = np.maximum(np.maximum.accumulate(times_ms), self._highest_ms)
        watermarks: NDArray[np.int64] = np.maximum(highest - self._bound_ms, self._watermark_ms)
        last = int(highest[-1])
        if last > self._highest_ms:
            self._highest_ms = last
            self._highest_arrival_ms = int(arrival_ms[np.searchsorted(highest, last)])
        self._watermark_ms = int(watermarks[-1])
        self._input_ended = False
        return watermarks

    def _tick(self, tick: Tick) -> None:
        # A duplicate gives the same bound again, one that runs behind a lower one: neither moves the maximum.
        if self._highest_ms != NEVER:
            idle_ms = tick.at_ms - self._highest_arrival_ms
            self._raise(min(self._highest_ms - self._bound_ms + idle_ms, self._end_of_highest()))

    def _end_of_input(self, end: EndOfInput) -> None:
        parts = self._parts.setdefault((end.input, end.parts), set())
        before = len(parts)
        parts.add(end.part)
        # A copy of a part does not end the input anew: events of another may have come in between.
        if before < len(parts) == end.parts:
            self._input_ended = True
            if self._highest_ms != NEVER:
                self._raise(self._end_of_highest())

    def _raise(self, to_ms: int) -> None:
        self._watermark_ms = max(self._watermark_ms, to_ms)

    def _end_of_highest(self) -> int:
        """The latest end of any aggregate's window that contains E."""
        highest = self._highest_ms
        return max((highest - highest % window.size_ms + window.size_ms for window in self._windows), default=highest)

    def columns(self) -> Columns:
        """What a snapshot must hold."""
        parts = sorted((name, count, part) for (name, count), seen in self._parts.items() for part in seen)
        return {
            "clock": np.array(
                [self._watermark_ms, self._highest_ms, self._highest_arrival_ms, self._arrival_ms], dtype=np.int64
            ),
            "input_ended": np.array([self._input_ended], dtype=np.bool_),
            "input": [name for name, _, _ in parts],
            "input_parts": np.array([count for _, count, _ in parts], dtype=np.int64),
            "input_part": np.array([part for _, _, part in parts], dtype=np.int64),
        }

    def restore(self, columns: Columns) -> None:
        """Replace the state by what `columns` returned."""
        clock = integers(columns, "clock").tolist()
        self._watermark_ms, self._highest_ms, self._highest_arrival_ms, self._arrival_ms = clock
        self._input_ended = bool(columns["input_ended"][0])
        self._parts = {}
        counts, parts = integers(columns, "input_parts").tolist(), integers(columns, "input_part").tolist()
        for name, count, part in zip(texts(columns, "input"), counts, parts, strict=True):
            self._parts.setdefault((name, count), set()).add(part)
