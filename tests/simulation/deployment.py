"""One pipeline as it is deployed: a state_epoch, with the rows and the leases of its shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from simulation.board import Board
from simulation.stores import StateRows
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.events.times import rfc3339
from streamgauge.infra.local.kinesis.shards import ShardState

__all__ = ["Deployment", "Lease"]


@dataclass
class Lease:
    """Who works on a shard, by his own word; the shard's row decides. `checkpoint` is what the host would resume at."""

    owner: str | None = None
    counter: int = 0
    checkpoint: Position | None = None
    is_over: bool = False


@dataclass
class Deployment:
    """Several of one pipeline run beside each other, over one stream, one archive, one bus and one table.

    `begins_ms` is the instant of the stream at which this one begins; None: with the stream's first record.
    """

    epoch: int
    store: StateRows
    begins_ms: int | None = None
    leases: dict[str, Lease] = field(default_factory=dict)

    @classmethod
    def of(cls, epoch: int, board: Board, begins_ms: int | None = None) -> Deployment:
        return cls(epoch, StateRows(board), begins_ms)

    @property
    def start(self) -> str:
        """As `register_shards` wants it."""
        return "TRIM_HORIZON" if self.begins_ms is None else f"AT_TIMESTAMP {rfc3339(self.begins_ms)}"

    def begins_of(self, shard_id: str) -> int:
        """From which arrival on the records of a shard are this deployment's, by the shard's row."""
        row = self.store.row(shard_id)
        return -(2**62) if row is None or row.start == "TRIM_HORIZON" or self.begins_ms is None else self.begins_ms

    def behind(self, shards: Iterable[ShardState]) -> Iterator[str]:
        """The shards of which not everything is committed."""
        for shard in shards:
            row = self.store.row(shard.shard_id)
            reached = row.position.sequence_number if row and row.position else -1
            last = shard.log.at(shard.log.end - 1) if shard.log.end else None
            if last is None or reached >= int(last.sequence_number):
                continue
            begins_ms = self.begins_of(shard.shard_id)
            if any(shard.log.at(index).arrival_ms >= begins_ms for index in range(shard.log.end)):
                yield f"{shard.shard_id} is committed up to {reached} under state_epoch {self.epoch}"

    def resharded(self, shards: list[Shard]) -> None:
        """The stream has other shards than before."""
        for shard in shards:
            self.leases.setdefault(shard.shard_id, Lease())
