"""I6: order per key within a lineage, in the stream and in what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from simulation.checkers.leftovers import Leftovers
from simulation.inputs import Attempt

__all__ = ["check_order", "check_puts"]


def check_puts(left: Leftovers, attempts: Sequence[Attempt]) -> Iterator[str]:
    """Events of one producer for one key whose first copies stand in another order than they were put in.

    A child's shard id and sequence numbers exceed its parents', so places compare within a lineage. An event whose
    outcome is unknown, and no other, may stand behind later ones: it is waited for no longer, and may land yet.
    """
    newest: dict[tuple[str, str], str] = {}
    unknown = {attempt.identity for attempt in attempts if attempt.outcome == "unknown"}
    seen: set[tuple[str, str]] = set()
    for row in left.rows:
        if row.identity is None or row.identity in seen or row.table.startswith("streamgauge_"):
            continue
        seen.add(row.identity)
        source, sequence = row.identity
        if not source.startswith("urn:streamgauge:"):
            continue
        log = source, row.columns["subject"]
        if newest.get(log, "") > sequence and row.identity not in unknown:
            yield f"I6: {row.identity} of {log[1]} stands behind {newest[log]}"
        newest[log] = max(newest.get(log, ""), sequence)


def check_order(left: Leftovers) -> Iterator[str]:
    """Revisions of a pane and commits of a shard that do not follow one another."""
    revisions: dict[Any, list[tuple[str, int, int, int]]] = defaultdict(list)
    for row in left.panes:
        pane = row["aggregate"], tuple(row["key"].values()), row["window_start"]
        revisions[pane].append((row["shard_id"], row["claim_version"], row["revision"], row["event_count"]))
    for pane, found in revisions.items():
        found.sort()
        numbers = [revision for _, _, revision, _ in found]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"I6: pane {pane} went through the revisions {numbers}"
        counts = [count for *_, count in found]
        # A session that is taken back counts nothing.
        if counts != sorted(counts) and pane[0] != "visits":
            yield f"I6: pane {pane} counted {counts}"
    commits: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for commit in left.commits:
        position = int(commit["sequence_number"] or -1), commit["sub_sequence_number"] or 0
        commits[commit["shard_id"]].append((commit["claim_version"], *position))
    for shard_id, reached in commits.items():
        reached.sort()
        if [entry[1:] for entry in reached] != sorted(entry[1:] for entry in reached):
            yield f"I6: the commits of {shard_id} went backwards"
        if len({version for version, *_ in reached}) != len(reached):
            yield f"I6: two commits of {shard_id} have one version"
    for detail in left.threshold_events:
        number = int(detail["rule_sequence"].split("/")[0])
        if not any(number == known for shard in left.shards for known, _ in shard.records):
            yield f"I6: the rule_sequence of {detail['id']} names no record"
