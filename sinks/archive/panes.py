"""The panes of a pipeline as they stand: closed ones from the archive and from outboxes, open ones from snapshots."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from streamgauge.events.hash_key import hash_key
from streamgauge.events.times import rfc3339
from streamgauge.processors.commit.archive_rows import PANES, PaneRow, decode_rows
from streamgauge.processors.commit.commit_objects import measure_rows
from streamgauge.processors.commit.core_engine import ShardState
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import PaneBatch
from streamgauge.sinks.archive.states import PipelineStates
from streamgauge.sinks.archive.tables import ArchiveTables

__all__ = ["PaneKey", "archived_panes", "closed_panes", "emitted_panes", "open_panes", "pane_key"]

PaneKey = tuple[tuple[str, ...], str]
"""Values of the key fields in their order, and the window's start as RFC 3339."""


def pane_key(pane: PaneRow) -> PaneKey:
    """Which window of which key a pane is of."""
    return tuple(pane.key.values()), pane.window_start


def emitted_panes(tables: ArchiveTables, states: PipelineStates, pipeline: Pipeline) -> Iterator[PaneRow]:
    """Every pane that the saved commits emitted, at every revision.

    What waits in an outbox counts as emitted: it will be archived under a name that is known already, by whichever
    child has taken it over. What a commit later than the states wrote is left out, so that panes and states are of one
    moment.
    """
    waiting = {
        item.name: item.body for state in states for item in state.outbox.archive_objects if is_panes_object(item.name)
    }
    yield from archived_panes(tables, states, pipeline, leaving_out=waiting)
    for body in waiting.values():
        yield from decode_rows(body, PaneRow)


def archived_panes(
    tables: ArchiveTables,
    states: PipelineStates,
    pipeline: Pipeline,
    *,
    leaving_out: Collection[str] = (),
) -> Iterator[PaneRow]:
    """As `emitted_panes`, but only what the archive holds, without the objects named in `leaving_out`."""
    latest = {state.row.shard.shard_id: state.row.claim_version for state in states}
    names = [name for name in tables.names(PANES) if name not in leaving_out]
    for _, row in tables.written(PANES, PaneRow, names):
        is_ours = (row.pipeline, row.state_epoch) == (pipeline.name, pipeline.state_epoch)
        if is_ours and row.claim_version <= latest.get(row.shard_id, -1):
            yield row


def is_panes_object(name: str) -> bool:
    """Whether an archive object holds panes."""
    return name.startswith(f"type={PANES}/")


def closed_panes(panes: Iterable[PaneRow]) -> dict[str, dict[PaneKey, PaneRow]]:
    """By aggregate, each pane at its highest revision; those that ceased to be are left out."""
    latest: dict[str, dict[PaneKey, PaneRow]] = {}
    for pane in panes:
        known = latest.setdefault(pane.aggregate, {})
        key = pane_key(pane)
        if key not in known or known[key].revision < pane.revision:
            known[key] = pane
    return {
        aggregate: {key: pane for key, pane in found.items() if not pane.tombstone}
        for aggregate, found in latest.items()
    }


def open_panes(states: PipelineStates, pipeline: Pipeline) -> Iterator[PaneRow]:
    """The panes of windows that their shard's watermark has not passed, as they stand, each once.

    What a sealed shard has handed over lives in its children; what no child has taken yet is still its own.
    """
    for state in states:
        heirs = states.heirs(state.row.shard.shard_id)
        for batch in state.engine.open_panes():
            for pane in _rows(batch, state, pipeline):
                if not any(hash_key(pane.partition_key) in heir for heir in heirs):
                    yield pane


def _rows(batch: PaneBatch, state: ShardState, pipeline: Pipeline) -> Iterator[PaneRow]:
    measures: Sequence[Mapping[str, int | float | None]] = measure_rows(batch)
    for index, key in enumerate(batch.keys):
        yield PaneRow(
            pipeline=pipeline.name,
            state_epoch=pipeline.state_epoch,
            aggregate=batch.aggregate,
            key=dict(zip(batch.key_fields, key, strict=True)),
            partition_key=batch.partition_keys[index],
            window_start=rfc3339(int(batch.window_start_ms[index])),
            window_end=rfc3339(int(batch.window_end_ms[index])),
            revision=int(batch.revision[index]),
            event_count=int(batch.event_count[index]),
            tombstone=bool(batch.tombstone[index]),
            measures=dict(measures[index]),
            shard_id=state.row.shard.shard_id,
            claim_version=state.row.claim_version,
        )
