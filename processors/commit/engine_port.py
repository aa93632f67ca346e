"""What a session needs of the engine, so that tests and the simulation can script one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.container import Columns
from streamgauge.processors.core.counters import Counters
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import Effects, PaneBatch

__all__ = ["EngineFactory", "ShardEngine"]


class ShardEngine(Protocol):
    """One shard's state. `apply` is all that changes it; records at or below `position` are skipped."""

    @property
    def position(self) -> Position | None:
        """The last applied position."""
        ...

    @property
    def counters(self) -> Counters:
        """What became of every position so far."""
        ...

    @property
    def watermark_ms(self) -> int | None:
        """Event time up to which the shard is taken to be complete."""
        ...

    @property
    def input_ended(self) -> bool:
        """Whether every part of an ``end_of_input`` has arrived."""
        ...

    def apply(self, records: Sequence[StreamRecord]) -> Effects:
        """Apply records in stream order and hand out what came of them."""
        ...

    def snapshot(self) -> Columns:
        """Everything that a restored engine needs, counters included."""
        ...

    def open_panes(self) -> list[PaneBatch]:
        """Panes of windows that the watermark has not passed, as they stand."""
        ...


class EngineFactory(Protocol):
    """Makes the engine of a shard: a new one (`columns` None), or one from what `ShardEngine.snapshot` returned."""

    def __call__(self, pipeline: Pipeline, shard: Shard, columns: Columns | None) -> ShardEngine: ...  # noqa: D102
