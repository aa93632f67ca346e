"""Checks of resharding: whoever handed its state on had been applied to its end, and its state is with its children."""

from __future__ import annotations

from collections.abc import Iterator

from streamgauge.sinks.audit.archived import ArchivedPositions
from streamgauge.sinks.audit.report import Check, shown
from streamgauge.sinks.audit.stores import Stores

__all__ = ["handover_checks"]


def handover_checks(stores: Stores, archived: ArchivedPositions) -> Iterator[Check]:
    """Per shard that was sealed, or whose children have begun: it is sealed, and nothing of it was left behind."""
    unapplied: dict[str, list[str]] = {}
    for shard_id, number, sub in archived.rows("SELECT DISTINCT shard_id, number, sub FROM unapplied"):
        unapplied.setdefault(str(shard_id), []).append(f"{number}/{sub}")
    for shard_id in sorted(stores.ended | stores.states.begun_children.keys()):
        yield Check(name="handed_over", scope=f"shard {shard_id}", expected="sealed", found=_found(stores, shard_id))
        left = unapplied.get(shard_id, [])
        yield Check(name="left_behind", scope=f"shard {shard_id}", expected=0, found=len(left), missing=shown(left))


def _found(stores: Stores, shard_id: str) -> str:
    states = stores.states
    begun = ", ".join(row.shard.shard_id for row in states.begun_children.get(shard_id, []))
    row = states.rows.get(shard_id)
    if row is None:
        return f"no row, although {begun} has begun"
    if not row.sealed:
        return f"not sealed, although {begun} has begun"
    if row.reduced and not states.is_handed_over(shard_id):
        return f"sealed, and its state is with {begun or 'nobody'}, which is not all of its hash keys"
    return "sealed"
