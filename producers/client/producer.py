"""`KinesisProducer`: threads, a clock and boto3 around the pure `ProducerCore`."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from uuid import UUID, uuid4

from streamgauge.events.control import EndOfInput
from streamgauge.events.errors import StreamgaugeError
from streamgauge.producers.client.closing import Phase
from streamgauge.producers.client.core import ProducerCore
from streamgauge.producers.client.delivery import Delivery
from streamgauge.producers.client.out_record import ListShards, PutRequest
from streamgauge.producers.client.ports import KinesisClient, failure_of, first_shards, list_shards, put_records
from streamgauge.producers.client.settings import ProducerSettings
from streamgauge.producers.client.stats import ProducerStats

__all__ = ["CloseIncomplete", "KinesisProducer", "ProducerClosed", "system_clock"]

_ENVELOPE_BYTES = 512
"""About what the envelope adds to the data: the bound in flight need not be exact."""


_EXIT_TIMEOUT_S = 30.0


class ProducerClosed(StreamgaugeError):
    """The producer is closed, or its threads have failed."""


class CloseIncomplete(StreamgaugeError):
    """The producer is closed, but not everything is acknowledged; the deliveries say what is not."""


def system_clock() -> Callable[[], int]:
    """A clock in milliseconds since the epoch that never goes backward, whatever the system's clock does."""
    offset_s = time.time() - time.monotonic()
    return lambda: int((offset_s + time.monotonic()) * 1000)


