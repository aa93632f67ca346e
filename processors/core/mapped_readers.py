"""Records that ``[event]`` maps, many at a time. See `reading`; the exact rules are in `streamgauge.events.mapping`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamgauge.events.decoders import attribute_name, data_struct
from streamgauge.events.mapping import EPOCH_MS, EPOCH_S, RFC3339, EventMapping, Selector, parse_time
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.one_by_one import DataDecoders
from streamgauge.processors.core.reading import DataColumns, Fields, decode_each
from streamgauge.processors.core.vectors import are_texts, instants

__all__ = ["GroupedRecords", "TypedRecords"]

# Whole milliseconds of the years 1 to 9999, with room to multiply; what lies outside is read one by one.
_EPOCH_LIMIT = {EPOCH_S: 60_000_000_000, EPOCH_MS: 60_000_000_000_000}


class TypedRecords:
    """Records of the pipeline's single type: one struct brings what the mapping and the data ask for."""

    def __init__(
        self,
        pipeline: Pipeline,
        mapping: EventMapping,
        stream_arn: str,
        columns: DataColumns,
        decoders: DataDecoders,
    ) -> None:
        (self._type,) = pipeline.event_types
        self._columns = columns
        self._envelope = _MappedEnvelope(mapping, stream_arn)
        data = data_struct(pipeline.catalogue, self._type, decoders.fields[self._type])
        self._decode = msgspec.json.Decoder(_with_paths(data, _wanted(mapping))).decode

    def read(self, payloads: Sequence[bytes], positions: Callable[[], list[str]]) -> Fields | None:
        """See `Reader`."""
        records, odd = decode_each(self._decode, payloads)
        if not records:
            return None
        n = len(records)
        fields = self._envelope.fields(records, odd, positions)
        fields.data = self._columns.of_type(self._type, records)
        if fields.types.count(self._type) < n:
            odd.update(row for row, event_type in enumerate(fields.types) if event_type != self._type)
        fields.typed_share = 1 - len(odd) / n
        return fields


class GroupedRecords:
    """Records of any type."""

    def __init__(self, pipeline: Pipeline, mapping: EventMapping, stream_arn: str, columns: DataColumns) -> None:
        self._columns = columns
        self._first = pipeline.event_types[0]
        self._envelope = _MappedEnvelope(mapping, stream_arn)
        self._decode = msgspec.json.Decoder(
            _with_paths(msgspec.defstruct("Record", [], gc=False, frozen=True), _wanted(mapping))
        ).decode

    def read(self, payloads: Sequence[bytes], positions: Callable[[], list[str]]) -> Fields | None:
        """See `Reader`."""
        records, odd = decode_each(self._decode, payloads)
        if not records:
            return None
        fields = self._envelope.fields(records, odd, positions)
        groups: list[tuple[str, str | None]] = [(event_type, None) for event_type in fields.types]
        fields.data, fields.outcome = self._columns.grouped(groups, payloads, odd)
        fields.typed_share = fields.types.count(self._first) / len(records)
        return fields


def _wanted(mapping: EventMapping) -> dict[tuple[str, ...], Any]:
    """The mapping's paths, and what each must be to be plain."""
    text_or_integer: Any = str | int
    time: Any = int | float if mapping.time_format in (EPOCH_S, EPOCH_MS) else str
    selectors = [(mapping.time, time), (mapping.key, text_or_integer), (mapping.type, str)]
    if mapping.id is not None:
        selectors.append((mapping.id, text_or_integer))
    if mapping.source is not None:
        selectors.append((mapping.source, str))
    wanted: dict[tuple[str, ...], Any] = {}
    for selector, kind in selectors:
        if selector.constant is None:
            # A field that serves twice is read as it comes, and looked at afterwards.
            wanted[selector.path] = Any if selector.path in wanted else kind
    return wanted


