"""Reading what a host will not hand over: the records between a shard's state and where the host goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from streamgauge.events.records import StreamRecord
from streamgauge.processors.hosts.shard_reader import Batch, ShardReader, TryLater

__all__ = ["READ_PAUSE_S", "read_gap", "read_patiently"]

READ_PAUSE_S = 0.25
"""Kinesis allows 5 reads a second of a shard, for all its readers together."""

_ATTEMPTS = 8
_MAX_RECORDS = 10_000


def read_patiently(
    reader: ShardReader, *, max_records: int = _MAX_RECORDS, sleep: Callable[[float], None] = time.sleep
) -> Batch:
    """The next records, after several tries if Kinesis gives none now.

    Raises
    ------
    TryLater
        Not for about 9 seconds.
    Gap, ReadFailed
        As `ShardReader.read`.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return reader.read(max_records)
        except TryLater:
            sleep(READ_PAUSE_S * attempt)
    return reader.read(max_records)


def read_gap(
    reader: ShardReader,
    *,
    until: int | None,
    first_records: int | None = None,
    max_records: int = _MAX_RECORDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[StreamRecord]]:
    """The records from where `reader` begins, *at* the state's position, to before the sequence number `until`.

    That the record at the position comes back is what proves that nothing is missing: so this is to be read also where
    the host goes on right behind it.

    Parameters
    ----------
    until
        None: as far as the stream goes at this moment.
    first_records
        At most so many come with the first read. Two show that there is no gap, and leave the shard's 2 MB/s to others.

    Raises
    ------
    TryLater, Gap, ReadFailed
        As `read_patiently`.
    """
    limit = first_records or max_records
    while not reader.is_closed:
        batch = read_patiently(reader, max_records=limit, sleep=sleep)
        limit = max_records
        records = batch.records
        if until is not None and records and int(records[-1].sequence_number) >= until:
            records = [record for record in records if int(record.sequence_number) < until]
        if records:
            yield records
        if len(records) < len(batch.records):
            return
        is_last = until is not None and bool(records) and int(records[-1].sequence_number) == until - 1
        # Behind the tip there is nothing: what lay before `until` was trimmed.
        is_at_tip = reader.behind_ms == 0 and (until is None or not records)
        if reader.is_proved and (is_last or is_at_tip):
            return
        if not reader.is_closed:
            sleep(READ_PAUSE_S)
