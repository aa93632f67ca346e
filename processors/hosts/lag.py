"""How far the processing of each shard is behind its stream: looked at from outside, whatever host does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamgauge.events.hash_key import HashRange
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.processors.commit.ports import ShardRow
from streamgauge.processors.hosts.gap import READ_PAUSE_S, read_patiently
from streamgauge.processors.hosts.kcl.leases import Lease
from streamgauge.processors.hosts.shard_reader import Gap, ShardReader, TryLater

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

__all__ = ["ShardLag", "StreamLag", "read_lag"]

# AWS answers with nothing where a stretch of the shard is empty; the iterator moves on all the same.
_READS = 4


@dataclass(frozen=True, slots=True)
class StreamLag:
    """All shards that the stream lists or the pipeline knows, in order of their ids."""

    shards: tuple[ShardLag, ...]

    @property
    def iterator_age_ms(self) -> int | None:
        """That of the shard that is furthest behind; None where none is known."""
        return max((shard.iterator_age_ms for shard in self.shards if shard.iterator_age_ms is not None), default=None)


@dataclass(frozen=True, slots=True)
class ShardLag:
    """One shard.

    ``state``: ``sealed`` (applied to its end), ``closed`` (by a reshard, and not sealed), ``open``, or ``gone`` (the
    stream does not list it any more). ``position`` is that of the snapshot, ``checkpoint`` the KCL's, with whoever has
    the lease. ``iterator_age_ms``: how long ago the first record after them arrived that is not processed, 0 where
    there is none; ``behind_ms`` is MillisBehindLatest, as Kinesis says it there. Both are None where nothing is known,
    ``trouble`` then says why. ``sealed_parents`` are those of ``parents`` that are sealed.
    """

    shard_id: str
    state: str
    hash_range: HashRange
    parents: tuple[str, ...]
    sealed_parents: tuple[str, ...]
    owner: str | None
    position: Position | None
    committed_at_ms: int | None
    lease_owner: str | None
    checkpoint: str | None
    iterator_age_ms: int | None
    behind_ms: int | None
    trouble: str | None = None


def read_lag(
    kinesis: KinesisClient,
    stream: str,
    *,
    listed: Sequence[Shard],
    rows: Sequence[ShardRow] = (),
    leases: Sequence[Lease] = (),
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    sleep: Callable[[float], None] = time.sleep,
) -> StreamLag:
    """Look at every shard. It costs each that is not sealed a read or two of the five that it allows a second.

    Parameters
    ----------
    listed
        The shards of the stream.
    rows
        The pipeline's; none for a stream that is processed by others.
    leases
        Those of the KCL application that processes it, if one does.

    Raises
    ------
    ReadFailed
        The stream cannot be read.
    """
    by_row = {row.shard.shard_id: row for row in rows}
    by_lease = {lease.shard_id: lease for lease in leases}
    shards = {row.shard.shard_id: row.shard for row in rows} | {shard.shard_id: shard for shard in listed}
    listed_ids = {shard.shard_id for shard in listed}
    closed_ids = {parent for shard in listed for parent in shard.parents}
    found = []
    for shard_id in sorted(shards):
        shard, row, lease = shards[shard_id], by_row.get(shard_id), by_lease.get(shard_id)
        if _is_sealed(by_row, by_lease, shard_id):
            state = "sealed"
        elif shard_id in listed_ids:
            state = "closed" if shard_id in closed_ids else "open"
        else:
            state = "gone"
        age, behind, trouble = None, None, None
        if state in {"open", "closed"} and (row is not None or lease is not None):
            after, start = _place(row, lease)
            reader = ShardReader(kinesis, stream, shard_id, start=start, after=after, on_gap=None)
            age, behind, trouble = _behind(reader, after, now_ms, sleep)
        found.append(
            ShardLag(
                shard_id=shard_id,
                state=state,
                hash_range=shard.hash_range,
                parents=shard.parents,
                sealed_parents=tuple(parent for parent in shard.parents if _is_sealed(by_row, by_lease, parent)),
                owner=None if row is None else row.owner,
                position=None if row is None else row.position,
                committed_at_ms=None if row is None else row.committed_at_ms,
                lease_owner=None if lease is None else lease.owner,
                checkpoint=None if lease is None else _text(lease),
                iterator_age_ms=age,
                behind_ms=behind,
                trouble=trouble,
            )
        )
    return StreamLag(tuple(found))


def _place(row: ShardRow | None, lease: Lease | None) -> tuple[Position | None, str]:
    """Where processing stands: at the snapshot, or else at the checkpoint of a KCL application of others."""
    if row is not None:
        return row.position, row.start
    if lease is None or not lease.checkpoint.isdecimal():
        return None, "TRIM_HORIZON"
    return Position(int(lease.checkpoint), lease.sub_sequence_number), "TRIM_HORIZON"


def _behind(
    reader: ShardReader, after: Position | None, now_ms: Callable[[], int], sleep: Callable[[float], None]
) -> tuple[int | None, int | None, str | None]:
    """Iterator age, MillisBehindLatest, and what is wrong if they are not known."""
    reached = -1 if after is None else after.sequence_number
    try:
        for attempt in range(_READS):
            if attempt:
                sleep(READ_PAUSE_S)
            # Two: the record at the position itself, which is read, and the one behind it.
            records = read_patiently(reader, max_records=2, sleep=sleep).records
            fresh = [record for record in records if int(record.sequence_number) > reached]
            if fresh:
                return max(0, now_ms() - fresh[0].arrival_ms), reader.behind_ms, None
            if reader.is_closed or reader.behind_ms == 0:
                return 0, reader.behind_ms or 0, None
    except Gap:
        return None, reader.behind_ms, "the record at which it stands is not in the stream any more"
    except TryLater as later:
        return None, None, later.what
    # Nothing for a while behind it, and something later on.
    return reader.behind_ms, reader.behind_ms, None


def _is_sealed(rows: Mapping[str, ShardRow], leases: Mapping[str, Lease], shard_id: str) -> bool:
    row, lease = rows.get(shard_id), leases.get(shard_id)
    if row is not None:
        return row.sealed
    return lease is not None and lease.checkpoint == "SHARD_END"


def _text(lease: Lease) -> str:
    if lease.checkpoint.isdecimal():
        return str(Position(int(lease.checkpoint), lease.sub_sequence_number))
    return lease.checkpoint
