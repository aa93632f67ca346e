"""What a sandbox remembers of its shards between invocations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streamgauge.processors.commit.ports import StateStore
from streamgauge.processors.commit.session import ShardSession

__all__ = ["Held", "WarmShards"]

# So many invocations after another sandbox was met, the row is looked at before a batch is applied to an old state.
_LOOKS = 16
# A stream keeps records for a day at least. What follows on a younger record cannot have been trimmed unseen.
_KEPT_FOR_CERTAIN_MS = 12 * 3_600_000


@dataclass(slots=True)
class Held:
    """A shard that this sandbox holds. ``is_joined``: nothing lies between its state and the batches that it gets.

    ``arrival_ms`` is that of a record at which the two have met: nothing before the one that follows on it is missing.
    """

    session: ShardSession
    is_joined: bool = False
    arrival_ms: int = 0


class WarmShards:
    """The states at hand, the one used last at the end.

    Parameters
    ----------
    max_bytes
        Of all saved states together; the one used last is kept in any case.
    now_ms
        Milliseconds since the epoch.
    """

    def __init__(self, store: StateStore, *, max_bytes: int, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._max_bytes = max_bytes
        self._held: dict[str, Held] = {}
        self._met: dict[str, tuple[int, int]] = {}
        self._looks = 0

    @property
    def shards(self) -> tuple[str, ...]:
        """The shards whose state is at hand."""
        return tuple(self._held)

    def get(self, shard_id: str) -> Held | None:
        """The state at hand, if there is one."""
        held = self._held.get(shard_id)
        if held is not None and not self._is_kept(held.arrival_ms):
            # The event source goes on behind what it could not hand over for too long, and does not say so.
            held.is_joined = False
        return held

    def use(self, shard_id: str, held: Held) -> None:
        """It is the one used last now."""
        self._held.pop(shard_id, None)
        self._held[shard_id] = held

    def forget(self, shard_id: str) -> None:
        """The state at hand is good for nothing."""
        self._held.pop(shard_id, None)

    def was_fenced(self, shard_id: str) -> None:
        """Another sandbox has gone beyond the state at hand: it may have done so for other shards too."""
        self.forget(shard_id)
        self._looks = _LOOKS

    def is_overtaken(self, shard_id: str) -> bool:
        """Whether another sandbox has gone beyond the state at hand, which is forgotten then; looked at if in doubt.

        Raises
        ------
        StoreUnavailable, StoreRefused
            As `StateStore.row`.
        """
        held = self._held.get(shard_id)
        if held is None or not self._looks:
            return False
        row = self._store.row(shard_id)
        if row is not None and row.claim_version == held.session.claim_version:
            self._looks -= 1
            return False
        self.was_fenced(shard_id)
        return True

    def taken(self, shard_id: str, session: ShardSession) -> Held:
        """A shard that was claimed: joined, if this sandbox has met the event source there before.

        Since then, every commit has followed on what the event source sent before. A state that goes back behind that
        place has not.
        """
        number, arrival_ms = self._met.get(shard_id, (-1, 0))
        position = session.position
        has_met = number >= 0 and position is not None and position.sequence_number >= number
        return Held(session, is_joined=has_met and self._is_kept(arrival_ms), arrival_ms=arrival_ms)

    def committed(self, shard_id: str, held: Held, *, arrival_ms: int) -> None:
        """Note how far a shard is, and forget those that were not used for longest, if it is too much.

        Parameters
        ----------
        arrival_ms
            Of a record at or before the committed position.
        """
        position = held.session.committed
        if held.is_joined and position is not None:
            held.arrival_ms = max(held.arrival_ms, arrival_ms)
            self._met[shard_id] = position.sequence_number, held.arrival_ms
        size = sum(each.session.snapshot_bytes for each in self._held.values())
        for oldest in list(self._held)[:-1]:
            if size <= self._max_bytes:
                return
            size -= self._held.pop(oldest).session.snapshot_bytes

    def _is_kept(self, arrival_ms: int) -> bool:
        return self._now_ms() - arrival_ms < _KEPT_FOR_CERTAIN_MS
