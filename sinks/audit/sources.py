"""Checks per source of ours: what its ledger says was acknowledged is in the archive, and nothing else is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from streamgauge.sinks.archive.layout import LEDGER, UNARCHIVABLE
from streamgauge.sinks.audit.report import Check, shown
from streamgauge.sinks.audit.stores import Stores

__all__ = ["source_checks"]

_Ints = NDArray[np.int64]
_Ranges = list[tuple[int, int]]


def source_checks(stores: Stores) -> Iterator[Check]:
    """Per source, by its latest statement: what was acknowledged is archived or unarchivable, and if it is final, all
    that is archived was attempted.
    """
    statements = _statements(stores)
    present = _present(stores, set(statements))
    for source, (acknowledged, attempted, is_final) in sorted(statements.items()):
        held = present.get(source, np.zeros(0, dtype=np.int64))
        missing = [gap for span in acknowledged for gap in _gaps(held, *span)]
        total = sum(last - first + 1 for first, last in acknowledged)
        lacking = sum(last - first + 1 for first, last in missing)
        yield Check(
            name="acknowledged",
            scope=source,
            expected=total,
            found=total - lacking,
            missing=shown([_text(span) for span in missing]),
        )
        if is_final:
            unstated = held[~_inside(held, attempted)]
            yield Check(
                name="attempted",
                scope=source,
                expected=len(held),
                found=len(held) - len(unstated),
                doubled=shown([f"{sequence}: never attempted" for sequence in unstated.tolist()]),
            )


def _statements(stores: Stores) -> dict[str, tuple[_Ranges, _Ranges, bool]]:
    """The latest statement of every source: acknowledged, attempted, whether it is final."""
    latest: dict[str, int] = {}
    found: dict[str, tuple[_Ranges, _Ranges, bool]] = {}
    for row in stores.tables.dataset(LEDGER).to_table(columns=["id", "source", "data"]).to_pylist():
        number = int(str(row["id"]).rpartition("-")[2])
        source, data = str(row["source"]), row["data"]
        if number < latest.get(source, -1):
            continue
        latest[source] = number
        parts = {
            name: [(first, last) for first, last in data[name]] for name in ("acknowledged", "in_doubt", "given_up")
        }
        found[source] = (
            parts["acknowledged"],
            [span for spans in parts.values() for span in spans],
            bool(data["final"]),
        )
    return found


def _present(stores: Stores, sources: set[str]) -> dict[str, _Ints]:
    """Per source the sequences that the archive holds, rising, each once."""
    pieces: dict[str, list[_Ints]] = defaultdict(list)
    tables = stores.tables
    event_types = [table for table in tables.schemas if "sequence" in tables.schemas[table].names and table != LEDGER]
    for table, column in [*((name, "sequence") for name in event_types), (UNARCHIVABLE, "identity")]:
        wanted = ds.field("source").isin(pa.array(sorted(sources), pa.string())) & ds.field(column).is_valid()
        for batch in tables.dataset(table).to_batches(columns=["source", column], filter=wanted):
            # Per source, as dictionary codes: no Python object for each event but its digits.
            codes = batch.column(0).dictionary_encode()
            indices = np.asarray(codes.indices)
            texts = np.array(batch.column(1).to_pylist(), dtype=object)
            for code, source in enumerate(codes.dictionary.to_pylist()):
                pieces[str(source)].append(_numbers(texts[indices == code].tolist()))
    return {source: np.unique(np.concatenate(parts)) for source, parts in pieces.items()}


def _numbers(texts: Sequence[str]) -> _Ints:
    return np.array([int(text) for text in texts if text.isdigit() and int(text) < 2**63], dtype=np.int64)


def _gaps(held: _Ints, first: int, last: int) -> _Ranges:
    """The ranges within `first` to `last` that `held` lacks."""
    inside = held[np.searchsorted(held, first) : np.searchsorted(held, last, side="right")]
    edges = np.concatenate([[first - 1], inside, [last + 1]])
    steps = np.flatnonzero(np.diff(edges) > 1)
    return [(int(edges[step]) + 1, int(edges[step + 1]) - 1) for step in steps.tolist()]


def _inside(held: _Ints, ranges: _Ranges) -> NDArray[np.bool_]:
    inside = np.zeros(len(held), dtype=np.bool_)
    for first, last in ranges:
        inside |= (held >= first) & (held <= last)
    return inside


def _text(span: tuple[int, int]) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]}..{span[1]}"
