"""What the log of a daemon's children says, added up for whoever watches."""

from __future__ import annotations

from dataclasses import replace

from streamgauge.events.position import Position
from streamgauge.processors.hosts.kcl.child_log import LogEntry, Progress
from streamgauge.processors.hosts.progress import LocalProgress, ShardProgress, joined

__all__ = ["Children"]

_ERRORS = frozenset({"failed", "crashed", "fenced"})


class Children:
    """The children of one run, which may have several daemons one after the other."""

    def __init__(self) -> None:
        self._shards: dict[str, ShardProgress] = {}
        self._before: dict[str, ShardProgress | None] = {}
        self._pids: dict[str, int] = {}
        self._finished: dict[str, bool] = {}
        self.error: LogEntry | None = None
        """The last reason for which a child ended that should not have."""

    @property
    def progress(self) -> LocalProgress:
        """How far they are, by shard."""
        return LocalProgress(tuple(self._shards[shard_id] for shard_id in sorted(self._shards)))

    @property
    def finished(self) -> frozenset[str]:
        """The shards that have seen the end of the input, and have nothing left to save or deliver."""
        return frozenset(shard_id for shard_id, is_finished in self._finished.items() if is_finished)

    @property
    def pids(self) -> frozenset[int]:
        """The last child of each shard; it may have ended."""
        return frozenset(self._pids.values())

    def take(self, entry: LogEntry) -> None:
        """Take one entry of the log into account."""
        if entry.event in _ERRORS:
            self.error = entry
        if not entry.shard:
            return
        if self._pids.get(entry.shard) != entry.pid:
            self._pids[entry.shard] = entry.pid
            self._before[entry.shard] = self._shards.get(entry.shard)
        if entry.progress is not None:
            self._finished[entry.shard] = entry.progress.is_finished
            self._shards[entry.shard] = joined(self._before[entry.shard], _shard_progress(entry.shard, entry.progress))
        shard = self._shards.get(entry.shard)
        if shard is None:
            return
        if entry.event == "sealed":
            shard = replace(shard, sealed=True, ended_by=None)
        elif entry.event in {"fenced", "lease_lost"}:
            shard = replace(shard, ended_by=entry.message)
        elif entry.event == "waiting":
            shard = replace(shard, waiting_for=entry.message)
        elif entry.event in {"started", "progress"}:
            shard = replace(shard, ended_by=None)
        self._shards[entry.shard] = shard


def _shard_progress(shard_id: str, told: Progress) -> ShardProgress:
    committed = None if told.committed is None else Position.parse(told.committed)
    return ShardProgress(
        shard_id=shard_id,
        records=told.records,
        size_bytes=0,
        events=told.events,
        behind_ms=told.behind_ms,
        watermark_ms=told.watermark_ms,
        position=committed,
        committed=committed,
        outbox_entries=told.outbox_entries,
        waiting_for=told.waiting_for,
        input_ended=told.input_ended,
        gaps=told.gaps,
        ended_by=None,
        snapshot_bytes=told.snapshot_bytes,
        committed_at_ms=told.committed_at_ms,
    )
