"""The decoding port, and its msgspec implementation. Why it is a port: ``docs/adr/0007-decoding-as-a-port.md``."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from streamgauge.events.envelope import SOURCE_PREFIX, InvalidEvent, own_source
from streamgauge.events.kpl import is_aggregate
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.assembly import Identities, assemble
from streamgauge.processors.core.batch import Decoded
from streamgauge.processors.core.cloudevent_readers import GroupedCloudEvents, TypedCloudEvents
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.mapped_readers import GroupedRecords, TypedRecords
from streamgauge.processors.core.one_by_one import BY_POSITION, MAX_NESTING, DataDecoders, ExactReader, UserRecord
from streamgauge.processors.core.reading import DataColumns, Fields, Reader
from streamgauge.processors.core.unpack import RangeCheck, Unpacked, unpack
from streamgauge.processors.core.vectors import sequences

__all__ = ["Decoder", "MsgspecDecoder"]

_CACHED_SOURCES_MAX = 65_536
# Below this share of events that fit the typed form the grouped one is faster.
_TYPED_FROM = 0.75


class Decoder(Protocol):
    """Records to columns. All implementations agree on every byte: ``tests/behaviours/test_decoders.py``."""

    def decode(self, records: Sequence[StreamRecord], shard: Shard, after: Position | None) -> Decoded:
        """Decode records of one shard.

        Parameters
        ----------
        records
            In stream order.
        shard
            Where they come from: its hash range says what is misrouted.
        after
            The position already applied: events at or below it are skipped before anything else.

        Returns
        -------
        Every position once: as a row, a failed event, a control record, or in a count. No record makes it raise.
        """
        ...


class MsgspecDecoder:
    """Decodes with msgspec, one payload at a time, so that no record can change how another is read.

    Configuration: the pipeline, and the ARN of the stream (the source of mapped records that have none). Live: caches,
    and which form of reading was the better one; neither shows in the result.
    """

    def __init__(self, pipeline: Pipeline, stream_arn: str) -> None:
        self._pipeline = pipeline
        decoders = DataDecoders(pipeline)
        self._columns = DataColumns(pipeline, decoders)
        self._exact = ExactReader(pipeline, stream_arn, decoders)
        self._grouped: Reader
        self._typed: Reader | None = None
        if pipeline.mapping is None:
            self._grouped = GroupedCloudEvents(pipeline, self._columns)
            if len(pipeline.event_types) == 1:
                self._typed = TypedCloudEvents(pipeline, decoders, self._columns)
        else:
            self._grouped = GroupedRecords(pipeline, pipeline.mapping, stream_arn, self._columns)
            if len(pipeline.event_types) == 1:
                self._typed = TypedRecords(pipeline, pipeline.mapping, stream_arn, self._columns, decoders)
        self._prefers_typed = self._typed is not None
        self._range_check: RangeCheck | None = None
        self._windows: dict[str, int | None] = {}

    def decode(self, records: Sequence[StreamRecord], shard: Shard, after: Position | None) -> Decoded:
        """See `Decoder`."""
        if self._range_check is None or self._range_check.hash_range != shard.hash_range:
            self._range_check = RangeCheck(shard.hash_range)
        unpacked = unpack(records, self._range_check, after)
        fields = self._read(unpacked)
        identities = self._identify(fields)
        self._check_places(fields, unpacked)
        readings = {row: self._exact.read(self._user_record(unpacked, records, row)) for row in sorted(fields.odd)}
        return assemble(unpacked, fields, identities, readings, self._columns, named_fields=self._pipeline.named_fields)

    def _read(self, unpacked: Unpacked) -> Fields:
        """All payloads as columns, with everything odd that is not plain in itself."""
        payloads = unpacked.payloads
        if not payloads:
            return self._columns.blank(0)
        reader = self._typed if self._typed is not None and self._prefers_typed else self._grouped
        fields = reader.read(payloads, lambda: _positions(unpacked))
        if fields is None:
            self._prefers_typed = False
            return self._columns.blank(len(payloads))
        self._prefers_typed = fields.typed_share >= _TYPED_FROM
        self._check_text(payloads, fields.odd)
        return fields

    def _check_text(self, payloads: Sequence[bytes], odd: set[int]) -> None:
        """Find payloads that are not wholly UTF-8, nested too deeply, or ours in a mapped stream.

        A decoder that skips what is not asked for sees none of this by itself.
        """
        if not all(map(bytes.isascii, payloads)):
            odd.update(row for row, payload in enumerate(payloads) if not _is_utf8(payload))
        # Each level takes two bytes at least.
        if max(map(len, payloads)) > 2 * MAX_NESTING:
            odd.update(
                row
                for row, payload in enumerate(payloads)
                if len(payload) > 2 * MAX_NESTING and payload.count(b"{") + payload.count(b"[") > MAX_NESTING
            )
        if self._pipeline.mapping is not None:
            joined = b"\n".join(payloads)
            # Escapes could hide the prefix or the attribute's name; those of ASCII letters all begin so.
            marks = [SOURCE_PREFIX.encode(), b"\\u00"] if b"\\" in joined else [SOURCE_PREFIX.encode()]
            for mark in marks:
                if mark in joined:
                    odd.update(row for row, payload in enumerate(payloads) if mark in payload)

    def _identify(self, fields: Fields) -> Identities:
        """Who the events are; what is not plain in it becomes odd."""
        # A source that is met for the first time takes the next code.
        index: defaultdict[str, int] = defaultdict(itertools.count().__next__)
        codes = np.fromiter(map(index.__getitem__, fields.sources), dtype=np.int64, count=len(fields.sources))
        windows = [self._window(source) for source in index]
        sequence = np.full(len(codes), -1, dtype=np.int64)
        if None in windows:
            fields.odd.update(np.flatnonzero(np.array([window is None for window in windows])[codes]).tolist())
        own = np.flatnonzero(np.array([window or 0 for window in windows], dtype=np.int64)[codes] > 0)
        if len(own):
            texts = fields.sequences
            assert texts is not None, "a reader of records without sequences meets no sources of ours"
            if len(own) < len(texts):
                texts = [texts[row] for row in own.tolist()]
            sequence[own], wrong = sequences(texts)
            fields.odd.update(own[wrong].tolist())
        return Identities(list(index), [window or 0 for window in windows], codes, sequence)

    def _window(self, source: str) -> int | None:
        """W, 0 for a foreign source, `BY_POSITION`; None where it needs a closer look."""
        try:
            return self._windows[source]
        except KeyError:
            if len(self._windows) >= _CACHED_SOURCES_MAX:
                self._windows.clear()
            window = self._windows[source] = self._find_window(source)
            return window

    def _find_window(self, source: str) -> int | None:
        mapping = self._pipeline.mapping
        if not source.startswith(SOURCE_PREFIX):
            return BY_POSITION if mapping is not None and mapping.id is None else 0
        try:
            own = own_source(source)
        except InvalidEvent:
            return None
        return None if mapping is not None or own is None or own.window > self._pipeline.max_w else own.window

    def _check_places(self, fields: Fields, unpacked: Unpacked) -> None:
        """Find events whose partition key is not the one they claim, or lies outside the shard."""
        fields.odd.update(unpacked.outside)
        claimed = fields.claimed
        if claimed != unpacked.partition_keys:
            pairs = enumerate(zip(claimed, unpacked.partition_keys, strict=True))
            fields.odd.update(row for row, (claim, key) in pairs if claim != key)
        if self._exact.subject_is_partition_key and claimed is not fields.subjects:
            pairs = enumerate(zip(claimed, fields.subjects, strict=True))
            fields.odd.update(row for row, (claim, subject) in pairs if claim != subject)

    def _user_record(self, unpacked: Unpacked, records: Sequence[StreamRecord], row: int) -> UserRecord:
        record = int(unpacked.record[row])
        return UserRecord(
            payload=unpacked.payloads[row],
            partition_key=unpacked.partition_keys[row],
            position=Position(unpacked.sequence_numbers[record], int(unpacked.sub_sequence[row])),
            is_plain=_is_plain(records, record),
            is_inside=row not in unpacked.outside,
        )


def _is_plain(records: Sequence[StreamRecord], index: int) -> bool:
    """Whether a record was put by itself. Of user records the first in an aggregate of one cannot be told from it."""
    record = records[index]
    if record.sub_sequence_number is None:
        return not is_aggregate(record.data)
    following = records[index + 1] if index + 1 < len(records) else None
    return record.sub_sequence_number == 0 and (
        following is None or following.sequence_number != record.sequence_number
    )


def _positions(unpacked: Unpacked) -> list[str]:
    numbers = [str(number) for number in unpacked.sequence_numbers]
    places = zip(unpacked.record.tolist(), unpacked.sub_sequence.tolist(), strict=True)
    return [f"{numbers[record]}/{sub_sequence}" for record, sub_sequence in places]


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
