"""The producer as a state machine: no I/O, no threads, no clock. Time comes in as an argument.

The host (threads around boto3, or a simulation) calls `poll` and makes the call that it returns, hands the answer to
`answered`, `failed`, `listed` or `list_failed`, and polls again at `wake_ms` or whenever it has handed something in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from streamgauge.events.control import EndOfInput, control_event
from streamgauge.events.envelope import encode_event
from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import MAX_RECORD_BYTES, Shard
from streamgauge.events.shard_listing import ListedShard
from streamgauge.producers.client.closing import Closing, Phase
from streamgauge.producers.client.delivery import Delivery, Waiter
from streamgauge.producers.client.encoding import InvalidPut
from streamgauge.producers.client.exchange import Exchange
from streamgauge.producers.client.out_record import EntryAnswer, ListShards, PutRequest
from streamgauge.producers.client.outstanding import Outstanding
from streamgauge.producers.client.retrier import Failure
from streamgauge.producers.client.settings import ProducerSettings
from streamgauge.producers.client.sources import Sources
from streamgauge.producers.client.stages import Stages
from streamgauge.producers.client.stats import ProducerStats

__all__ = ["EventTooLarge", "ProducerCore"]


class EventTooLarge(StreamgaugeError):
    """The event and its partition key do not fit in one Kinesis record. Nothing of it was sent."""


class ProducerCore:
    """A whole producer. Deadlines, limits and back-off are those of `settings`."""

    def __init__(
        self,
        settings: ProducerSettings,
        shards: Iterable[ListedShard],
        *,
        rng: random.Random,
        new_uuid: Callable[[], UUID],
        now_ms: int,
        waiter: Waiter | None = None,
    ) -> None:
        # configuration
        self._settings = settings
        self._waiter = waiter
        # live
        self.stats = ProducerStats(sources=1)
        self._stages = Stages(settings, shards, self.stats, rng=rng)
        self._outstanding = Outstanding(self.stats, settings.landing_bound_ms)
        self._sources = Sources(
            new_uuid, window=settings.window, ledger_interval_ms=settings.ledger_interval_ms, now_ms=now_ms
        )
        self._closing = Closing()
        self._exchange = Exchange(settings, self._stages, self._outstanding, self.stats, now_ms=now_ms)
        self._pressed = False
        self._flushing = False

    # --- for callers -------------------------------------------------------------------------------------------------

    @property
    def source(self) -> str:
        """The source of the events that are put now. It changes when a source can no longer go on."""
        return self._sources.log.source

    @property
    def events_out(self) -> int:
        """Events without an outcome, or with copies on their way."""
        return self._outstanding.events

    @property
    def changes(self) -> int:
        """Rises whenever a delivery has ended or room was made: what a waiting caller waits for."""
        return self._outstanding.changes

    @property
    def phase(self) -> Phase:
        """How far closing has come."""
        return self._closing.phase

    @property
    def failure(self) -> str:
        """Why closing could not do all that it should; empty if it did."""
        return self._closing.failure

    def take_attention(self) -> bool:
        """Whether, since the last call, work came up that may be due before `wake_ms` as last told."""
        attention, self._stages.attention = self._stages.attention, False
        return attention

    def can_accept(self, size: int) -> bool:
        """Whether an event of `size` bytes keeps W and the bounds in flight. If not, ask again after an answer."""
        settings, out, log = self._settings, self._outstanding, self._sources.log
        if (
            out.events < settings.events_in_flight_max
            and (not out.bytes or out.bytes + size <= settings.bytes_in_flight_max)
            and (log.has_room or log.is_stuck)
        ):
            return True
        if not self._pressed:
            self._pressed = self._stages.attention = True
        return False

    def put(
        self,
        type: str,
        subject: str,
        time_ms: int,
        data: bytes,
        *,
        now_ms: int,
        partition_key: str | None = None,
        dataschema: str | None = None,
        traceparent: str | None = None,
        copies: int = 1,
        copies_behind: int = 0,
        on_done: Callable[[Delivery], None] | None = None,
    ) -> Delivery:
        """Take one event; `can_accept` must have said so. See `KinesisProducer.put`."""
        assert self._closing.phase is Phase.OPEN
        if copies < 1 or copies_behind < 0 or (copies - 1) * copies_behind > self._settings.window // 2:
            raise InvalidPut(
                "copies must come within half the window W behind their event",
                where=f"copies {copies}, copies_behind {copies_behind}, W {self._settings.window}",
            )
        sources = self._sources
        if sources.log.is_stuck:
            sources.renew()
            self.stats.sources += 1
        key = subject if partition_key is None else partition_key
        payload = sources.encoder.encode(
            sources.log.next_sequence,
            type,
            subject,
            time_ms,
            data,
            partition_key=partition_key,
            dataschema=dataschema,
            traceparent=traceparent,
        )
        size = self._checked_size(payload, key)
        event = Delivery(
            payload,
            key,
            size=size,
            log=sources.log,
            sequence=sources.assign(),
            copies=copies,
            copies_behind=copies_behind,
            on_done=on_done,
            waiter=self._waiter,
        )
        self._take_in(event, now_ms)
        return event

    def put_raw(
        self,
        payload: bytes,
        partition_key: str,
        *,
        now_ms: int,
        plain: bool = False,
        on_done: Callable[[Delivery], None] | None = None,
    ) -> Delivery:
        """Take bytes as they are, outside the source's numbering. See `KinesisProducer.put_raw`."""
        assert self._closing.phase is Phase.OPEN
        size = self._checked_size(payload, partition_key)
        event = Delivery(payload, partition_key, size=size, plain=plain, on_done=on_done, waiter=self._waiter)
        self._take_in(event, now_ms)
        return event

    def flush(self) -> None:
        """Send what is here without lingering, until nothing is on its way."""
        self._flushing = self._stages.attention = True

    def close(self, end_of_input: EndOfInput | None = None) -> None:
        """Take no more events; flush, state the final ledger, then put `end_of_input`. Done when `phase` is CLOSED."""
        self._closing.begin(end_of_input)
        self.flush()

    def abandon(self) -> None:
        """End now: every event on its way is given up, or unknown if an attempt of it may have landed."""
        records = self._stages.remove_all() + self._exchange.remove_all()
        events = [event for record in records for event in record.events]
        for event in events:
            event.copies_left = 0
        for event in events:
            self._outstanding.drop(event, event.refusal or "the producer was closed before it was acknowledged")
        self._closing.finish("not everything was acknowledged in time")

    # --- for the host ------------------------------------------------------------------------------------------------

    def poll(self, now_ms: int) -> PutRequest | ListShards | None:
        """The next call to make, or None until `wake_ms`."""
        stages, out = self._stages, self._outstanding
        out.release_holds(now_ms)
        if not out.events:
            self._flushing = self._closing.phase is not Phase.OPEN
        if self._flushing or (self._pressed and self._exchange.is_idle and not stages.queued):
            stages.push_out(now_ms)
        stages.turn(now_ms)
        if not out.internal:
            for ledger in self._sources.settled(now_ms) + self._sources.due(now_ms):
                self._put_ledger(ledger, now_ms)
        self._advance_closing(now_ms)
        if self._exchange.begin_listing(now_ms):
            return ListShards()
        return self._exchange.next_request(now_ms, urgent=self._flushing)

    def wake_ms(self, now_ms: int) -> int | None:
        """When to poll next, if nothing is handed in before; None for never."""
        wakes = [
            self._stages.wake_ms(now_ms, can_request=self._exchange.can_request, urgent=self._flushing),
            self._outstanding.wake_ms(),
            None if self._outstanding.internal else self._sources.wake_ms(),
            self._exchange.listing_ms(),
        ]
        return min((wake for wake in wakes if wake is not None), default=None)

    def answered(self, request_id: int, answers: Sequence[EntryAnswer], now_ms: int) -> None:
        """PutRecords answered, record by record, in the request's order."""
        self._exchange.answered(request_id, answers, now_ms)

    def failed(self, request_id: int, failure: Failure, reason: str, now_ms: int) -> None:
        """The PutRecords call as a whole had no success; `reason` is what callers will read."""
        self._exchange.failed(request_id, failure, reason, now_ms)

    def listed(self, shards: Iterable[ListedShard], now_ms: int) -> None:
        """ListShards answered."""
        self._exchange.listed(shards, now_ms)
        self._closing.map_refreshed()

    def list_failed(self, reason: str, now_ms: int) -> None:
        """ListShards had no success: the old view stays, and is asked for again."""
        self._exchange.list_failed(reason, now_ms)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _checked_size(self, payload: bytes, key: str) -> int:
        if not 1 <= len(key) <= 256:
            raise InvalidPut("must have 1 to 256 characters", where=f"partition key {key[:40]!r}")
        size = len(payload) + (len(key) if key.isascii() else len(key.encode()))
        if size > MAX_RECORD_BYTES:
            self.stats.too_large += 1
            raise EventTooLarge(
                f"event and partition key have {size} bytes; a record holds {MAX_RECORD_BYTES}",
                where=f"partition key {key[:40]!r}",
                remedy="Put a reference to large data into the event, not the data itself",
            )
        return size

    def _take_in(self, event: Delivery, now_ms: int) -> None:
        self._outstanding.add(event)
        self._pressed = False
        self._stages.place_new(event, now_ms)

    def _put_ledger(self, ledger: Delivery, now_ms: int) -> None:
        self.stats.ledgers += 1
        self._outstanding.add(ledger)
        self._stages.place(ledger, now_ms)

    def _advance_closing(self, now_ms: int) -> None:
        closing, out = self._closing, self._outstanding
        if closing.phase is Phase.DRAINING and not out.events and not out.internal:
            for ledger in self._sources.settled(now_ms) + self._sources.final(now_ms):
                self._put_ledger(ledger, now_ms)
            closing.phase = Phase.LEDGER
        if closing.phase is Phase.LEDGER and not out.internal:
            if closing.end_of_input is None:
                closing.finish()
            elif self.stats.given_up or self.stats.unknown:
                closing.finish("events are given up or unknown, so the end of the input was not stated")
            else:
                closing.phase = Phase.MISSING
        if closing.phase is Phase.END_OF_INPUT and not out.internal:
            closing.phase = Phase.LISTING
            self._exchange.want_map(now_ms)
        if closing.phase is Phase.MISSING and closing.end_of_input is not None:
            missing = self._stages.map.uncovered(self._exchange.control_holders)
            for shard in missing:
                self._put_end_of_input(closing.end_of_input, shard, now_ms)
            if missing:
                closing.phase = Phase.END_OF_INPUT
            else:
                closing.finish()

    def _put_end_of_input(self, body: EndOfInput, shard: Shard, now_ms: int) -> None:
        name = f"end-of-input:{self._sources.log.source.split(':')[2]}"
        event = control_event(name, body, id=str(self._closing.records_put), time_ms=now_ms)
        self._closing.records_put += 1
        payload = encode_event(event)
        record = Delivery(
            payload,
            name,
            size=len(payload) + len(name),
            plain=True,
            internal=True,
            explicit_hash_key=shard.hash_range.first,
            on_done=self._closing.record_done,
        )
        self._outstanding.add(record)
        self._stages.place(record, now_ms)
