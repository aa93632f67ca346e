"""The delivery of one shard: records in, whole ranges of Parquet objects out.

A range is written down before its objects (`streamgauge.sinks.archive.ranges`), and both are created so that the first
writer of a name wins. So a crash anywhere leaves at most one unfinished range, which the next start reads again and
finishes to the same objects; and of two deliverers at once the slower adopts the ranges of the faster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.sinks.archive import layout
from streamgauge.sinks.archive.objects import ArchiveObjects
from streamgauge.sinks.archive.ranges import (
    DeliveredRange,
    RangeObject,
    decode_range,
    encode_range,
    range_name,
    range_prefix,
)
from streamgauge.sinks.delivery.held import Held, Inputs, encode_held, full_range
from streamgauge.sinks.delivery.rows import RecordReader
from streamgauge.sinks.delivery.settings import DeliverySettings
from streamgauge.sinks.delivery.stream import GAP_REMEDY, KinesisReader, ShardReader, TrimmedRecords

__all__ = ["Counts", "DeliveryConflict", "ShardContext", "ShardDelivery"]


class DeliveryConflict(StreamgaugeError):
    """What is written down of a shard is not what the stream and this configuration say."""


@dataclass(slots=True)
class Counts:
    """What was delivered since the start: rows by table, objects and their bytes."""

    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class ShardContext:
    """What the deliveries of all shards share."""

    client: KinesisReader
    stream: str
    stream_arn: str
    objects: ArchiveObjects
    reader: RecordReader
    schemas: Mapping[str, pa.Schema]
    catalogue: str
    settings: DeliverySettings
    accept_gap: bool
    counts: Counts


class ShardDelivery:
    """One shard. Live: all but the ranges in the archive, from which a new one starts.

    Raises
    ------
    DeliveryConflict
        The ranges in the archive are another stream's.
    StoreUnavailable, StoreRefused
        The archive does not answer.
    """

    def __init__(self, shard: Shard, context: ShardContext) -> None:
        self.shard = shard
        self._context = context
        self._held: list[Held] = []
        self._held_since_ms = 0
        self._gap: str | None = None
        self._read_to_end = False
        self._pending: DeliveredRange | None = None
        self._bodies: dict[str, bytes] = {}
        self._created: set[str] = set()
        self._number = 0
        self._after: str | None = None
        self._inputs = Inputs({}, ended=False)
        self.closed = False
        self.behind_ms: int | None = None
        self._recover()
        self._stream = ShardReader(context.client, context.stream, shard.shard_id, after=self._after)

    @property
    def has_undelivered(self) -> bool:
        """Whether something was read that is not in the archive yet."""
        return bool(self._held) or self._pending is not None

    @property
    def has_records(self) -> bool:
        """Whether the shard has given any record so far."""
        return bool(self._held) or self._after is not None

    @property
    def input_ended(self) -> bool:
        """Whether an input has ended in what was read, with no event after it, at the shard's tip."""
        return (self.closed or self.behind_ms == 0) and self._inputs.after(self._held).ended

    def read(self, now_ms: int) -> bool:
        """Read once; whether anything came.

        Raises
        ------
        TrimmedRecords
            Undelivered records are gone from the stream, and gaps are not accepted.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            As the client raises them; the same call may be made again.
        """
        if self.closed or self._read_to_end:
            return False
        try:
            read = self._stream.read()
        except TrimmedRecords as error:
            if not self._context.accept_gap:
                raise
            self._accept_gap(error)
            return True
        if read.records and not self._held:
            self._held_since_ms = now_ms
        reader = self._context.reader
        self._held += [Held(record, reader.read(record, self.shard)) for record in self._wanted(read.records)]
        self.behind_ms = read.behind_ms
        self._read_to_end = read.ended
        return bool(read.records)

    def advance(self, now_ms: int, *, flush: bool = False) -> None:
        """Write every range that is due; with `flush` everything that was read.

        Raises
        ------
        StoreUnavailable
            The archive does not answer; the same call may be made again.
        StoreRefused, DeliveryConflict
            It will not go on by itself.
        """
        while not self.closed:
            if self._pending is None:
                count = self._due(now_ms, flush=flush)
                if not count and not (self._read_to_end and not self._held):
                    return
                self._pending = self._write_down(count)
            if not self._finish(self._pending, now_ms):
                return

    def abandon(self, now_ms: int) -> None:
        """Close a shard that the stream has forgotten before its end was delivered: what was read is written, the rest
        is a gap, and it is written down.

        Raises
        ------
        TrimmedRecords
            Gaps are not accepted.
        StoreUnavailable, StoreRefused, DeliveryConflict
            As `advance`.
        """
        if self.closed:
            return
        error = TrimmedRecords(
            "the stream has forgotten the shard, whose end was not delivered",
            where=f"{self._context.stream}, shard {self.shard.shard_id}, after {self._after}",
            remedy=GAP_REMEDY,
        )
        if not self._context.accept_gap:
            raise error
        if self._held:
            self.advance(now_ms, flush=True)
        self._held = []
        self._accept_gap(error)
        self._read_to_end = True
        self.advance(now_ms)

    def _recover(self) -> None:
        names = self._context.objects.names(range_prefix(self.shard.shard_id))
        if not names:
            return
        last = self._stored_range(names[-1])
        if last.stream_arn != self._context.stream_arn:
            raise DeliveryConflict(
                f"the archive holds this shard of the stream {last.stream_arn}",
                where=f"{self._context.stream_arn}, shard {self.shard.shard_id}",
                remedy="Give each stream an archive of its own",
            )
        if all(self._exists(item.name) for item in last.objects):
            self._adopt(last)
            return
        self._pending, self._number, self._after = last, last.number, last.after

    def _stored_range(self, name: str) -> DeliveredRange:
        body = self._context.objects.get(name)
        assert body is not None, f"{name} was listed, and ranges are never deleted"
        return decode_range(body)

    def _exists(self, name: str) -> bool:
        return name in self._context.objects.names(name)

    def _wanted(self, records: Sequence[StreamRecord]) -> Sequence[StreamRecord]:
        if self._gap is None or self._after is None:
            return records
        # After a gap reading starts at the stream's oldest record, which may lie inside a range that was given up.
        return [record for record in records if int(record.sequence_number) > int(self._after)]

    def _accept_gap(self, error: TrimmedRecords) -> None:
        self._gap = error.where
        if self._pending is not None:
            self._number, self._after = self._pending.number + 1, self._pending.last
            self._pending, self._bodies = None, {}

    def _due(self, now_ms: int, *, flush: bool) -> int:
        """How many of the records held make the next range; 0 for none yet."""
        full = full_range(self._held, self._context.settings)
        if full:
            return full
        old = bool(self._held) and now_ms - self._held_since_ms >= self._context.settings.max_age_ms
        return len(self._held) if flush or old or self._read_to_end else 0

    def _encode(self, held: Sequence[Held]) -> tuple[dict[str, bytes], tuple[RangeObject, ...]]:
        return encode_held(self.shard.shard_id, held, self._context.schemas)

    def _write_down(self, count: int) -> DeliveredRange:
        """Propose the range of the first `count` records; return it, or another deliverer's of the same number."""
        held = self._held[:count]
        self._bodies, objects = self._encode(held)
        inputs = self._inputs.after(held)
        proposed = DeliveredRange(
            stream_arn=self._context.stream_arn,
            shard_id=self.shard.shard_id,
            number=self._number,
            after=self._after,
            first=held[0].record.sequence_number if held else None,
            last=held[-1].record.sequence_number if held else None,
            objects=objects,
            catalogue=self._context.catalogue,
            gap=self._gap,
            input_parts=dict(inputs.parts),
            ended=inputs.ended,
            closed=self._read_to_end and count == len(self._held),
        )
        name = range_name(self.shard.shard_id, self._number)
        if self._context.objects.create(name, encode_range(proposed)):
            return proposed
        stored = self._stored_range(name)
        if stored != proposed:
            self._bodies = {}
        return stored

    def _finish(self, pending: DeliveredRange, now_ms: int) -> bool:
        """Write the range's objects if all its records were read; whether it is whole now."""
        count = 0
        if pending.last is not None:
            if not self._held or int(self._held[-1].record.sequence_number) < int(pending.last):
                if self._read_to_end:
                    raise self._conflict(pending, "it reaches past the shard's last record")
                return False
            numbers = [entry.record.sequence_number for entry in self._held]
            if numbers[0] != pending.first or pending.last not in numbers:
                raise self._conflict(pending, "the stream's records there are others")
            count = numbers.index(pending.last) + 1
            if not self._bodies:
                self._bodies, objects = self._encode(self._held[:count])
                if objects != pending.objects:
                    raise self._conflict(pending, self._difference(pending))
        self._create(pending)
        self._adopt(pending)
        del self._held[:count]
        self._held_since_ms = now_ms
        return True

    def _create(self, pending: DeliveredRange) -> None:
        counts = self._context.counts
        for item in pending.objects:
            # Where an outage ended the last try, this one goes on.
            if item.name in self._created:
                continue
            is_new = self._context.objects.create(item.name, self._bodies[item.name])
            self._created.add(item.name)
            if is_new:
                counts.objects += 1
                counts.bytes += len(self._bodies[item.name])
                partition = layout.parse_name(item.name)
                assert partition is not None
                counts.rows[partition.table] += item.rows

    def _adopt(self, whole: DeliveredRange) -> None:
        self._number = whole.number + 1
        self._after = whole.after if whole.last is None else whole.last
        self._inputs = Inputs(whole.input_parts, whole.ended)
        self.closed = whole.closed
        self._pending, self._bodies, self._gap = None, {}, None
        self._created.clear()

    def _difference(self, pending: DeliveredRange) -> str:
        if pending.catalogue != self._context.catalogue:
            return "it was begun with other schemas, by which its records lie in other tables"
        return "its records come to other rows"

    def _conflict(self, pending: DeliveredRange, what: str) -> DeliveryConflict:
        return DeliveryConflict(
            f"an unfinished range cannot be finished: {what}",
            where=f"archive {range_name(self.shard.shard_id, pending.number)}",
            remedy="Start delivery once with the release and the schemas that began it",
        )
