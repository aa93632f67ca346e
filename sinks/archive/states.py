"""The saved states of a pipeline's shards, which say up to where the archive is read."""

from __future__ import annotations

from streamgauge.processors.commit.core_engine import ShardState, read_shard_state
from streamgauge.processors.commit.engine_port import EngineFactory
from streamgauge.processors.commit.ports import StateStore
from streamgauge.processors.core.definition import Pipeline

__all__ = ["read_states"]


def read_states(pipeline: Pipeline, store: StateStore, engine: EngineFactory) -> list[ShardState]:
    """The saved state of every shard that has committed.

    Raises
    ------
    SnapshotError
        A state is there, but unreadable, or that of another definition of the pipeline.
    StoreUnavailable, StoreRefused
        It cannot be read.
    """
    found = (read_shard_state(pipeline, store, row.shard.shard_id, engine=engine) for row in store.rows())
    return [state for state in found if state is not None]
