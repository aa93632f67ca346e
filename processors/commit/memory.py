"""Stores and receivers in memory, with a hook before and after every step: for tests and the simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Generic, Literal, TypeVar

from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.processors.commit.ports import Delivery, Fenced, ShardRow, StoreUnavailable
from streamgauge.processors.commit.state_rows import (
    check_claimed,
    check_same_write,
    check_sealed,
    check_snapshot,
    new_row,
)
from streamgauge.processors.core.container import SnapshotError

__all__ = ["Hook", "MemoryObjectStore", "MemoryReceiver", "MemoryStateStore", "Moment", "no_faults"]

Entry = TypeVar("Entry")
Moment = Literal["before", "after"]
Hook = Callable[[str, Moment], None]
"""Called with the step's name before it happens and after it has happened. What it raises, the caller of the step sees:
`StoreUnavailable` before is an outage, after it a lost answer; any other exception is a crash there."""


def no_faults(step: str, moment: Moment) -> None:
    """The hook of a world without faults."""


class MemoryStateStore:
    """Rows and snapshots in dictionaries.

    Steps: ``create``, ``claim``, ``snapshot``, ``commit``, ``renew``, ``release``, ``seal``, ``reduce``.
    """

    def __init__(self, hook: Hook = no_faults) -> None:
        self._hook = hook
        self._rows: dict[str, ShardRow] = {}
        self._snapshots: dict[tuple[str, str], bytes] = {}

    def rows(self) -> list[ShardRow]:
        """All rows, in order of shard id."""
        return [self._rows[shard_id] for shard_id in sorted(self._rows)]

    def row(self, shard_id: str) -> ShardRow | None:
        """One row."""
        return self._rows.get(shard_id)

    def create(self, shard: Shard, *, start: str) -> ShardRow:
        """Write the row of a shard that has none; where there is one already, return that."""
        self._hook("create", "before")
        row = self._rows.setdefault(shard.shard_id, new_row(shard, start))
        self._hook("create", "after")
        return row

    def claim(self, shard_id: str, *, owner: str, seen_version: int | None = None) -> ShardRow:
        """Make `owner` the shard's owner and raise its claim_version."""
        self._hook("claim", "before")
        row = self._rows.get(shard_id)
        if row is None or row.sealed or seen_version not in (None, row.claim_version):
            return check_claimed(shard_id, row, owner=owner, seen_version=seen_version)
        row = self._rows[shard_id] = replace(row, owner=owner, claim_version=row.claim_version + 1)
        self._hook("claim", "after")
        return row

    def snapshot(self, row: ShardRow) -> bytes | None:
        """The snapshot that `row` points at."""
        self._hook("snapshot", "before")
        if row.snapshot_sha256 is None:
            return None
        blob = self._snapshots.get((row.shard.shard_id, row.snapshot_sha256))
        now = self._rows.get(row.shard.shard_id)
        if blob is None and now is not None and now.snapshot_sha256 != row.snapshot_sha256:
            raise Fenced("the snapshot has been replaced since the row was read", where=f"shard {row.shard.shard_id}")
        if blob is None:
            raise SnapshotError("the snapshot is missing", where=f"shard {row.shard.shard_id}")
        self._hook("snapshot", "after")
        return check_snapshot(row, blob)

    def commit(self, row: ShardRow, *, snapshot: bytes, position: Position | None, now_ms: int) -> ShardRow:
        """Replace the snapshot, conditionally on (`row.owner`, `row.claim_version`)."""
        self._hook("commit", "before")
        digest = sha256(snapshot).hexdigest()
        written = replace(
            row,
            claim_version=row.claim_version + 1,
            position=position,
            snapshot_bytes=len(snapshot),
            snapshot_sha256=digest,
            committed_at_ms=now_ms,
        )
        written = self._replace(row, written, snapshot)
        self._hook("commit", "after")
        return written

    def renew(self, row: ShardRow) -> ShardRow:
        """Raise the claim_version and change nothing else."""
        self._hook("renew", "before")
        written = self._replace(row, replace(row, claim_version=row.claim_version + 1))
        self._hook("renew", "after")
        return written

    def release(self, row: ShardRow) -> ShardRow:
        """Leave the shard without an owner."""
        self._hook("release", "before")
        written = self._replace(row, replace(row, claim_version=row.claim_version + 1, owner=None))
        self._hook("release", "after")
        return written

    def seal(self, row: ShardRow) -> ShardRow:
        """Seal the shard if the row still has `row.claim_version`."""
        self._hook("seal", "before")
        now = self._rows.get(row.shard.shard_id)
        if now is None or now.sealed or now.claim_version != row.claim_version:
            return check_sealed(row, now)
        written = self._rows[row.shard.shard_id] = replace(now, claim_version=now.claim_version + 1, sealed=True)
        self._hook("seal", "after")
        return written

    def reduce(self, row: ShardRow, *, snapshot: bytes) -> ShardRow:
        """Replace a sealed row's snapshot by what must be kept for ever."""
        self._hook("reduce", "before")
        written = replace(
            row,
            claim_version=row.claim_version + 1,
            snapshot_bytes=len(snapshot),
            snapshot_sha256=sha256(snapshot).hexdigest(),
            sealed=True,
            reduced=True,
        )
        written = self._replace(row, written, snapshot)
        self._hook("reduce", "after")
        return written

    def _replace(self, row: ShardRow, written: ShardRow, snapshot: bytes | None = None) -> ShardRow:
        """Write `written` if `row` is there as it was read; only what `reduce` writes replaces a sealed row."""
        shard_id, digest = row.shard.shard_id, written.snapshot_sha256
        now = self._rows.get(shard_id)
        if now is None or (now.owner, now.claim_version, now.sealed) != (row.owner, row.claim_version, written.sealed):
            return check_same_write(written, now)
        self._rows[shard_id] = written
        if snapshot is not None and digest is not None:
            self._snapshots[shard_id, digest] = snapshot
            if row.snapshot_sha256 not in (None, digest):
                self._snapshots.pop((shard_id, row.snapshot_sha256 or ""), None)
        return written


