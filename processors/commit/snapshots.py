"""A shard's snapshot: the engine's columns, the outbox and the accepted gaps, in one container.

Columns: ``session_format`` (int64, 1); the engine's own under ``engine.<name>``; the outbox under ``outbox.<…>``, with
archive objects as names and bodies, threshold events as one JSON object each, served panes batch by batch as columns;
``gaps`` as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.container import Column, Columns, SnapshotError, decode_columns, encode_columns
from streamgauge.processors.core.effects import ArchiveObject, MeasureColumn, Outbox, PaneBatch, ThresholdEvent

__all__ = ["SESSION_FORMAT", "Snapshot", "decode_snapshot", "encode_snapshot", "outbox_bytes", "panes_bytes"]

SESSION_FORMAT = 1

_ENGINE = "engine."
_events = msgspec.json.Decoder(ThresholdEvent)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one commit saves. ``engine`` is what `ShardEngine.snapshot` returned; `gaps` as in `CommitRow`."""

    engine: Columns
    outbox: Outbox
    gaps: tuple[str, ...] = ()


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The snapshot as one blob; equal snapshots give equal bytes."""
    outbox = snapshot.outbox
    columns: dict[str, Column] = {
        "session_format": np.array([SESSION_FORMAT], dtype=np.int64),
        "gaps": list(snapshot.gaps),
        "outbox.archive.name": [item.name for item in outbox.archive_objects],
        "outbox.archive.body": [item.body for item in outbox.archive_objects],
        "outbox.threshold_events": [msgspec.json.encode(event) for event in outbox.threshold_events],
        "outbox.served": [batch.aggregate for batch in outbox.served_panes],
    }
    for index, batch in enumerate(outbox.served_panes):
        columns.update(_pane_columns(f"outbox.served.{index}.", batch))
    columns.update({_ENGINE + name: column for name, column in snapshot.engine.items()})
    return encode_columns(columns)


def decode_snapshot(blob: bytes, *, where: str = "snapshot") -> Snapshot:
    """Read what `encode_snapshot` wrote; `where` is whose snapshot it is, for an error.

    Raises
    ------
    SnapshotError
        No snapshot of a session, or one of a format that this release does not read.
    """
    try:
        return _decode(blob)
    except SnapshotError as error:
        raise SnapshotError(error.what, where=where, remedy=error.remedy) from error


def _decode(blob: bytes) -> Snapshot:
    columns = decode_columns(blob)
    formats = columns.get("session_format")
    if not isinstance(formats, np.ndarray) or len(formats) != 1:
        raise SnapshotError("not the snapshot of a shard session: it has no session_format", where="snapshot")
    if int(formats[0]) != SESSION_FORMAT:
        raise SnapshotError(
            f"written in session format {int(formats[0])}; this release reads format {SESSION_FORMAT}",
            where="snapshot",
            remedy="Run the release that wrote it, or a later one",
        )
    bodies = columns["outbox.archive.body"]
    events = columns["outbox.threshold_events"]
    served = _texts(columns, "outbox.served")
    return Snapshot(
        engine={name[len(_ENGINE) :]: column for name, column in columns.items() if name.startswith(_ENGINE)},
        outbox=Outbox(
            archive_objects=tuple(
                ArchiveObject(name, body)
                for name, body in zip(_texts(columns, "outbox.archive.name"), bodies, strict=True)
                if isinstance(body, bytes)
            ),
            threshold_events=tuple(_events.decode(event) for event in events if isinstance(event, bytes)),
            served_panes=tuple(
                _pane_batch(columns, f"outbox.served.{index}.", aggregate) for index, aggregate in enumerate(served)
            ),
        ),
        gaps=tuple(_texts(columns, "gaps")),
    )


def outbox_bytes(outbox: Outbox) -> int:
    """About how many bytes the entries take in memory and in a snapshot before compression."""
    return (
        sum(len(item.body) + len(item.name) for item in outbox.archive_objects)
        + 600 * len(outbox.threshold_events)
        + panes_bytes(outbox.served_panes)
    )


def panes_bytes(batches: Sequence[PaneBatch]) -> int:
    """About how many bytes panes take: fixed columns, measures, and the texts of their keys."""
    return sum(len(batch) * (33 + 9 * len(batch.measures) + 32 * (1 + len(batch.key_fields))) for batch in batches)


def _pane_columns(prefix: str, batch: PaneBatch) -> dict[str, Column]:
    columns: dict[str, Column] = {
        "key_fields": list(batch.key_fields),
        "keys": [part for key in batch.keys for part in key],
        "partition_keys": list(batch.partition_keys),
        "window_start_ms": batch.window_start_ms,
        "window_end_ms": batch.window_end_ms,
        "revision": batch.revision,
        "event_count": batch.event_count,
        "tombstone": batch.tombstone,
        "measures": list(batch.measures),
    }
    for index, measure in enumerate(batch.measures.values()):
        columns[f"measure.{index}.values"] = measure.values
        columns[f"measure.{index}.present"] = measure.present
    return {prefix + name: column for name, column in columns.items()}


def _pane_batch(columns: Mapping[str, Column], prefix: str, aggregate: str) -> PaneBatch:
    key_fields = tuple(_texts(columns, prefix + "key_fields"))
    parts = _texts(columns, prefix + "keys")
    width = len(key_fields)
    measures: dict[str, MeasureColumn] = {}
    for index, name in enumerate(_texts(columns, prefix + "measures")):
        values = columns[f"{prefix}measure.{index}.values"]
        assert isinstance(values, np.ndarray)
        present = _flags(columns, f"{prefix}measure.{index}.present")
        is_integer = values.dtype.kind == "i"
        measures[name] = MeasureColumn(values.astype(np.int64) if is_integer else values.astype(np.float64), present)
    return PaneBatch(
        aggregate=aggregate,
        key_fields=key_fields,
        keys=[tuple(parts[first : first + width]) for first in range(0, len(parts), width)],
        partition_keys=_texts(columns, prefix + "partition_keys"),
        window_start_ms=_integers(columns, prefix + "window_start_ms"),
        window_end_ms=_integers(columns, prefix + "window_end_ms"),
        revision=_integers(columns, prefix + "revision"),
        event_count=_integers(columns, prefix + "event_count"),
        tombstone=_flags(columns, prefix + "tombstone"),
        measures=measures,
    )


def _texts(columns: Mapping[str, Column], name: str) -> list[str]:
    column = columns[name]
    assert isinstance(column, list)
    return [text for text in column if isinstance(text, str)]


def _integers(columns: Mapping[str, Column], name: str) -> NDArray[np.int64]:
    column = columns[name]
    assert isinstance(column, np.ndarray)
    return column.astype(np.int64)


def _flags(columns: Mapping[str, Column], name: str) -> NDArray[np.bool_]:
    column = columns[name]
    assert isinstance(column, np.ndarray)
    return column.astype(np.bool_)
