"""The poller of one shard: reads ahead, filters, hands records to its lanes, and knows up to where all is done."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Sequence

from streamgauge.events.records import StreamRecord
from streamgauge.infra.local.event_source.actions import Counters, Invoke, Patience, Read, SendFailure
from streamgauge.infra.local.event_source.answers import Answered, NotInvoked
from streamgauge.infra.local.event_source.filters import passes
from streamgauge.infra.local.event_source.lane import Lane
from streamgauge.infra.local.event_source.mapping import EventSourceMapping, StartAt
from streamgauge.infra.local.event_source.records import encode_record

__all__ = ["ShardPoller"]


class ShardPoller:
    """One shard of one mapping. Without I/O and clock: time, records and answers in, `Action` out.

    Parameters
    ----------
    start
        Where it begins.
    """

    def __init__(self, mapping: EventSourceMapping, shard_id: str, start: StartAt, patience: Patience) -> None:
        self.shard_id = shard_id
        self.counters = Counters()
        self.checkpoint: str | None = None
        """The sequence number up to which every record is done: the function's, filtered, or given up."""
        self._mapping = mapping
        self._start = start
        self._patience = patience
        # Records of one partition key always share a lane, and so stay in order.
        self._lanes = [Lane(mapping, shard_id, number, patience) for number in range(mapping.parallelization_factor)]
        self._read_up_to: str | None = None
        self._is_reading = False
        self._is_read_whole = False
        self._read_failures = 0
        self._read_not_before_ms = 0
        self._open: deque[str] = deque()
        self._done: set[str] = set()

    @property
    def is_finished(self) -> bool:
        """Whether the shard has ended and everything in it is done."""
        return self._is_read_whole and not self._open

    @property
    def mapping(self) -> EventSourceMapping:
        """The settings in force."""
        return self._mapping

    @mapping.setter
    def mapping(self, mapping: EventSourceMapping) -> None:
        assert mapping.parallelization_factor == len(self._lanes)
        self._mapping = mapping
        for lane in self._lanes:
            lane.mapping = mapping

    def actions(self, now_ms: int) -> list[Read | Invoke | SendFailure]:
        """What to do now; each is to be answered once."""
        found: list[Read | Invoke | SendFailure] = []
        for lane in self._lanes:
            action, done = lane.next(now_ms, self.counters)
            self._mark(done)
            if action is not None:
                found.append(action)
        if self._wants_to_read() and now_ms >= self._read_not_before_ms:
            self._is_reading = True
            found.append(Read(self.shard_id, self._read_up_to, self._start))
        return found

    def wake_ms(self) -> int | None:
        """When to ask for `actions` again if no answer comes before; None: only then."""
        moments = [moment for lane in self._lanes if (moment := lane.wake_ms()) is not None]
        if self._wants_to_read():
            moments.append(self._read_not_before_ms)
        return min(moments, default=None)

    def read(self, now_ms: int, records: Sequence[StreamRecord], *, behind_ms: int, is_end: bool) -> None:
        """Take what a `Read` gave.

        Parameters
        ----------
        behind_ms
            Kinesis's MillisBehindLatest.
        is_end
            The shard is closed, and these were its last records.
        """
        self._is_reading = False
        self._is_read_whole = is_end
        self._read_failures = 0
        self._read_not_before_ms = now_ms + self._patience.read_interval_ms
        self.counters.behind_ms = behind_ms
        for record in records:
            self._read_up_to = record.sequence_number
            self._open.append(record.sequence_number)
            if not passes(self._mapping.filters, record):
                self.counters.records_filtered += 1
                self._done.add(record.sequence_number)
                continue
            encoded = encode_record(
                record,
                shard_id=self.shard_id,
                stream_arn=self._mapping.stream_arn,
                region=self._mapping.region,
                invoke_identity_arn=self._mapping.invoke_identity_arn,
            )
            self._lane_of(record.partition_key).add(encoded, now_ms)
        self._mark(())

    def read_failed(self, now_ms: int) -> None:
        """A `Read` gave nothing, because of a limit or an outage: later again."""
        self._is_reading = False
        self._read_failures += 1
        wait = max(self._patience.read_interval_ms, self._patience.backoff_ms(self._read_failures))
        self._read_not_before_ms = now_ms + wait

    def answered(self, now_ms: int, lane: int, answer: Answered | NotInvoked) -> None:
        """Take the answer to the lane's `Invoke`."""
        self._mark(self._lanes[lane].answered(now_ms, answer, self.counters))

    def sent(self, lane: int) -> None:
        """The lane's `SendFailure` is settled."""
        self._mark(self._lanes[lane].sent())

    def _wants_to_read(self) -> bool:
        return (
            not self._is_reading
            and not self._is_read_whole
            and sum(lane.waiting for lane in self._lanes) < self._patience.buffered_records_max
            and sum(lane.waiting_bytes for lane in self._lanes) < self._patience.buffered_bytes_max
        )

    def _lane_of(self, partition_key: str) -> Lane:
        return self._lanes[zlib.crc32(partition_key.encode()) % len(self._lanes)]

    def _mark(self, done: Iterable[str]) -> None:
        self._done.update(done)
        while self._open and self._open[0] in self._done:
            self.checkpoint = self._open.popleft()
            self._done.remove(self.checkpoint)
