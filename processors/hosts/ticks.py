"""Idle time: one tick into each open shard, and what begins without any event. A scheduler's part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamgauge.events.control import Tick, control_event
from streamgauge.events.envelope import encode_event
from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import Shard
from streamgauge.processors.commit.aws_errors import AWS_ERRORS
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.lineage import register_shards
from streamgauge.processors.commit.ports import Fenced, ParentBehind, ShardRow, StateStore
from streamgauge.processors.hosts.worker import OpenSession

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient
    from types_boto3_kinesis.type_defs import ListShardsInputTypeDef

__all__ = ["ChildStarts", "TickCounts", "start_children", "tick_once"]

_NAME = "ticker"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class TickCounts:
    """What a ticker has done: records put, and failures (a failed listing counts once)."""

    put: int = 0
    failed: int = 0


def tick_once(client: KinesisClient, stream: str, now_ms: int, counts: TickCounts) -> None:
    """Put the tick of `now_ms` into each open shard, and count.

    A tick that fails is not tried again: the next one says more. Two tickers, and ticks that land in a child because
    their shard was closed meanwhile, are harmless.
    """
    try:
        shards = _open_shards(client, stream)
    except AWS_ERRORS as error:
        counts.failed += 1
        _log.warning("the shards of %s cannot be listed, no tick: %s", stream, error)
        return
    for shard_id, first_hash_key in shards:
        event = control_event(_NAME, Tick(now_ms), id=f"{shard_id}/{now_ms}", time_ms=now_ms)
        try:
            client.put_record(
                StreamName=stream,
                Data=encode_event(event),
                PartitionKey=event.partition_key,
                ExplicitHashKey=first_hash_key,
            )
            counts.put += 1
        except AWS_ERRORS as error:
            counts.failed += 1
            _log.warning("no tick for %s of %s: %s", shard_id, stream, error)


@dataclass(frozen=True, slots=True)
class ChildStarts:
    """What became of shards that may be begun: begun ones, and those that have to wait, with the reason."""

    started: tuple[str, ...]
    waiting: dict[str, str]


def start_children(
    store: StateStore,
    listed: Sequence[Shard],
    open_session: OpenSession,
    *,
    watch: ClaimWatch,
    abandoned_after_s: float,
    new_owner: Callable[[], str],
) -> ChildStarts:
    """Begin every child that nobody has begun: seal its parents, save what it inherits, deliver what they left.

    A host that is woken by records alone never begins a shard that has none; the panes and results that such a shard
    inherits would wait for ever. A shard that somebody holds is left alone, unless its row stands still: so a processor
    at work is never fenced.

    Parameters
    ----------
    listed
        All shards that the stream has, closed ones too.
    new_owner
        A fresh UUID at each call.

    Raises
    ------
    Gap, ParentMissing, ReadFailed, SnapshotError, StoreRefused, StoreUnavailable
        As `ShardSession.open`, and its `release`: for the first shard with such an error, after all have been tried.
    """
    started: list[str] = []
    waiting: dict[str, str] = {}
    errors: list[StreamgaugeError] = []
    # Parents before children: a child's shard id is above its parents'.
    rows = register_shards(store, listed, start="TRIM_HORIZON")
    by_id = {row.shard.shard_id: row for row in rows}
    for row in rows:
        if not _may_inherit(row, by_id):
            continue
        if row.owner is not None and watch.unchanged_s(row) < abandoned_after_s:
            waiting[row.shard.shard_id] = "somebody begins it"
            continue
        try:
            session = open_session(row.shard, row.start, owner=new_owner(), seen_version=row.claim_version)
            session.release()
        except (Fenced, ParentBehind) as error:
            waiting[row.shard.shard_id] = str(error)
        except StreamgaugeError as error:
            errors.append(error)
        else:
            started.append(row.shard.shard_id)
    if errors:
        raise errors[0]
    return ChildStarts(tuple(started), waiting)


def _may_inherit(row: ShardRow, rows: Mapping[str, ShardRow]) -> bool:
    """Whether the shard has no state of its own, and its parents may have left it one."""
    if row.sealed or row.snapshot_sha256 is not None:
        return False
    parents = [rows.get(parent) for parent in row.shard.parents]
    return any(parent is None or not parent.sealed or parent.snapshot_sha256 is not None for parent in parents)


def _open_shards(client: KinesisClient, stream: str) -> list[tuple[str, str]]:
    """(shard id, first hash key) of each open shard."""
    found: list[tuple[str, str]] = []
    request: ListShardsInputTypeDef = {"StreamName": stream, "ShardFilter": {"Type": "AT_LATEST"}}
    while True:
        page = client.list_shards(**request)
        found += [(shard["ShardId"], shard["HashKeyRange"]["StartingHashKey"]) for shard in page["Shards"]]
        token = page.get("NextToken")
        if token is None:
            return found
        request = {"NextToken": token}
