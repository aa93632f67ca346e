"""A process of the simulated world: it does one thing at a time, may stand still, and may die."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from simulation.board import Crash

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["Actor"]


class Actor:
    """Its actions happen one after the other. `restart` is what a subclass does after the process has died."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.clock = world.clock
        self.board = world.board
        self.name = name
        self.rng = Random(f"{world.plan.seed} {name}")
        self.life = 0
        self.is_busy = False
        self.is_down = False

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do `action` then, unless the process has died by then."""
        life = self.life

        def run() -> None:
            if life != self.life:
                return
            if self.is_busy:
                self.clock.after(20 + self.rng.randrange(80), run)
                return
            self.act(action)

        self.clock.after(delay_ms, run)

    def act(self, action: Callable[[], None]) -> None:
        """Do `action` now."""
        self.is_busy = True
        before, self.world.current = self.world.current, self
        try:
            action()
        except Crash as crash:
            self.die(self.rng.randrange(200, 4_000), upgrade=crash.upgrade)
        finally:
            self.is_busy = False
            self.world.current = before

    def die(self, down_ms: int, *, upgrade: bool = False) -> None:
        """End the process; another one starts in its place later."""
        self.life += 1
        self.is_down = True
        self.lose_memory()
        life = self.life

        def start() -> None:
            if life == self.life:
                self.is_down = False
                self.restart(upgrade=upgrade)

        self.clock.after(down_ms, start)

    def lose_memory(self) -> None:
        """Forget what only the process knew."""

    def restart(self, *, upgrade: bool) -> None:
        """Begin again."""
        raise NotImplementedError
