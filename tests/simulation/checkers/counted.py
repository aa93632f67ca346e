"""I1 and I2: every acknowledged event is counted or in the failed events, and counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from simulation.checkers.leftovers import Leftovers, sequence_and_sub
from simulation.checkers.reference import Reference
from simulation.inputs import Attempt

__all__ = ["check_acknowledged", "check_panes", "final_panes"]

PaneId = tuple[str, tuple[str, ...], int]


def check_acknowledged(reference: Reference, attempts: Sequence[Attempt], left: Leftovers) -> Iterator[str]:
    """I1, by what the producers were told."""
    for attempt in attempts:
        if attempt.outcome != "acknowledged" or attempt.identity is None:
            continue
        if reference.before and left.places_of(attempt.identity) <= reference.before:
            continue
        expected = {
            "counted": reference.counted,
            "failed": reference.failed_identities,
            "not read": reference.not_read,
        }[attempt.fate]
        if attempt.identity not in expected:
            yield f"I1: acknowledged event {attempt.identity} of {attempt.subject} is not {attempt.fate}"
    for identity in reference.twice:
        yield f"I2: {identity} is new in two shards"
    listed = Counter(sequence_and_sub(row) for row in left.failed)
    yield from _differences("I1: failed event", Counter(reference.failed), listed)
    late = Counter((row["aggregate"], sequence_and_sub(row)) for row in left.late)
    yield from _differences("I1: late event", Counter(reference.late), late)


def _differences(what: str, expected: Counter[Any], found: Counter[Any]) -> Iterator[str]:
    for item in sorted((expected - found) | (found - expected)):
        yield f"{what} {item} is stored {found[item]} times, not {expected[item]}"


# Relative and absolute errors of what is estimated; two of a few values share a register now and then.
_ROUGH = {"high": (0.008, 0.0), "kinds": (0.1, 2.0)}


def _agrees(found: float | None, value: float | None, relative: float, absolute: float) -> bool:
    if found is None or value is None:
        return found is value
    return abs(found - value) <= max(absolute, relative * abs(value))


def final_panes(left: Leftovers) -> dict[PaneId, dict[str, Any]]:
    """The highest revision of every pane that was emitted and has not ceased to be."""
    final: dict[PaneId, dict[str, Any]] = {}
    for row in left.panes:
        pane = row["aggregate"], tuple(row["key"].values()), _ms(row["window_start"])
        if pane not in final or row["revision"] > final[pane]["revision"]:
            final[pane] = row
    return {pane: row for pane, row in final.items() if not row["tombstone"]}


def _ms(text: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(text).timestamp() * 1000)


def check_panes(
    reference: Reference, left: Leftovers, open_panes: dict[PaneId, dict[str, Any]], served: dict[PaneId, Any]
) -> Iterator[str]:
    """I2: the final panes, and the open ones, hold exactly the events of the reference."""
    closed = final_panes(left)
    for pane in sorted(closed.keys() & open_panes.keys()):
        yield f"I2: pane {pane} is closed and open at once"
    found = closed | open_panes
    for pane in sorted(found.keys() - reference.panes.keys()):
        yield f"I2: pane {pane} has no event"
    for pane, expected in sorted(reference.panes.items()):
        row = found.get(pane)
        if row is None:
            yield f"I2: pane {pane} of {len(expected.ns)} events was never emitted"
            continue
        if row["event_count"] != len(expected.ns):
            yield f"I2: pane {pane} counts {row['event_count']} events, not {len(expected.ns)}"
        for name, value in expected.measures(pane[0]).items():
            if not _agrees(row["measures"][name], value, *_ROUGH.get(name, (1e-9, 1e-9))):
                yield f"I2: pane {pane}: {name} is {row['measures'][name]}, not {value}"
        if pane in closed and row["revision"] != expected.revision:
            yield f"I2: pane {pane} has revision {row['revision']}, not {expected.revision}"
        if (
            pane in closed
            and pane[0] in ("gusts", "visits")
            and served.get(pane) != (row["revision"], row["event_count"])
        ):
            yield f"I2: pane {pane} is served as {served.get(pane)}"
    for pane in served.keys() - closed.keys():
        yield f"I2: pane {pane} is served, and not archived"
