"""Putting together what was read in columns and what was read one by one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streamgauge.events.position import Position
from streamgauge.processors.core.batch import ControlRecord, Decoded, EventBatch, FieldColumn, Outcome
from streamgauge.processors.core.effects import FailedEvent, FailureReason
from streamgauge.processors.core.one_by_one import Failure, IsControl, Reading, Row
from streamgauge.processors.core.reading import DataColumns, Fields
from streamgauge.processors.core.unpack import Unpacked

__all__ = ["Identities", "assemble"]

Value = TypeVar("Value")


@dataclass(slots=True)
class Identities:
    """Sources and sequences of n events, as `EventBatch` has them."""

    sources: list[str]
    windows: list[int]
    source: NDArray[np.int64]
    sequence: NDArray[np.int64]


def assemble(
    unpacked: Unpacked,
    fields: Fields,
    identities: Identities,
    readings: Mapping[int, Reading],
    columns: DataColumns,
    *,
    named_fields: Iterable[str],
) -> Decoded:
    """The outcome of a batch: columns with the readings of odd rows put into their places, or taken out."""
    failures: dict[int, tuple[FailureReason, str]] = {}
    controls: list[ControlRecord] = []
    failed = list(unpacked.failed)
    ledger = 0
    if readings:
        _mend(fields, identities, columns, {row: what for row, what in readings.items() if isinstance(what, Row)})
    for row, what in readings.items():
        if isinstance(what, Row):
            if what.failure is not None:
                failures[row] = what.failure
        elif isinstance(what, Failure):
            failed.append(_failed_event(unpacked, row, what))
        elif isinstance(what, IsControl):
            controls.append(ControlRecord(int(unpacked.record[row]), int(unpacked.sub_sequence[row]), what.event))
        else:
            ledger += 1
    failed.sort(key=lambda event: event.position)
    batch = EventBatch(
        record=unpacked.record,
        sub_sequence=unpacked.sub_sequence,
        time_ms=fields.time_ms,
        source=identities.source,
        sources=identities.sources,
        source_windows=identities.windows,
        sequence=identities.sequence,
        ids=fields.ids,
        partition_keys=unpacked.partition_keys,
        outcome=fields.outcome,
        failures=failures,
        fields=_named(fields, named_fields),
        payloads=unpacked.payloads,
    )
    dropped = [row for row, what in readings.items() if not isinstance(what, Row)]
    if dropped:
        batch = _without(batch, dropped)
    return Decoded(
        sequence_numbers=unpacked.sequence_numbers,
        arrival_ms=unpacked.arrival_ms,
        last_sub_sequence=unpacked.last_sub_sequence,
        batch=batch,
        controls=controls,
        failed=failed,
        positions=len(batch) + len(failed) + len(controls) + ledger + unpacked.misrouted,
        ledger=ledger,
        misrouted=unpacked.misrouted,
        redelivered=unpacked.redelivered,
    )


def _failed_event(unpacked: Unpacked, row: int, what: Failure) -> FailedEvent:
    record = int(unpacked.record[row])
    return FailedEvent(
        position=Position(unpacked.sequence_numbers[record], int(unpacked.sub_sequence[row])),
        arrival_ms=int(unpacked.arrival_ms[record]),
        partition_key=unpacked.partition_keys[row],
        reason=what.reason,
        detail=what.detail,
        payload=unpacked.payloads[row],
        source=what.source,
        identity=what.identity,
    )


def _mend(fields: Fields, identities: Identities, columns: DataColumns, rows: Mapping[int, Row]) -> None:
    """Write exact readings over what the columns hold in their rows."""
    if fields.claimed is fields.subjects:
        fields.claimed = list(fields.subjects)
    codes = {source: code for code, source in enumerate(identities.sources)}
    for row, what in rows.items():
        code = codes.setdefault(what.source, len(codes))
        if code == len(identities.sources):
            identities.sources.append(what.source)
            identities.windows.append(what.window)
        # A source that the columns could not place has no window there yet.
        identities.windows[code] = what.window
        identities.source[row] = code
        identities.sequence[row] = what.sequence
        fields.sources[row] = what.source
        fields.ids[row] = what.id
        fields.time_ms[row] = what.time_ms
        fields.subjects[row] = what.subject
        fields.claimed[row] = what.claimed_key
        fields.types[row] = what.type
        fields.outcome[row] = what.outcome
        values = {} if what.data is None else columns.of_one(what.type, what.data)
        for name, column in fields.data.items():
            _put(column, row, values.get(name))


def _put(column: FieldColumn, row: int, value: object) -> None:
    column.present[row] = value is not None
    if isinstance(column.values, list):
        column.values[row] = "" if value is None else str(value)
    else:
        assert value is None or isinstance(value, bool | int | float)
        column.values[row] = 0 if value is None else value


def _named(fields: Fields, names: Iterable[str]) -> dict[str, FieldColumn]:
    present = fields.outcome == Outcome.READ
    envelope = {
        "subject": fields.subjects,
        "partitionkey": fields.claimed,
        "type": fields.types,
        "source": fields.sources,
    }
    return {name: FieldColumn(envelope[name], present) if name in envelope else fields.data[name] for name in names}


def _without(batch: EventBatch, dropped: list[int]) -> EventBatch:
    """The batch without some rows, and without sources that no row is left of."""
    keep = np.ones(len(batch), dtype=np.bool_)
    keep[dropped] = False
    chosen = keep.tolist()
    place = (np.cumsum(keep) - 1).tolist()

    def rest(values: list[Value]) -> list[Value]:
        return list(itertools.compress(values, chosen))

    used, source = np.unique(batch.source[keep], return_inverse=True)
    return EventBatch(
        record=batch.record[keep],
        sub_sequence=batch.sub_sequence[keep],
        time_ms=batch.time_ms[keep],
        source=source.astype(np.int64),
        sources=[batch.sources[code] for code in used.tolist()],
        source_windows=[batch.source_windows[code] for code in used.tolist()],
        sequence=batch.sequence[keep],
        ids=rest(batch.ids),
        partition_keys=rest(batch.partition_keys),
        outcome=batch.outcome[keep],
        failures={place[row]: failure for row, failure in batch.failures.items()},
        fields={
            name: FieldColumn(
                rest(column.values) if isinstance(column.values, list) else column.values[keep], column.present[keep]
            )
            for name, column in batch.fields.items()
        },
        payloads=rest(batch.payloads),
    )
