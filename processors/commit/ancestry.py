"""How a shard comes by its first state: every parent is applied to its end, sealed, and handed over.

The reasons are in ``docs/adr/0009-commit-protocol.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.hash_key import HashRange
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.engine_port import EngineFactory
from streamgauge.processors.commit.lineage import is_covered
from streamgauge.processors.commit.ports import Fenced, ParentBehind, ShardRow, StateStore, StoreUnavailable
from streamgauge.processors.commit.snapshots import Snapshot, decode_snapshot, encode_snapshot
from streamgauge.processors.core.container import Columns
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import Outbox
from streamgauge.processors.core.handover import ParentState, inherit, split_outbox

__all__ = ["CORE_HANDOVER", "Ancestry", "Handover", "ParentMissing", "ParentStream", "Parents"]


class ParentMissing(StreamgaugeError):
    """A parent was never processed, and the stream does not list it any more."""


class ParentStream(Protocol):
    """Reads closed shards, whoever's they are: to see that nothing remains in a parent, or to apply what does."""

    def shard(self, shard_id: str) -> Shard | None:
        """The shard as the stream lists it; None where it does not any more."""
        ...

    def rest(self, row: ShardRow, *, on_gap: Callable[[str], None] | None) -> Iterator[Sequence[StreamRecord]]:
        """The records from where `row` stands (*at* its position, or from its start) to the null iterator.

        A batch may be empty. Where the record at the position does not come back, `on_gap` is called as
        `ShardSession.accept_gap` is; None: that is an error.

        Raises
        ------
        ParentBehind
            No answer now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Handover:
    """What becomes of state at a reshard: pure functions of `processors.core`, or scripted ones.

    ``inherit`` makes a child's first columns. ``split_outbox`` takes what of a parent's outbox is a child's.
    ``keep`` makes what stays of a sealed shard's columns, from those of a new engine and its own: the counters.
    """

    inherit: Callable[[Pipeline, Shard, Sequence[ParentState]], Columns]
    split_outbox: Callable[[Outbox, HashRange], Outbox]
    keep: Callable[[Columns, Columns], Columns]


def _keep_counters(fresh: Columns, columns: Columns) -> Columns:
    return {**fresh, "position": columns["position"], "counters": columns["counters"]}


CORE_HANDOVER = Handover(inherit, split_outbox, _keep_counters)


@dataclass(frozen=True, slots=True)
class Parents:
    """How a session deals with the parents of its shard.

    ``stream`` reads them; without it a parent must have been sealed by its own host. With ``watch`` a parent whose row
    has not changed for ``abandoned_after_s`` seconds is claimed, applied to its end and sealed by the child.
    ``accept_gap``: go on without records, or parents, that are gone from the stream; noted as in `CommitRow.gaps`.
    """

    stream: ParentStream | None = None
    watch: ClaimWatch | None = None
    abandoned_after_s: float = 60.0
    accept_gap: bool = False
    handover: Handover = CORE_HANDOVER


class Ancestry:
    """Seals what lies before a shard, and hands its state over.

    Parameters
    ----------
    owner
        Used where a parent has to be written by us; never used for that shard before.
    start
        Where a parent begins that has no row, as `ShardRow` describes it.
    apply_rest
        Claims a parent, if its row is still as given, applies it to its end, commits, and ends the session.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: StateStore,
        parents: Parents,
        *,
        engine: EngineFactory,
        owner: str,
        start: str,
        now_ms: Callable[[], int],
        apply_rest: Callable[[ShardRow], None],
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._parents = parents
        self._engine = engine
        self._owner = owner
        self._start = start
        self._now_ms = now_ms
        self._apply_rest = apply_rest

    def first_snapshot(self, shard: Shard) -> Snapshot | None:
        """Seal every parent of `shard`, and make of their states the one with which it begins; None: with nothing.

        Raises
        ------
        ParentBehind
            A parent is not at its end, or somebody works on it at this moment.
        ParentMissing
            A parent has no row, and the stream does not list it.
        Fenced
            Somebody else has begun the shard.
        """
        rows, gaps = [], []
        for parent in shard.parents:
            row = self._row(parent)
            if row is None:
                gaps.append(self._missing(shard, parent))
            else:
                rows.append(self._sealed(row, shard))
        saved = [(row, self._saved(row)) for row in rows]
        if not gaps and all(snapshot is None for _, snapshot in saved):
            return None
        states, outboxes = [], []
        for row, snapshot in saved:
            states.append(ParentState(row.shard, None if snapshot is None else snapshot.engine))
            if snapshot is not None:
                outboxes.append(self._parents.handover.split_outbox(snapshot.outbox, shard.hash_range))
        columns = self._parents.handover.inherit(self._pipeline, shard, states) if states else self._fresh(shard)
        return Snapshot(columns, _joined(outboxes), tuple(gaps))

    def save_first(self, row: ShardRow, snapshot: Snapshot) -> ShardRow:
        """Save a shard's first snapshot; what it inherited need not be kept by its parents any longer.

        Raises
        ------
        Fenced
            Somebody else has claimed the shard.
        """
        encoded = encode_snapshot(snapshot)
        try:
            row = self._store.commit(row, snapshot=encoded, position=None, now_ms=self._now_ms())
        except StoreUnavailable:
            row = self._store.commit(row, snapshot=encoded, position=None, now_ms=self._now_ms())
        return row

    def reduce_parents(self, shard: Shard) -> None:
        """Drop the state of those parents of `shard` whose whole range is in the hands of shards that have saved it.

        What fails here is made up for when a child is opened next.
        """
        for parent in shard.parents:
            with suppress(Fenced, StoreUnavailable):
                self._reduce(parent)

    def _reduce(self, shard_id: str) -> None:
        row = self._store.row(shard_id)
        if row is None or not row.sealed or row.reduced or row.snapshot_sha256 is None:
            return
        children = [child for child in self._store.rows() if shard_id in child.shard.parents]
        heirs = (child.shard.hash_range for child in children if child.snapshot_sha256 is not None)
        if not is_covered(row.shard.hash_range, heirs):
            return
        snapshot = self._saved(row)
        assert snapshot is not None, "a row with a hash has a snapshot"
        columns = self._parents.handover.keep(self._fresh(row.shard), snapshot.engine)
        self._store.reduce(row, snapshot=encode_snapshot(Snapshot(columns, Outbox(), snapshot.gaps)))

    def _row(self, shard_id: str) -> ShardRow | None:
        row = self._store.row(shard_id)
        stream = self._parents.stream
        listed = stream.shard(shard_id) if row is None and stream is not None else None
        return row if listed is None else self._store.create(listed, start=self._start)

    def _missing(self, shard: Shard, parent: str) -> str:
        if not self._parents.accept_gap:
            raise ParentMissing(
                f"its parent {parent} was never processed, and the stream does not list it any more",
                where=f"shard {shard.shard_id}",
                remedy="What it held is lost. Go on without it with --accept-gap, a function with "
                "STREAMGAUGE_ACCEPT_GAP=true (named in every commit), or raise state_epoch to begin from nothing",
            )
        return f"{parent}: all of it"

    def _sealed(self, row: ShardRow, child: Shard) -> ShardRow:
        if row.sealed:
            return row
        try:
            return self._seal(row, child)
        except Fenced as fenced:
            raise ParentBehind(
                f"somebody works on its parent {row.shard.shard_id} ({fenced.what})", where=f"shard {child.shard_id}"
            ) from fenced

    def _seal(self, row: ShardRow, child: Shard) -> ShardRow:
        # The row as read here is what the seal depends on: a write to it since then refuses the seal.
        snapshot = self._saved(row)
        inherited = self.first_snapshot(row.shard) if snapshot is None else None
        if self._has_rest(row, snapshot or inherited):
            self._wait_for(row, child)
            self._apply_rest(row)
            applied = self._store.row(row.shard.shard_id)
            assert applied is not None, f"the row of {row.shard.shard_id} was deleted by a stranger"
            return self._store.seal(applied)
        if inherited is not None:
            row = self._store.claim(row.shard.shard_id, owner=self._owner, seen_version=row.claim_version)
            row = self.save_first(row, inherited)
            self.reduce_parents(row.shard)
        return self._store.seal(row)

    def _has_rest(self, row: ShardRow, snapshot: Snapshot | None) -> bool:
        """Whether the shard holds anything that its row does not cover."""
        stream = self._parents.stream
        if stream is None:
            return True
        gaps: list[str] = []
        engine = None
        for records in stream.rest(row, on_gap=gaps.append if self._parents.accept_gap else None):
            reached = -1 if row.position is None else row.position.sequence_number
            if any(int(record.sequence_number) > reached for record in records):
                return True
            if records:
                # The record at the position, which may have been applied in part only: the engine knows.
                engine = engine or self._engine(self._pipeline, row.shard, snapshot.engine if snapshot else None)
                engine.apply(records)
                if engine.position != row.position:
                    return True
        return bool(gaps)

    def _wait_for(self, row: ShardRow, child: Shard) -> None:
        """Return only if the parent is abandoned, and can be read by us."""
        watch, parents = self._parents.watch, self._parents
        if parents.stream is None or watch is None or watch.unchanged_s(row) < parents.abandoned_after_s:
            raise ParentBehind(
                f"its parent {row.shard.shard_id} has not been applied to its end yet", where=f"shard {child.shard_id}"
            )

    def _saved(self, row: ShardRow) -> Snapshot | None:
        if row.reduced:
            # Only after every child has saved its own: whoever asks is about to begin one that has begun.
            raise Fenced("its descendants have its state already", where=f"shard {row.shard.shard_id}")
        blob = self._store.snapshot(row)
        return None if blob is None else decode_snapshot(blob, where=f"shard {row.shard.shard_id}, snapshot")

    def _fresh(self, shard: Shard) -> Columns:
        return self._engine(self._pipeline, shard, None).snapshot()


def _joined(outboxes: Sequence[Outbox]) -> Outbox:
    return Outbox(
        tuple(item for outbox in outboxes for item in outbox.archive_objects),
        tuple(event for outbox in outboxes for event in outbox.threshold_events),
        tuple(batch for outbox in outboxes for batch in outbox.served_panes),
    )
