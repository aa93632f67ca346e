"""Runs a load profile, or a file's events, through a producer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial

from streamgauge.events.catalogue import Catalogue
from streamgauge.events.control import EndOfInput
from streamgauge.producers.client.core import EventTooLarge
from streamgauge.producers.client.delivery import Acknowledged, Delivery, GivenUp
from streamgauge.producers.client.encoding import InvalidPut
from streamgauge.producers.client.producer import CloseIncomplete, KinesisProducer
from streamgauge.producers.load.files import BadRow, FileEvent
from streamgauge.producers.load.pacing import NO_LATENCY, Latencies, LatencySummary, Pace
from streamgauge.producers.load.plan import plan
from streamgauge.producers.load.profile import LoadProfile

__all__ = ["LoadProgress", "LoadSummary", "run_file", "run_load"]

_BAD_ROWS_KEPT = 100


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is. ``rate_per_s`` is acknowledged events over the time so far."""

    elapsed_ms: int
    produced: int
    acknowledged: int
    duplicates_injected: int
    malformed: int
    late: int
    rate_per_s: float
    latency_ms: LatencySummary


@dataclass(slots=True)
class LoadSummary:
    """What a load did.

    ``produced``: distinct events offered to the stream, without malformed ones. ``malformed`` by kind: injected events,
    or ``row`` for unreadable rows and ``too_large`` for events that no record holds. ``acknowledged``, ``given_up`` and
    ``unknown`` are of `produced`; ``malformed_lost`` are injected malformed events that were not acknowledged.
    ``bad_rows`` holds the first hundred unreadable rows. ``failure`` says why the producer could not close as it
    should.
    """

    source: str
    produced: int = 0
    duplicates_injected: int = 0
    disordered: int = 0
    late: int = 0
    malformed: dict[str, int] = field(default_factory=dict)
    malformed_lost: int = 0
    acknowledged: int = 0
    given_up: int = 0
    unknown: int = 0
    stopped: bool = False
    duration_ms: int = 0
    rate_per_s: float = 0.0
    latency_ms: LatencySummary = NO_LATENCY
    bad_rows: list[BadRow] = field(default_factory=list)
    failure: str = ""

    @property
    def malformed_count(self) -> int:
        """All kinds together."""
        return sum(self.malformed.values())

    def as_json(self) -> dict[str, object]:
        """The summary as JSON has it: latencies and bad rows as objects."""
        return {
            **asdict(self),
            "rate_per_s": round(self.rate_per_s, 1),
            "latency_ms": self.latency_ms._asdict(),
            "bad_rows": [row._asdict() for row in self.bad_rows],
        }


class _Run:
    """Counts what one load puts and what becomes of it."""

    def __init__(
        self,
        producer: KinesisProducer,
        stop: threading.Event | None,
        on_progress: Callable[[LoadProgress], None] | None,
    ) -> None:
        self._producer = producer
        self._on_progress = on_progress
        self._latencies = Latencies()
        self._stop = stop or threading.Event()
        self.summary = LoadSummary(source=producer.source)
        self.pace = Pace(lambda: producer.now_ms, self._stop, self._report)

    def put(self, type: str, key: str, time_ms: int, data: bytes, *, due_ms: float, copies: int, behind: int) -> bool:
        """Put one event; whether it went in."""
        if not self._has_room(len(data)):
            return False
        summary = self.summary
        told = partial(self._done, int(self.pace.start_ms + due_ms))
        try:
            self._producer.put(type, key, time_ms, data, copies=copies, copies_behind=behind, on_done=told)
        except EventTooLarge as error:
            self.bad(BadRow(0, str(error)), "too_large")
            return False
        except InvalidPut as error:
            self.bad(BadRow(0, str(error)), "invalid")
            return False
        summary.produced += 1
        summary.duplicates_injected += copies - 1
        return True

    def put_malformed(self, kind: str, payload: bytes, key: str) -> None:
        """Put a malformed event, by turns inside an aggregate and alone."""
        if not self._has_room(len(payload)):
            return
        malformed = self.summary.malformed
        malformed[kind] = malformed.get(kind, 0) + 1
        self._producer.put_raw(payload, key, plain=malformed[kind] % 2 == 0, on_done=self._malformed_done)

    def bad(self, row: BadRow, kind: str = "row") -> None:
        """Count something that cannot be put."""
        malformed = self.summary.malformed
        malformed[kind] = malformed.get(kind, 0) + 1
        if len(self.summary.bad_rows) < _BAD_ROWS_KEPT:
            self.summary.bad_rows.append(row)

    def finish(self, end_of_input: EndOfInput | None, close_timeout_s: float | None) -> LoadSummary:
        """Flush, close, sum up. The input of a stopped load has not ended."""
        summary = self.summary
        summary.stopped = self._stop.is_set()
        try:
            self._producer.close(end_of_input=None if summary.stopped else end_of_input, timeout_s=close_timeout_s)
        except CloseIncomplete as error:
            summary.failure = str(error)
        summary.duration_ms = self.pace.elapsed_ms
        summary.rate_per_s = summary.acknowledged * 1000 / max(summary.duration_ms, 1)
        summary.latency_ms = self._latencies.summary()
        self._report(summary.duration_ms)
        return summary

    def _has_room(self, size: int) -> bool:
        """Wait for room, as long as the load is not stopped: a stream that does not answer must not hold Ctrl-C up."""
        while not self._producer.has_room(size, timeout_s=0.5):
            if not self.pace.until(0):
                return False
        return True

    def _done(self, due_ms: int, delivery: Delivery) -> None:
        summary = self.summary
        if isinstance(delivery.outcome, Acknowledged):
            summary.acknowledged += 1
            self._latencies.add(self._producer.now_ms - due_ms)
        elif isinstance(delivery.outcome, GivenUp):
            summary.given_up += 1
        else:
            summary.unknown += 1

    def _malformed_done(self, delivery: Delivery) -> None:
        if not isinstance(delivery.outcome, Acknowledged):
            self.summary.malformed_lost += 1

    def _report(self, elapsed_ms: int) -> None:
        if self._on_progress is None:
            return
        summary = self.summary
        self._on_progress(
            LoadProgress(
                elapsed_ms=elapsed_ms,
                produced=summary.produced,
                acknowledged=summary.acknowledged,
                duplicates_injected=summary.duplicates_injected,
                malformed=summary.malformed_count,
                late=summary.late,
                rate_per_s=summary.acknowledged * 1000 / max(elapsed_ms, 1),
                latency_ms=self._latencies.summary(),
            )
        )


