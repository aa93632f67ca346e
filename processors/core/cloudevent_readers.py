"""CloudEvents in JSON, many at a time. See `reading`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamgauge.events.catalogue import schema_urn
from streamgauge.events.decoders import data_struct
from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.one_by_one import DataDecoders
from streamgauge.processors.core.reading import DataColumns, Fields, decode_each
from streamgauge.processors.core.vectors import instants

__all__ = ["GroupedCloudEvents", "TypedCloudEvents"]

_NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]


class _Envelope(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    # datacontenttype and traceparent are not used, but an event where one is no text is malformed.
    specversion: Literal["1.0"]
    id: _NonEmpty
    source: _NonEmpty
    type: _NonEmpty
    time: str
    subject: _NonEmpty
    data: msgspec.Raw | msgspec.Struct = msgspec.Raw(b"null")
    dataschema: str | None = None
    datacontenttype: str | None = None
    partitionkey: _NonEmpty | None = None
    sequence: str | None = None
    traceparent: str | None = None


class _RawEnvelope(_Envelope, gc=False, frozen=True, kw_only=True):
    data: msgspec.Raw = msgspec.Raw(b"null")


class TypedCloudEvents:
    """Events of the pipeline's single type in its newest version; all others are odd."""

    def __init__(self, pipeline: Pipeline, decoders: DataDecoders, columns: DataColumns) -> None:
        (self._type,) = pipeline.event_types
        self._columns = columns
        data = data_struct(pipeline.catalogue, self._type, decoders.fields[self._type])
        dataschema = Literal[_newest_names(pipeline, self._type)] | None  # type: ignore[valid-type]
        struct = msgspec.defstruct(
            "TypedEnvelope",
            [("type", Literal[self._type]), ("data", data), ("dataschema", dataschema, None)],
            bases=(_Envelope,),
            gc=False,
            frozen=True,
            kw_only=True,
        )
        assert issubclass(struct, _Envelope)
        self._decode = msgspec.json.Decoder(struct).decode

    def read(self, payloads: Sequence[bytes], _: Callable[[], list[str]]) -> Fields | None:
        """See `Reader`."""
        events, odd = decode_each(self._decode, payloads)
        if not events:
            return None
        n = len(events)
        data = self._columns.of_type(self._type, [event.data for event in events])
        types = [self._type] * n
        outcome = np.zeros(n, dtype=np.uint8)
        return _fields(events, odd, types=types, data=data, outcome=outcome, typed_share=1 - len(odd) / n)


class GroupedCloudEvents:
    """Events of any type and version."""

    def __init__(self, pipeline: Pipeline, columns: DataColumns) -> None:
        self._columns = columns
        first = pipeline.event_types[0]
        self._typed = frozenset((first, name) for name in (*_newest_names(pipeline, first), None))
        self._decode = msgspec.json.Decoder(_RawEnvelope).decode

    def read(self, payloads: Sequence[bytes], _: Callable[[], list[str]]) -> Fields | None:
        """See `Reader`."""
        events, odd = decode_each(self._decode, payloads)
        if not events:
            return None
        groups = [(event.type, event.dataschema) for event in events]
        data, outcome = self._columns.grouped(groups, [event.data for event in events], odd)
        typed_share = sum(map(self._typed.__contains__, groups)) / len(events)
        types = [event.type for event in events]
        return _fields(events, odd, types=types, data=data, outcome=outcome, typed_share=typed_share)


def _newest_names(pipeline: Pipeline, event_type: str) -> tuple[str, ...]:
    """What ``dataschema`` may call a type's newest version."""
    newest = pipeline.catalogue.newest(event_type)
    urn = schema_urn(newest.type, newest.version)
    return tuple(sorted({urn, str(newest.schema.get("$id", urn))}))


def _fields(
    events: Sequence[_Envelope],
    odd: set[int],
    *,
    types: list[str],
    data: dict[str, FieldColumn],
    outcome: NDArray[np.uint8],
    typed_share: float,
) -> Fields:
    time_ms, wrong_times = instants([event.time for event in events])
    odd.update(wrong_times)
    subjects = [event.subject for event in events]
    keys = [event.partitionkey for event in events]
    claimed = subjects
    if keys.count(None) < len(keys):
        claimed = [subject if key is None else key for key, subject in zip(keys, subjects, strict=True)]
    return Fields(
        sources=[event.source for event in events],
        ids=[event.id for event in events],
        time_ms=time_ms,
        sequences=[event.sequence for event in events],
        subjects=subjects,
        claimed=claimed,
        types=types,
        data=data,
        outcome=outcome,
        odd=odd,
        typed_share=typed_share,
    )
