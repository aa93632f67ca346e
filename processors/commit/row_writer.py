"""Writes of a shard's row by its owner, each carried to a known end before the next one is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streamgauge.events.position import Position
from streamgauge.processors.commit.ports import ShardRow, StateStore, StoreUnavailable
from streamgauge.processors.core.effects import Outbox

__all__ = ["RowWriter", "SnapshotWrite"]

# The second call tells a lost answer (the row holds our write) from a store that is down.
_WRITE_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class SnapshotWrite:
    """A snapshot that is about to be saved. Until that is known, the very same write is tried, never another."""

    snapshot: bytes
    position: Position | None
    outbox: Outbox
    gaps: tuple[str, ...]


class RowWriter:
    """The row as last written, and the write in doubt, if there is one."""

    def __init__(self, store: StateStore, row: ShardRow, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self.row = row
        self._write: SnapshotWrite | None = None
        self._is_renewing = False

    def begin(self, write: SnapshotWrite) -> None:
        """Take a snapshot to be saved by `finish`; the one before it has been finished."""
        assert self._write is None, "a write in doubt is finished first"
        self._write = write

    def begin_renewal(self) -> None:
        """Let `finish` raise the claim_version, if it has nothing else to write that does."""
        self._is_renewing = self._is_renewing or self._write is None

    def finish(self) -> SnapshotWrite | None:
        """Carry what was begun to a known end; the snapshot that is saved now, if there was one to save.

        Raises
        ------
        Fenced
            The shard is somebody else's.
        StoreUnavailable, StoreRefused
            The end is not known yet; call again.
        """
        if self._is_renewing:
            self.row = _twice(lambda: self._store.renew(self.row))
            self._is_renewing = False
        write = self._write
        if write is None:
            return None
        self.row = _twice(
            lambda: self._store.commit(
                self.row, snapshot=write.snapshot, position=write.position, now_ms=self._now_ms()
            )
        )
        self._write = None
        return write

    def release(self) -> None:
        """Leave the shard without an owner."""
        self.row = _twice(lambda: self._store.release(self.row))

    def seal(self) -> None:
        """Seal the shard."""
        self.row = _twice(lambda: self._store.seal(self.row))


def _twice(write: Callable[[], ShardRow]) -> ShardRow:
    for _ in range(_WRITE_ATTEMPTS - 1):
        try:
            return write()
        except StoreUnavailable:
            continue
    return write()
