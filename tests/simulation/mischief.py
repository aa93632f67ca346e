"""Faults that concern more than the call at which they strike: what the board cannot do by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.actor import Actor
from simulation.faults import Kind, PlannedFault
from simulation.functions import Container
from simulation.workers import Worker

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["Mischief"]


class Mischief:
    """`actions` say whether they could strike."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.actions: dict[Kind, Callable[[PlannedFault], bool]] = {
            Kind.TICK: lambda fault: self._does(lambda: self._world.stranger.tick(fault.size % 4_000 - 2_000)),
            Kind.STEAL: lambda _: self._steal(),
            Kind.CLOCK: self._step_clock,
            Kind.SPLIT: lambda fault: self._reshards(self._world.stranger.split, fault),
            Kind.MERGE: lambda fault: self._reshards(self._world.stranger.merge, fault),
            Kind.RESHARD: lambda fault: self._reshards(self._world.stranger.reshard, fault),
            Kind.STOPPED: self._reshard_stopped,
        }

    @staticmethod
    def _does(action: object) -> bool:
        action()  # type: ignore[operator]
        return True

    def _step_clock(self, fault: PlannedFault) -> bool:
        """The stream's clock by seconds, or the hosts' by hours."""
        if fault.size & 4:
            self._world.host_skew_ms = (-3, 3)[fault.size & 1] * 3_600_000
            return True
        self._world.stream_skew_ms = (-5_000, -800, 800, 3_000)[fault.size % 4]
        return True

    def _reshards(self, reshard: object, fault: PlannedFault) -> bool:
        before = self._world.stranger.reshards
        reshard(fault.size)  # type: ignore[operator]
        return self._world.stranger.reshards > before

    def _reshard_stopped(self, fault: PlannedFault) -> bool:
        if not isinstance(self._world.current, Worker):
            return False
        for worker in self._world.workers:
            if not worker.is_busy:
                worker.die(6_000 + fault.size % 5_000)
        self._world.clock.after(1_500, lambda: self._world.stranger.reshard(fault.size + 1))
        return self._reshards(self._world.stranger.reshard, fault)

    def _steal(self) -> bool:
        """Somebody else claims the shard on which the current actor works."""
        victim = self._world.current
        if isinstance(victim, Container):
            taken = victim.working_on
            rivals = [rival for rival in self._world.containers if rival is not victim and self._is_free(rival)]
            if taken is None or not rivals:
                return False
            rivals[0].act(lambda: rivals[0].steal(taken))
            return True
        if not isinstance(victim, Worker) or victim.working_on is None:
            return False
        shard = victim.working_on
        thieves = [
            worker
            for worker in self._world.workers
            if worker is not victim and worker.deployment is victim.deployment and self._is_free(worker)
        ]
        if thieves:
            thieves[0].act(lambda: thieves[0].take(shard))
        return bool(thieves)

    @staticmethod
    def _is_free(actor: Actor) -> bool:
        return not actor.is_busy and not actor.is_down
