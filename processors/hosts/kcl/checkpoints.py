"""Checkpoints, as far as both sides are: what is committed here, and what the daemon has handed over."""

from __future__ import annotations

from collections.abc import Generator

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.position import Position
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.kcl.child import CheckpointRequests
from streamgauge.processors.hosts.kcl.child_log import Say
from streamgauge.processors.hosts.kcl.opening import InPlace

__all__ = ["CheckpointRefused", "Checkpoints"]

# The KCL's names of what passes by itself; the checkpoint comes with the next commit then.
_LATER = frozenset({"ThrottlingException", "KinesisClientLibDependencyException"})
_LEASE_LOST = "ShutdownException"


class CheckpointRefused(StreamgaugeError):
    """The KCL does not take a checkpoint that it must be able to take."""


class Checkpoints:
    """Asks for the checkpoints of one shard."""

    def __init__(self, in_place: InPlace, say: Say) -> None:
        self._in_place = in_place
        self._say = say
        self.delivered: Position | None = None
        """The last position that the daemon has handed over."""
        self.taken: Position | None = None
        """The last checkpoint that the KCL has taken."""

    def committed(self, session: ShardSession, *, attempts: int = 1) -> CheckpointRequests:
        """Checkpoint what is saved and was handed over: the KCL refuses to go further than it has handed over.

        Raises
        ------
        CheckpointRefused
            For a reason that does not pass.
        """
        if self.delivered is None or session.committed is None:
            return
        position = min(session.committed, self.delivered)
        if position != self.taken and (yield from self._ask(position, attempts)):
            self.taken = position

    def end(self, *, attempts: int) -> Generator[Position | None, str | None, bool]:
        """Checkpoint the end of the shard; whether the KCL has taken it.

        Raises
        ------
        CheckpointRefused
            For a reason that does not pass.
        """
        return (yield from self._ask(None, attempts))

    def _ask(self, position: Position | None, attempts: int) -> Generator[Position | None, str | None, bool]:
        patience = self._in_place.patience()
        for attempt in range(1, attempts + 1):
            error = yield position
            if error is None:
                return True
            if error == _LEASE_LOST:
                self._say("lease_lost", "another worker has the lease, says the checkpoint", level="warning")
                return False
            if error not in _LATER:
                raise CheckpointRefused(
                    f"the KCL refuses a checkpoint at {position or 'the end of the shard'}: {error}",
                    where="MultiLangDaemon",
                    remedy="The daemon's log says more",
                )
            self._say("waiting", f"the KCL cannot checkpoint now: {error}", level="warning")
            if attempt < attempts:
                self._in_place.wait(patience)
        return False
