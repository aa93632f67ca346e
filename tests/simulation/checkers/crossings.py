"""I3: one threshold event id per crossing; what was not taken back are the crossings of the final panes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from simulation.checkers.counted import final_panes
from simulation.checkers.leftovers import Leftovers

__all__ = ["check_crossings"]

_RULES = {"gusts": "gale", "hops": "surge", "visits": "spell"}
"""By aggregate the rule that raises above 60 and clears below 50."""


def check_crossings(left: Leftovers) -> Iterator[str]:
    """What is wrong with the threshold events of the archive and the bus."""
    archived = Counter(row["id"] for row in left.threshold_events)
    for event, count in archived.items():
        if count > 1:
            yield f"I3: threshold event {event} stands {count} times in the archive"
    by_id = {row["id"]: row for row in left.threshold_events}
    for detail in left.bus:
        row = by_id.get(detail["id"])
        if row is None:
            yield f"I3: {detail['id']} is on the bus, and not in the archive"
        elif any(row[name] != detail[name] for name in ("rule", "key", "kind", "state", "window_start", "measures")):
            yield f"I3: {detail['id']} is another event on the bus than in the archive"
    for event in by_id.keys() - {detail["id"] for detail in left.bus}:
        yield f"I3: {event} is in the archive, and never reached the bus"
    yield from _check_crossings(left, by_id)


def _check_crossings(left: Leftovers, by_id: dict[str, dict[str, Any]]) -> Iterator[str]:
    taken_back = Counter(row["takes_back"] for row in by_id.values() if row["takes_back"])
    for event, count in taken_back.items():
        if count > 1 or event not in by_id:
            yield f"I3: {event} is taken back {count} times{'' if event in by_id else ', and never was'}"
    standing = Counter(
        (row["rule"], tuple(row["key"].values()), row["window_start"], row["kind"])
        for row in by_id.values()
        if not row["takes_back"] and row["id"] not in taken_back
    )
    expected, states = _final_crossings(left)
    for crossing in sorted((expected - standing) | (standing - expected)):
        yield f"I3: crossing {crossing} stands {standing[crossing]} times, not {expected[crossing]}"
    newest: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}
    for row in by_id.values():
        alert = row["rule"], tuple(row["key"].values())
        if row["rule"] == "calm":
            continue
        if alert not in newest or row["rule_sequence"] > newest[alert]["rule_sequence"]:
            newest[alert] = row
    for (rule, key), row in newest.items():
        if (row["state"] == "raised") != states.get((rule, key), False):
            yield f"I6: the newest event of {rule} for {key} says {row['state']}"


def _final_crossings(left: Leftovers) -> tuple[Counter[tuple[str, tuple[str, ...], str, str]], dict[Any, bool]]:
    crossings: Counter[tuple[str, tuple[str, ...], str, str]] = Counter()
    panes: dict[tuple[str, tuple[str, ...]], list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for (aggregate, key, start), row in final_panes(left).items():
        panes[aggregate, key].append((start, row))
    states: dict[Any, bool] = {}
    for (aggregate, key), found in panes.items():
        is_raised, rule = False, _RULES.get(aggregate, "")
        for _, row in sorted(found, key=lambda pane: pane[0]):
            measures, start = row["measures"], row["window_start"]
            if aggregate == "places":
                if measures["low"] < 20:
                    crossings["calm", key, start, "raise"] += 1
            elif not is_raised and measures["top"] > 60:
                crossings[rule, key, start, "raise"] += 1
                is_raised = True
            elif is_raised and measures["top"] < 50:
                crossings[rule, key, start, "clear"] += 1
                is_raised = False
        states[rule, key] = is_raised
    return crossings, states
