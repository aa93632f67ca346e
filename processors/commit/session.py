"""`ShardSession`: the commit protocol of one shard, driven by any host.

``apply batch -> store failed and late events -> save snapshot -> deliver its outbox -> checkpoint``; the reasons are in
``docs/adr/0009-commit-protocol.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.commit.ancestry import Ancestry, Parents
from streamgauge.processors.commit.commit_objects import CommitObjects
from streamgauge.processors.commit.engine_port import EngineFactory
from streamgauge.processors.commit.outbox import Fresh, OutboxLimits, PendingOutbox
from streamgauge.processors.commit.ports import (
    Backpressure,
    Fenced,
    ObjectStore,
    ParentBehind,
    Receivers,
    ShardRow,
    StateStore,
)
from streamgauge.processors.commit.row_writer import RowWriter, SnapshotWrite
from streamgauge.processors.commit.snapshots import Snapshot, decode_snapshot, encode_snapshot
from streamgauge.processors.core.container import Columns
from streamgauge.processors.core.counters import Counters
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import Outbox, PaneBatch

__all__ = ["SessionClosed", "ShardSession"]


class SessionClosed(StreamgaugeError):
    """The session has ended: it was closed, or an error left its engine unfit to be saved."""


class ShardSession:
    """One owner's hold on one shard: open, apply, commit, close. Not thread-safe.

    A host applies batches in stream order and commits when it likes: the KCL every few seconds, Lambda once a batch.
    `apply` may raise `Backpressure`, before anything was applied: the host then commits, waits, and hands over the
    same batch again (a KCL host sleeps in place; a Lambda host lets the batch fail, so that it comes back). After
    `Fenced` the session is dead, and what it applied since its last commit has happened nowhere.

    Configuration: pipeline, shard, stores, receivers, limits. Live: the row as last written, the write in doubt, what
    the engine handed out since the last commit. In the snapshot: the engine, the outbox, the accepted gaps.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        row: ShardRow,
        snapshot: Snapshot | None,
        *,
        store: StateStore,
        archive: ObjectStore,
        receivers: Receivers,
        now_ms: Callable[[], int],
        limits: OutboxLimits,
        engine: EngineFactory,
    ) -> None:
        self._pipeline = pipeline
        self._shard = row.shard
        self._archive = archive
        self._now_ms = now_ms
        self._limits = limits

        self._writer = RowWriter(store, row, now_ms)
        self._fresh = Fresh()
        self._ended: StreamgaugeError | None = None
        self._closed: StreamgaugeError | None = None

        columns: Columns | None = snapshot.engine if snapshot else None
        self._engine = engine(pipeline, row.shard, columns)
        self._outbox = PendingOutbox(receivers, snapshot.outbox if snapshot else Outbox())
        self._saved_entries = len(self._outbox)
        self._gaps = snapshot.gaps if snapshot else ()
        self._saved_gaps = self._gaps

    @classmethod
    def open(
        cls,
        pipeline: Pipeline,
        shard: Shard,
        *,
        store: StateStore,
        archive: ObjectStore,
        receivers: Receivers,
        owner: str,
        now_ms: Callable[[], int],
        engine: EngineFactory,
        start: str = "TRIM_HORIZON",
        limits: OutboxLimits | None = None,
        seen_version: int | None = None,
        parents: Parents | None = None,
    ) -> ShardSession:
        """Claim the shard and restore its state; from now on every earlier owner is fenced.

        A shard with parents, and no state yet, first sees to it that these are applied to their end and sealed; then
        it begins with the state that they hand over, which is saved before this returns.

        Parameters
        ----------
        owner
            A fresh UUID, never used for a shard before.
        now_ms
            Milliseconds since the epoch.
        start
            Where reading begins if the shard has no row yet, as `ShardRow` describes it.
        seen_version
            Claim the shard only if this is its claim_version still, as in `StateStore.claim`.

        Raises
        ------
        Fenced
            The shard is sealed, or somebody claimed it while it was being opened.
        ParentBehind
            A parent is not at its end yet; open the shard again later.
        ParentMissing
            A parent is gone from the stream and was never processed.
        StoreUnavailable, StoreRefused
            The state cannot be read. Opening again is safe.
        SnapshotError
            The state is there, but unreadable.
        """
        parents = parents or Parents()

        def open_as_it_is(row: ShardRow) -> ShardSession:
            return cls.open(
                pipeline,
                row.shard,
                store=store,
                archive=archive,
                receivers=receivers,
                owner=owner,
                now_ms=now_ms,
                engine=engine,
                limits=limits,
                seen_version=row.claim_version,
                parents=parents,
            )

        ancestry = Ancestry(
            pipeline,
            store,
            parents,
            engine=engine,
            owner=owner,
            start=start,
            now_ms=now_ms,
            apply_rest=lambda row: apply_rest(open_as_it_is(row), row, parents),
        )
        row = store.row(shard.shard_id) or store.create(shard, start=start)
        first = None
        if row.snapshot_sha256 is None and not row.sealed:
            first = ancestry.first_snapshot(row.shard)
        row = store.claim(shard.shard_id, owner=owner, seen_version=seen_version)
        blob = store.snapshot(row)
        if blob is None and first is not None:
            row = ancestry.save_first(row, first)
            snapshot: Snapshot | None = first
        else:
            snapshot = None if blob is None else decode_snapshot(blob, where=f"shard {shard.shard_id}, snapshot")
        if snapshot is not None:
            ancestry.reduce_parents(row.shard)
        return cls(
            pipeline,
            row,
            snapshot,
            store=store,
            archive=archive,
            receivers=receivers,
            now_ms=now_ms,
            limits=limits or OutboxLimits(),
            engine=engine,
        )

    @property
    def _row(self) -> ShardRow:
        return self._writer.row

    @property
    def shard(self) -> Shard:
        """The shard as its row knows it."""
        return self._shard

    @property
    def start(self) -> str:
        """Where reading begins while `position` is None, as `ShardRow` describes it."""
        return self._row.start

    @property
    def position(self) -> Position | None:
        """The last applied position; what lies between `committed` and it is undone by a crash."""
        return self._engine.position

    @property
    def committed(self) -> Position | None:
        """The position of the last snapshot known to be saved: up to it a host may checkpoint."""
        return self._row.position

    @property
    def claim_version(self) -> int:
        """The version of the row as last written: whoever watches the row sees it rise."""
        return self._row.claim_version

    @property
    def snapshot_bytes(self) -> int:
        """The size of the saved snapshot; 0 without one."""
        return self._row.snapshot_bytes

    @property
    def committed_at_ms(self) -> int | None:
        """When it was saved, by the clock of who did; None without one."""
        return self._row.committed_at_ms

    @property
    def counters(self) -> Counters:
        """What became of every position so far."""
        return self._engine.counters

    @property
    def watermark_ms(self) -> int | None:
        """The shard's watermark."""
        return self._engine.watermark_ms

    @property
    def input_ended(self) -> bool:
        """Whether every part of an ``end_of_input`` has been applied."""
        return self._engine.input_ended

    @property
    def gaps(self) -> tuple[str, ...]:
        """Every gap accepted in this shard, as in `CommitRow`."""
        return self._gaps

    @property
    def outbox_entries(self) -> int:
        """Entries that have not been delivered yet, saved or not."""
        return len(self._outbox) + self._fresh.entries

    @property
    def waiting_for(self) -> str | None:
        """Why the last delivery left something behind; None if it did not."""
        return self._outbox.reason

    @property
    def can_apply(self) -> bool:
        """Whether `apply` would take a batch now; if not, commit, and wait while it still says no."""
        return self._limits.allow(
            entries=self.outbox_entries, size_bytes=self._outbox.size_bytes + self._fresh.size_bytes
        )

    def open_panes(self) -> list[PaneBatch]:
        """Panes of windows that the watermark has not passed, as they stand."""
        return self._engine.open_panes()

    def apply(self, records: Sequence[StreamRecord]) -> None:
        """Apply records in stream order. What was applied before is skipped, so a batch may come again.

        Raises
        ------
        Backpressure
            The outbox is full; nothing was applied.
        SessionClosed, Fenced
            The session is over.
        """
        self._check()
        if not self.can_apply:
            raise Backpressure(
                f"{self.outbox_entries} results wait to be delivered"
                + (f" ({self.waiting_for})" if self.waiting_for else "")
                + ", so nothing more is applied",
                where=f"shard {self._shard.shard_id}",
            )
        try:
            effects = self._engine.apply(records)
        except BaseException:
            # Half a batch may be in the engine: saving it would be a commit past unapplied data.
            self._ended = SessionClosed(
                "an error while a batch was applied ended this session",
                where=f"shard {self._shard.shard_id}",
                remedy="Open the shard again: nothing of the batch was saved",
            )
            raise
        self._fresh.add(effects, records, self._pipeline)

    def accept_gap(self, first: str) -> None:
        """Note that nothing between `position` and the record of sequence number `first` came back from the stream.

        The gap is saved with the next commit and stands in each of its successors' `CommitRow`.
        """
        self._check()
        self._gaps = (*self._gaps, f"{self.position or 'start'}..{first}")

    def commit(self, between: Callable[[], None] = lambda: None) -> Position | None:
        """Save what was applied, deliver the outbox, and return the position up to which a host may checkpoint.

        With nothing new, nothing is written, but what waits is delivered again.

        Parameters
        ----------
        between
            Called again and again while the outbox is delivered, after its snapshot was saved; it may `renew`.

        Raises
        ------
        Fenced
            Somebody else has claimed the shard. Nothing applied since the last commit has left.
        StoreUnavailable
            A store is down. Nothing is lost: commit again, or open the shard anew.
        StoreRefused
            A store will not take the state or the failed events.
        """
        self._check()
        self._finish_write()
        if self._engine.position != self._row.position or self._gaps != self._saved_gaps:
            self._begin_write()
            self._finish_write()
        self._outbox.deliver(between)
        return self._row.position

    def close(self) -> None:
        """Commit and end the session. What could not be delivered stays in the snapshot, for the next owner.

        A last write drops what was delivered since the last one, so that the next owner does not deliver it again.
        """
        if self._ended is not None:
            return
        self.commit()
        if len(self._outbox) < self._saved_entries:
            self._writer.begin(self._snapshot_of(self._outbox.entries))
            self._finish_write()
        self._ended = self._closed = SessionClosed("the session is closed", where=f"shard {self._shard.shard_id}")

    def renew(self) -> None:
        """Show whoever watches the shard's row that its owner lives; a write in doubt does that too.

        Raises
        ------
        Fenced, StoreUnavailable, StoreRefused
            As in `commit`.
        """
        self._check()
        self._writer.begin_renewal()
        self._finish_write()

    def release(self) -> None:
        """Close the session and leave the shard without an owner, so that the next one need not wait.

        Raises
        ------
        Fenced, StoreUnavailable, StoreRefused
            As in `commit`. The session may be released again.
        """
        self.close()
        if self._ended is self._closed:
            self._writer.release()

    def seal(self) -> None:
        """Close the session and seal the shard, which the caller has read, and applied, to its null iterator.

        Raises
        ------
        Fenced, StoreUnavailable, StoreRefused
            As in `commit`. The shard may be sealed again.
        SessionClosed
            An error ended the session before everything was saved.
        """
        self.close()
        if self._ended is not None and self._ended is not self._closed:
            raise self._ended
        self._writer.seal()

    def _begin_write(self) -> None:
        objects = CommitObjects(
            self._pipeline,
            self._shard.shard_id,
            owner=self._row.owner or "",
            claim_version=self._row.claim_version + 1,
            arrival_ms=self._fresh.arrival_ms or self._now_ms(),
        )
        failed, late = objects.failed(self._fresh.failed), objects.late(self._fresh.late)
        for item in (failed, late):
            if item is not None:
                self._archive.put(item.name, item.body)
        commit = objects.commit(self._engine, failed, late, committed_at_ms=self._now_ms(), gaps=self._gaps)
        waiting = self._outbox.entries
        write = self._snapshot_of(
            Outbox(
                archive_objects=(
                    *waiting.archive_objects,
                    *objects.panes(self._fresh.panes),
                    *objects.threshold_events(self._fresh.threshold_events),
                    commit,
                ),
                threshold_events=(*waiting.threshold_events, *self._fresh.threshold_events),
                served_panes=(*waiting.served_panes, *self._fresh.served),
            )
        )
        self._writer.begin(write)
        self._fresh = Fresh()

    def _snapshot_of(self, outbox: Outbox) -> SnapshotWrite:
        snapshot = Snapshot(self._engine.snapshot(), outbox, self._gaps)
        return SnapshotWrite(encode_snapshot(snapshot), self._engine.position, outbox, self._gaps)

    def _finish_write(self) -> None:
        """Carry the write in doubt, if there is one, to a known end. Only then does its outbox become deliverable."""
        try:
            saved = self._writer.finish()
        except Fenced as fenced:
            self._ended = fenced
            raise
        if saved is not None:
            self._outbox.replace(saved.outbox)
            self._saved_entries = len(saved.outbox)
            self._saved_gaps = saved.gaps

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended


def apply_rest(session: ShardSession, row: ShardRow, parents: Parents) -> None:
    """Apply a shard from where `row` stood to its end, as its owner, and close the session.

    Raises
    ------
    ParentBehind
        Its results cannot be delivered, or its records not be read. What was applied is saved.
    """
    assert parents.stream is not None, "only who can read a shard takes it over"
    now = replace(row, position=session.position, start=session.start)
    try:
        for records in parents.stream.rest(now, on_gap=session.accept_gap if parents.accept_gap else None):
            session.apply(records)
            session.commit()
    except Backpressure as full:
        raise ParentBehind(full.what, where=full.where) from full
    finally:
        session.close()
