"""One batch at a time: the records of a shard (or of its share, by partition key), in order, until they are done.

Sources, all of the AWS Lambda developer guide: batching and one batch in flight, "Using Lambda to process records from
Amazon Kinesis Data Streams" (with-kinesis) and "How Lambda processes records from stream and queue-based event sources"
(invocation-eventsourcemapping); retries, bisecting, age and what throttles count, "Retain discarded batch records…"
(kinesis-on-failure-destination) and "Configuring partial batch response…" (services-kinesis-batchfailurereporting).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from streamgauge.infra.local.event_source.actions import Counters, Invoke, Patience, SendFailure
from streamgauge.infra.local.event_source.answers import Answered, NotInvoked, first_failed
from streamgauge.infra.local.event_source.failures import Condition, failure_record
from streamgauge.infra.local.event_source.mapping import EventSourceMapping
from streamgauge.infra.local.event_source.records import (
    ENVELOPE_BYTES,
    PAYLOAD_BYTES_MAX,
    EncodedRecord,
    payload_of,
)

__all__ = ["Lane"]


@dataclass(slots=True)
class _Batch:
    """Records on their way. ``attempts`` counts towards the retry limit, ``invocations`` every call."""

    records: list[EncodedRecord]
    attempts: int = 0
    invocations: int = 0
    last: Answered | None = None
    is_exhausted: bool = False


class Lane:
    """Records wait here, go to the function batch by batch, and leave when they are done or given up.

    Parameters
    ----------
    number
        The lane's place among the shard's.
    """

    def __init__(self, mapping: EventSourceMapping, shard_id: str, number: int, patience: Patience) -> None:
        self.mapping = mapping
        self.waiting_bytes = 0
        self._shard_id = shard_id
        self._number = number
        self._patience = patience
        self._waiting: deque[EncodedRecord] = deque()
        # The first is the one that is tried; a bisected batch leaves its second half behind it.
        self._batches: deque[_Batch] = deque()
        self._given_up: list[EncodedRecord] = []
        self._is_busy = False
        self._failures_in_a_row = 0
        self._not_before_ms = 0
        self._window_since_ms: int | None = None

    @property
    def waiting(self) -> int:
        """How many records are in no batch yet."""
        return len(self._waiting)

    def add(self, record: EncodedRecord, now_ms: int) -> None:
        """Put a record behind the others."""
        window = self.mapping.window_ms
        if self._window_since_ms is None:
            self._window_since_ms = now_ms
        elif window and not self._waiting and not self._batches:
            # Windows without a record have passed one after the other.
            self._window_since_ms += (now_ms - self._window_since_ms) // window * window
        self._waiting.append(record)
        self.waiting_bytes += len(record.body)

    def wake_ms(self) -> int | None:
        """When `next` has to be asked again if nothing else happens before; None: only then."""
        if self._is_busy or not (self._batches or self._waiting):
            return None
        if self._batches or self._is_full():
            return self._not_before_ms
        return max(self._not_before_ms, self._window_end_ms())

    def next(self, now_ms: int, counters: Counters) -> tuple[Invoke | SendFailure | None, list[str]]:
        """What to do now, and the sequence numbers that are done by asking (those given up, with nobody to tell)."""
        done: list[str] = []
        while not self._is_busy and now_ms >= self._not_before_ms and (self._batches or self._form(now_ms)):
            batch = self._batches[0]
            count, condition = self._to_give_up(batch, now_ms)
            if not count:
                return self._invoke(batch), done
            given_up, batch.records = batch.records[:count], batch.records[count:]
            if not batch.records:
                self._batches.popleft()
            counters.records_given_up += count
            if self.mapping.destination is None:
                done += [record.sequence_number for record in given_up]
                continue
            self._is_busy = True
            self._given_up = given_up
            told = failure_record(
                self.mapping,
                self._shard_id,
                given_up,
                condition,
                now_ms=now_ms,
                invocations=batch.invocations,
                last=batch.last,
            )
            return SendFailure(self._shard_id, self._number, self.mapping.destination, told), done
        return None, done

    def answered(self, now_ms: int, answer: Answered | NotInvoked, counters: Counters) -> list[str]:
        """Take the answer to an `Invoke`.

        Returns
        -------
        The sequence numbers that are done by it.
        """
        self._is_busy = False
        batch = self._batches[0]
        if isinstance(answer, NotInvoked):
            counters.not_invoked += 1
            self._back_off(now_ms)
            return []
        counters.invocations += 1
        batch.invocations += 1
        batch.last = answer
        numbers = [record.sequence_number for record in batch.records]
        failed = first_failed(answer, numbers, is_partial_allowed=self.mapping.is_partial_allowed)
        done = numbers[:failed]
        counters.records_done += len(done)
        self._window_since_ms = now_ms
        if failed is None:
            self._failures_in_a_row = 0
            self._batches.popleft()
            return done
        counters.function_errors += 1
        batch.records = batch.records[failed:]
        self._fail(batch, now_ms, is_cut=failed > 0)
        return done

    def sent(self) -> list[str]:
        """Take the answer to a `SendFailure`.

        Returns
        -------
        The sequence numbers that are done by it.
        """
        self._is_busy = False
        done = [record.sequence_number for record in self._given_up]
        self._given_up = []
        return done

    def _fail(self, batch: _Batch, now_ms: int, *, is_cut: bool) -> None:
        """Decide how the batch, of which nothing is done any more, is tried again. Splitting costs no attempt."""
        if self.mapping.is_bisecting and not is_cut and len(batch.records) > 1:
            middle = len(batch.records) // 2
            second = _Batch(batch.records[middle:], batch.attempts, batch.invocations, batch.last)
            batch.records = batch.records[:middle]
            self._batches.insert(1, second)
        elif not (self.mapping.is_bisecting and is_cut):
            batch.attempts += 1
            limit = self.mapping.retries_max
            if limit is not None and batch.attempts > limit:
                batch.is_exhausted = True
                self._failures_in_a_row = 0
                return
        self._back_off(now_ms)

    def _back_off(self, now_ms: int) -> None:
        self._failures_in_a_row += 1
        self._not_before_ms = now_ms + self._patience.backoff_ms(self._failures_in_a_row)

    def _invoke(self, batch: _Batch) -> Invoke:
        self._is_busy = True
        payload = payload_of(batch.records)
        return Invoke(self._shard_id, self._number, self.mapping.function_arn, payload, len(batch.records))

    def _to_give_up(self, batch: _Batch, now_ms: int) -> tuple[int, Condition]:
        """How many of the batch's first records are given up, and why."""
        if batch.is_exhausted:
            return len(batch.records), Condition.RETRIES_EXHAUSTED
        oldest = self.mapping.record_age_ms_max
        count = 0
        if oldest is not None:
            while count < len(batch.records) and now_ms - batch.records[count].arrival_ms > oldest:
                count += 1
        return count, Condition.TOO_OLD

    def _is_full(self) -> bool:
        size = ENVELOPE_BYTES + self.waiting_bytes + len(self._waiting) - 1
        return len(self._waiting) >= self.mapping.batch_size or size > PAYLOAD_BYTES_MAX

    def _window_end_ms(self) -> int:
        return (self._window_since_ms or 0) + self.mapping.window_ms

    def _form(self, now_ms: int) -> bool:
        """Make a batch of what waits, if it is full or its window has passed. Whether there is one now."""
        if not self._waiting or not (self._is_full() or now_ms >= self._window_end_ms()):
            return False
        records: list[EncodedRecord] = []
        size = ENVELOPE_BYTES - 1
        while self._waiting and len(records) < self.mapping.batch_size:
            size += len(self._waiting[0].body) + 1
            # A record is smaller than a payload, so that the first one always fits.
            if size > PAYLOAD_BYTES_MAX and records:
                break
            records.append(self._waiting.popleft())
            self.waiting_bytes -= len(records[-1].body)
        self._batches.append(_Batch(records))
        return True
