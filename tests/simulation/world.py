"""One simulated world: everything that a plan names, from the producers to the stores, and how it comes to rest."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from botocore.exceptions import ClientError

from simulation.actor import Actor
from simulation.archiving import Archiver, StreamClient
from simulation.board import Board, StreamFaults
from simulation.clock import START_MS, Clock
from simulation.closed_shards import ClosedShards
from simulation.deployment import Deployment
from simulation.functions import Container, TickFunction
from simulation.inputs import Attempt
from simulation.lambdas import Poller
from simulation.mischief import Mischief
from simulation.pipelines import STREAM, make_pipeline
from simulation.plan import Plan
from simulation.producing import Producer
from simulation.stores import Archive, Bus, ServedTable
from simulation.stranger import Stranger
from simulation.workers import Worker
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.infra.local.kinesis.model import KinesisModel
from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.commit.eventbridge import EventBridgeReceiver
from streamgauge.processors.commit.outbox import OutboxLimits
from streamgauge.processors.commit.ports import Receivers, ShardRow, StateStore, StoreUnavailable
from streamgauge.processors.commit.s3 import ArchiveReceiver
from streamgauge.processors.commit.served_panes import ServedPanesReceiver
from streamgauge.processors.commit.session import ShardSession

__all__ = ["Stuck", "World"]

_FAULTS_MS = 45_000
"""So long things go wrong, at most."""
_HEAL_MS = 120_000
"""And so long a healed world may take to come to rest."""


_ABANDONED_S = 8.0
"""After so long without a sign of life a parent is applied to its end by its child."""


class Stuck(AssertionError):
    """I7: the faults have healed, and something still lags behind."""


@dataclass(frozen=True)
class Checkpoint:
    """What a host noted as done, and the shard's row at that moment."""

    shard_id: str
    position: Position
    row: ShardRow | None


