"""When a refused or unanswered record is sent again, and what an error code means.

Source: Amazon Kinesis Data Streams API reference, PutRecords, and the Builders' Library, "Timeouts, retries, and
backoff with jitter" (full jitter).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from enum import Enum

from streamgauge.producers.client.out_record import OutRecord

__all__ = ["Failure", "Retrier", "classify"]


class Failure(Enum):
    """What is known about a record, or a request, that was not acknowledged."""

    REFUSED = "refused"
    """Not in the stream; may succeed later."""
    LOST = "lost"
    """Perhaps in the stream."""
    PERMANENT = "permanent"
    """Not in the stream, and trying again is no use."""


_REFUSED = {
    "ProvisionedThroughputExceededException",
    "LimitExceededException",
    "KMSThrottlingException",
    "ThrottlingException",
    "Throttling",
    "ResourceInUseException",
    # Credentials are renewed by whoever hands the client over.
    "ExpiredTokenException",
    "ExpiredToken",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "InvalidSignatureException",
}
_PERMANENT = {
    "AccessDeniedException",
    "InvalidArgumentException",
    "KMSAccessDeniedException",
    "KMSDisabledException",
    "KMSInvalidStateException",
    "KMSNotFoundException",
    "KMSOptInRequired",
    "MissingAuthenticationTokenException",
    "ResourceNotFoundException",
    "SerializationException",
    "UnrecognizedClientException",
    "ValidationException",
}


def classify(error_code: str) -> Failure:
    """What `error_code` says. An unknown one proves nothing: the record may be in the stream, and is sent again."""
    if error_code in _REFUSED:
        return Failure.REFUSED
    return Failure.PERMANENT if error_code in _PERMANENT else Failure.LOST


class Retrier:
    """Records that wait for their next attempt."""

    def __init__(self, rng: random.Random, *, base_ms: int, max_ms: int) -> None:
        # configuration
        self._rng = rng
        self._base_ms = base_ms
        self._max_ms = max_ms
        # live
        self._heap: list[tuple[int, int, OutRecord]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def delay_ms(self, attempts: int) -> int:
        """A random wait after `attempts` failed ones, longer on average with each."""
        ceiling = min(self._max_ms, self._base_ms * 2 ** min(attempts, 32))
        return 1 + int(self._rng.random() * ceiling)

    def add(self, record: OutRecord, due_ms: int) -> None:
        """Keep `record` until `due_ms`."""
        heapq.heappush(self._heap, (due_ms, next(self._count), record))

    def due(self, now_ms: int) -> list[OutRecord]:
        """Hand over what is due, oldest first."""
        records = []
        while self._heap and self._heap[0][0] <= now_ms:
            records.append(heapq.heappop(self._heap)[2])
        return records

    def remove(self, unwanted: Callable[[OutRecord], bool]) -> list[OutRecord]:
        """Take out every record that `unwanted` says."""
        removed = [entry[2] for entry in sorted(self._heap) if unwanted(entry[2])]
        if removed:
            self._heap = [entry for entry in self._heap if not unwanted(entry[2])]
            heapq.heapify(self._heap)
        return removed

    def wake_ms(self) -> int | None:
        """When the next record is due."""
        return self._heap[0][0] if self._heap else None
