"""Ticks: the scheduler's part of the local stack. One control record into each open shard, at an interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from streamgauge.processors.hosts.ticks import TickCounts, tick_once

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

__all__ = ["Stop", "run_ticker"]


class Stop(Protocol):
    """What `threading.Event` offers to whoever waits to be stopped."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, at most `timeout` seconds; whether it is time to stop."""
        ...


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
