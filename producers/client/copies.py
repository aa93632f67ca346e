"""Injected producer retries: when the further copies of an event are to go out."""

from __future__ import annotations

import heapq
import itertools

from streamgauge.producers.client.delivery import Delivery

__all__ = ["CopySchedule"]


class CopySchedule:
    """Events that are to be sent again although nothing went wrong.

    A copy is scheduled once the record with the one before it is closed, so that it never shares an aggregate with it,
    and is due when `copies_behind` further events have been put.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Delivery]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, event: Delivery, puts: int) -> None:
        """Schedule the next copy of `event`; `puts` events have been put so far."""
        heapq.heappush(self._heap, (puts + event.copies_behind, next(self._count), event))

    def take(self, puts: int | None) -> list[Delivery]:
        """The events whose copy is due after `puts` events; all of them with None."""
        taken = []
        while self._heap and (puts is None or self._heap[0][0] <= puts):
            taken.append(heapq.heappop(self._heap)[2])
        return taken
