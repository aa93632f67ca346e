"""The function that a schedule invokes: it lets idle time pass, and begins shards that get no records."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING
from uuid import uuid4

from aws_lambda_powertools.metrics import MetricUnit

from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.ports import ParentBehind
from streamgauge.processors.hosts.aws_lambda.clients import FunctionClients
from streamgauge.processors.hosts.aws_lambda.function_settings import FunctionSettings
from streamgauge.processors.hosts.aws_lambda.observed import Observed
from streamgauge.processors.hosts.aws_lambda.time_left import TimeLeft
from streamgauge.processors.hosts.parent_stream import KinesisParents
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.processors.hosts.stream_shards import list_shards
from streamgauge.processors.hosts.ticks import TickCounts, start_children, tick_once
from streamgauge.processors.hosts.wiring import session_opener, state_store

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

__all__ = ["handler"]

TickAnswer = dict[str, int]


def handler(event: object, context: LambdaContext) -> TickAnswer:
    """Put one tick into each open shard, then begin every child that nobody has begun.

    Raises
    ------
    StreamgaugeError
        Somebody has to do something; it is in the log, in one line. The next tick tries again.
    """
    del event
    return _ticker().invoke(context)


@cache
def _ticker() -> Ticker:
    return Ticker(os.environ)


class Ticker:
    """What one sandbox keeps between its invocations."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._observed = Observed(environment)
        self._is_cold = True
        self._wired: _Wired | None = None

    def invoke(self, context: LambdaContext) -> TickAnswer:
        """One invocation."""
        self._observed.begin(context.aws_request_id, is_cold=self._is_cold)
        self._is_cold = False
        try:
            self._wired = self._wired or _Wired(self._environment, self._observed)
            with self._observed.segment("tick"):
                return self._wired.tick(context.get_remaining_time_in_millis() / 1_000)
        except BaseException as error:
            self._observed.error(error)
            raise


class _Wired:
    """The pipeline, and everything outside that a tick needs."""

    def __init__(self, environment: Mapping[str, str], observed: Observed) -> None:
        settings = FunctionSettings.from_environment(environment)
        self._observed = observed
        self._abandoned_after_s = settings.abandoned_after_s
        self._pipeline = load_pipeline(settings.pipeline_file)
        clients = FunctionClients(environment)
        self._kinesis = clients.kinesis
        self._stream = settings.resources.stream_name
        self._time = TimeLeft(time.monotonic, time.sleep)
        self._watch = ClaimWatch(time.monotonic)
        parents = Parents(
            stream=KinesisParents(clients.kinesis, self._stream, sleep=self._wait),
            watch=self._watch,
            abandoned_after_s=settings.abandoned_after_s,
            accept_gap=settings.accept_gap,
        )
        self._open_session = session_opener(clients, settings.resources, self._pipeline, parents=parents)
        self._store = state_store(clients, settings.resources, self._pipeline)

    def tick(self, left_s: float) -> TickAnswer:
        """One tick, and what is to be begun."""
        self._time.begin(left_s)
        counts = TickCounts()
        tick_once(self._kinesis, self._stream, time.time_ns() // 1_000_000, counts)
        children = start_children(
            self._store,
            list_shards(self._kinesis, self._stream),
            self._open_session,
            watch=self._watch,
            abandoned_after_s=self._abandoned_after_s,
            new_owner=lambda: str(uuid4()),
        )
        answer = {
            "put": counts.put,
            "failed": counts.failed,
            "started": len(children.started),
            "waiting": len(children.waiting),
        }
        self._observed.info("tick", **answer, shards=children.started, why=children.waiting)
        count = MetricUnit.Count
        self._observed.metrics(
            self._pipeline.name,
            {
                "TicksPut": (counts.put, count),
                "TicksFailed": (counts.failed, count),
                "ShardsStarted": (len(children.started), count),
                "ShardsWaiting": (len(children.waiting), count),
            },
        )
        return answer

    def _wait(self, seconds: float) -> None:
        if not self._time.wait(seconds):
            raise ParentBehind("the time of the invocation is used up", where=f"stream {self._stream}")
