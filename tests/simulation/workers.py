"""Workers that compete for shards by leases: a reader for each shard, a session, and a checkpoint in the lease.

As pullers they read with the product's `ShardReader`, from where the session's state stands. As the KCL does they are
handed what comes after the lease's checkpoint, which may be older than the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulation.actor import Actor
from simulation.deployment import Deployment, Lease
from simulation.pipelines import STREAM
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.lineage import register_shards
from streamgauge.processors.commit.ports import Backpressure, Fenced, ParentBehind, StoreUnavailable
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.shard_reader import ShardReader, TryLater

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["LEASE_MS", "Worker"]

LEASE_MS = 6_000


class CheckpointReader:
    """The KCL's reading, which is not ours: everything after a checkpoint."""

    def __init__(self, world: World, shard_id: str, checkpoint: Position | None) -> None:
        self._world = world
        self._shard_id = shard_id
        self._last = None if checkpoint is None else str(checkpoint.sequence_number)
        self._iterator: str | None = None
        self.is_closed = False

    def read(self, limit: int) -> list[StreamRecord]:
        client = self._world.kinesis
        try:
            if self._iterator is None:
                where = {"ShardIteratorType": "TRIM_HORIZON"}
                if self._last is not None:
                    where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": self._last}
                iterator = client.get_shard_iterator(StreamName=STREAM, ShardId=self._shard_id, **where)
                self._iterator = str(iterator["ShardIterator"])
            records, self._iterator = client.read(self._iterator, limit)
        except Exception:
            self._iterator = None
            raise
        if records:
            self._last = records[-1].sequence_number
        self.is_closed = self._iterator is None
        return records


@dataclass
class Run:
    """One shard in the hands of one worker."""

    shard: Shard
    session: ShardSession
    reader: ShardReader | CheckpointReader
    counter: int
    uncommitted: int = 0
    held: list[StreamRecord] | None = None
    is_sealing: bool = False


