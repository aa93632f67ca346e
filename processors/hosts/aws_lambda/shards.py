"""Batches of an event source, applied by the sandbox that they happen to reach.

Between invocations a sandbox keeps the state of its shards; what it kept is good as long as its commit goes through.
See ``docs/adr/0019-lambda-host.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import StreamRecord
from streamgauge.processors.commit.lineage import register_shards
from streamgauge.processors.commit.ports import (
    Fenced,
    ParentBehind,
    ShardRow,
    StateStore,
    StoreUnavailable,
)
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.aws_lambda.batches import Answer, Batch, Work, runs
from streamgauge.processors.hosts.aws_lambda.time_left import TimeLeft
from streamgauge.processors.hosts.aws_lambda.warm import Held, WarmShards
from streamgauge.processors.hosts.gap import read_gap
from streamgauge.processors.hosts.shard_reader import ReadFailed, ShardReader, TryLater
from streamgauge.processors.hosts.stream_shards import StreamUnreadable, list_shards
from streamgauge.processors.hosts.worker import OpenSession

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

__all__ = ["BatchSettings", "NotApplied", "ShardBatches"]


class NotApplied(StreamgaugeError):
    """A record lies beyond the end up to which its shard was applied before it was sealed."""


class _TimeIsOver(Exception):
    """Only enough time is left to answer."""


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How a sandbox works.

    ``accept_gap``: go on where records are gone from the stream; counted and named in every commit. ``run_bytes`` is
    how much is applied between two looks at the clock. ``warm_bytes`` bounds the saved states of the shards that a
    sandbox remembers; the one used last is always kept. ``parent_wait_s`` is how long a child's batch waits for a
    parent in place.
    """

    accept_gap: bool = False
    run_bytes: int = 512 * 1024
    warm_bytes: int = 64 * 1024 * 1024
    backoff_s: float = 0.02
    max_backoff_s: float = 3.0
    parent_wait_s: float = 5.0


