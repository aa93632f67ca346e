"""The session and its readers joined with the engine of `processors.core`."""

from __future__ import annotations

from dataclasses import dataclass

from streamgauge.events.records import Shard
from streamgauge.processors.commit.engine_port import EngineFactory, ShardEngine
from streamgauge.processors.commit.ports import ShardRow, StateStore
from streamgauge.processors.commit.snapshots import decode_snapshot
from streamgauge.processors.commit.state_rows import read_snapshot
from streamgauge.processors.core.container import Columns
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import Outbox
from streamgauge.processors.core.engine import Engine

__all__ = ["ShardState", "core_engine", "read_shard_state"]


@dataclass(frozen=True, slots=True)
class ShardState:
    """What is saved of one shard, for a reader that is no owner. Of the engine only look: it is a copy."""

    row: ShardRow
    engine: ShardEngine
    outbox: Outbox
    gaps: tuple[str, ...]


def core_engine(stream_arn: str) -> EngineFactory:
    """Makes engines that decode with msgspec; `stream_arn` is the source of mapped records that name none."""

    def make(pipeline: Pipeline, shard: Shard, columns: Columns | None) -> ShardEngine:
        decoder = MsgspecDecoder(pipeline, stream_arn)
        if columns is None:
            return Engine(pipeline, shard, decoder)
        return Engine.restore(pipeline, shard, decoder, columns)

    return make


def read_shard_state(
    pipeline: Pipeline, store: StateStore, shard_id: str, *, engine: EngineFactory
) -> ShardState | None:
    """The saved state of a shard: its counters, open panes and undelivered entries; None before its first commit.

    Raises
    ------
    SnapshotError
        The state is there, but unreadable, or that of another definition of the pipeline.
    StoreUnavailable, StoreRefused
        It cannot be read.
    """
    found = read_snapshot(store, shard_id)
    if found is None:
        return None
    row, blob = found
    snapshot = decode_snapshot(blob, where=f"shard {shard_id}, snapshot")
    return ShardState(row, engine(pipeline, row.shard, snapshot.engine), snapshot.outbox, snapshot.gaps)