def run_load(
    producer: KinesisProducer,
    profile: LoadProfile,
    catalogue: Catalogue,
    *,
    stop: threading.Event | None = None,
    on_progress: Callable[[LoadProgress], None] | None = None,
    end_of_input: EndOfInput | None = None,
    close_timeout_s: float | None = None,
) -> LoadSummary:
    """Put what `profile` says at its pace, then flush and close the producer.

    Parameters
    ----------
    stop
        Set it to end early: what was put is flushed and stated in the ledger, and no end of the input is.
    on_progress
        Called about once a second in this thread, and once at the end.
    close_timeout_s
        The most seconds that closing may take; without it, a stream that does not answer is waited for.

    Raises
    ------
    UnknownType
        The catalogue does not have the profile's type.
    StreamgaugeError
        The profile's fields do not fit the schema.
    """
    schema: Mapping[str, object] = catalogue.newest(profile.type).schema
    run = _Run(producer, stop, on_progress)
    summary = run.summary
    identity = producer.source.split(":")[2]
    for planned in plan(profile, schema, start_ms=run.pace.start_ms, run=identity):
        if not run.pace.until(planned.due_ms):
            break
        if planned.malformed is not None:
            run.put_malformed(planned.malformed, planned.payload, planned.key)
        elif run.put(
            profile.type,
            planned.key,
            planned.time_ms,
            planned.payload,
            due_ms=planned.due_ms,
            copies=planned.copies,
            behind=profile.duplicates.behind,
        ):
            summary.late += planned.is_late
            summary.disordered += planned.is_disordered
    return run.finish(end_of_input, close_timeout_s)


def run_file(
    producer: KinesisProducer,
    type: str,
    rows: Iterable[FileEvent | BadRow],
    *,
    copies: int = 1,
    copies_behind: int = 0,
    rate: float | None = None,
    stop: threading.Event | None = None,
    on_progress: Callable[[LoadProgress], None] | None = None,
    end_of_input: EndOfInput | None = None,
    close_timeout_s: float | None = None,
) -> LoadSummary:
    """Put the events of a file in their order, as fast as the stream takes them or at `rate` events a second.

    Without a `rate`, an event is due when its turn comes. See `run_load` for the other parameters.
    """
    run = _Run(producer, stop, on_progress)
    for row in rows:
        due_ms = run.pace.elapsed_ms if rate is None else run.summary.produced * 1000 / rate
        if not run.pace.until(due_ms):
            break
        if isinstance(row, BadRow):
            run.bad(row)
        else:
            run.put(type, row.key, row.time_ms, row.data, due_ms=due_ms, copies=copies, behind=copies_behind)
    return run.finish(end_of_input, close_timeout_s)
