"""Lambda's event source for one shard, and the containers that it invokes, sometimes twice at once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulation.actor import Actor
from simulation.board import Crash
from simulation.faults import Kind
from simulation.pipelines import STREAM
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.ports import Backpressure, Fenced, ParentBehind, StoreUnavailable
from streamgauge.processors.commit.session import ShardSession

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["Poller"]


@dataclass
class Invocation:
    """One batch on its way through one container. `answer` is None until the container has answered."""

    batch: list[StreamRecord]
    answered: bool = False


class Container(Actor):
    """A sandbox: it claims the shard on a cold start and after a conflict, applies a batch, commits, and answers."""

    def __init__(self, world: World, shard: Shard, index: int) -> None:
        super().__init__(world, f"container {shard.shard_id} {index}")
        self.shard = shard
        self.working_on: Shard | None = shard
        self.version = 1
        self._session: ShardSession | None = None
        self._cold_starts = 0
        self._watch = ClaimWatch(lambda: self.clock.now_ms / 1_000)

    def lose_memory(self) -> None:
        self._session = None

    def restart(self, *, upgrade: bool) -> None:
        if upgrade:
            self.version = 2

    def claim(self) -> bool:
        """Cold start; whether the shard is ours."""
        self._cold_starts += 1
        owner = f"{self.name}/{self._cold_starts}"
        self._session = None
        with suppress(Fenced, ParentBehind, StoreUnavailable):
            self._session = self.world.open_session(self.shard, owner=owner, version=self.version, watch=self._watch)
        return self._session is not None

    def invoke(self, poller: Poller, invocation: Invocation) -> None:
        """Run the function over a batch; its answer, if it gives one, reaches the poller."""
        succeeded = False
        try:
            self.board.reach("invoke.before")
            succeeded = not self.board.take_note(Kind.FAILS) and self._handle(invocation.batch)
            self.board.reach("invoke.after")
            if self.board.take_note(Kind.FAILS):
                succeeded = False
        except Crash:
            # The poller hears of it.
            self.clock.after(self.rng.randrange(50, 400), lambda: poller.answer(invocation, ok=False))
            raise
        poller.answer(invocation, ok=succeeded)

    def _handle(self, batch: list[StreamRecord]) -> bool:
        last = int(batch[-1].sequence_number)
        if self._session is None and not self.claim():
            return self._covers(last)
        session = self._session
        assert session is not None
        try:
            self.board.reach("apply.before")
            session.apply(batch)
            self.board.reach("apply.after")
            committed = session.commit()
        except Fenced:
            self._session = None
            # Another invocation of the batch may have done its work, or a child.
            return self._covers(last)
        except (Backpressure, StoreUnavailable):
            return False
        return committed is not None and committed.sequence_number >= last

    def _covers(self, last: int) -> bool:
        row = self.world.store.row(self.shard.shard_id)
        return row is not None and row.position is not None and row.position.sequence_number >= last


class Poller(Actor):
    """Reads one shard and invokes containers, a batch at a time; a batch that failed comes again, perhaps in halves."""

    def __init__(self, world: World, shard: Shard) -> None:
        super().__init__(world, f"poller {shard.shard_id}")
        self.shard = shard
        self.containers = [Container(world, shard, index) for index in range(2)]
        self.is_over = False
        self._has_begun = False
        self._is_hasty = self.rng.random() < 0.2
        self._iterator: str | None = None
        self._last: str | None = None
        self._is_closed = False
        self._batch: list[StreamRecord] = []
        self._tries = 0
        self._waiting: Invocation | None = None
        self.after(self.rng.randrange(1_000), self._turn)

    def restart(self, *, upgrade: bool) -> None:
        self.after(0, self._turn)

    def lose_memory(self) -> None:
        # What was read and not answered for is read again.
        self._iterator = self._waiting = None
        self._batch, self._is_closed = [], False

    @property
    def is_idle(self) -> bool:
        return self._waiting is None and not self._batch

    def _turn(self) -> None:
        if self.is_over:
            return
        if not self._may_begin():
            self.after(500, self._turn)
            return
        if self._waiting is None:
            if not self._batch and not self._is_closed:
                self._batch = self._read()
                self._tries = 0
            if self._batch:
                self._invoke()
            elif self._is_closed:
                self.is_over = True
                return
        self.after(self.world.read_interval_ms(self.rng), self._turn)

    def _may_begin(self) -> bool:
        """Parents are read before their children; mostly."""
        parents = [self.world.pollers[parent] for parent in self.shard.parents]
        self._has_begun = self._has_begun or self._is_hasty or all(parent.is_over for parent in parents)
        return self._has_begun

    def _read(self) -> list[StreamRecord]:
        client = self.world.kinesis
        try:
            self.board.reach("read.before")
            if self._iterator is None:
                where = {"ShardIteratorType": "TRIM_HORIZON"}
                if self._last is not None:
                    where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": self._last}
                found = client.get_shard_iterator(StreamName=STREAM, ShardId=self.shard.shard_id, **where)
                self._iterator = str(found["ShardIterator"])
            records, self._iterator = client.read(self._iterator, self.world.batch_records)
            self.board.reach("read.after")
        except Exception as error:
            if not self.world.is_injected(error):
                raise
            self._iterator = None
            return []
        self._is_closed = self._iterator is None
        return records

    def _invoke(self) -> None:
        idle = [container for container in self.containers if not container.is_busy and not container.is_down]
        if not idle:
            return
        self._tries += 1
        batch = self._batch
        if self.board.take_note(Kind.BISECT) or (self._tries > 3 and self._tries % 2):
            batch = batch[: max(1, len(batch) // 2)]
        invocation = self._waiting = Invocation(batch)
        container = self.rng.choice(idle)
        container.after(self.rng.randrange(1, 60), lambda: container.invoke(self, invocation))
        if self.board.take_note(Kind.DOUBLE) or self.rng.random() < 0.03:
            other = self.containers[1 - self.containers.index(container)]
            if not other.is_down:
                other.after(self.rng.randrange(1, 60), lambda: other.invoke(self, Invocation(batch)))
        # The function's time-out: the poller goes on without it, and a paused container may go on as well.
        self.after(5_000, lambda: self.answer(invocation, ok=False))

    def answer(self, invocation: Invocation, *, ok: bool) -> None:
        """What came of an invocation; only the first answer of the one that is waited for counts."""
        if invocation.answered or self._waiting is not invocation:
            return
        invocation.answered = True
        self._waiting = None
        if not ok:
            return
        done = invocation.batch[-1].sequence_number
        self.world.note_checkpoint(self.shard.shard_id, Position(int(done), 0))
        self._last = done
        self._batch = self._batch[len(invocation.batch) :]
        self._tries = 0