class World:
    """Builds a plan's world; `run` lets it live until it has come to rest."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._rng = Random(f"{plan.seed} world")
        self.clock = Clock(Random(f"{plan.seed} clock"))
        self.stream_faults = StreamFaults(self.clock, Random(f"{plan.seed} throttle"))
        self.board = Board(self.clock, plan.faults, self.stream_faults)
        self.current: Actor | None = None
        self.resharded_ms = -(2**62)
        self.stream_skew_ms = 0
        self.host_skew_ms = 0

        self.pace_ms = max(10, plan.span_ms * plan.producers // plan.events)
        self.batch_records = self._rng.choice((2, 5, 20, 1_000))
        if plan.events > 100:
            # Else reading them all takes longer than a healed world may.
            self.batch_records = max(20, self.batch_records)
        self.commit_every = self._rng.choice((1, 1, 2, 4))
        self._read_ms = self._rng.choice((400, 700, 1_200))

        self.model = KinesisModel(limits=Limits(enforced=plan.limits))
        self.arn = self.model.create_stream(STREAM, plan.shards, now_ms=START_MS - 60_000).arn
        self.model.faults = self.stream_faults
        self.kinesis = StreamClient(self)
        self.live = Deployment.of(1, self.board)
        self.deployments = [self.live]
        self.archive = Archive(self.board)
        self.bus = Bus(self.board)
        self.served = ServedTable(self.board, self._rng)
        self.checkpoints: list[Checkpoint] = []
        self.attempts: list[Attempt] = []

        self.stranger = Stranger(self)
        self.producers = [Producer(self, index, self._share(index)) for index in range(plan.producers)]
        self.archivers = [Archiver(self, index) for index in range(plan.deliverers)]
        self.workers: list[Worker] = []
        self.pollers: dict[str, Poller] = {}
        self.containers: list[Container] = []
        if plan.host == "lambda":
            sandboxes = Random(f"{plan.seed} sandboxes").choice((2, 3, 4))
            self.containers = [Container(self, index) for index in range(sandboxes)]
            self.tick_function = TickFunction(self)
        else:
            pulls = plan.host == "puller"
            self.workers = [Worker(self, f"worker {index}", self.live, pulls=pulls) for index in range(plan.workers)]
        if plan.beside != "nothing":
            self._begin_beside()
        self.resharded()
        self.board.actions = Mischief(self).actions
        if plan.ticks:
            self.clock.after(5_000, self._tick)

    # --- what actors ask ---------------------------------------------------------------------------------------------

    @property
    def stream_ms(self) -> int:
        """The stream's clock."""
        return self.clock.now_ms + self.stream_skew_ms

    @property
    def store(self) -> StateStore:
        """The rows of the pipeline that is live."""
        return self.live.store

    def note_checkpoint(self, shard_id: str, position: Position, deployment: Deployment | None = None) -> None:
        """A host takes everything up to `position` for done."""
        row = (deployment or self.live).store.row(shard_id)
        self.checkpoints.append(Checkpoint(shard_id, position, row))

    def read_interval_ms(self, rng: Random) -> int:
        """How long a reader waits before it reads again."""
        return self._read_ms // 2 + rng.randrange(self._read_ms)

    @staticmethod
    def is_injected(error: Exception) -> bool:
        """Whether the error is what a service outside says, and not a bug."""
        return isinstance(error, ClientError | StoreUnavailable)

    def listed_shards(self) -> list[Shard]:
        """All shards of the stream, closed ones too."""
        states = self.model.describe(STREAM, now_ms=self.stream_ms).shards.values()
        return [Shard(state.shard_id, state.hash_range, state.parents) for state in states]

    abandoned_after_s = _ABANDONED_S

    def open_session(
        self,
        shard: Shard,
        *,
        owner: str,
        version: int,
        watch: ClaimWatch | None,
        seen_version: int | None = None,
        deployment: Deployment | None = None,
    ) -> ShardSession:
        """Open a shard as every host does; `version` is that of the code.

        Raises
        ------
        Fenced, ParentBehind, StoreUnavailable
            As `ShardSession.open`.
        """
        deployment = deployment or self.live
        pipeline = make_pipeline(version, deployment.epoch)
        return ShardSession.open(
            pipeline,
            shard,
            store=deployment.store,
            archive=self.archive,
            receivers=Receivers(
                ArchiveReceiver(self.archive),
                EventBridgeReceiver(self.bus, "bus"),  # type: ignore[arg-type]
                ServedPanesReceiver(
                    self.served,  # type: ignore[arg-type]
                    "panes",
                    pipeline=pipeline.name,
                    state_epoch=pipeline.state_epoch,
                    workers=1,
                ),
            ),
            owner=owner,
            now_ms=lambda: self.clock.now_ms + self.host_skew_ms,
            engine=core_engine(self.arn),
            limits=OutboxLimits(max_entries=60),
            seen_version=seen_version,
            parents=Parents(ClosedShards(self), watch, abandoned_after_s=_ABANDONED_S),
        )

    def resharded(self) -> None:
        """The stream has other shards than before."""
        self.resharded_ms = self.clock.now_ms
        for deployment in self.deployments:
            deployment.resharded(self.listed_shards())
        for shard in self.listed_shards():
            if self.plan.host == "lambda" and shard.shard_id not in self.pollers:
                self.pollers[shard.shard_id] = Poller(self, shard)

    # --- life --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let the world live, heal, come to rest, and stop.

        Raises
        ------
        Stuck
            It does not come to rest.
        """
        self.clock.run(START_MS + _FAULTS_MS, lambda: all(producer.is_done for producer in self.producers))
        self.clock.run(self.clock.now_ms + 5_000)
        self.stream_skew_ms = max(0, self.stream_skew_ms)
        self.board.heal()
        self._rest("after the faults healed")
        # Idle time closes the windows that are still open.
        self.stranger.tick(ahead_ms=3_600_000)
        self.clock.run(self.clock.now_ms + 3_000)
        self._rest("after the last tick")
        for archiver in self.archivers:
            archiver.flush()
        for worker in self.workers:
            worker.close()
        if self.plan.host != "lambda":
            # There every shard's last tick has seen to it.
            self._deliver_rest()

    def _rest(self, when: str) -> None:
        deadline_ms = self.clock.now_ms + _HEAL_MS
        while (
            not self.clock.run(min(self.clock.now_ms + 700, deadline_ms), self._is_at_rest) and not self._is_at_rest()
        ):
            if self.clock.now_ms >= deadline_ms:
                raise Stuck(f"I7: {when}, after {_HEAL_MS} ms: {'; '.join(self._lags())}")

    def _is_at_rest(self) -> bool:
        return next(self._lags(), None) is None

    def _lags(self):
        for producer in self.producers:
            if not producer.is_done:
                yield f"{producer.name} is not done"
        for deployment in self.deployments:
            yield from deployment.behind(self.model.streams[STREAM].shards.values())
        if self.plan.host == "lambda":
            yield from self._unbegun()
        for poller in self.pollers.values():
            if not poller.is_idle:
                yield f"{poller.name} still has a batch"
        if not any(archiver.is_caught_up for archiver in self.archivers):
            yield "the archive lags behind"
        for worker in self.workers:
            for run in worker.runs.values():
                if run.session.outbox_entries:
                    yield f"{run.session.outbox_entries} entries of {run.shard.shard_id} are not delivered"

    def _unbegun(self):
        rows = {row.shard.shard_id: row for row in self.store.rows()}
        for shard in self.listed_shards():
            row = rows.get(shard.shard_id)
            parents = [rows.get(parent) for parent in shard.parents]
            leave_nothing = all(parent and parent.sealed and parent.snapshot_sha256 is None for parent in parents)
            if not leave_nothing and (row is None or row.snapshot_sha256 is None):
                yield f"{shard.shard_id} has not inherited yet"

    def _deliver_rest(self) -> None:
        """What a fenced or crashed owner left in an outbox leaves with whoever opens the shard next."""
        for deployment in self.deployments:
            for row in deployment.store.rows():
                if not row.sealed:
                    self.open_session(row.shard, owner="last", version=2, watch=None, deployment=deployment).close()

    def _begin_beside(self) -> None:
        """Another state_epoch of the pipeline, with a worker of its own."""
        begins_ms, delay_ms = None, self._rng.randrange(15_000)
        if self.plan.beside == "a late start":
            begins_ms = START_MS + self._rng.randrange(3_000, 9_000)
            # By a clock that may be behind the stream's.
            delay_ms = begins_ms - START_MS + 6_000
        deployment = Deployment.of(2, self.board, begins_ms)
        self.deployments.append(deployment)
        self.workers.append(Worker(self, "worker beside", deployment, pulls=True, delay_ms=delay_ms))

    def _share(self, index: int) -> int:
        return self.plan.events // self.plan.producers + (index < self.plan.events % self.plan.producers)

    def _tick(self) -> None:
        if not self.board.healed:
            self.stranger.tick(self._rng.choice((0, 0, 0, -2_000, 2_000)))
            self.clock.after(4_000, self._tick)
