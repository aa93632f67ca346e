"""Every host that can be run in the test's process, behind one call: work until the stream has nothing more."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import count
from random import Random
from typing import Protocol

from commit_world import World
from lambda_world import Lambdas, Sandbox
from scripted_kinesis import ScriptedKinesis

from streamgauge.processors.hosts.local import LocalSettings, run_local

__all__ = ["Host", "LambdaHost", "LocalHost"]

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
