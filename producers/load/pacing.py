"""An open-model pace, and what it is measured by."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["NO_LATENCY", "Latencies", "LatencySummary", "Pace"]


class LatencySummary(NamedTuple):
    """Milliseconds from the due time to the acknowledgement; None without an acknowledgement."""

    p50: int | None
    p95: int | None
    p99: int | None
    max: int | None


NO_LATENCY = LatencySummary(None, None, None, None)


class Latencies:
    """Counts per millisecond up to a minute, above that in one: bounded memory, exact percentiles below it."""

    _SPAN_MS = 60_000

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * (self._SPAN_MS + 1)))
        self._total = 0
        self._max = 0

    def add(self, latency_ms: int) -> None:
        """Count one latency; negative ones (a clock's rounding) are 0."""
        latency_ms = max(latency_ms, 0)
        self._counts[min(latency_ms, self._SPAN_MS)] += 1
        self._total += 1
        self._max = max(self._max, latency_ms)

    def percentile(self, share: float) -> int | None:
        """The least latency that at least `share` (0 to 1) of all do not exceed; None without any."""
        if not self._total:
            return None
        wanted = max(1, -(-int(share * self._total * 1_000_000) // 1_000_000))
        seen = 0
        for latency_ms, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return self._max if latency_ms == self._SPAN_MS else latency_ms
        return self._max

    def summary(self) -> LatencySummary:
        """The usual four."""
        if not self._total:
            return NO_LATENCY
        return LatencySummary(self.percentile(0.5), self.percentile(0.95), self.percentile(0.99), self._max)


class Pace:
    """Waits until things are due, and reports about once a second. `stop` ends every wait."""

    def __init__(
        self, clock: Callable[[], int], stop: threading.Event, report: Callable[[int], None], *, report_ms: int = 1_000
    ) -> None:
        # configuration
        self._clock = clock
        self._stop = stop
        self._report = report
        self._report_ms = report_ms
        # live
        self.start_ms = clock()
        self._reported_ms = self.start_ms

    @property
    def elapsed_ms(self) -> int:
        """Since the start."""
        return self._clock() - self.start_ms

    def until(self, due_ms: float) -> bool:
        """Wait until `due_ms` after the start, if that is to come; whether to go on."""
        while not self._stop.is_set():
            now_ms = self._clock()
            if now_ms - self._reported_ms >= self._report_ms:
                self._reported_ms = now_ms
                self._report(now_ms - self.start_ms)
            wait_ms = self.start_ms + due_ms - now_ms
            if wait_ms <= 0:
                return True
            self._stop.wait(min(wait_ms, self._report_ms) / 1000)
        return False
