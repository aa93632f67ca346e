"""The ports of the commit protocol: where a shard's state is kept, and where effects go.

Two very different hosts, the KCL and Lambda, use these through `ShardSession`; so does the simulation. The rules behind
them are in ``docs/adr/0009-commit-protocol.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.processors.core.effects import ArchiveObject, PaneBatch, ThresholdEvent

__all__ = [
    "Backpressure",
    "Delivery",
    "Fenced",
    "ObjectStore",
    "ParentBehind",
    "Receiver",
    "Receivers",
    "ShardRow",
    "StateStore",
    "StoreRefused",
    "StoreUnavailable",
]

Entry = TypeVar("Entry")


class Fenced(StreamgaugeError):
    """Somebody else has claimed the shard: what this owner applied since its last commit is undone."""


class StoreUnavailable(StreamgaugeError):
    """A store did not answer, or not in time. Whether the write happened is not known; the call may be made again."""


class StoreRefused(StreamgaugeError):
    """A store answered that it will not: no permission, no such table or bucket, no space. Retrying is no help."""


class Backpressure(StreamgaugeError):
    """The shard's outbox is full, so nothing more is applied until `ShardSession.commit` has delivered from it.

    Raised before anything of the batch was applied: the host commits, waits, and hands over the same batch again.
    """


class ParentBehind(StreamgaugeError):
    """A shard cannot begin yet: a parent still holds records that nobody has applied. Open it again a little later."""


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A shard's row: the only commit point of what happens to the shard.

    ``shard`` has the parents whose state it inherits: none where the pipeline began after them. ``owner`` is None
    where nobody has claimed the shard, or its last owner released it. ``claim_version`` is raised by every write of
    the row (claim, commit, renewal, release, seal), so that (owner, claim_version) names one write. ``position`` is
    that of the snapshot: the last position applied, None before the first commit that applied one. ``start`` is where
    reading begins without one (an iterator type and its argument), fixed by the pipeline's first start:
    ``TRIM_HORIZON`` or ``AT_TIMESTAMP <RFC 3339>``. ``snapshot_bytes`` is the snapshot's size, 0 without one;
    ``snapshot_object`` its name where it does not live in the row; ``committed_at_ms`` the clock of the owner at its
    last commit. ``sealed`` rows refuse claims and commits: the shard was applied to its end, and its descendants go on.
    Once these have its state, it is ``reduced``: the snapshot holds its counters and gaps only.
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
    snapshot_object: str | None = None
    reduced: bool = False


class StateStore(Protocol):
    """The rows and snapshots of one (pipeline, state_epoch). Every write of a row is one conditional write.

    Every method may raise `StoreUnavailable` or `StoreRefused`.
    """

    def rows(self) -> list[ShardRow]:
        """All rows, in order of shard id."""
        ...

    def row(self, shard_id: str) -> ShardRow | None:
        """One row, read consistently."""
        ...

    def create(self, shard: Shard, *, start: str) -> ShardRow:
        """Write the row of a shard that has none; where there is one already, return that."""
        ...

    def claim(self, shard_id: str, *, owner: str, seen_version: int | None = None) -> ShardRow:
        """Make `owner` the shard's owner and raise its claim_version, which fences whoever held it.

        With `seen_version` only if that is the row's claim_version still: so an observer takes a shard from the owner
        that it saw do nothing, and not from the one that came after.

        Raises
        ------
        Fenced
            The row is sealed, there is none, or it has another version than `seen_version`.
        """
        ...

    def snapshot(self, row: ShardRow) -> bytes | None:
        """The snapshot that `row` points at; None where it has none.

        Raises
        ------
        Fenced
            The row has moved on to another snapshot since it was read.
        SnapshotError
            The snapshot is missing although the row is unchanged, or its hash is not the row's.
        """
        ...

    def commit(self, row: ShardRow, *, snapshot: bytes, position: Position | None, now_ms: int) -> ShardRow:
        """Replace the snapshot, conditionally on (`row.owner`, `row.claim_version`); return the row as written.

        A conflict is read back: where the row holds exactly this write (the answer was lost), that is success. So the
        same call may be made again after `StoreUnavailable`.

        Raises
        ------
        Fenced
            Another owner, or another version, is in the row.
        """
        ...

    def renew(self, row: ShardRow) -> ShardRow:
        """Raise the claim_version and change nothing else, so that observers see that the owner lives.

        Conflicts and lost answers as in `commit`.

        Raises
        ------
        Fenced
            As in `commit`.
        """
        ...

    def release(self, row: ShardRow) -> ShardRow:
        """Leave the shard without an owner, so that the next one need not wait. Conflicts as in `commit`.

        Raises
        ------
        Fenced
            As in `commit`.
        """
        ...

    def seal(self, row: ShardRow) -> ShardRow:
        """Seal the shard, whoever owns it, if the row still has `row.claim_version`; snapshot and counters stay.

        The caller knows that the shard has been read to its end, and that `row.position` is its last one. A row that
        is sealed already is success.

        Raises
        ------
        Fenced
            The row has another version: somebody is at work there.
        """
        ...

    def reduce(self, row: ShardRow, *, snapshot: bytes) -> ShardRow:
        """Replace a sealed row's snapshot, once its descendants have what is in it, by what must be kept for ever.

        Conditional on `row.claim_version`, and read back as in `commit`.

        Raises
        ------
        Fenced
            The row is not sealed, or has another version.
        """
        ...


class ObjectStore(Protocol):
    """Named immutable objects: the archive's and the state's. Methods may raise `StoreUnavailable`, `StoreRefused`."""

    def put(self, name: str, body: bytes) -> None:
        """Write the object whole or not at all; a second put of equal bytes under one name is harmless."""
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


class Delivery(NamedTuple, Generic[Entry]):
    """What became of a delivery: the entries that could not be delivered now, in their order, and why not."""

    undelivered: Sequence[Entry]
    reason: str | None = None


class Receiver(Protocol[Entry]):
    """Somewhere effects go. Each entry may come again: delivering it twice must be as good as once."""

    def deliver(self, entries: Sequence[Entry]) -> Delivery[Entry]:
        """Deliver the entries; an entry may come back in part, as the part that could not be delivered.

        An outage or a refusal is no exception: the entries come back with the reason, and the shard's outbox keeps
        them.
        """
        ...


@dataclass(frozen=True, slots=True)
class Receivers:
    """Where the entries of an outbox go, by their kind."""

    archive: Receiver[ArchiveObject]
    threshold_events: Receiver[ThresholdEvent]
    served_panes: Receiver[PaneBatch]
