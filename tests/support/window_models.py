"""What windows mean, one event at a time in plain Python: the engine must agree with it to the last bit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from streamgauge.processors.core.definition import HoppingWindow, SessionWindow, TumblingWindow, Window

Values = dict[str, "int | float | None"]
NEVER = -math.inf


@dataclass
class ModelPane:
    """What a pane holds, and its last revision."""

    revision: int = 0
    events: int = 0
    total: int = 0
    integers: int = 0
    numbers: list[float] = field(default_factory=list)
    # Floats are added in an order of their own: that of the stream, and of the parts that are merged.
    added: float = 0.0

    def add(self, integer: int | None, number: float | None) -> None:
        self.events += 1
        if integer is not None:
            self.integers += 1
            self.total += integer
        if number is not None:
            self.numbers.append(number)
            self.added += number

    def merge(self, other: ModelPane) -> None:
        self.events += other.events
        self.integers += other.integers
        self.total += other.total
        self.numbers += other.numbers
        self.added += other.added

    def measures(self) -> Values:
        values = self.numbers
        return {
            "n": self.events,
            "numbers": len(values),
            "total": self.total if self.integers else None,
            "low": min(values) if values else None,
            "high": max(values) if values else None,
            "average": self.added / len(values) if values else None,
        }


@dataclass(frozen=True)
class Shown:
    """A pane as it leaves."""

    key: str
    start: int
    end: int
    revision: int
    measures: Values
    tombstone: bool = False


@dataclass(frozen=True)
class Late:
    """The last window that an event has missed, and whether a later one took it."""

    start: int
    in_part: bool = False


class FixedModel:
    """Tumbling and hopping windows. A pane of a closed window stands by itself; before, it is its slices together."""

    def __init__(self, window: TumblingWindow | HoppingWindow, lateness: int, keys: Collection[str]) -> None:
        self.size = window.size_ms
        self.hop = window.every_ms if isinstance(window, HoppingWindow) else window.size_ms
        self.lateness = lateness
        self.slices: dict[tuple[int, str], ModelPane] = {}
        self.panes: dict[tuple[int, str], ModelPane] = {}
        self.closed_to: dict[str, float] = defaultdict(lambda: NEVER, dict.fromkeys(keys, NEVER))

    def starts(self, time: int) -> list[int]:
        last = time - time % self.hop
        return list(range(last - self.size + self.hop, last + 1, self.hop))

    def end_of(self, time: int) -> int:
        return self.starts(time)[-1] + self.size

    def totals(self, key: str, time: int, closed_to: float) -> list[int]:
        """The sums that an event would be added to."""
        starts = self.starts(time)
        totals = []
        if closed_to < starts[-1] + self.size:
            totals.append(self.slices.get((starts[-1], key), ModelPane()).total)
        for start in starts:
            if closed_to >= start + self.size + self.lateness:
                continue
            pane = (
                self.panes.get((start, key), ModelPane()) if closed_to >= start + self.size else self.made(start, key)
            )
            totals.append(pane.total)
        return totals

    def made(self, start: int, key: str) -> ModelPane:
        pane = ModelPane()
        for at in range(start, start + self.size, self.hop):
            pane.merge(self.slices.get((at, key), ModelPane()))
        return pane

    def add(
        self, key: str, time: int, integer: int | None, number: float | None, closed_to: float
    ) -> tuple[list[Shown], Late | None]:
        starts = self.starts(time)
        missed = [start for start in starts if closed_to >= start + self.size + self.lateness]
        closed = [start for start in starts if closed_to >= start + self.size and start not in missed]
        if closed_to < starts[-1] + self.size:
            self.slices.setdefault((starts[-1], key), ModelPane()).add(integer, number)
        shown = []
        for start in closed:
            pane = self.panes.setdefault((start, key), ModelPane())
            pane.add(integer, number)
            shown.append(self.emit(start, key))
        return shown, Late(missed[-1], in_part=len(missed) < len(starts)) if missed else None

    def emit(self, start: int, key: str) -> Shown:
        pane = self.panes[start, key]
        pane.revision += 1
        return Shown(key, start, start + self.size, pane.revision, pane.measures())

    def close(self, keys: Collection[str], watermark: float) -> list[Shown]:
        closing = {
            (start, key)
            for at, key in self.slices
            if key in keys
            for start in self.starts(at)
            if self.closed_to[key] < start + self.size <= watermark
        }
        for key in keys:
            self.closed_to[key] = max(self.closed_to[key], watermark)
        for start, key in closing:
            self.panes[start, key] = self.made(start, key)
        return [self.emit(start, key) for start, key in sorted(closing)]

    def open(self) -> dict[tuple[str, int], Values]:
        return {
            (key, start): self.made(start, key).measures()
            for at, key in self.slices
            for start in self.starts(at)
            if start + self.size > self.closed_to[key]
        }


@dataclass
class ModelSession:
    first: int
    last: int
    end: int
    pane: ModelPane
    shown: bool = False


class SessionModel:
    """Sessions of events less than a gap apart, none longer than a maximum."""

    def __init__(self, window: SessionWindow, lateness: int, keys: Collection[str]) -> None:
        self.gap, self.longest, self.lateness = window.gap_ms, window.max_length_ms, lateness
        self.sessions: dict[str, list[ModelSession]] = defaultdict(list, {key: [] for key in keys})
        self.revisions: dict[tuple[str, int], int] = {}
        self.cut = 0

    def end_of(self, time: int) -> int:
        return time + self.gap

    def kept(self, key: str, closed_to: float) -> list[ModelSession]:
        return [each for each in self.sessions[key] if each.last + self.gap + self.lateness > closed_to]

    def members(self, key: str, time: int, closed_to: float) -> list[ModelSession] | None:
        """The sessions that an event makes one, the one that goes on first; None if it is late."""
        kept = self.kept(key, closed_to)
        home = [each for each in kept if each.first <= time < each.end]
        if not home and time + self.gap + self.lateness <= closed_to:
            return None
        if not home:
            later = [each for each in kept if each.first > time][:1]
            home = [each for each in later if each.first < time + self.gap and each.last < time + self.longest]
        if not home:
            return []
        first, last = min(home[0].first, time), max(home[0].last, time)
        for each in kept:
            if each.first > home[-1].first and each.first < last + self.gap:
                if each.last >= first + self.longest:
                    break
                home.append(each)
                last = each.last
        return home

    def totals(self, key: str, time: int, closed_to: float) -> list[int]:
        members = self.members(key, time, closed_to)
        return [] if members is None else [sum(each.pane.total for each in members)]

    def add(
        self, key: str, time: int, integer: int | None, number: float | None, closed_to: float
    ) -> tuple[list[Shown], Late | None]:
        members = self.members(key, time, closed_to)
        if members is None:
            return [], Late(time)
        before = [(each.first, each.end) for each in members if each.shown]
        pane = members[0].pane if members else ModelPane()
        for other in members[1:]:
            pane.merge(other.pane)
        pane.add(integer, number)
        first, last = min([time, *(m.first for m in members)]), max([time, *(m.last for m in members)])
        kept = [each for each in self.kept(key, closed_to) if each not in members]
        later = [each.first for each in kept if each.first > last]
        session = ModelSession(first, last, min([last + self.gap, first + self.longest, *later]), pane)
        self.sessions[key] = sorted(
            [*(each for each in self.sessions[key] if each not in members), session], key=lambda each: each.first
        )
        session.shown = session.end <= closed_to
        gone = [(start, end) for start, end in before if start != first or not session.shown]
        shown = [self.emit(key, start, end, ModelPane(), tombstone=True) for start, end in sorted(gone)]
        if session.shown:
            shown.append(self.emit(key, first, session.end, pane))
        return shown, None

    def emit(self, key: str, start: int, end: int, pane: ModelPane, *, tombstone: bool = False) -> Shown:
        revision = self.revisions[key, start] = self.revisions.get((key, start), 0) + 1
        return Shown(key, start, end, revision, pane.measures(), tombstone)

    def close(self, keys: Collection[str], watermark: float) -> list[Shown]:
        closing = [
            (each.first, key, each)
            for key in keys
            for each in self.sessions[key]
            if each.end <= watermark and not each.shown
        ]
        shown = []
        for first, key, session in sorted(closing, key=lambda entry: entry[:2]):
            session.shown = True
            self.cut += session.end < session.last + self.gap
            shown.append(self.emit(key, first, session.end, session.pane))
        return shown

    def open(self) -> dict[tuple[str, int], Values]:
        return {
            (key, each.first): each.pane.measures()
            for key, sessions in self.sessions.items()
            for each in sessions
            if not each.shown
        }


def model_of(window: Window, lateness: int, keys: Collection[str]) -> FixedModel | SessionModel:
    if isinstance(window, SessionWindow):
        return SessionModel(window, lateness, keys)
    return FixedModel(window, lateness, keys)
