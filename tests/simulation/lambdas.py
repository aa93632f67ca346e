"""Lambda's event source for one shard: it invokes whichever container is idle, sometimes two of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulation.actor import Actor
from simulation.faults import Kind
from simulation.functions import TIMEOUT_MS
from simulation.pipelines import STREAM
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["Invocation", "Poller"]


@dataclass
class Invocation:
    """One batch on its way through one container. `answer` is None until the container has answered."""

    batch: list[StreamRecord]
    answered: bool = False


class Poller(Actor):
    """Reads one shard and invokes containers, a batch at a time; a batch that failed comes again, perhaps in halves."""

    def __init__(self, world: World, shard: Shard) -> None:
        super().__init__(world, f"poller {shard.shard_id}")
        self.shard = shard
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
        idle = [each for each in self.world.containers if not each.is_busy and not each.is_down]
        if not idle:
            return
        self._tries += 1
        batch = self._batch
        if self.board.take_note(Kind.BISECT) or (self._tries > 3 and self._tries % 2):
            batch = batch[: max(1, len(batch) // 2)]
        invocation = self._waiting = Invocation(batch)
        container = self.rng.choice(idle)
        container.after(self.rng.randrange(1, 60), lambda: container.invoke(self, invocation))
        if len(idle) > 1 and (self.board.take_note(Kind.DOUBLE) or self.rng.random() < 0.03):
            other = self.rng.choice([each for each in idle if each is not container])
            other.after(self.rng.randrange(1, 60), lambda: other.invoke(self, Invocation(batch)))
        # The function's time-out: the poller goes on without it, and a paused container may go on as well.
        first = batch[0].sequence_number
        self.after(TIMEOUT_MS, lambda: self.answer(invocation, failed_from=first))

    def answer(self, invocation: Invocation, *, failed_from: str | None) -> None:
        """What came of an invocation; only the first answer of the one that is waited for counts."""
        if invocation.answered or self._waiting is not invocation:
            return
        invocation.answered = True
        self._waiting = None
        numbers = [record.sequence_number for record in invocation.batch]
        done = len(numbers) if failed_from is None else numbers.index(failed_from)
        if not done:
            return
        self._last = numbers[done - 1]
        self.world.note_checkpoint(self.shard.shard_id, Position(int(self._last), 0))
        self._batch = self._batch[done:]
        self._tries = 0
