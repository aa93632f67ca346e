"""The saved states of a pipeline's shards, which say up to where the archive is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamgauge.events.hash_key import HashRange
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
    # In order of shard id, so a parent is read before its children: one that is read empty has heirs that are not.
    states = [state for state in found if state is not None]
    return [replace(state, heirs=_heirs(state, states)) for state in states]


def _heirs(parent: ShardState, states: Sequence[ShardState]) -> tuple[HashRange, ...]:
    shards = [state.row.shard for state in states]
    return tuple(shard.hash_range for shard in shards if parent.row.shard.shard_id in shard.parents)
