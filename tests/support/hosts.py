"""Every host that can be run in the test's process, behind one call: work until the stream has nothing more."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import count
from random import Random
from typing import Protocol

from commit_world import World
from kcl_world import Child, Office
from lambda_world import Lambdas, Sandbox
from scripted_kinesis import ScriptedKinesis

from streamgauge.processors.commit.ports import Fenced, StoreUnavailable
from streamgauge.processors.hosts.kcl.messages import ShardEnded, ShutdownRequested
from streamgauge.processors.hosts.local import LocalSettings, run_local

__all__ = ["FAST", "Host", "KclHost", "LambdaHost", "LocalHost"]

FAST = LocalSettings(
    read_interval_s=0.001,
    commit_interval_s=0.01,
    max_backoff_s=0.005,
    outage_s=0.05,
    lease_s=0.05,
    survey_interval_s=0.01,
    claim_interval_s=0.001,
)


class Host(Protocol):
    """A host over a world in memory and a scripted stream, whose shards end with a record of the kind ``end``."""

    def __init__(self, world: World, kinesis: ScriptedKinesis, *, accept_gap: bool = False) -> None: ...

    def run(self) -> None:
        """Start as a new process would, and work until the input has ended and all results have left.

        Raises
        ------
        StreamgaugeError
            Whatever stops the host for good.
        """
        ...


class LocalHost:
    """`streamgauge process`."""

    def __init__(self, world: World, kinesis: ScriptedKinesis, *, accept_gap: bool = False) -> None:
        self._world = world
        self._kinesis = kinesis
        self._settings = replace(FAST, accept_gap=accept_gap)

    def run(self) -> None:
        stop = threading.Event()
        deadline = threading.Timer(20, stop.set)
        deadline.start()
        try:
            run_local(
                self._world.pipeline,
                self._kinesis,  # type: ignore[arg-type]
                self._world.open,
                store=self._world.store,
                stop=stop,
                settings=self._settings,
                until_input_ended=True,
            )
        finally:
            assert deadline.is_alive(), "the run did not end by itself"
            deadline.cancel()


class LambdaHost:
    """The function, its event source, which never forgets how far it has come, and sandboxes by chance."""

    def __init__(self, world: World, kinesis: ScriptedKinesis, *, accept_gap: bool = False) -> None:
        self._lambdas = Lambdas(world=world, kinesis=kinesis)
        self._accept_gap = accept_gap
        self._rng = Random(7)
        self._done: dict[str, int] = {}

    def run(self) -> None:
        sandboxes = [self._lambdas.sandbox(accept_gap=self._accept_gap) for _ in range(2)]
        for turn in count():
            assert turn < 500, "the event source is at it for ever"
            waiting = [shard_id for shard_id in self._lambdas.kinesis.shards if self._batch(shard_id)]
            if not waiting:
                return
            for shard_id in waiting:
                self._invoke(self._rng.choice(sandboxes), shard_id)

    def _batch(self, shard_id: str) -> list:
        done = self._done.get(shard_id, -1)
        found = [each for each in self._lambdas.kinesis.shards[shard_id].records if int(each.sequence_number) > done]
        return found[:4]

    def _invoke(self, sandbox: Sandbox, shard_id: str) -> None:
        batch = self._batch(shard_id)
        answer = sandbox.process(batch, shard_id=shard_id, left_s=10)
        numbers = [record.sequence_number for record in batch]
        done = len(numbers) if answer.failed_from is None else numbers.index(answer.failed_from)
        if done:
            self._done[shard_id] = int(numbers[done - 1])


class KclHost:
    """`streamgauge process --host kcl` with a daemon in memory: a child a shard, begun anew when one has ended."""

    def __init__(self, world: World, kinesis: ScriptedKinesis, *, accept_gap: bool = False) -> None:
        self._office = Office(kinesis, world)
        self._settings = replace(FAST, accept_gap=accept_gap)
        self._children: dict[str, Child] = {}
        self._done: dict[str, int] = {}

    def run(self) -> None:
        self._children, self._done = {}, {}
        for _ in range(10):
            try:
                self._work()
            except (Fenced, StoreUnavailable):
                # The daemon ends with its child, and all others with it.
                for child in self._children.values():
                    child.processor.abandoned()
                self._children, self._done = {}, {}
            else:
                return
        raise AssertionError("the daemon ends again and again")

    def _work(self) -> None:
        for turn in count():
            assert turn < 500, "the daemon is at it for ever"
            waiting = [shard_id for shard_id in self._office.kinesis.shards if not self._is_done(shard_id)]
            if not waiting:
                break
            for shard_id in waiting:
                self._hand_over(shard_id)
        for child in self._children.values():
            child.do(ShutdownRequested())

    def _is_done(self, shard_id: str) -> bool:
        if self._office.checkpoints.get(shard_id) == "SHARD_END":
            return True
        child = self._children.get(shard_id)
        return child is not None and child.log.last is not None and child.log.last.is_finished

    def _hand_over(self, shard_id: str) -> None:
        shard = self._office.kinesis.shards[shard_id]
        if any(self._office.checkpoints.get(parent) != "SHARD_END" for parent in shard.parents):
            return
        if shard_id not in self._children:
            # It begins behind its checkpoint, as the KCL does.
            number = self._office.checkpoints.get(shard_id, "-1").partition("/")[0]
            self._done[shard_id] = int(number)
            self._children[shard_id] = self._office.child(self._settings).start(shard_id)
        child, done = self._children[shard_id], self._done[shard_id]
        rest = [record for record in shard.records if int(record.sequence_number) > done]
        batch = rest[:4]
        child.hand_over(*batch, later_s=1.0, behind_ms=1_000 if len(rest) > len(batch) else 0)
        if batch:
            self._done[shard_id] = int(batch[-1].sequence_number)
        elif shard.is_closed:
            child.do(ShardEnded())
            del self._children[shard_id]
