"""What the poller's core asks of its host, and how patient it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from streamgauge.infra.local.event_source.failures import FailureRecord
from streamgauge.infra.local.event_source.mapping import StartAt

__all__ = ["Action", "Counters", "Invoke", "ListShards", "Patience", "Read", "SendFailure"]


@dataclass(frozen=True, slots=True)
class Patience:
    """Intervals, in milliseconds.

    ``read_interval_ms``: between two reads of a shard. Kinesis allows five reads a second and shard for all readers
    together, and AWS's own poller reads about once a second. ``backoff_ms_first`` doubles with each failure in a row up
    to ``backoff_ms_max``.
    """

    read_interval_ms: int = 350
    list_interval_ms: int = 2_000
    backoff_ms_first: int = 200
    backoff_ms_max: int = 15_000
    buffered_bytes_max: int = 16 * 1024 * 1024
    buffered_records_max: int = 20_000

    def backoff_ms(self, failures: int) -> int:
        """The wait after so many failures in a row."""
        return min(self.backoff_ms_max, self.backoff_ms_first << min(failures - 1, 20))


@dataclass(slots=True)
class Counters:
    """What has become of the records of a shard, or of all of them.

    ``behind_ms``: how far its reads are behind the tip of the stream, as Kinesis said last.
    """

    invocations: int = 0
    function_errors: int = 0
    not_invoked: int = 0
    records_done: int = 0
    records_filtered: int = 0
    records_given_up: int = 0
    behind_ms: int = 0

    def __add__(self, other: Counters) -> Counters:
        """Both together, with the larger lag."""
        return Counters(
            self.invocations + other.invocations,
            self.function_errors + other.function_errors,
            self.not_invoked + other.not_invoked,
            self.records_done + other.records_done,
            self.records_filtered + other.records_filtered,
            self.records_given_up + other.records_given_up,
            max(self.behind_ms, other.behind_ms),
        )


@dataclass(frozen=True, slots=True)
class ListShards:
    """List the stream's shards; answer with `StreamPoller.listed` or `StreamPoller.list_failed`."""


@dataclass(frozen=True, slots=True)
class Read:
    """Read the shard after a sequence number; None: from `start`. Answer with `.read` or `.read_failed`."""

    shard_id: str
    after: str | None
    start: StartAt


@dataclass(frozen=True, slots=True)
class Invoke:
    """Invoke the function with the payload and wait; answer with `.answered`."""

    shard_id: str
    lane: int
    function_arn: str
    payload: bytes
    records: int


@dataclass(frozen=True, slots=True)
class SendFailure:
    """Tell the destination; answer with `.sent`, once it knows or nothing will help."""

    shard_id: str
    lane: int
    destination: str
    record: FailureRecord


Action: TypeAlias = ListShards | Read | Invoke | SendFailure
