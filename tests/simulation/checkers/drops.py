"""I8: every drop is counted and named: each shard's counters say exactly what became of its positions."""

from __future__ import annotations

from collections.abc import Iterator

from simulation.checkers.leftovers import Leftovers
from simulation.checkers.reference import Reference

__all__ = ["check_counters"]


def check_counters(reference: Reference, left: Leftovers) -> Iterator[str]:
    """Counters that are not the reference's."""
    last = left.last_commits()
    for shard_id, shard in reference.shards.items():
        commit = last.get(shard_id)
        expected = shard.counts
        if commit is None:
            if expected["positions"]:
                yield f"I8: {shard_id} has {expected['positions']} positions, and no commit"
            continue
        counters = commit["counters"]
        duplicates = sum(counters[f"duplicate_{kind}"] for kind in ("in_window", "below_window", "foreign"))
        found = {
            "duplicates": duplicates,
            "failed": sum(counters["failed"].values()),
            **{name: counters[name] for name in ("positions", "accepted", "type_not_read", "control", "ledger")},
            "misrouted": counters["misrouted"],
        }
        for name, count in found.items():
            if count != expected[name]:
                yield f"I8: {shard_id} counts {count} {name}, not {expected[name]}"
        if found["positions"] != sum(count for name, count in found.items() if name != "positions"):
            yield f"I8: the counters of {shard_id} do not add up: {found}"
        for aggregate, counts in counters["aggregates"].items():
            for name in ("applied", "filtered", "late"):
                if counts[name] != shard.aggregates[aggregate][name]:
                    wrong = f"{aggregate}: {counts[name]} {name}, not {shard.aggregates[aggregate][name]}"
                    yield f"I8: {shard_id} counts {wrong}"
