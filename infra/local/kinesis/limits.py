"""What a shard, a stream and an account may do per second and in all.

Source: Amazon Kinesis Data Streams Developer Guide, "Quotas and limits"; API Reference, PutRecords, GetRecords,
GetShardIterator, UpdateShardCount, DescribeLimits.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "DAY_MS",
    "GET_RECORDS_MAX_BYTES",
    "GET_RECORDS_MAX_RECORDS",
    "ITERATOR_LIFETIME_MS",
    "MAX_RECORD_KIB",
    "MIN_RECORD_KIB",
    "NEXT_TOKEN_LIFETIME_MS",
    "PUT_RECORDS_MAX_BYTES",
    "PUT_RECORDS_MAX_RECORDS",
    "Limits",
    "RateWindow",
]

MIB = 1024 * 1024
DAY_MS = 24 * 3_600_000

PUT_RECORDS_MAX_RECORDS = 500
PUT_RECORDS_MAX_BYTES = 10 * MIB
GET_RECORDS_MAX_RECORDS = 10_000
GET_RECORDS_MAX_BYTES = 10 * MIB
ITERATOR_LIFETIME_MS = 300_000
NEXT_TOKEN_LIFETIME_MS = 300_000
MIN_RECORD_KIB = 1024
MAX_RECORD_KIB = 10_240


@dataclass(frozen=True, slots=True)
class Limits:
    """The quotas that can be switched off. ``enforced`` False leaves the sizes of calls and records as they are.

    write_bytes, write_records, read_bytes, reads, iterators
        Per shard and second. Bytes count the data and the partition key.
    shards
        Open shards of the account.
    rescalings
        UpdateShardCount calls of one stream in 24 hours; each may at most double or halve the number of shards.
    """

    enforced: bool = True
    write_bytes: int = MIB
    write_records: int = 1_000
    read_bytes: int = 2 * MIB
    reads: int = 5
    iterators: int = 5
    shards: int = 20_000
    rescalings: int = 10


class RateWindow:
    """How much of a rate is used in the current second, which begins with the first use after an idle one.

    What one admitted use takes beyond a second's worth is owed by the seconds after it: after a read of 10 MiB a shard
    that gives 2 MiB a second gives nothing for 5 seconds, as GetRecords documents.
    """

    __slots__ = ("_per_second", "_start_ms", "_used")

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._start_ms = 0
        self._used = 0

    def admits(self, amount: int, now_ms: int) -> bool:
        """Whether `amount` more fits now. One use larger than a whole second's worth fits an unused second."""
        seconds = (now_ms - self._start_ms) // 1000
        if seconds > 0 and self._used:
            self._used = max(0, self._used - seconds * self._per_second)
            self._start_ms += seconds * 1000
        if not self._used:
            self._start_ms = now_ms
            return True
        return self._used + amount <= self._per_second

    def take(self, amount: int) -> None:
        """Use `amount`, admitted before."""
        self._used += amount
