"""The product's own delivery as a process, and its view of the stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from archive_world import ModelKinesis

from simulation.actor import Actor
from simulation.pipelines import STREAM, make_pipeline
from streamgauge.events.records import StreamRecord
from streamgauge.processors.commit.ports import StoreUnavailable
from streamgauge.sinks.delivery.delivery import Delivery
from streamgauge.sinks.delivery.settings import DeliverySettings

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["Archiver", "StreamClient"]


class StreamClient(ModelKinesis):
    """boto3's client over the world's stream, at the stream's own time."""

    def __init__(self, world: World, step: str | None = None) -> None:
        self._world = world
        self._step = step
        self.model = world.model
        self.reads = 0

    @property
    def now_ms(self) -> int:  # type: ignore[override]
        return self._world.stream_ms

    def get_records(self, *, ShardIterator: str, Limit: int) -> Mapping[str, object]:  # noqa: N803
        if self._step is not None:
            self._world.board.hook(self._step, "before")
        return super().get_records(ShardIterator=ShardIterator, Limit=Limit)

    def read(self, iterator: str, limit: int) -> tuple[list[StreamRecord], str | None]:
        """The records as they are, and the next iterator."""
        answer = self._call(lambda: self.model.get_records(iterator, now_ms=self.now_ms, limit=limit))
        return answer.records, answer.next_iterator


class Archiver(Actor):
    """One process of delivery. Two of them may run at once."""

    def __init__(self, world: World, index: int) -> None:
        super().__init__(world, f"archiver {index}")
        rng = self.rng
        self._client = StreamClient(world, "archive_read")
        self._settings = DeliverySettings(
            max_rows=rng.choice((25, 60, 100_000)),
            max_age_ms=rng.choice((8_000, 20_000)),
            list_interval_ms=4_000,
        )
        self._delivery: Delivery | None = None
        self.after(rng.randrange(2_000), self._start)

    def lose_memory(self) -> None:
        self._delivery = None

    def restart(self, *, upgrade: bool) -> None:
        del upgrade
        self.act(self._start)

    @property
    def is_caught_up(self) -> bool:
        """Whether everything in the stream has been read and written."""
        delivery = self._delivery
        if delivery is None:
            return False
        progress = delivery.progress
        return not progress.undelivered and not progress.behind_ms and not progress.trouble

    def flush(self) -> None:
        """Write what was read."""
        delivery = self._delivery
        if delivery is not None:
            self.act(lambda: delivery.flush(self.clock.now_ms))

    def _start(self) -> None:
        self._delivery = Delivery(
            self._client,
            stream=STREAM,
            stream_arn=self.world.arn,
            objects=self.world.archive,
            catalogue=make_pipeline(1).catalogue,
            settings=self._settings,
        )
        self._step()

    def _step(self) -> None:
        delivery = self._delivery
        if delivery is None:
            return
        try:
            due_ms = delivery.step(self.clock.now_ms)
        except StoreUnavailable:
            due_ms = self.clock.now_ms + 1_000
        self.after(max(1, due_ms - self.clock.now_ms), self._step)
