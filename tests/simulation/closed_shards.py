"""Reading what remains of a parent, for who seals it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from simulation.pipelines import STREAM
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.commit.ports import ParentBehind, ShardRow
from streamgauge.processors.hosts.shard_reader import ShardReader, TryLater

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["ClosedShards"]


class ClosedShards:
    """The port `ParentStream` over the product's `ShardReader`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def shard(self, shard_id: str) -> Shard | None:
        return next((shard for shard in self._world.listed_shards() if shard.shard_id == shard_id), None)

    def rest(self, row: ShardRow, *, on_gap: Callable[[str], None] | None) -> Iterator[Sequence[StreamRecord]]:
        reader = ShardReader(
            self._world.kinesis,  # type: ignore[arg-type]
            STREAM,
            row.shard.shard_id,
            start=row.start,
            after=row.position,
            on_gap=on_gap,
        )
        while not reader.is_closed:
            try:
                self._world.board.hook("read", "before")
                records = reader.read(self._world.batch_records).records
            except (TryLater, ClientError) as error:
                raise ParentBehind(str(error), where=f"shard {row.shard.shard_id}") from error
            yield records
