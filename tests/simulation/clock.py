"""Virtual time, and the order in which things happen in it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random

__all__ = ["START_MS", "Clock"]

START_MS = 1_772_360_100_000
"""2026-03-01T10:15:00Z."""

_DEEPEST_PAUSE = 8


class Clock:
    """A queue of actions. What is due in the same millisecond happens in random order.

    `pause` is how one actor stands still in the middle of a call while all others go on: it runs the queue from within
    the action that pauses. So of two paused actors the one that paused last goes on first.
    """

    def __init__(self, rng: Random) -> None:
        self.now_ms = START_MS
        self._rng = rng
        self._heap: list[tuple[int, float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._depth = 0
        self.actions = 0

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Let `action` happen `delay_ms` from now."""
        heapq.heappush(self._heap, (self.now_ms + max(0, delay_ms), self._rng.random(), next(self._count), action))

    def pause(self, duration_ms: int) -> None:
        """Let time pass inside an action."""
        if self._depth >= _DEEPEST_PAUSE:
            return
        self._depth += 1
        try:
            self.run(self.now_ms + duration_ms)
        finally:
            self._depth -= 1

    def run(self, until_ms: int, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass until `until_ms`, or until `done`; whether it is done."""
        while self._heap and self._heap[0][0] <= until_ms:
            if done():
                return True
            when_ms, _, _, action = heapq.heappop(self._heap)
            self.now_ms = max(self.now_ms, when_ms)
            self.actions += 1
            action()
        self.now_ms = max(self.now_ms, until_ms)
        return done()