class KinesisProducer:
    """Puts events into a stream: each is acknowledged, given up, or unknown, and its caller is told which.

    A start is a new source. All methods may be called from any thread.

    Parameters
    ----------
    client
        ``boto3.client("kinesis")``; see `KinesisClient` for how to configure it.
    stream
        The stream's name.
    settings
        Format, W, limits and deadlines.
    clock
        Milliseconds since the epoch, never going backward; `system_clock` by default.
    rng
        Where the jitter comes from.
    new_uuid
        Where the identity of sources comes from. It must never repeat: do not seed it outside tests.

    Raises
    ------
    StreamUnavailable
        The stream does not exist or cannot be reached.
    """

    def __init__(
        self,
        client: KinesisClient,
        *,
        stream: str,
        settings: ProducerSettings | None = None,
        clock: Callable[[], int] | None = None,
        rng: random.Random | None = None,
        new_uuid: Callable[[], UUID] = uuid4,
    ) -> None:
        # configuration
        self._client = client
        self._stream = stream
        self._settings = settings or ProducerSettings()
        self._clock = clock or system_clock()
        # live
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # workers wait here
        self._progress = threading.Condition(self._lock)  # callers wait here
        self._callers_waiting = 0
        self._changes_told = -1
        self._crash: BaseException | None = None
        shards = first_shards(client, stream)
        self._core = ProducerCore(
            self._settings,
            shards,
            rng=rng or random.Random(),  # noqa: S311 (jitter)
            new_uuid=new_uuid,
            now_ms=self._clock(),
            waiter=self,
        )
        self._threads = [
            threading.Thread(target=self._run, name=f"producer-{stream}-{number}", daemon=True)
            for number in range(self._settings.requests_in_flight_max)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> KinesisProducer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Somebody who leaves by an error, or by Ctrl-C, is not to wait for a stream that does not answer.
        self.close(timeout_s=None if kind is None else _EXIT_TIMEOUT_S)

    @property
    def source(self) -> str:
        """The source of the events that are put now."""
        return self._core.source

    @property
    def stats(self) -> ProducerStats:
        """Counters, live: read them, do not write."""
        return self._core.stats

    @property
    def now_ms(self) -> int:
        """The producer's clock."""
        return self._clock()

    def put(
        self,
        type: str,
        subject: str,
        time_ms: int,
        data: bytes,
        *,
        partition_key: str | None = None,
        dataschema: str | None = None,
        traceparent: str | None = None,
        copies: int = 1,
        copies_behind: int = 0,
        on_done: Callable[[Delivery], None] | None = None,
    ) -> Delivery:
        """Put one event. Waits while W or the bounds in flight leave no room.

        Parameters
        ----------
        data
            The JSON bytes of an object; put in as it is, not checked.
        time_ms
            Event time in milliseconds since the epoch.
        partition_key
            The subject by default.
        copies
            How often the event is sent in all, as a producer's own retries would send it: same source and sequence,
            each copy in a later record than the one before.
        copies_behind
            How many events are put between two copies; fewer when the producer must flush or runs out of room.
        on_done
            Called with the delivery, in a thread of the producer, when its outcome is known. It must be quick and must
            not call the producer.

        Raises
        ------
        EventTooLarge
            Event and partition key are larger than 1 MiB.
        InvalidPut
            An attribute breaks the contract.
        ProducerClosed
            The producer was closed.
        """
        with self._lock:
            self._wait_for_room(len(data) + _ENVELOPE_BYTES)
            delivery = self._core.put(
                type,
                subject,
                time_ms,
                data,
                now_ms=self._clock(),
                partition_key=partition_key,
                dataschema=dataschema,
                traceparent=traceparent,
                copies=copies,
                copies_behind=copies_behind,
                on_done=on_done,
            )
            if self._core.take_attention():
                self._work.notify()
            return delivery

    def put_raw(
        self,
        payload: bytes,
        partition_key: str,
        *,
        plain: bool = False,
        on_done: Callable[[Delivery], None] | None = None,
    ) -> Delivery:
        """Put bytes as they are, outside the source's numbering: malformed or foreign events.

        With `plain` in a record of its own whatever the wire format. Raises what `put` raises.
        """
        with self._lock:
            self._wait_for_room(len(payload))
            delivery = self._core.put_raw(payload, partition_key, now_ms=self._clock(), plain=plain, on_done=on_done)
            if self._core.take_attention():
                self._work.notify()
            return delivery

    def has_room(self, size: int, *, timeout_s: float) -> bool:
        """Wait until an event with `size` bytes of data could be put at once; False if that takes too long.

        For a caller that is alone with the producer and must look after something else meanwhile.
        """
        with self._lock:
            return self._wait_for_room(size + _ENVELOPE_BYTES, timeout_s)

    def flush(self, timeout_s: float | None = None) -> None:
        """Send everything and wait until nothing is on its way, copies included.

        Raises
        ------
        TimeoutError
            Something still was after `timeout_s` seconds.
        """
        with self._lock:
            self._core.flush()
            self._work.notify_all()
            self._wait(lambda: not self._core.events_out, timeout_s)

    def close(self, *, end_of_input: EndOfInput | None = None, timeout_s: float | None = None) -> ProducerStats:
        """Flush, state the final ledger, put `end_of_input` into every shard, and stop. Closing twice is harmless.

        Raises
        ------
        CloseIncomplete
            `timeout_s` seconds were not enough, or the end of the input could not be stated.
        """
        with self._lock:
            self._core.close(end_of_input)
            self._work.notify_all()
            try:
                self._wait(lambda: self._core.phase is Phase.CLOSED, timeout_s)
            except TimeoutError:
                self._core.abandon()
                self._work.notify_all()
                self._progress.notify_all()
        if not self._core.failure:
            for thread in self._threads:
                thread.join()
            return self._core.stats
        stats = self._core.stats
        raise CloseIncomplete(
            f"{self._core.failure} ({stats.given_up} given up, {stats.unknown} unknown)",
            where=f"stream {self._stream}",
            remedy=f"The last error was: {stats.last_error}" if stats.last_error else None,
        )

    def wait_for(self, delivery: Delivery, timeout_s: float | None) -> None:
        """Wait for one outcome; see `Delivery.result`."""
        with self._lock:
            self._wait(lambda: delivery.outcome is not None, timeout_s)

    # --- callers' side, under the lock -------------------------------------------------------------------------------

    def _wait_for_room(self, size: int, timeout_s: float | None = None) -> bool:
        core = self._core
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while core.phase is Phase.OPEN and self._crash is None and not core.can_accept(size):
            if core.take_attention():
                self._work.notify()
            left_s = None if end_s is None else end_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            self._callers_waiting += 1
            try:
                self._progress.wait(left_s)
            finally:
                self._callers_waiting -= 1
        self._check_crash()
        if core.phase is not Phase.OPEN:
            raise ProducerClosed("the producer is closed", where=f"stream {self._stream}")
        return True

    def _wait(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        self._callers_waiting += 1
        try:
            if not self._progress.wait_for(lambda: condition() or self._crash is not None, timeout_s):
                raise TimeoutError(f"{self._core.events_out} events have no outcome after {timeout_s} s")
        finally:
            self._callers_waiting -= 1
        self._check_crash()

    def _check_crash(self) -> None:
        if self._crash is not None:
            raise ProducerClosed(f"a thread of the producer failed: {self._crash!r}") from self._crash

    # --- workers -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (action := self._next_action()) is not None:
                if isinstance(action, PutRequest):
                    self._put(action)
                else:
                    self._list()
        except BaseException as error:
            with self._lock:
                self._crash = error
                self._work.notify_all()
                self._progress.notify_all()
            raise

    def _next_action(self) -> PutRequest | ListShards | None:
        core = self._core
        with self._lock:
            while self._crash is None:
                now_ms = self._clock()
                action = core.poll(now_ms)
                if action is not None:
                    self._work.notify()  # there may be work for another thread too
                    return action
                if core.phase is Phase.CLOSED:
                    self._work.notify_all()
                    self._progress.notify_all()
                    return None
                self._tell_callers()
                wake_ms = core.wake_ms(now_ms)
                self._work.wait(None if wake_ms is None else max(wake_ms - now_ms, 1) / 1000)
            return None

    def _put(self, request: PutRequest) -> None:
        core = self._core
        try:
            answers = put_records(self._client, self._stream, request.records)
        except Exception as error:  # noqa: BLE001 (whatever it was, the records' fate must be decided)
            failure, reason = failure_of(error)
            with self._lock:
                core.failed(request.request_id, failure, reason, self._clock())
                self._tell_callers()
            return
        with self._lock:
            core.answered(request.request_id, answers, self._clock())
            self._tell_callers()

    def _list(self) -> None:
        try:
            shards = list_shards(self._client, self._stream)
        except Exception as error:  # noqa: BLE001 (the old map stays in use)
            with self._lock:
                self._core.list_failed(failure_of(error)[1], self._clock())
            return
        with self._lock:
            self._core.listed(shards, self._clock())
            self._tell_callers()

    def _tell_callers(self) -> None:
        changes = self._core.changes
        if self._callers_waiting and changes != self._changes_told:
            self._changes_told = changes
            self._progress.notify_all()
