"""What every state store decides in the same way."""

from __future__ import annotations

from hashlib import sha256

from streamgauge.events.records import Shard
from streamgauge.processors.commit.ports import Fenced, ShardRow, StateStore
from streamgauge.processors.core.container import SnapshotError

__all__ = ["check_claimed", "check_same_write", "check_sealed", "check_snapshot", "new_row", "read_snapshot"]

# A reader that is no owner races with commits, each of which replaces the snapshot.
_READ_ATTEMPTS = 10


def check_same_write(written: ShardRow, found: ShardRow | None) -> ShardRow:
    """Read back after a conflict: the row if it holds exactly the write that was tried, else `Fenced`."""
    if found is not None and _identity(found) == _identity(written):
        return found
    holder = "the row is gone" if found is None else f"owner {found.owner} holds version {found.claim_version}"
    if found is not None and found.sealed and not written.sealed:
        holder = "the shard is sealed"
    raise Fenced(
        f"owner {written.owner} lost the shard before its version {written.claim_version} was saved: {holder}",
        where=f"shard {written.shard.shard_id}",
        remedy="Another process works on this shard; what this one had not saved is undone",
    )


def check_snapshot(row: ShardRow, blob: bytes) -> bytes:
    """The blob, if it has the hash that the row states."""
    if sha256(blob).hexdigest() != row.snapshot_sha256:
        raise SnapshotError(
            "the snapshot does not have the hash that the shard's row states: it was damaged after it was saved",
            where=f"shard {row.shard.shard_id}",
            remedy="Restore it, or raise state_epoch to begin anew",
        )
    return blob


def new_row(shard: Shard, start: str) -> ShardRow:
    """The row of a shard that nobody has claimed yet."""
    return ShardRow(
        shard=shard,
        owner=None,
        claim_version=0,
        position=None,
        start=start,
        sealed=False,
        snapshot_bytes=0,
        snapshot_sha256=None,
        committed_at_ms=None,
    )


def check_claimed(shard_id: str, found: ShardRow | None, *, owner: str, seen_version: int | None) -> ShardRow:
    """Read back after a claim that was refused: the row if `owner` has it (the answer was lost), else `Fenced`."""
    what = "the shard has no row"
    if found is not None:
        if seen_version is not None and found.owner == owner and not found.sealed:
            return found
        what = f"owner {found.owner} has written version {found.claim_version} meanwhile"
        if found.sealed:
            what = "the shard is sealed: its descendants hold its state"
    raise Fenced(what, where=f"shard {shard_id}")


def check_sealed(row: ShardRow, found: ShardRow | None) -> ShardRow:
    """Read back after a seal that was refused: the row if it is sealed, else `Fenced`."""
    if found is not None and found.sealed:
        return found
    holder = "the row is gone" if found is None else f"it is at version {found.claim_version}"
    raise Fenced(
        f"the shard was to be sealed at version {row.claim_version}, but {holder}",
        where=f"shard {row.shard.shard_id}",
        remedy="Somebody works on it; look again whether anything remains",
    )


def read_snapshot(store: StateStore, shard_id: str) -> tuple[ShardRow, bytes] | None:
    """A shard's row and the snapshot that belongs to it, for a reader that is no owner; None before the first commit.

    Raises
    ------
    SnapshotError
        The state is there, but unreadable.
    Fenced
        The row was replaced each time before its snapshot could be read.
    """
    for attempt in range(_READ_ATTEMPTS):
        row = store.row(shard_id)
        if row is None:
            return None
        try:
            blob = store.snapshot(row)
        except Fenced:
            if attempt == _READ_ATTEMPTS - 1:
                raise
            continue
        return None if blob is None else (row, blob)
    raise AssertionError("unreachable")


def _identity(row: ShardRow) -> tuple[object, ...]:
    return row.owner, row.claim_version, row.position, row.snapshot_sha256, row.sealed
