"""The JSON Lines objects that a shard session writes beside the Parquet files of raw events.

Processors must fit a Lambda zip, so they have no Parquet writer: these tables are gzip-compressed JSON Lines, one row
a line, which Athena and DuckDB both read. Times are RFC 3339 UTC text. An object's name holds who wrote it, so that no
two writes meet; a failed or late object counts only if a row of ``streamgauge_commits`` lists it.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from streamgauge.processors.core.counters import Counters

__all__ = [
    "COMMITS",
    "FAILED_EVENTS",
    "LATE_EVENTS",
    "PANES",
    "THRESHOLD_EVENTS",
    "CommitRow",
    "FailedRow",
    "LateRow",
    "PaneRow",
    "ThresholdRow",
    "decode_rows",
    "encode_rows",
    "object_name",
]

PANES = "streamgauge_panes"
THRESHOLD_EVENTS = "streamgauge_threshold_events"
FAILED_EVENTS = "streamgauge_failed_events"
LATE_EVENTS = "streamgauge_late_events"
COMMITS = "streamgauge_commits"


class PaneRow(msgspec.Struct, frozen=True, kw_only=True):
    """One pane at one revision."""

    pipeline: str
    state_epoch: int
    aggregate: str
    key: dict[str, str]
    partition_key: str
    window_start: str
    window_end: str
    revision: int
    event_count: int
    tombstone: bool
    measures: dict[str, int | float | None]
    shard_id: str
    claim_version: int


class ThresholdRow(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold event. ``rule_sequence`` is ``<sequence number>/<sub-sequence number>/<index>``, each zero-padded
    (to 129, 10 and 10 digits, the most that they can have), so that such texts compare like what they stand for.
    """

    id: str
    pipeline: str
    state_epoch: int
    rule: str
    aggregate: str
    detail_type: str
    key: dict[str, str]
    window_start: str
    window_end: str
    revision: int
    kind: str
    state: str
    reason: str
    takes_back: str | None
    crossing_ordinal: int
    rule_sequence: str
    measures: dict[str, int | float | None]
    shard_id: str
    claim_version: int
    traceparent: str | None = None


class FailedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One failed event. ``payload`` is base64 (msgspec's JSON form of bytes)."""

    pipeline: str
    state_epoch: int
    shard_id: str
    sequence_number: str
    sub_sequence_number: int
    arrival: str
    partition_key: str
    reason: str
    detail: str
    source: str | None
    identity: str | None
    payload: bytes


class LateRow(msgspec.Struct, frozen=True, kw_only=True):
    """One event past the allowed lateness of one aggregate. ``payload`` is base64."""

    pipeline: str
    state_epoch: int
    shard_id: str
    sequence_number: str
    sub_sequence_number: int
    aggregate: str
    source: str
    identity: str
    partition_key: str
    key: dict[str, str]
    time: str
    window_start: str
    payload: bytes


class CommitRow(msgspec.Struct, frozen=True, kw_only=True):
    """One commit: the position it reached, the counters so far, and the failed and late objects that count."""

    pipeline: str
    state_epoch: int
    shard_id: str
    claim_version: int
    owner: str
    sequence_number: str | None
    sub_sequence_number: int | None
    committed_at: str
    watermark: str | None
    failed_object: str | None
    late_object: str | None
    counters: Counters
    gaps: list[str] = msgspec.field(default_factory=list)
    """Every gap accepted in the shard so far: ``<last applied position>..<first record that came>``."""


Row = TypeVar("Row", bound=msgspec.Struct)


def object_name(table: str, *, arrival_ms: int, writer: Sequence[str | int]) -> str:
    """``type=<table>/dt=YYYY-MM-DD/hour=HH/<writer joined by ->.jsonl.gz``, by arrival in UTC."""
    arrival = datetime.fromtimestamp(arrival_ms / 1000, UTC)
    return f"type={table}/dt={arrival:%Y-%m-%d}/hour={arrival:%H}/{'-'.join(map(str, writer))}.jsonl.gz"


def encode_rows(rows: Iterable[msgspec.Struct]) -> bytes:
    """Rows as gzip-compressed JSON Lines; equal rows give equal bytes."""
    return gzip.compress(msgspec.json.Encoder().encode_lines(rows), compresslevel=6, mtime=0)


def decode_rows(body: bytes, row_type: type[Row]) -> list[Row]:
    """Read what `encode_rows` wrote."""
    return msgspec.json.Decoder(row_type).decode_lines(gzip.decompress(body))
