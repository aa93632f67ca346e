"""One of several workers that share a pipeline's shards: it claims what nobody works on, and seals what ends.

Workers know of each other through the rows of the shards alone; see ``docs/adr/0018-leases-of-the-local-host.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import Shard
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.lineage import register_shards
from streamgauge.processors.commit.ports import Fenced, ParentBehind, ShardRow, StateStore, StoreUnavailable
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.progress import LocalProgress, ShardProgress, joined, progress_of
from streamgauge.processors.hosts.shard_run import LocalSettings, Patience, ShardRun
from streamgauge.processors.hosts.stream_shards import StreamUnreadable, list_shards

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

__all__ = ["OpenSession", "Worker"]


class OpenSession(Protocol):
    """`ShardSession.open` with everything else filled in; the arguments are as there."""

    def __call__(  # noqa: D102
        self, shard: Shard, start: str, *, owner: str, seen_version: int | None
    ) -> ShardSession: ...


class Worker:
    """Turns do what is due and never sleep; `due_at` says when the next one is.

    Parameters
    ----------
    open_session
        Claims and restores a shard.
    store
        The rows of all shards.
    clock
        Seconds that only rise.
    name
        Distinguishes the workers that run at a time; never used by one before.
    """

    def __init__(
        self,
        stream: str,
        kinesis: KinesisClient,
        open_session: OpenSession,
        *,
        store: StateStore,
        settings: LocalSettings,
        clock: Callable[[], float],
        name: str | None = None,
    ) -> None:
        self._stream = stream
        self._kinesis = kinesis
        self._open_session = open_session
        self._store = store
        self._settings = settings
        self._clock = clock
        self._name = name or str(uuid4())
        self._rng = Random(self._name)  # noqa: S311 - spreads what workers do, guards no secret

        self._claims = count(1)
        self._watch = ClaimWatch(clock)
        self._surveying = Patience(settings, clock, self._rng)
        self._survey_at = clock()
        self._listed: dict[str, Shard] = {}
        self._known: set[str] = set()
        self._has_surveyed = False
        self._leaves_nothing = False
        self._runs: dict[str, ShardRun] = {}
        self._past: dict[str, ShardProgress] = {}

    @property
    def due_at(self) -> float:
        """When there is something to do again."""
        return min([self._survey_at, *(run.due_at for run in self._runs.values())])

    @property
    def is_finished(self) -> bool:
        """Our shards have seen the end of the input, and all others are in the hands of workers that live."""
        return self._leaves_nothing and all(run.is_finished for run in self._runs.values())

    @property
    def progress(self) -> LocalProgress:
        """How far this worker is."""
        shards = dict(self._past)
        for shard_id, run in self._runs.items():
            shards[shard_id] = joined(self._past.get(shard_id), progress_of(run))
        return LocalProgress(tuple(shards[shard_id] for shard_id in sorted(shards)))

    def turn(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Look at the rows if it is time, claim a shard if there is one for us, and work on each that we have.

        Raises
        ------
        Gap, ParentMissing, ReadFailed, StoreRefused, StoreUnavailable, SnapshotError
            As `run_local` raises them.
        """
        if self._clock() >= self._survey_at:
            self._survey()
        for run in list(self._runs.values()):
            if stopping():
                return
            self._work(run)

    def close(self) -> None:
        """Commit every shard and leave it without an owner, so that another worker may go on at once."""
        for run in list(self._runs.values()):
            run.close()

    def close_after(self, error: BaseException) -> None:
        """Commit what the other shards have; a second error must not hide the first."""
        for run in self._runs.values():
            try:
                run.close(patiently=False)
            except StreamgaugeError as second:
                error.add_note(f"and then {second}")

    # --- one shard ------------------------------------------------------------------------------------------------

    def _work(self, run: ShardRun) -> None:
        try:
            if run.is_at_end and self._clock() >= run.seal_at:
                self._seal(run)
            run.step()
        except Fenced as fenced:
            run.ended_by = str(fenced)
        if run.is_sealed or run.ended_by is not None:
            self._past[run.shard_id] = joined(self._past.get(run.shard_id), progress_of(run))
            del self._runs[run.shard_id]
            self._survey_at = self._clock()
            self._leaves_nothing = False

    def _keep_alive(self) -> None:
        # What one shard delivers must not cost us the others.
        for run in self._runs.values():
            run.keep_alive()

    def _seal(self, run: ShardRun) -> None:
        # Once it is sealed nobody looks at it again: its children need rows before, or nobody would look for them.
        are_named = bool(run.children) or not run.is_listed
        if are_named and self._known.issuperset(run.children):
            run.seal()
            return
        run.seal_at = self._clock() + self._settings.survey_interval_s
        self._listed = {}
        self._survey_at = self._clock()

    # --- all shards -----------------------------------------------------------------------------------------------

    def _survey(self) -> None:
        try:
            rows = self._rows()
        except (StoreUnavailable, StreamUnreadable) as error:
            # What has never worked is more likely wrong than down.
            may_pass = self._has_surveyed and (isinstance(error, StoreUnavailable) or error.is_transient)
            self._survey_at = self._surveying.failed()
            if not may_pass or self._surveying.is_exhausted:
                raise
            return
        self._surveying.succeeded()
        self._has_surveyed = True
        self._survey_at = self._clock() + self._settings.survey_interval_s * (0.75 + self._rng.random() / 4)
        self._take_one(rows)

    def _rows(self) -> list[ShardRow]:
        """All rows; shards that are new to the pipeline get theirs."""
        if not self._listed:
            self._listed = {shard.shard_id: shard for shard in list_shards(self._kinesis, self._stream)}
        rows = register_shards(self._store, list(self._listed.values()), start=self._settings.start)
        if any(not row.sealed and row.shard.shard_id not in self._listed for row in rows):
            # Another worker has seen a reshard, or the stream has forgotten the shard.
            self._listed = {shard.shard_id: shard for shard in list_shards(self._kinesis, self._stream)}
        self._known = {row.shard.shard_id for row in rows}
        return rows

    def _take_one(self, rows: Sequence[ShardRow]) -> None:
        sealed = {row.shard.shard_id for row in rows if row.sealed}
        known = {row.shard.shard_id for row in rows}
        is_kept = {row.shard.shard_id: self._is_kept(row) for row in rows if not row.sealed}
        ready = [
            row
            for row in rows
            if not row.sealed and all(parent in sealed or parent not in known for parent in row.shard.parents)
        ]
        others = [row for row in ready if row.shard.shard_id not in self._runs]
        free = [row for row in others if not is_kept[row.shard.shard_id]]
        kept = [row for row in others if is_kept[row.shard.shard_id]]
        workers = 1 + len({_worker(row) for row in kept})
        room = -(-len(ready) // workers) - len(self._runs)
        # A stream always has an open shard: where no row is unsealed, its row is yet to be written.
        self._leaves_nothing = bool(ready) and not free and all(self._watch.has_moved(row) for row in kept)
        if not ready:
            self._listed = {}
        if free and room > 0:
            self._claim(self._rng.choice(free))
            if len(free) > 1 and room > 1:
                jitter = 0.5 + self._rng.random() / 2
                self._survey_at = self._clock() + self._settings.claim_interval_s * jitter

    def _is_kept(self, row: ShardRow) -> bool:
        """Whether the row's owner may be alive. Our own name in a row without a run: the claim's answer was lost."""
        is_fresh = self._watch.unchanged_s(row) < self._settings.lease_s
        return row.owner is not None and is_fresh and _worker(row) != self._name

    def _claim(self, row: ShardRow) -> None:
        shard_id = row.shard.shard_id
        try:
            session = self._open_session(
                row.shard,
                row.start,
                owner=f"{self._name}.{next(self._claims)}",
                seen_version=row.claim_version,
            )
        except (Fenced, ParentBehind):
            # Another worker was first.
            return
        except StoreUnavailable:
            self._survey_at = self._surveying.failed()
            if self._surveying.is_exhausted:
                raise
            return
        self._runs[shard_id] = ShardRun(
            session,
            kinesis=self._kinesis,
            stream=self._stream,
            settings=self._settings,
            clock=self._clock,
            jitter=self._rng,
            is_listed=shard_id in self._listed,
            on_delivering=self._keep_alive,
        )


def _worker(row: ShardRow) -> str:
    return (row.owner or "").partition(".")[0]
