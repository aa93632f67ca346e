"""Sandboxes of the processor over a world in memory and a scripted stream, and time that passes by waiting."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random

from commit_world import SCRIPTED_HANDOVER, World, memory_world
from scripted_kinesis import ScriptedKinesis, ScriptedShard

from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.commit.snapshots import decode_snapshot
from streamgauge.processors.hosts.aws_lambda.batches import Answer
from streamgauge.processors.hosts.aws_lambda.shards import BatchSettings, ShardBatches
from streamgauge.processors.hosts.aws_lambda.time_left import TimeLeft
from streamgauge.processors.hosts.parent_stream import KinesisParents

A, B, C = (f"shardId-{number:012}" for number in range(3))


@dataclass
class Time:
    """Seconds that pass where somebody waits. `meanwhile` is what others do then."""

    now_s: float = 0.0
    waits: list[float] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds
        self.meanwhile()


class Sandbox:
    """A sandbox that has never been invoked; what it keeps is in `batches`."""

    def __init__(
        self,
        lambdas: Lambdas,
        name: str,
        settings: BatchSettings,
    ) -> None:
        self._lambdas = lambdas
        self._numbers = count(1)
        self.name = name
        self.opened: list[ShardSession] = []
        self.owners: list[str] = []
        self.on_apply: Callable[[Sequence[StreamRecord]], object] = lambda records: None
        time = lambdas.time
        self.parents = Parents(
            stream=KinesisParents(lambdas.kinesis, "observations", sleep=time.sleep),  # type: ignore[arg-type]
            watch=ClaimWatch(time.clock),
            abandoned_after_s=60,
            accept_gap=settings.accept_gap,
            handover=SCRIPTED_HANDOVER,
        )
        self.batches = ShardBatches(
            "observations",
            lambdas.kinesis,  # type: ignore[arg-type]
            self.open,
            store=lambdas.world.store,
            time=TimeLeft(time.clock, time.sleep),
            now_ms=lambda: lambdas.world.clock_ms,
            rng=Random(name),
            new_owner=self.new_owner,
            settings=settings,
        )

    def new_owner(self) -> str:
        self.owners.append(f"{self.name}-{next(self._numbers)}")
        return self.owners[-1]

    def open(self, shard: Shard, start: str, *, owner: str, seen_version: int | None) -> ShardSession:
        session = self._lambdas.world.open(shard, start, owner=owner, seen_version=seen_version, parents=self.parents)
        apply = session.apply

        def watched(records: Sequence[StreamRecord]) -> None:
            self.on_apply(records)
            apply(records)

        session.apply = watched  # type: ignore[method-assign]
        self.opened.append(session)
        return session

    def process(
        self, records: Sequence[StreamRecord], *, shard_id: str = A, left_s: float = 60.0, total_s: float | None = None
    ) -> Answer:
        return self.batches.process(shard_id, records, left_s=left_s, total_s=total_s)


@dataclass
class Lambdas:
    """The world, the stream, and a way to have sandboxes."""

    world: World = field(default_factory=memory_world)
    kinesis: ScriptedKinesis = field(default_factory=lambda: ScriptedKinesis({A: ScriptedShard()}))
    time: Time = field(default_factory=Time)
    _names: count[int] = field(default_factory=count)

    def sandbox(self, **settings: object) -> Sandbox:
        return Sandbox(self, f"sandbox-{next(self._names)}", BatchSettings(**settings))  # type: ignore[arg-type]

    def put(self, *records: StreamRecord, shard_id: str = A) -> list[StreamRecord]:
        """Put records into the stream; they are what the event source sends next."""
        self.kinesis.shards[shard_id].records += records
        return list(records)

    @property
    def served(self) -> list[int]:
        """The numbers of all good records whose panes have left; each may have done so more than once."""
        panes = (start for batch in self.world.served.delivered for start in batch.window_start_ms)
        return sorted({int(start) // 1_000 for start in panes})

    @property
    def accepted(self) -> int:
        """How many events the shards have counted."""
        found = 0
        for row in self.world.store.rows():
            if (blob := self.world.store.snapshot(row)) is not None:
                state = decode_snapshot(blob, where=row.shard.shard_id).engine["state"]
                found += json.loads(state[0])["accepted"]
        return found

    def has_counted(self, *numbers: int) -> bool:
        """Whether exactly these good records were counted, each once, and their panes have left."""
        return self.served == sorted(numbers) and self.accepted == len(numbers)

    def calls(self) -> list[str]:
        """From now on, every step of stores and receivers is noted."""
        found: list[str] = []

        def hook(step: str, moment: str) -> None:
            if moment == "before":
                found.append(step)

        self.world.hook = hook
        return found
