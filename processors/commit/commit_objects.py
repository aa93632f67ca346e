"""The archive objects of one commit, made from what the engine handed out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamgauge.events.times import rfc3339
from streamgauge.processors.commit.archive_rows import (
    COMMITS,
    FAILED_EVENTS,
    LATE_EVENTS,
    PANES,
    THRESHOLD_EVENTS,
    CommitRow,
    FailedRow,
    LateRow,
    PaneRow,
    ThresholdRow,
    encode_rows,
    object_name,
)
from streamgauge.processors.commit.engine_port import ShardEngine
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.effects import (
    ArchiveObject,
    FailedEvent,
    LateEvent,
    MeasureColumn,
    PaneBatch,
    ThresholdEvent,
)

__all__ = ["CommitObjects", "measure_rows", "rule_sequence_text"]


@dataclass(frozen=True, slots=True)
class CommitObjects:
    """Names and rows of the objects of one commit: by `pipeline`, shard, the version that the commit writes.

    ``arrival_ms`` is the latest arrival of the records in the commit: it decides the partition.
    """

    pipeline: Pipeline
    shard_id: str
    owner: str
    claim_version: int
    arrival_ms: int

    def name(self, table: str) -> str:
        """The name of an object that leaves after the snapshot."""
        return self._name(table, self.claim_version)

    def name_before_snapshot(self, table: str, rows: int) -> str:
        """The name of an object of so many rows that is written before the snapshot.

        It bears the owner, since that may lose the race, and the number of rows: where the snapshot fails and the next
        try has more, a first put that was given up and lands late must not take the place of the second.
        """
        return self._name(table, self.owner, self.claim_version, rows)

    def _name(self, table: str, *writer: str | int) -> str:
        whose = (self.pipeline.name, self.pipeline.state_epoch, self.shard_id)
        return object_name(table, arrival_ms=self.arrival_ms, writer=[*whose, *writer])

    def panes(self, batches: Sequence[PaneBatch]) -> list[ArchiveObject]:
        """One object with the panes of all aggregates; none without panes."""
        rows = [row for batch in batches for row in self._pane_rows(batch)]
        return [ArchiveObject(self.name(PANES), encode_rows(rows))] if rows else []

    def threshold_events(self, events: Sequence[ThresholdEvent]) -> list[ArchiveObject]:
        """One object with the threshold events; none without them."""
        rows = [self._threshold_row(event) for event in events]
        return [ArchiveObject(self.name(THRESHOLD_EVENTS), encode_rows(rows))] if rows else []

    def failed(self, events: Sequence[FailedEvent]) -> ArchiveObject | None:
        """The object of failed events; it counts only once a commit lists it."""
        if not events:
            return None
        rows = [
            FailedRow(
                pipeline=self.pipeline.name,
                state_epoch=self.pipeline.state_epoch,
                shard_id=self.shard_id,
                sequence_number=str(event.position.sequence_number),
                sub_sequence_number=event.position.sub_sequence_number,
                arrival=rfc3339(event.arrival_ms),
                partition_key=event.partition_key,
                reason=event.reason.value,
                detail=event.detail,
                source=event.source,
                identity=event.identity,
                payload=event.payload,
            )
            for event in events
        ]
        return ArchiveObject(self.name_before_snapshot(FAILED_EVENTS, len(rows)), encode_rows(rows))

    def late(self, events: Sequence[LateEvent]) -> ArchiveObject | None:
        """The object of late events; it counts only once a commit lists it."""
        if not events:
            return None
        key_fields = {aggregate.name: aggregate.key for aggregate in self.pipeline.aggregates}
        rows = [
            LateRow(
                pipeline=self.pipeline.name,
                state_epoch=self.pipeline.state_epoch,
                shard_id=self.shard_id,
                sequence_number=str(event.position.sequence_number),
                sub_sequence_number=event.position.sub_sequence_number,
                aggregate=event.aggregate,
                source=event.source,
                identity=event.identity,
                partition_key=event.partition_key,
                key=dict(zip(key_fields[event.aggregate], event.key, strict=True)),
                time=rfc3339(event.time_ms),
                window_start=rfc3339(event.window_start_ms),
                payload=event.payload,
            )
            for event in events
        ]
        return ArchiveObject(self.name_before_snapshot(LATE_EVENTS, len(rows)), encode_rows(rows))

    def commit(
        self,
        engine: ShardEngine,
        failed: ArchiveObject | None,
        late: ArchiveObject | None,
        *,
        committed_at_ms: int,
        gaps: Sequence[str],
    ) -> ArchiveObject:
        """The commit's own row, which makes its failed and late objects count."""
        position, watermark_ms = engine.position, engine.watermark_ms
        row = CommitRow(
            pipeline=self.pipeline.name,
            state_epoch=self.pipeline.state_epoch,
            shard_id=self.shard_id,
            claim_version=self.claim_version,
            owner=self.owner,
            sequence_number=None if position is None else str(position.sequence_number),
            sub_sequence_number=None if position is None else position.sub_sequence_number,
            committed_at=rfc3339(committed_at_ms),
            watermark=None if watermark_ms is None else rfc3339(watermark_ms),
            failed_object=failed.name if failed else None,
            late_object=late.name if late else None,
            counters=engine.counters,
            gaps=list(gaps),
        )
        return ArchiveObject(self.name(COMMITS), encode_rows([row]))

    def _pane_rows(self, batch: PaneBatch) -> Iterable[PaneRow]:
        columns = zip(
            batch.keys,
            batch.partition_keys,
            batch.window_start_ms.tolist(),
            batch.window_end_ms.tolist(),
            batch.revision.tolist(),
            batch.event_count.tolist(),
            batch.tombstone.tolist(),
            measure_rows(batch),
            strict=True,
        )
        for key, partition_key, start, end, revision, count, tombstone, measures in columns:
            yield PaneRow(
                pipeline=self.pipeline.name,
                state_epoch=self.pipeline.state_epoch,
                aggregate=batch.aggregate,
                key=dict(zip(batch.key_fields, key, strict=True)),
                partition_key=partition_key,
                window_start=rfc3339(start),
                window_end=rfc3339(end),
                revision=revision,
                event_count=count,
                tombstone=tombstone,
                measures=measures,
                shard_id=self.shard_id,
                claim_version=self.claim_version,
            )

    def _threshold_row(self, event: ThresholdEvent) -> ThresholdRow:
        return ThresholdRow(
            id=event.id,
            pipeline=event.pipeline,
            state_epoch=event.state_epoch,
            rule=event.rule,
            aggregate=event.aggregate,
            detail_type=event.detail_type,
            key=dict(event.key),
            window_start=rfc3339(event.window_start_ms),
            window_end=rfc3339(event.window_end_ms),
            revision=event.revision,
            kind=event.kind,
            state=event.state,
            reason=event.reason,
            takes_back=event.takes_back,
            crossing_ordinal=event.crossing_ordinal,
            rule_sequence=rule_sequence_text(event.rule_sequence),
            measures=dict(event.measures),
            shard_id=self.shard_id,
            claim_version=self.claim_version,
            traceparent=event.traceparent,
        )


def measure_rows(batch: PaneBatch) -> list[dict[str, int | float | None]]:
    """The measures of every pane of a batch by name, None for no value."""
    rows: list[dict[str, int | float | None]] = [{} for _ in range(len(batch))]
    for name, column in batch.measures.items():
        for row, value in zip(rows, _values(column), strict=True):
            row[name] = value
    return rows


def rule_sequence_text(rule_sequence: tuple[int, int, int]) -> str:
    """Zero-padded, so that texts compare like the numbers. A Kinesis sequence number has up to 129 digits."""
    sequence_number, sub_sequence_number, index = rule_sequence
    return f"{sequence_number:0129}/{sub_sequence_number:010}/{index:010}"


def _values(column: MeasureColumn) -> list[int | float | None]:
    return [
        value if present else None
        for value, present in zip(column.values.tolist(), column.present.tolist(), strict=True)
    ]
