"""A stream, a function and a clock for the event source poller's core: everything by script, no time passes."""

from __future__ import annotations

import base64
import heapq
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.infra.local.event_source.actions import Action, Invoke, ListShards, Patience, Read, SendFailure
from streamgauge.infra.local.event_source.answers import Answered, NotInvoked
from streamgauge.infra.local.event_source.mapping import EventSourceMapping, parse_mapping
from streamgauge.infra.local.event_source.stream import StreamPoller

STREAM_ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/observations"
FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:processor"
QUEUE_ARN = "arn:aws:sqs:us-east-1:000000000000:dead-letters"
ROLE_ARN = "arn:aws:iam::000000000000:role/processor"
SHARD = "shardId-000000000000"
T0 = 1_700_000_000_000
"""Milliseconds since the epoch at which every script begins."""

Answer = Answered | NotInvoked
Function = Callable[["Call"], Answer]

SUCCESS = Answered(b"null", request_id="r")
ERROR = Answered(b'{"errorMessage":"bad"}', "Unhandled", request_id="r")
THROTTLE = NotInvoked("TooManyRequestsException", is_throttle=True)


def partial(*identifiers: object) -> Answered:
    failures = [{"itemIdentifier": identifier} for identifier in identifiers]
    return Answered(json.dumps({"batchItemFailures": failures}).encode(), request_id="r")


def mapping(**properties: object) -> EventSourceMapping:
    description = {
        "UUID": "a1b2",
        "EventSourceArn": STREAM_ARN,
        "FunctionArn": FUNCTION_ARN,
        "StartingPosition": "TRIM_HORIZON",
        "State": "Enabled",
    }
    return parse_mapping({**description, **properties}, role_arn=ROLE_ARN)


def record(number: int, key: str = "k", data: bytes = b"{}", *, at_ms: int = 0) -> StreamRecord:
    """A record whose sequence number is `number`; it arrives `at_ms` after the script's beginning."""
    return StreamRecord(str(number), key, T0 + at_ms, data)


@dataclass
class Call:
    """An invocation: what the function was given, when, and how often it was called before."""

    shard_id: str
    lane: int
    payload: bytes
    at_ms: int
    number: int

    @property
    def event(self) -> dict[str, list[dict[str, object]]]:
        decoded: dict[str, list[dict[str, object]]] = json.loads(self.payload)
        return decoded

    @property
    def records(self) -> list[int]:
        return [int(str(one["eventID"]).partition(":")[2]) for one in self.event["Records"]]

    @property
    def texts(self) -> list[str]:
        kinesis = [one["kinesis"] for one in self.event["Records"]]
        return [base64.b64decode(str(one["data"])).decode() for one in kinesis if isinstance(one, dict)]


@dataclass
class ScriptedShard:
    """Its records, when it closes (ms after the beginning), and since when it is listed."""

    records: list[StreamRecord] = field(default_factory=list)
    parents: tuple[str, ...] = ()
    closes_ms: int | None = None
    listed_ms: int = 0


class World:
    """Runs a `StreamPoller` over scripted shards; `now_ms` is milliseconds since the script began."""

    def __init__(
        self,
        mapping: EventSourceMapping,
        shards: dict[str, ScriptedShard] | Sequence[StreamRecord],
        function: Function = lambda _call: SUCCESS,
        *,
        call_ms: int = 0,
        patience: Patience | None = None,
    ) -> None:
        self.shards = shards if isinstance(shards, dict) else {SHARD: ScriptedShard(list(shards))}
        self.function = function
        self.poller = StreamPoller(mapping, patience)
        self.now_ms = 0
        self.call_ms = call_ms
        self.calls: list[Call] = []
        self.done: list[Call] = []
        self.reads: list[tuple[int, Read]] = []
        self.failures: list[SendFailure] = []
        self.lists = 0
        self.read_fails = False
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._start_of: dict[str, int] = {}
        self._under_way: set[tuple[str, int]] = set()

    @property
    def batches(self) -> list[list[int]]:
        return [call.records for call in self.calls]

    def run(self, until_ms: int = 60_000) -> World:
        """Let time pass up to `until_ms`."""
        while True:
            self._drain()
            moments = [self._events[0][0]] if self._events else []
            wake = self.poller.wake_ms()
            if wake is not None:
                moments.append(max(wake - T0, self.now_ms))
            following = min(moments, default=until_ms + 1)
            if following > until_ms:
                self.now_ms = until_ms
                return self
            assert following > self.now_ms or self._events or wake is not None
            self.now_ms = following

    def _drain(self) -> None:
        while True:
            while self._events and self._events[0][0] <= self.now_ms:
                heapq.heappop(self._events)[2]()
            actions = self.poller.actions(T0 + self.now_ms)
            if not actions and not (self._events and self._events[0][0] <= self.now_ms):
                return
            for action in actions:
                self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        now = T0 + self.now_ms
        match action:
            case ListShards():
                self.lists += 1
                known = {name: one for name, one in self.shards.items() if one.listed_ms <= self.now_ms}
                self.poller.listed(now, [Shard(name, FULL_RANGE, one.parents) for name, one in known.items()])
            case Read():
                self.reads.append((self.now_ms, action))
                if self.read_fails:
                    self.poller.read_failed(now, action.shard_id)
                else:
                    self._read(action)
            case Invoke():
                self._invoke(action)
            case SendFailure():
                self.failures.append(action)
                self.poller.sent(now, action.shard_id, action.lane)

    def _read(self, action: Read) -> None:
        shard = self.shards[action.shard_id]
        arrived = [one for one in shard.records if one.arrival_ms - T0 <= self.now_ms]
        if action.after is not None:
            given = [one for one in arrived if int(one.sequence_number) > int(action.after)]
        elif action.start.type == "LATEST":
            since = self._start_of.setdefault(action.shard_id, self.now_ms)
            given = [one for one in arrived if one.arrival_ms - T0 > since]
        else:
            given = [one for one in arrived if one.arrival_ms >= (action.start.timestamp_ms or 0)]
        is_end = shard.closes_ms is not None and self.now_ms >= shard.closes_ms
        self.poller.read(T0 + self.now_ms, action.shard_id, given, behind_ms=0, is_end=is_end)

    def _invoke(self, action: Invoke) -> None:
        call = Call(action.shard_id, action.lane, action.payload, self.now_ms, len(self.calls))
        self.calls.append(call)
        # A batch of a lane at a time, and of nothing that counts as done.
        assert (action.shard_id, action.lane) not in self._under_way
        self._under_way.add((action.shard_id, action.lane))
        checkpoint = self.poller.checkpoints[action.shard_id]
        assert checkpoint is None or int(checkpoint) < min(call.records)
        answer = self.function(call)

        def give() -> None:
            self.done.append(call)
            self._under_way.remove((action.shard_id, action.lane))
            self.poller.answered(T0 + self.now_ms, action.shard_id, action.lane, answer)

        self._count += 1
        heapq.heappush(self._events, (self.now_ms + self.call_ms, self._count, give))
