"""The sandboxes of Lambda's functions: each keeps in memory what the product keeps, until it dies."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from simulation.actor import Actor
from simulation.archiving import StreamClient
from simulation.board import Crash
from simulation.faults import Kind
from simulation.pipelines import STREAM
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.infra.local.kinesis.faults import Faults
from streamgauge.infra.local.kinesis.model import PutEntry
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.ports import Fenced, ParentBehind, StoreUnavailable
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.aws_lambda.shards import BatchSettings, ShardBatches
from streamgauge.processors.hosts.aws_lambda.time_left import TimeLeft
from streamgauge.processors.hosts.stream_shards import StreamUnreadable
from streamgauge.processors.hosts.ticks import TickCounts, start_children, tick_once

if TYPE_CHECKING:
    from simulation.lambdas import Invocation, Poller
    from simulation.world import World

__all__ = ["TIMEOUT_MS", "Container", "TickFunction"]

TIMEOUT_MS = 5_000
_SLOW_S = 0.9


class FunctionKinesis(StreamClient):
    """The calls that functions make beside reading. What they put lands."""

    def list_shards(
        self,
        *,
        StreamName: str,  # noqa: N803
        ShardFilter: Mapping[str, str] | None = None,  # noqa: N803
    ) -> Mapping[str, object]:
        answer = super().list_shards(StreamName=StreamName)
        if ShardFilter is None:
            return answer
        shards: list[dict[str, dict[str, str]]] = answer["Shards"]  # type: ignore[assignment]
        return {"Shards": [each for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"]]}

    def put_record(
        self,
        *,
        StreamName: str,  # noqa: N803
        Data: bytes,  # noqa: N803
        PartitionKey: str,  # noqa: N803
        ExplicitHashKey: str,  # noqa: N803
    ) -> None:
        faults, self.model.faults = self.model.faults, Faults()
        try:
            entry = PutEntry(PartitionKey, Data, int(ExplicitHashKey))
            self._call(lambda: self.model.put_records(StreamName, [entry], now_ms=self.now_ms))
        finally:
            self.model.faults = faults


class Function(Actor):
    """A sandbox of either function."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.version = 1
        self.working_on: Shard | None = None
        self._owners = count(1)
        self._lost_s = 0.0
        self._apply_s = 0.0
        self._kinesis = FunctionKinesis(world, "read")
        self._watch = ClaimWatch(self._now_s)

    def restart(self, *, upgrade: bool) -> None:
        if upgrade:
            self.version = 2

    def new_owner(self) -> str:
        return f"{self.name}/{next(self._owners)}"

    def open(self, shard: Shard, start: str, *, owner: str, seen_version: int | None) -> ShardSession:
        """As the product's wiring does it."""
        del start
        session = self.world.open_session(
            shard, owner=owner, version=self.version, watch=self._watch, seen_version=seen_version
        )
        apply = session.apply

        def watched(records: list[StreamRecord]) -> None:
            self.board.reach("apply.before")
            apply(records)
            self._lost_s += self._apply_s
            self.board.reach("apply.after")

        session.apply = watched  # type: ignore[method-assign, assignment]
        return session

    def _now_s(self) -> float:
        return self.clock.now_ms / 1_000 + self._lost_s

    def _sleep(self, seconds: float) -> None:
        """Let the others go on; a clock that stands still, because too many wait in each other, passes all the same."""
        until = self._now_s() + seconds
        self.clock.pause(round(seconds * 1_000))
        self._lost_s += max(0.0, until - self._now_s())


class Container(Function):
    """A sandbox of the processor, which any shard's batches may reach."""

    def __init__(self, world: World, index: int) -> None:
        super().__init__(world, f"container {index}")
        self._settings = BatchSettings(
            run_bytes=1 if self.rng.random() < 0.4 else 512 * 1024,
            warm_bytes=self.rng.choice((0, 64 * 1024 * 1024)),
        )
        self.lose_memory()

    def lose_memory(self) -> None:
        self.working_on = None
        self._watch = ClaimWatch(self._now_s)
        self._batches = ShardBatches(
            STREAM,
            self._kinesis,  # type: ignore[arg-type]
            self.open,
            store=self.world.store,
            time=TimeLeft(self._now_s, self._sleep),
            now_ms=lambda: self.clock.now_ms,
            rng=self.rng,
            new_owner=self.new_owner,
            settings=self._settings,
        )

    def steal(self, shard: Shard) -> None:
        """Claim the shard and do nothing with it."""
        with suppress(Fenced, ParentBehind, StoreUnavailable):
            self.open(shard, "TRIM_HORIZON", owner=self.new_owner(), seen_version=None)

    def invoke(self, poller: Poller, invocation: Invocation) -> None:
        """Run the function over a batch; its answer, if it gives one, reaches the poller."""
        self.working_on = poller.shard
        failed_from: str | None = invocation.batch[0].sequence_number
        try:
            self.board.reach("invoke.before")
            if not self.board.take_note(Kind.FAILS):
                failed_from = self._process(poller.shard, invocation.batch)
            self.board.reach("invoke.after")
            if self.board.take_note(Kind.FAILS):
                failed_from = invocation.batch[0].sequence_number
        except Crash:
            # The poller hears of it.
            first = invocation.batch[0].sequence_number
            self.clock.after(self.rng.randrange(50, 400), lambda: poller.answer(invocation, failed_from=first))
            raise
        finally:
            self.working_on = None
        poller.answer(invocation, failed_from=failed_from)

    def _process(self, shard: Shard, batch: list[StreamRecord]) -> str | None:
        self._apply_s = _SLOW_S if self.board.take_note(Kind.SLOW) else 0.0
        try:
            return self._batches.process(shard.shard_id, batch, left_s=TIMEOUT_MS / 1_000).failed_from
        finally:
            self._apply_s = 0.0


class TickFunction(Function):
    """The function that a schedule invokes."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "tick function")
        self.after(self.rng.randrange(4_000), self._run)

    def restart(self, *, upgrade: bool) -> None:
        super().restart(upgrade=upgrade)
        self.after(self.rng.randrange(4_000), self._run)

    def lose_memory(self) -> None:
        self._watch = ClaimWatch(self._now_s)

    def _run(self) -> None:
        self.after(4_000, self._run)
        self.board.reach("tick.before")
        if self.world.plan.ticks and not self.board.healed:
            tick_once(self._kinesis, STREAM, self.clock.now_ms, TickCounts())  # type: ignore[arg-type]
        self.board.reach("tick.after")
        with suppress(StoreUnavailable, StreamUnreadable):
            start_children(
                self.world.store,
                self.world.listed_shards(),
                self.open,
                watch=self._watch,
                abandoned_after_s=self.world.abandoned_after_s,
                new_owner=self.new_owner,
            )
