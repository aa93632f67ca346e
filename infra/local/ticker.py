"""Ticks: the scheduler's part of the local stack. One control record into each open shard, at an interval."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.events.control import Tick, control_event
from streamgauge.events.envelope import encode_event

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient
    from types_boto3_kinesis.type_defs import ListShardsInputTypeDef

__all__ = ["Stop", "TickCounts", "run_ticker", "tick_once"]

_NAME = "ticker"

_log = logging.getLogger(__name__)


class Stop(Protocol):
    """What `threading.Event` offers to whoever waits to be stopped."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, at most `timeout` seconds; whether it is time to stop."""
        ...


@dataclass(slots=True)
class TickCounts:
    """What a ticker has done: records put, and failures (a failed listing counts once)."""

    put: int = 0
    failed: int = 0


def run_ticker(
    client: KinesisClient, stream: str, interval_s: float, clock: Callable[[], int], stop: Stop
) -> TickCounts:
    """Put ticks until `stop` says so; the first at once.

    A tick that fails is not tried again: the next one says more. Two tickers, and ticks that land in a child because
    their shard was closed meanwhile, are harmless.

    Parameters
    ----------
    clock
        Milliseconds since the epoch.
    """
    counts = TickCounts()
    while True:
        tick_once(client, stream, clock(), counts)
        if stop.wait(interval_s):
            return counts


def tick_once(client: KinesisClient, stream: str, now_ms: int, counts: TickCounts) -> None:
    """Put the tick of `now_ms` into each open shard, and count."""
    try:
        shards = _open_shards(client, stream)
    except (ClientError, BotoCoreError) as error:
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
        except (ClientError, BotoCoreError) as error:
            counts.failed += 1
            _log.warning("no tick for %s of %s: %s", shard_id, stream, error)


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