class ShardBatches:
    """What one sandbox knows of its shards, and does with their batches. Not thread-safe.

    Parameters
    ----------
    open_session
        Claims and restores a shard: `ShardSession.open` with everything else filled in.
    store
        The rows of the pipeline, as `open_session` uses them.
    now_ms
        Milliseconds since the epoch.
    new_owner
        A fresh UUID at each call.
    rng
        Spreads what sandboxes do that were in each other's way.
    """

    def __init__(
        self,
        stream: str,
        kinesis: KinesisClient,
        open_session: OpenSession,
        *,
        store: StateStore,
        time: TimeLeft,
        now_ms: Callable[[], int],
        rng: Random,
        new_owner: Callable[[], str],
        settings: BatchSettings | None = None,
    ) -> None:
        self._stream = stream
        self._kinesis = kinesis
        self._open_session = open_session
        self._store = store
        self._time = time
        self._rng = rng
        self._new_owner = new_owner
        self._settings = settings or BatchSettings()

        self._warm = WarmShards(store, max_bytes=self._settings.warm_bytes, now_ms=now_ms)

    @property
    def warm(self) -> tuple[str, ...]:
        """The shards whose state is at hand, the one used last at the end."""
        return self._warm.shards

    def process(
        self, shard_id: str, records: Sequence[StreamRecord], *, left_s: float, total_s: float | None = None
    ) -> Answer:
        """Apply records of one shard, in stream order, and commit; stop in time where there is not enough of it.

        Parameters
        ----------
        left_s
            Seconds until the invocation is killed.
        total_s
            Seconds that it had at its beginning, where a cold start has used up some.

        Raises
        ------
        Gap, NotApplied, ParentMissing, ReadFailed, SnapshotError, StoreRefused
            Somebody has to do something. The batch must come back, for ever; what is committed stays.
        """
        self._time.begin(left_s, total_s=total_s)
        work, batch = Work(), Batch(shard_id, records)
        try:
            return self._process(batch, work)
        except BaseException:
            # Whatever a session was in the middle of, the next invocation begins from what is saved.
            self._warm.forget(shard_id)
            raise

    def _process(self, batch: Batch, work: Work) -> Answer:
        if (held := self._warm.get(batch.shard_id)) is not None:
            work.begin(held.session)
        parent_until = self._time.clock() + self._settings.parent_wait_s
        failures = 0
        while True:
            trouble: StreamgaugeError
            try:
                return self._attempt(batch, work)
            except Fenced as fenced:
                self._warm.was_fenced(batch.shard_id)
                work.conflicts += 1
                work.undo()
                trouble = fenced
            except (StoreUnavailable, TryLater) as error:
                # A write in doubt is carried to its end by the session that began it.
                trouble = error
            except StreamUnreadable as error:
                if not error.is_transient:
                    raise
                trouble = error
            except ParentBehind as error:
                trouble = error
                if self._time.clock() >= parent_until:
                    return Answer(batch.rest(work.committed), str(trouble), work)
            if self._time.is_short or not self._time.wait(self._backoff_s(failures)):
                return Answer(batch.rest(work.committed), str(trouble), work)
            failures += 1

    def _attempt(self, batch: Batch, work: Work) -> Answer:
        if self._warm.is_overtaken(batch.shard_id):
            work.is_overtaken = True
            work.undo()
        held = self._warm.get(batch.shard_id)
        if held is None and self._time.is_short:
            # Killed in the middle of a claim, this sandbox would never become warm.
            return Answer(batch.rest(work.committed), "the time of the invocation is used up", work)
        held = held or self._open(batch, work)
        if held is None:
            return Answer(None, None, work)
        self._warm.use(batch.shard_id, held)
        reason = None if held.is_joined else self._join(held, batch, work)
        if reason is None:
            reason = self._apply(held.session, batch.records, work)
        self._commit(held.session, work)
        failed_from = batch.rest(work.committed)
        if failed_from != batch.records[0].sequence_number:
            self._warm.committed(batch.shard_id, held, arrival_ms=batch.records[0].arrival_ms)
        return Answer(failed_from, reason if failed_from else None, work)

    # --- a shard that is not ours yet, or not any more ----------------------------------------------------------------

    def _open(self, batch: Batch, work: Work) -> Held | None:
        """Claim the shard; None if there is nothing left to do."""
        row = self._store.row(batch.shard_id) or self._register(batch.shard_id)
        is_others = row.sealed or work.conflicts or work.is_overtaken
        if is_others and batch.is_covered_by(row.position):
            # Another invocation has done its work, or a child has.
            work.committed = row.position
            return None
        if row.sealed:
            raise NotApplied(
                f"the shard was applied up to {row.position or 'its beginning'} and sealed, and there is still the "
                f"record {batch.rest(row.position)}",
                where=f"stream {self._stream}, shard {batch.shard_id}",
                remedy="Was the stream deleted and created anew? Then raise state_epoch to begin from nothing",
            )
        if row.position is None and row.start != "TRIM_HORIZON":
            raise ReadFailed(
                f"the shard's row says that it begins {row.start}, but the event source sends all of it",
                where=f"stream {self._stream}, shard {batch.shard_id}",
                remedy="Process the shard's beginning with the host that began the pipeline, or raise state_epoch",
            )
        work.claims += 1
        session = self._open_session(row.shard, row.start, owner=self._new_owner(), seen_version=row.claim_version)
        work.begin(session)
        return self._warm.taken(batch.shard_id, session)

    def _register(self, shard_id: str) -> ShardRow:
        """The row of a shard that has none. All that the stream lists get theirs before one of them is claimed."""
        rows = register_shards(self._store, list_shards(self._kinesis, self._stream), start="TRIM_HORIZON")
        found = next((row for row in rows if row.shard.shard_id == shard_id), None)
        if found is None:
            raise ReadFailed(
                "the stream does not list the shard of which it sends records",
                where=f"stream {self._stream}, shard {shard_id}",
                remedy="Does the pipeline file name the stream of the event source?",
            )
        return found

    # --- records ------------------------------------------------------------------------------------------------------

    def _join(self, held: Held, batch: Batch, work: Work) -> str | None:
        """Apply what the stream holds between the state and the batch; why it could not all be, if so."""
        session = held.session
        position = session.position
        if position is None or position.sequence_number < batch.first:
            reader = ShardReader(
                self._kinesis,
                self._stream,
                batch.shard_id,
                start=session.start,
                after=position,
                on_gap=session.accept_gap if self._settings.accept_gap else None,
            )
            reached = -1 if position is None else position.sequence_number
            try:
                for records in read_gap(reader, until=batch.first, first_records=2, sleep=self._pause):
                    work.gap_records += sum(int(record.sequence_number) > reached for record in records)
                    if (reason := self._apply(session, records, work)) is not None:
                        return reason
            except _TimeIsOver:
                return "what lies before the batch is being read"
        held.is_joined, held.arrival_ms = True, batch.records[0].arrival_ms
        return None

    def _pause(self, seconds: float) -> None:
        if not self._time.wait(seconds):
            raise _TimeIsOver

    def _apply(self, session: ShardSession, records: Sequence[StreamRecord], work: Work) -> str | None:
        """Apply records until time is short; why not all of them, if so."""
        for run in runs(records, self._settings.run_bytes):
            if self._time.is_short:
                return "the time of the invocation is used up"
            failures = 0
            while not session.can_apply:
                self._commit(session, work)
                if not session.can_apply:
                    if not self._time.wait(self._backoff_s(failures)):
                        return f"{session.outbox_entries} results wait to be delivered ({session.waiting_for})"
                    failures += 1
            session.apply(run)
        return None

    def _commit(self, session: ShardSession, work: Work) -> None:
        began = self._time.clock()
        before = session.committed

        def between() -> None:
            if self._time.is_over:
                raise _TimeIsOver

        try:
            session.commit(between)
        except _TimeIsOver:
            # The state is saved; the rest of its outbox is delivered with the next commit.
            pass
        finally:
            took = self._time.clock() - began
            work.commit_s += took
            work.look(session)
        if session.committed != before:
            self._time.note_commit(took)

    def _backoff_s(self, failures: int) -> float:
        bound = min(self._settings.max_backoff_s, self._settings.backoff_s * 2.0 ** min(failures, 10))
        return bound * (0.5 + self._rng.random() / 2)
