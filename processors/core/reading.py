"""Columnar reading of payloads: what is plain goes through here, whatever is not is named odd and read one by one.

A reader has two forms. *Typed* is one struct for envelope and data of the pipeline's single event type. *Grouped* reads
envelopes first, then data by type and version. Both give the same; which is faster depends on what the stream holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamgauge.events.catalogue import UnknownVersion
from streamgauge.events.decoders import field_getter
from streamgauge.processors.core.batch import FieldColumn, Outcome
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.expressions import Kind
from streamgauge.processors.core.one_by_one import BAD_JSON, DataDecoders
from streamgauge.processors.core.vectors import empty_column, field_column

__all__ = ["DataColumns", "Fields", "Reader", "decode_each"]

Value = TypeVar("Value")


@dataclass(slots=True)
class Fields:
    """n events as columns. Rows in `odd` hold anything of the right type, and nothing is to be believed of them.

    ``claimed`` is the same list as ``subjects`` where no event has a partitionkey of its own. ``sequences`` is None
    where no event has one. ``typed_share`` is the share of rows that a typed reader reads, or would have.
    """

    sources: list[str]
    ids: list[str]
    time_ms: NDArray[np.int64]
    sequences: list[str | None] | None
    subjects: list[str]
    claimed: list[str]
    types: list[str]
    data: dict[str, FieldColumn]
    outcome: NDArray[np.uint8]
    odd: set[int]
    typed_share: float


class Reader(Protocol):
    """One form of reading one kind of payload."""

    def read(self, payloads: Sequence[bytes], positions: Callable[[], list[str]]) -> Fields | None:
        """The payloads as columns, or None where not one could be decoded.

        `positions` gives their positions as texts, for events that have no other identity.
        """
        ...


def decode_each(
    decode: Callable[[bytes], Value], payloads: Sequence[bytes] | Sequence[msgspec.Raw]
) -> tuple[list[Value], set[int]]:
    """Decode each payload by itself; where one fails its place holds another's value. Empty if all fail."""
    values: list[Value] = []
    odd: set[int] = set()
    rest = iter(payloads)
    while True:
        try:
            # An exception leaves in the list what was decoded before it, so its length is the place that failed.
            values.extend(map(decode, rest))
            break
        except BAD_JSON:
            odd.add(len(values))
            values.append(values[-1] if values else None)  # type: ignore[arg-type]
    if odd and len(odd) < len(values):
        good = next(value for index, value in enumerate(values) if index not in odd)
        for index in odd:
            values[index] = good
    return (values, odd) if len(odd) < len(values) else ([], odd)


class DataColumns:
    """The columns of ``data`` that a pipeline names."""

    def __init__(self, pipeline: Pipeline, decoders: DataDecoders) -> None:
        self._pipeline = pipeline
        self._decoders = decoders
        self._types = frozenset(pipeline.catalogue.types)
        self.kinds: dict[str, Kind] = {}
        for event_type, paths in decoders.fields.items():
            known = pipeline.catalogue.fields(event_type)
            for path in paths:
                kind = known[path].kind
                self.kinds[path] = "number" if self.kinds.get(path, kind) != kind else kind
        self.getters = {path: field_getter(path) for path in self.kinds}

    def of_type(self, event_type: str, datas: Sequence[object]) -> dict[str, FieldColumn]:
        """The columns of n structs that hold the data of one type."""
        own = self._decoders.fields[event_type]
        n = len(datas)
        return {
            f"data.{path}": field_column(kind, list(map(self.getters[path], datas)))
            if path in own
            else empty_column(kind, n)
            for path, kind in self.kinds.items()
        }

    def of_one(self, event_type: str, data: object) -> dict[str, object]:
        """The fields of one event; those that its type does not have are left out."""
        return {f"data.{path}": self.getters[path](data) for path in self._decoders.fields[event_type]}

    def blank(self, n: int) -> Fields:
        """N rows of which nothing is known: all odd."""
        return Fields(
            sources=[""] * n,
            ids=[""] * n,
            time_ms=np.zeros(n, dtype=np.int64),
            sequences=None,
            subjects=[""] * n,
            claimed=[""] * n,
            types=[""] * n,
            data=self.empty(n),
            outcome=np.zeros(n, dtype=np.uint8),
            odd=set(range(n)),
            typed_share=0.0,
        )

    def empty(self, n: int) -> dict[str, FieldColumn]:
        """N nulls in each column."""
        return {f"data.{path}": empty_column(kind, n) for path, kind in self.kinds.items()}

    def grouped(
        self, groups: Sequence[tuple[str, str | None]], raws: Sequence[msgspec.Raw] | Sequence[bytes], odd: set[int]
    ) -> tuple[dict[str, FieldColumn], NDArray[np.uint8]]:
        """Decode data by group, a type and a ``dataschema``; add to `odd` what does not fit. Also the outcomes."""
        n = len(groups)
        members: dict[tuple[str, str | None], list[int]] = {}
        for index, group in enumerate(groups):
            members.setdefault(group, []).append(index)
        columns, outcome = self.empty(n), np.zeros(n, dtype=np.uint8)
        for (event_type, dataschema), rows in members.items():
            if event_type not in self._pipeline.event_types:
                outcome[rows] = Outcome.TYPE_NOT_READ
                if event_type not in self._types:
                    odd.update(rows)
                continue
            try:
                decoder = self._decoders.find(event_type, dataschema)
            except UnknownVersion:
                odd.update(rows)
                continue
            datas, wrong = decode_each(decoder.decode, [raws[row] for row in rows])
            odd.update(rows[index] for index in wrong)
            if datas:
                _scatter(self.of_type(event_type, datas), columns, rows)
        return columns, outcome


def _scatter(part: dict[str, FieldColumn], whole: dict[str, FieldColumn], rows: list[int]) -> None:
    for name, column in part.items():
        target = whole[name]
        target.present[rows] = column.present
        if isinstance(column.values, list):
            assert isinstance(target.values, list)
            for row, value in zip(rows, column.values, strict=True):
                target.values[row] = value
        else:
            assert isinstance(target.values, np.ndarray)
            target.values[rows] = column.values
