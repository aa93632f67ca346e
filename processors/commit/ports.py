"""The ports of the commit protocol: where a shard's state is kept, and where effects go.

Two very different hosts, the KCL and Lambda, use these through `ShardSession`; so does the simulation. The rules behind
them are in ``docs/adr/0009-commit-protocol.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.position import Position
from streamgauge.events.records import Shard

__all__ = ["Fenced", "ObjectStore", "Receiver", "ShardRow", "StateStore", "StateUnavailable"]

Entry = TypeVar("Entry")


class Fenced(StreamgaugeError):
    """Somebody else has claimed the shard: what this owner applied since its last commit is undone."""


class StateUnavailable(StreamgaugeError):
    """The state store did not answer, or not in time. Whether the write happened is not known."""


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A shard's row: the only commit point of what happens to the shard.

    ``claim_version`` is raised by every write of the row (claim, commit, seal), so that (owner, claim_version) names
    one write. ``position`` is that of the snapshot: the last position applied, None before the first commit that
    applied one. ``start`` is where reading begins without one (an iterator type and its argument), fixed by the
    pipeline's first start. ``snapshot_bytes`` is the snapshot's size, 0 without one; ``committed_at_ms`` the clock of
    the owner at its last commit. ``sealed`` rows refuse claims.
    """

    shard: Shard
    owner: str | None
    claim_version: int
    position: Position | None
    start: str
    sealed: bool
    snapshot_bytes: int
    snapshot_sha256: str | None
    committed_at_ms: int | None


class StateStore(Protocol):
    """The rows and snapshots of one (pipeline, state_epoch). Every write of a row is one conditional write."""

    def rows(self) -> list[ShardRow]:
        """All rows, in order of shard id."""
        ...

    def row(self, shard_id: str) -> ShardRow | None:
        """One row, read consistently."""
        ...

    def create(self, shard: Shard, *, start: str) -> ShardRow:
        """Write the row of a shard that has none; where there is one already, return that."""
        ...

    def claim(self, shard_id: str, *, owner: str) -> ShardRow:
        """Make `owner` the shard's owner and raise its claim_version, which fences whoever held it.

        Raises
        ------
        Fenced
            The row is sealed.
        """
        ...

    def snapshot(self, row: ShardRow) -> bytes | None:
        """The snapshot that `row` points at; None where it has none.

        Raises
        ------
        Fenced
            The object is missing because the row has moved on.
        SnapshotError
            The object is missing although the row is unchanged, or its hash is not the row's.
        """
        ...

    def commit(self, row: ShardRow, *, snapshot: bytes, position: Position | None, now_ms: int) -> ShardRow:
        """Replace the snapshot, conditionally on (`row.owner`, `row.claim_version`); return the row as written.

        A conflict is read back: where the row holds exactly this write (the answer was lost), that is success.

        Raises
        ------
        Fenced
            Another owner, or another version, is in the row.
        """
        ...


class ObjectStore(Protocol):
    """Named immutable objects: the archive's and the state's."""

    def put(self, name: str, body: bytes) -> None:
        """Write the object; a second put of equal bytes under one name is harmless."""
        ...

    def get(self, name: str) -> bytes | None:
        """The object, or None."""
        ...

    def delete(self, name: str) -> None:
        """Remove the object if it is there."""
        ...

    def names(self, prefix: str) -> list[str]:
        """All names that begin with `prefix`, sorted."""
        ...


class Receiver(Protocol[Entry]):
    """Somewhere effects go. Each entry may come again: delivering it twice must be as good as once."""

    def deliver(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Deliver the entries and return those that could not be delivered now, in their order.

        An outage is no exception: everything comes back, and the shard's outbox keeps it.
        """
        ...
