"""The host of one mapping's poller: a thread that asks its core what to do, and one for each call under way."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

from botocore.exceptions import ClientError

from streamgauge.infra.clients import Clients
from streamgauge.infra.local.event_source.actions import (
    Action,
    Counters,
    Invoke,
    ListShards,
    Patience,
    Read,
    SendFailure,
)
from streamgauge.infra.local.event_source.answers import Answered, NotInvoked
from streamgauge.infra.local.event_source.calls import invoke, send
from streamgauge.infra.local.event_source.mapping import EventSourceMapping, MappingRefused
from streamgauge.infra.local.event_source.reader import StreamReader
from streamgauge.infra.local.event_source.stream import StreamPoller
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, error_code, is_transient, reason_of
from streamgauge.processors.hosts.shard_reader import ReadFailed
from streamgauge.processors.hosts.stream_shards import list_shards

__all__ = ["MappingHost"]

_SHOWN_ERROR_BYTES = 300
_IDLE_S = 1.0
_THROTTLES = frozenset({"ProvisionedThroughputExceededException", "LimitExceededException"})

_log = logging.getLogger(__name__)
_Answer: TypeAlias = Callable[[int], None]


class MappingHost:
    """Carries out what the core of one mapping asks for, until it is told to stop.

    Parameters
    ----------
    clients
        For reads and destinations.
    callers
        For invocations: with a time limit for answers above that of any function, and without retries, which are the
        core's.
    now_ms
        Milliseconds since the epoch.
    """

    def __init__(
        self,
        mapping: EventSourceMapping,
        clients: Clients,
        callers: Clients,
        *,
        patience: Patience,
        now_ms: Callable[[], int],
    ) -> None:
        self.poller = StreamPoller(mapping, patience)
        self.failure: BaseException | None = None
        """What ended it, if it was not `stop`."""
        self._clients = clients
        self._callers = callers
        self._patience = patience
        self._now_ms = now_ms
        self._reader = StreamReader(clients.kinesis, mapping.stream, now_ms)
        self._answers: queue.Queue[_Answer | BaseException] = queue.Queue()
        self._stopping = threading.Event()
        self._calls_under_way = 0
        self._thread = threading.Thread(target=self._run, name=f"event-source-{mapping.function}", daemon=True)

    @property
    def mapping(self) -> EventSourceMapping:
        """The settings in force."""
        return self.poller.mapping

    @property
    def counters(self) -> Counters:
        """What was done until now."""
        return self.poller.counters

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def configure(self, mapping: EventSourceMapping) -> None:
        """Put changed settings in force; those that cannot be changed are logged, and the old ones stay."""

        def apply(_now_ms: int) -> None:
            try:
                self.poller.configure(mapping)
            except MappingRefused as error:
                _log.warning("%s", error)

        self._answers.put(apply)

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()
        self._answers.put(lambda _now_ms: None)

    def join(self, timeout_s: float) -> bool:
        """Wait until the calls under way have been answered. Whether they were in time."""
        self._thread.join(max(timeout_s, 0))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() or self._calls_under_way:
                now = self._now_ms()
                if not self._stopping.is_set():
                    for action in self.poller.actions(now):
                        self._begin(action)
                self._take(self._pause_s())
        except BaseException as error:  # noqa: BLE001 - raised by whoever runs the hosts
            # The thread's end must be seen: nobody else would poll for this mapping.
            self.failure = error
            _log.exception("the poller for %s has failed", self.mapping.function)

    def _pause_s(self) -> float:
        wake = self.poller.wake_ms()
        if wake is None or self._stopping.is_set():
            return _IDLE_S
        return min(max(wake - self._now_ms(), 0) / 1000, _IDLE_S)

    def _take(self, pause_s: float) -> None:
        """Hand the core the answers that are there, after waiting for the first one."""
        try:
            answer = self._answers.get(timeout=pause_s) if pause_s else self._answers.get_nowait()
            while True:
                if isinstance(answer, BaseException):
                    raise answer
                answer(self._now_ms())
                answer = self._answers.get_nowait()
        except queue.Empty:
            return

    def _begin(self, action: Action) -> None:
        is_call = isinstance(action, Invoke | SendFailure)
        self._calls_under_way += is_call

        def carry_out() -> None:
            try:
                answer = self._carry_out(action)
            except BaseException as error:  # noqa: BLE001 - raised by the thread that takes it
                self._answers.put(error)
                return

            def take(now_ms: int) -> None:
                self._calls_under_way -= is_call
                answer(now_ms)

            self._answers.put(take)

        threading.Thread(target=carry_out, name=f"{self._thread.name}-{type(action).__name__}", daemon=True).start()

    def _carry_out(self, action: Action) -> _Answer:
        match action:
            case ListShards():
                return self._list()
            case Read():
                return self._read(action)
            case Invoke():
                answer = invoke(self._callers.functions, action)
                self._tell(action, answer)
                return lambda now: self.poller.answered(now, action.shard_id, action.lane, answer)
            case SendFailure():
                self._send(action)
                return lambda now: self.poller.sent(now, action.shard_id, action.lane)

    def _list(self) -> _Answer:
        try:
            shards = list_shards(self._clients.kinesis, self.mapping.stream)
        except ReadFailed as error:
            _log.warning("%s", error)
            return self.poller.list_failed
        return lambda now: self.poller.listed(now, shards)

    def _read(self, action: Read) -> _Answer:
        try:
            given = self._reader.read(action)
        except AWS_ERRORS as error:
            # Readers share a shard's limit, so that being refused is nothing to tell of.
            is_throttle = isinstance(error, ClientError) and error_code(error) in _THROTTLES
            level = logging.DEBUG if is_throttle else logging.WARNING
            _log.log(level, "%s of %s cannot be read: %s", action.shard_id, self.mapping.stream, reason_of(error))
            return lambda now: self.poller.read_failed(now, action.shard_id)
        return lambda now: self.poller.read(
            now, action.shard_id, given.records, behind_ms=given.behind_ms, is_end=given.is_end
        )

    def _tell(self, action: Invoke, answer: Answered | NotInvoked) -> None:
        where = f"{self.mapping.function}, {action.shard_id}"
        if isinstance(answer, NotInvoked):
            _log.warning("%s: not invoked with %d records: %s", where, action.records, answer.reason)
        elif answer.function_error is not None:
            shown = answer.payload[:_SHOWN_ERROR_BYTES].decode(errors="replace")
            _log.warning("%s: failed with %d records: %s", where, action.records, shown)

    def _send(self, action: SendFailure) -> None:
        """Tell the destination, as long as it takes; a destination that refuses is logged, and the shard goes on."""
        failures = 0
        batch = action.record.document["KinesisBatchInfo"]
        while True:
            try:
                send(self._clients, action)
            except AWS_ERRORS as error:
                _log.warning("%s is not told of given up records: %s", action.destination, reason_of(error))
                if not is_transient(error):
                    _log.error("nobody was told that these were given up: %s", batch)
                    return
                failures += 1
                if self._stopping.wait(self._patience.backoff_ms(failures) / 1000):
                    return
            else:
                _log.warning("given up, %s was told: %s", action.destination, batch)
                return
