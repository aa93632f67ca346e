"""In which order the events of a file are put."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streamgauge.producers.load.files import BadRow, FileEvent

__all__ = ["ByTime", "FileOrder", "Ordering", "Shuffled", "ordered"]


@dataclass(frozen=True, slots=True)
class ByTime:
    """By event time, rows of equal time as in the file: as a stream would have brought them. Holds all in memory."""


@dataclass(frozen=True, slots=True)
class FileOrder:
    """As in the file."""


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Shuffled, but each event within `bound_ms` of the highest event time before it: none is late. Holds all in
    memory.
    """

    bound_ms: int
    seed: int


Ordering = ByTime | FileOrder | Shuffled


def ordered(rows: Iterable[FileEvent | BadRow], ordering: Ordering) -> Iterator[FileEvent | BadRow]:
    """The rows in that order; bad ones, which have no time, come first unless the file's order is kept."""
    if isinstance(ordering, FileOrder):
        yield from rows
        return
    events: list[FileEvent] = []
    for row in rows:
        if isinstance(row, BadRow):
            yield row
        else:
            events.append(row)
    if isinstance(ordering, ByTime):
        events.sort(key=lambda event: event.time_ms)
    else:
        # Delays of at most the bound: whatever overtakes an event is at most the bound younger.
        rng = random.Random(ordering.seed)  # noqa: S311 (reproducible)
        delayed = [(event.time_ms + rng.randint(0, ordering.bound_ms), rng.random(), event) for event in events]
        delayed.sort(key=lambda entry: entry[:2])
        events = [event for _, _, event in delayed]
    yield from events
