"""What the local host says of how far it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from streamgauge.events.position import Position
from streamgauge.processors.hosts.shard_run import ShardRun

__all__ = ["LocalProgress", "ShardProgress", "joined", "progress_of"]


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """How far one shard is. ``behind_ms`` is None before the first answer; ``ended_by`` says what took it from us.

    ``sealed``: it was closed by a reshard, applied to its end, and its children go on. ``snapshot_bytes`` and
    ``committed_at_ms`` are the size of its saved state, and when that was saved; 0 and None before the first.
    """

    shard_id: str
    records: int
    size_bytes: int
    events: int
    behind_ms: int | None
    watermark_ms: int | None
    position: Position | None
    committed: Position | None
    outbox_entries: int
    waiting_for: str | None
    input_ended: bool
    gaps: tuple[str, ...]
    ended_by: str | None
    sealed: bool = False
    snapshot_bytes: int = 0
    committed_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class LocalProgress:
    """What this run has read so far, in all and by shard."""

    shards: tuple[ShardProgress, ...]

    @property
    def records(self) -> int:
        """Records read by this run."""
        return sum(shard.records for shard in self.shards)

    @property
    def events(self) -> int:
        """Positions that this run applied."""
        return sum(shard.events for shard in self.shards)

    @property
    def behind_ms(self) -> int | None:
        """How far the slowest of the shards that are ours is behind; None until each has answered."""
        behind = [shard.behind_ms for shard in self._ours]
        known = [value for value in behind if value is not None]
        return max(known) if known and len(known) == len(behind) else None

    @property
    def snapshot_bytes(self) -> int:
        """The size of the saved states of the shards that are ours."""
        return sum(shard.snapshot_bytes for shard in self._ours)

    @property
    def committed_at_ms(self) -> int | None:
        """When the oldest of them was saved; None without any."""
        return min((shard.committed_at_ms for shard in self._ours if shard.committed_at_ms is not None), default=None)

    @property
    def _ours(self) -> list[ShardProgress]:
        return [shard for shard in self.shards if not shard.sealed and shard.ended_by is None]

    @property
    def fenced(self) -> dict[str, str]:
        """By shard that somebody else has taken: the message."""
        return {shard.shard_id: shard.ended_by for shard in self.shards if shard.ended_by is not None}


def progress_of(run: ShardRun) -> ShardProgress:
    """How far a run is."""
    return ShardProgress(
        shard_id=run.shard_id,
        records=run.records,
        size_bytes=run.size_bytes,
        events=run.events,
        behind_ms=run.behind_ms,
        watermark_ms=run.session.watermark_ms,
        position=run.session.position,
        committed=run.session.committed,
        outbox_entries=run.session.outbox_entries,
        waiting_for=run.waiting_for,
        input_ended=run.session.input_ended,
        gaps=run.session.gaps,
        ended_by=run.ended_by,
        sealed=run.is_sealed,
        snapshot_bytes=run.session.snapshot_bytes,
        committed_at_ms=run.session.committed_at_ms,
    )


def joined(before: ShardProgress | None, now: ShardProgress) -> ShardProgress:
    """What a shard's runs have done together, where it was lost and claimed again: it stands where the last one is."""
    if before is None:
        return now
    return replace(
        now,
        records=before.records + now.records,
        size_bytes=before.size_bytes + now.size_bytes,
        events=before.events + now.events,
    )