class MemoryObjectStore:
    """Objects in a dictionary. Steps: ``put``, ``get``, ``delete``, ``names``."""

    def __init__(self, hook: Hook = no_faults) -> None:
        self._hook = hook
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, body: bytes) -> None:
        """Write the object."""
        self._hook("put", "before")
        self.objects[name] = body
        self._hook("put", "after")

    def get(self, name: str) -> bytes | None:
        """The object, or None."""
        self._hook("get", "before")
        return self.objects.get(name)

    def delete(self, name: str) -> None:
        """Remove the object if it is there."""
        self._hook("delete", "before")
        self.objects.pop(name, None)
        self._hook("delete", "after")

    def names(self, prefix: str) -> list[str]:
        """All names that begin with `prefix`, sorted."""
        self._hook("names", "before")
        return sorted(name for name in self.objects if name.startswith(prefix))


class MemoryReceiver(Generic[Entry]):
    """Keeps every entry in `delivered`, as often as it came. Steps: ``deliver <name>``, once for each entry.

    A hook that raises `StoreUnavailable` makes the entry and all after it undelivered.
    """

    def __init__(self, name: str, hook: Hook = no_faults) -> None:
        self._step = f"deliver {name}"
        self._hook = hook
        self.delivered: list[Entry] = []

    def deliver(self, entries: Sequence[Entry]) -> Delivery[Entry]:
        """Keep the entries one by one."""
        for index, entry in enumerate(entries):
            try:
                self._hook(self._step, "before")
                self.delivered.append(entry)
                self._hook(self._step, "after")
            except StoreUnavailable as error:
                return Delivery(entries[index:], str(error))
        return Delivery(())