class Worker(Actor):
    """One process that works on several shards of one deployment."""

    def __init__(self, world: World, name: str, deployment: Deployment, *, pulls: bool, delay_ms: int = 0) -> None:
        super().__init__(world, name)
        self.deployment = deployment
        self._pulls = pulls
        self.runs: dict[str, Run] = {}
        self.version = 1
        self.working_on: Shard | None = None
        self._seen: dict[str, tuple[int, int]] = {}
        self._watch = ClaimWatch(lambda: self.clock.now_ms / 1_000)
        self._lives = 0
        self._begins_ms = self.clock.now_ms + delay_ms
        self.after(delay_ms + self.rng.randrange(1_000), self._start)

    def lose_memory(self) -> None:
        self.runs.clear()
        self._seen.clear()

    def restart(self, *, upgrade: bool) -> None:
        if upgrade:
            self.version = 2
        self.after(max(0, self._begins_ms - self.clock.now_ms), self._start)

    def _start(self) -> None:
        try:
            register_shards(self.deployment.store, self.world.listed_shards(), start=self.deployment.start)
        except StoreUnavailable:
            self.after(1_000, self._start)
            return
        self._turn()

    # --- leases ------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Renew what is ours, drop what is not any more, take what nobody renews."""
        leases = self.deployment.leases
        for shard_id, run in list(self.runs.items()):
            lease = leases[shard_id]
            if lease.owner != self.name or lease.counter != run.counter:
                del self.runs[shard_id]
                continue
            lease.counter += 1
            run.counter = lease.counter
            self._renew(run)
        for shard in self.world.listed_shards():
            if shard.shard_id not in self.runs and self._may_take(shard.shard_id):
                self.take(shard)
        self.after(500 + self.rng.randrange(1_000), self._turn)

    def _renew(self, run: Run) -> None:
        """Show those who wait for the shard that its owner lives."""
        if not run.is_sealing and self.rng.random() < 0.3:
            try:
                run.session.renew()
            except Fenced:
                self.runs.pop(run.shard.shard_id, None)
            except StoreUnavailable:
                pass

    def _may_take(self, shard_id: str) -> bool:
        lease = self.deployment.leases[shard_id]
        if lease.is_over:
            return False
        now_ms = self.clock.now_ms
        counter, since_ms = self._seen.get(shard_id, (-1, 0))
        if counter != lease.counter:
            self._seen[shard_id] = lease.counter, now_ms
            return lease.owner is None and self.rng.random() < 0.6
        return now_ms - since_ms > LEASE_MS

    def take(self, shard: Shard) -> None:
        """Take the lease, and with it the shard."""
        self.working_on = shard
        lease = self.deployment.leases[shard.shard_id]
        lease.owner, lease.counter = self.name, lease.counter + 1
        counter = lease.counter
        self._lives += 1
        try:
            session = self.world.open_session(
                shard,
                owner=f"{self.name}/{self._lives}",
                version=self.version,
                watch=self._watch,
                deployment=self.deployment,
            )
        except Fenced:
            row = self.deployment.store.row(shard.shard_id)
            lease.is_over = row is not None and row.sealed
        except (ParentBehind, StoreUnavailable):
            pass
        else:
            self._begin(shard, session, lease, counter)
            return
        if lease.counter == counter:
            lease.owner = None

    def _begin(self, shard: Shard, session: ShardSession, lease: Lease, counter: int) -> None:
        if self._pulls:
            reader: ShardReader | CheckpointReader = ShardReader(
                self.world.kinesis,  # type: ignore[arg-type]
                STREAM,
                shard.shard_id,
                start=session.start,
                after=session.position,
                on_gap=None,
            )
        else:
            reader = CheckpointReader(self.world, shard.shard_id, lease.checkpoint)
        run = self.runs[shard.shard_id] = Run(shard, session, reader, counter)
        self.after(self.rng.randrange(200), lambda: self._step(run))

    # --- one shard ---------------------------------------------------------------------------------------------------

    def _step(self, run: Run) -> None:
        shard_id = run.shard.shard_id
        if self.runs.get(shard_id) is not run:
            return
        self.working_on = run.shard
        try:
            is_over = self._work(run)
        except Fenced:
            self.runs.pop(shard_id, None)
            return
        if is_over:
            del self.runs[shard_id]
            self.deployment.leases[shard_id].is_over = True
            return
        self.after(self.world.read_interval_ms(self.rng), lambda: self._step(run))

    def _work(self, run: Run) -> bool:
        session = run.session
        if run.is_sealing:
            return self._seal(run)
        if run.held is None and session.can_apply and not run.reader.is_closed:
            run.held = self._read(run)
        if run.held:
            try:
                self.board.reach("apply.before")
                session.apply(run.held)
                self.board.reach("apply.after")
            except Backpressure:
                pass
            else:
                run.uncommitted += 1
                run.held = None
        else:
            run.held = None
        is_due = run.uncommitted >= self.world.commit_every or run.reader.is_closed or self.rng.random() < 0.2
        if is_due:
            try:
                committed = session.commit()
            except StoreUnavailable:
                return False
            run.uncommitted = 0
            self._checkpoint(run, committed)
        if not run.reader.is_closed or run.held is not None:
            return False
        return self._seal(run)

    @staticmethod
    def _seal(run: Run) -> bool:
        run.is_sealing = True
        try:
            run.session.seal()
        except StoreUnavailable:
            return False
        return True

    def _read(self, run: Run) -> list[StreamRecord] | None:
        limit = self.world.batch_records
        try:
            self.board.reach("read.before")
            if isinstance(run.reader, CheckpointReader):
                records = run.reader.read(limit)
            else:
                records = run.reader.read(limit).records
            self.board.reach("read.after")
        except TryLater:
            return None
        except Exception as error:
            if not self.world.is_injected(error):
                raise
            return None
        return records

    def _checkpoint(self, run: Run, committed: Position | None) -> None:
        lease = self.deployment.leases[run.shard.shard_id]
        if committed is None or lease.checkpoint == committed:
            return
        self.board.reach("checkpoint.before")
        if lease.owner == self.name and lease.counter == run.counter:
            lease.checkpoint = committed
            self.world.note_checkpoint(run.shard.shard_id, committed, self.deployment)
        self.board.reach("checkpoint.after")

    def close(self) -> None:
        """A clean stop: every session is closed."""
        for run in self.runs.values():
            try:
                run.session.close()
            except Fenced:
                continue
        self.runs.clear()
