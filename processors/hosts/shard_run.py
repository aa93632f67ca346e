"""One shard in the local host: reads when it may, commits when it is time, and backs off from whatever is down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from streamgauge.processors.commit.ports import Fenced, StoreUnavailable
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.shard_reader import ReadFailed, ShardReader, TryLater

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

__all__ = ["LocalSettings", "Patience", "ShardRun"]


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """How the local host reads and commits.

    ``read_interval_s`` is for each shard: Kinesis allows 5 reads a second for all its readers together, and the
    delivery to the archive is one of them. ``max_backoff_s`` bounds every wait, ``outage_s`` is how long Kinesis or a
    store may be down before the run ends with its error. ``start`` as in `ShardRow`, for shards that are new.

    A shard whose row has not changed for ``lease_s`` may be claimed by another worker; its owner writes the row three
    times as often. ``survey_interval_s`` is how often a worker looks at all rows, ``claim_interval_s`` how soon it
    looks again where it may claim one more. All workers of a pipeline must have the same lease.
    """

    start: str = "TRIM_HORIZON"
    accept_gap: bool = False
    max_records: int = 10_000
    read_interval_s: float = 0.4
    commit_interval_s: float = 1.0
    commit_bytes: int = 16 * 1024 * 1024
    max_backoff_s: float = 5.0
    outage_s: float = 60.0
    lease_s: float = 10.0
    survey_interval_s: float = 1.0
    claim_interval_s: float = 0.1


class Patience:
    """Waits that grow from failure to failure, with jitter, until they have lasted for too long."""

    def __init__(self, settings: LocalSettings, clock: Callable[[], float], jitter: Random) -> None:
        self._settings = settings
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._since: float | None = None

    def succeeded(self) -> None:
        """Begin anew."""
        self._failures = 0
        self._since = None

    def failed(self) -> float:
        """The time at which to try again."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        bound = min(self._settings.max_backoff_s, 0.1 * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return now + bound * (0.5 + self._jitter.random() / 2)

    @property
    def is_exhausted(self) -> bool:
        """Whether failures have lasted for longer than `LocalSettings.outage_s`."""
        return self._since is not None and self._clock() - self._since > self._settings.outage_s