def _with_paths(struct: type[msgspec.Struct], wanted: Mapping[tuple[str, ...], Any]) -> type[msgspec.Struct]:
    """The struct with optional fields at the paths; fields that it has already keep their types."""
    known = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    added: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    rename = {field.name: name for name, field in known.items()}
    for name in dict.fromkeys(path[0] for path in wanted):
        inner = {path[1:]: kind for path, kind in wanted.items() if path[0] == name and len(path) > 1}
        field = known.get(name)
        attribute = attribute_name(name)
        rename[attribute] = name
        if field is None:
            empty = msgspec.defstruct("Inner", [], gc=False, frozen=True, kw_only=True)
            added.append((attribute, (_with_paths(empty, inner) if inner else wanted[name,]) | None, None))
        elif inner and (base := _struct_in(field.type)) is not None:
            # Whether the object may be null or absent is the schema's to say.
            merged: Any = _with_paths(base, inner)
            annotation = merged if field.type is base else merged | None
            added.append((attribute, annotation) if field.required else (attribute, annotation, field.default))
    return msgspec.defstruct(
        struct.__name__, added, bases=(struct,), rename=rename, gc=False, frozen=True, kw_only=True
    )


def _struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    """The struct in ``S`` or ``S | None``."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return option
    return None


def _getter(path: tuple[str, ...]) -> Callable[[object], object]:
    """The value at a path of a struct, None where a step is missing or no struct."""
    names = [attribute_name(name) for name in path]
    if len(names) == 1:
        return attrgetter(names[0])

    def get(value: object) -> object:
        for name in names:
            value = getattr(value, name, None)
        return value

    return get


class _MappedEnvelope:
    """The envelope's columns from decoded records; `_with_paths` gave these the attributes."""

    def __init__(self, mapping: EventMapping, stream_arn: str) -> None:
        self._mapping = mapping
        self._source = Selector(constant=stream_arn) if mapping.source is None else mapping.source

    def fields(self, records: Sequence[object], odd: set[int], positions: Callable[[], list[str]]) -> Fields:
        """All but data and outcome, which are left as if every event was read and had none."""
        mapping = self._mapping
        subjects = _texts(_values(records, mapping.key), odd, integers=True)
        return Fields(
            sources=_texts(_values(records, self._source), odd),
            ids=positions() if mapping.id is None else _texts(_values(records, mapping.id), odd, integers=True),
            time_ms=self._instants(_values(records, mapping.time), odd),
            sequences=None,
            subjects=subjects,
            claimed=subjects,
            types=_texts(_values(records, mapping.type), odd),
            data={},
            outcome=np.zeros(len(records), dtype=np.uint8),
            odd=odd,
            typed_share=0.0,
        )

    def _instants(self, values: list[object], odd: set[int]) -> NDArray[np.int64]:
        time_format = self._mapping.time_format
        if time_format == RFC3339 and are_texts(values):
            times, wrong = instants(values)
            odd.update(wrong)
            return times
        limit = _EPOCH_LIMIT.get(time_format)
        if limit is not None and set(map(type, values)) == {int}:
            try:
                numbers = np.array(values, dtype=np.int64)
            except OverflowError:
                pass
            else:
                odd.update(np.flatnonzero(np.abs(numbers) > limit).tolist())
                return numbers * (1_000 if time_format == EPOCH_S else 1)
        return self._instants_one_by_one(values, odd)

    def _instants_one_by_one(self, values: list[object], odd: set[int]) -> NDArray[np.int64]:
        result = np.zeros(len(values), dtype=np.int64)
        # Many events share a time, and strptime is slow. 1 and 1.0 are equal and the same time.
        read: dict[object, int | None] = {}
        for row, value in enumerate(values):
            if value not in read:
                try:
                    read[value] = parse_time(value, self._mapping.time_format)
                except (ValueError, OverflowError):
                    read[value] = None
            instant = read[value]
            if instant is None:
                odd.add(row)
            else:
                result[row] = instant
        return result


def _values(records: Sequence[object], selector: Selector) -> list[object]:
    if selector.constant is not None:
        return [selector.constant] * len(records)
    return list(map(_getter(selector.path), records))


def _texts(values: Sequence[object], odd: set[int], *, integers: bool = False) -> list[str]:
    """Strings that are not empty, and with `integers` those as text; the others become odd."""
    kinds = (str, int) if integers else (str,)
    # By type: True and False are no integers here.
    texts = list(values) if are_texts(values) else [str(value) if type(value) in kinds else "" for value in values]
    if "" in texts:
        odd.update(row for row, text in enumerate(texts) if not text)
    return texts
