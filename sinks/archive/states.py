"""The saved states of a pipeline's shards, which say up to where the archive is read, and who descends from whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from streamgauge.events.hash_key import HashRange
from streamgauge.processors.commit.core_engine import ShardState, read_shard_state
from streamgauge.processors.commit.engine_port import EngineFactory
from streamgauge.processors.commit.lineage import is_covered
from streamgauge.processors.commit.ports import ShardRow, StateStore
from streamgauge.processors.core.definition import Pipeline

__all__ = ["PipelineStates", "read_states"]

# A shard may be sealed and handed over between the look at its children and the look at itself: rare, and soon over.
_LOOKS_MAX = 10


@dataclass(frozen=True)
class PipelineStates:
    """The state of every shard that has one. Iterating gives them in order of shard id.

    Attributes
    ----------
    rows
        By shard id every row, those of shards without a state too.
    saved
        By shard id the states.
    """

    rows: Mapping[str, ShardRow]
    saved: Mapping[str, ShardState]

    def __iter__(self) -> Iterator[ShardState]:
        return iter(self.saved.values())

    @cached_property
    def ancestors(self) -> Mapping[str, frozenset[str]]:
        """By shard id all shards from which it inherits, through however many generations."""
        found: dict[str, frozenset[str]] = {}
        for shard_id in _parents_first(self.rows):
            parents = [parent for parent in self.rows[shard_id].shard.parents if parent in self.rows]
            found[shard_id] = frozenset(parents).union(*(found[parent] for parent in parents))
        return found

    @cached_property
    def begun_children(self) -> Mapping[str, list[ShardRow]]:
        """By shard id, of those that have any: the children that have taken over their part of its state."""
        found: dict[str, list[ShardRow]] = {}
        for state in self:
            for parent in state.row.shard.parents:
                found.setdefault(parent, []).append(state.row)
        return found

    def heirs(self, shard_id: str) -> list[HashRange]:
        """The hash keys whose state is in the hands of children."""
        return [row.shard.hash_range for row in self.begun_children.get(shard_id, [])]

    def is_handed_over(self, shard_id: str) -> bool:
        """Whether children hold all of the shard's state."""
        return is_covered(self.rows[shard_id].shard.hash_range, self.heirs(shard_id))

    @property
    def is_of_one_moment(self) -> bool:
        """Whether every parent of a shard that has begun is sealed, and every state let go of is found in children."""
        parents = (self.rows[shard_id] for shard_id in self.begun_children if shard_id in self.rows)
        return all(row.sealed for row in parents) and all(
            self.is_handed_over(shard_id) for shard_id, row in self.rows.items() if row.reduced
        )


def read_states(pipeline: Pipeline, store: StateStore, engine: EngineFactory) -> PipelineStates:
    """The saved state of every shard that has committed, or has taken over what its parents left.

    As far as resharding goes, all are of one moment: what a shard has handed over is found in its children.

    Raises
    ------
    SnapshotError
        A state is there, but unreadable, or that of another definition of the pipeline.
    StoreUnavailable, StoreRefused
        It cannot be read.
    """
    for _ in range(_LOOKS_MAX):
        states = _look(pipeline, store, engine)
        if states.is_of_one_moment:
            break
    # What is still not of one moment then is broken: that is for the audit to say.
    return states


def _look(pipeline: Pipeline, store: StateStore, engine: EngineFactory) -> PipelineStates:
    rows = {row.shard.shard_id: row for row in store.rows()}
    saved: dict[str, ShardState] = {}
    # A child that is seen to have begun has sealed its parents before: these are looked at afterwards.
    for shard_id in reversed(_parents_first(rows)):
        state = read_shard_state(pipeline, store, shard_id, engine=engine)
        if state is not None:
            saved[shard_id] = state
            rows[shard_id] = state.row
    return PipelineStates(rows, dict(sorted(saved.items())))


def _parents_first(rows: Mapping[str, ShardRow]) -> list[str]:
    """Shard ids in an order in which each stands after all its ancestors."""
    ordered: dict[str, None] = {}

    def visit(shard_id: str) -> None:
        if shard_id not in ordered and shard_id in rows:
            for parent in rows[shard_id].shard.parents:
                visit(parent)
            ordered[shard_id] = None

    for shard_id in rows:
        visit(shard_id)
    return list(ordered)
