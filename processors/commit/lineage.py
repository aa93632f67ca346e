"""The rows that say where each shard of a pipeline begins, and from whom it inherits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamgauge.events.hash_key import HashRange
from streamgauge.events.records import Shard
from streamgauge.processors.commit.ports import ShardRow, StateStore

__all__ = ["is_covered", "register_shards"]


def register_shards(store: StateStore, listed: Sequence[Shard], *, start: str) -> list[ShardRow]:
    """Write a row for each shard of the stream that has none; to be called before any of them is claimed.

    Until a shard is claimed, this is the pipeline's first start: every shard begins at `start`, closed ones too, and
    ancestors that the stream no longer lists are none of the pipeline's. Later shards are read from their beginning.
    Claims come after all rows, so a start that crashes half-way is a first start still.

    Parameters
    ----------
    listed
        All shards that the stream has, closed ones too.
    start
        As in `ShardRow`.

    Returns
    -------
    All rows of the pipeline.
    """
    rows = {row.shard.shard_id: row for row in store.rows()}
    is_first_start = all(row.claim_version == 0 for row in rows.values())
    known = {shard.shard_id for shard in listed} | rows.keys()
    for shard in listed:
        if shard.shard_id in rows:
            continue
        if not is_first_start:
            rows[shard.shard_id] = store.create(shard, start="TRIM_HORIZON")
            continue
        parents = tuple(parent for parent in shard.parents if parent in known)
        rows[shard.shard_id] = store.create(shard._replace(parents=parents), start=start)
    return [rows[shard_id] for shard_id in sorted(rows)]


def is_covered(whole: HashRange, parts: Iterable[HashRange]) -> bool:
    """Whether every hash key of `whole` is in one of `parts`."""
    expected = whole.first
    for part in sorted(parts):
        if part.first > expected:
            return False
        expected = max(expected, part.last + 1)
        if expected > whole.last:
            return True
    return False