class ShardRun:
    """Drives one session. `step` does what is due and never sleeps; `due_at` says when to call it again."""

    def __init__(
        self,
        session: ShardSession,
        *,
        kinesis: KinesisClient,
        stream: str,
        settings: LocalSettings,
        clock: Callable[[], float],
        jitter: Random,
        is_listed: bool = True,
        on_delivering: Callable[[], None] | None = None,
    ) -> None:
        self.session = session
        self._on_delivering = on_delivering or self.keep_alive
        self.stream = stream
        self.shard_id = session.shard.shard_id
        self.is_listed = is_listed
        self._settings = settings
        self._clock = clock
        self._reader = ShardReader(
            kinesis,
            stream,
            self.shard_id,
            start=session.start,
            after=session.position,
            on_gap=session.accept_gap if settings.accept_gap else None,
            is_listed=is_listed,
        )
        self._reading = Patience(settings, clock, jitter)
        self._committing = Patience(settings, clock, jitter)
        self._read_at = self._commit_at = clock()
        self._shown_version = session.claim_version
        self._renew_at = clock() + settings.lease_s / 3
        self._uncommitted_bytes = 0
        self._positions_before = session.counters.positions
        self._is_at_end = False
        self._trouble: str | None = None
        self.records = 0
        self.size_bytes = 0
        self.ended_by: str | None = None
        self.is_sealed = False
        self._is_sealing = False
        self.seal_at = clock()
        """Not to be sealed before."""

    @property
    def behind_ms(self) -> int | None:
        """How far the shard is behind its newest record, as Kinesis last said."""
        return self._reader.behind_ms

    @property
    def children(self) -> tuple[str, ...]:
        """The shards that go on where this one was closed, once it is read to its end."""
        return self._reader.children

    @property
    def events(self) -> int:
        """Positions applied by this run."""
        return self.session.counters.positions - self._positions_before

    @property
    def waiting_for(self) -> str | None:
        """What keeps the shard waiting, for a person."""
        return self._trouble or self.session.waiting_for

    @property
    def is_at_end(self) -> bool:
        """The shard was closed, read to its end, and all of it is committed: it may be sealed."""
        return self._is_at_end and not self.is_sealed and self.session.committed == self.session.position

    @property
    def is_finished(self) -> bool:
        """The input has ended, nothing is behind it, and everything is committed and delivered."""
        # An end that the state remembers may be that of an earlier input: look what the stream has first.
        is_read = self.session.input_ended and self._reader.behind_ms == 0 and not self._is_at_end
        return is_read and self.session.outbox_entries == 0 and self.session.committed == self.session.position

    @property
    def due_at(self) -> float:
        """When there is something to do again."""
        if self._is_sealing:
            return self.seal_at
        if self._is_commit_due or (self.is_at_end and self._clock() >= self.seal_at):
            return self._clock()
        due = min(self._commit_at, self._renew_at)
        return min(self._read_at, due) if self._may_read else due

    @property
    def _is_commit_due(self) -> bool:
        if self._clock() >= self._commit_at:
            return True
        # Early, because there is much to save; not where the store is down, or where saving makes no room.
        is_much = self._uncommitted_bytes >= self._settings.commit_bytes or not self.session.can_apply
        return is_much and self._trouble is None and self.session.committed != self.session.position

    @property
    def _may_read(self) -> bool:
        # While what was applied cannot be saved or delivered, nothing is added to it.
        return self._trouble is None and not self._is_at_end and self.session.can_apply

    def step(self) -> None:
        """Commit if it is time; read and apply if the shard may be read and the outbox has room; show that we live.

        Raises
        ------
        Fenced
            Somebody else has the shard now.
        Gap, ReadFailed, StoreRefused, StoreUnavailable
            As `run_local` raises them.
        """
        if self._is_sealing:
            # The session is closed.
            return
        if self._is_commit_due:
            self._commit()
        if self._may_read and self._clock() >= self._read_at:
            self._read()
        self._renew()

    def seal(self) -> None:
        """Seal a shard that `is_at_end`, once its children have rows.

        Raises
        ------
        Fenced, StoreRefused, StoreUnavailable
            As `step`.
        """
        self._is_sealing = True
        try:
            self.session.seal()
        except StoreUnavailable:
            self.seal_at = self._committing.failed()
            if self._committing.is_exhausted:
                raise
            return
        self.is_sealed = True

    def close(self, *, patiently: bool = True) -> None:
        """Commit, end the session and leave the shard to whoever comes. One that somebody else has taken is theirs.

        Raises
        ------
        StoreUnavailable, StoreRefused
            What was applied since the last commit is not saved; the next run reads it again.
        """
        try:
            self.session.release()
        except Fenced as fenced:
            self.ended_by = str(fenced)
        except StoreUnavailable:
            if not patiently:
                raise
            self.session.release()

    def keep_alive(self) -> None:
        """Show that we live, if it is time, in the middle of other work; who is fenced learns of it later."""
        with suppress(Fenced):
            self._renew()

    def _renew(self) -> None:
        if self.session.claim_version != self._shown_version:
            self._shown_version = self.session.claim_version
            self._renew_at = self._clock() + self._settings.lease_s / 3
        if self._clock() < self._renew_at:
            return
        try:
            self.session.renew()
        except StoreUnavailable as error:
            self._trouble = str(error)
            self._renew_at = self._commit_at = self._committing.failed()
            if self._committing.is_exhausted:
                raise
            return
        self._shown_version = self.session.claim_version
        self._renew_at = self._clock() + self._settings.lease_s / 3

    def _commit(self) -> None:
        try:
            self.session.commit(between=self._on_delivering)
        except StoreUnavailable as error:
            self._trouble = str(error)
            self._commit_at = self._committing.failed()
            if self._committing.is_exhausted:
                raise
            return
        self._trouble = None
        self._uncommitted_bytes = 0
        if self.session.waiting_for is None:
            self._committing.succeeded()
            self._commit_at = self._clock() + self._settings.commit_interval_s
        else:
            # A receiver may be down for as long as it likes: the outbox holds it, and then the shard waits.
            self._commit_at = max(self._committing.failed(), self._clock() + self._settings.commit_interval_s)

    def _read(self) -> None:
        try:
            batch = self._reader.read(self._settings.max_records)
        except TryLater as later:
            self._read_at = self._reading.failed()
            if self._reading.is_exhausted and not later.is_throttled:
                raise ReadFailed(
                    f"no usable answer for {self._settings.outage_s:g} s: {later.what}",
                    where=later.where,
                    remedy="Is Kinesis running, and reachable from here?",
                ) from later
            return
        self._reading.succeeded()
        self._read_at = self._clock() + self._settings.read_interval_s
        self.records += len(batch.records)
        self.size_bytes += batch.size_bytes
        self._uncommitted_bytes += batch.size_bytes
        if batch.records:
            self.session.apply(batch.records)
        is_end = self._reader.is_closed or self.session.input_ended
        if is_end and self.session.committed != self.session.position:
            self._commit_at = self._clock()
        self._is_at_end = self._reader.is_closed
