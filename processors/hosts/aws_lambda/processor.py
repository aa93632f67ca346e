"""The function that the event source invokes with batches of the stream's records."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cache
from random import Random
from typing import TYPE_CHECKING
from uuid import uuid4

from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.ports import ParentBehind
from streamgauge.processors.hosts.aws_lambda.batches import Answer
from streamgauge.processors.hosts.aws_lambda.clients import FunctionClients
from streamgauge.processors.hosts.aws_lambda.event_sources import check_event_sources
from streamgauge.processors.hosts.aws_lambda.function_settings import FunctionSettings
from streamgauge.processors.hosts.aws_lambda.kinesis_event import parse_event
from streamgauge.processors.hosts.aws_lambda.observed import Observed, batch_metrics
from streamgauge.processors.hosts.aws_lambda.shards import BatchSettings, ShardBatches
from streamgauge.processors.hosts.aws_lambda.time_left import TimeLeft
from streamgauge.processors.hosts.parent_stream import KinesisParents
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.processors.hosts.wiring import session_opener, state_store

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

__all__ = ["handler"]

BatchAnswer = dict[str, list[dict[str, str]]]


def handler(event: object, context: LambdaContext) -> BatchAnswer:
    """Apply a batch; name the first record that is not committed, if there is one (``ReportBatchItemFailures``).

    Raises
    ------
    StreamgaugeError
        Somebody has to do something; it is in the log, in one line. The event source sends the batch again.
    """
    return _processor().invoke(event, context)


@cache
def _processor() -> Processor:
    # On the first invocation, not at import: an error then belongs to a batch, and is logged like every other.
    return Processor(os.environ)


class Processor:
    """What one sandbox keeps between its invocations."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._observed = Observed(environment)
        self._is_cold = True
        self._wired: _Wired | None = None

    def invoke(self, event: object, context: LambdaContext) -> BatchAnswer:
        """One invocation."""
        self._observed.begin(context.aws_request_id, is_cold=self._is_cold)
        self._is_cold = False
        total_s = context.get_remaining_time_in_millis() / 1_000
        try:
            wired = self._wired or self._wire(context.invoked_function_arn)
            return wired.process(event, context, total_s=total_s)
        except BaseException as error:
            self._observed.error(error)
            raise

    def _wire(self, function: str) -> _Wired:
        with self._observed.segment("cold start"):
            self._wired = _Wired(self._environment, self._observed, function)
        return self._wired


class _Wired:
    """The pipeline, and everything outside that its batches need."""

    def __init__(self, environment: Mapping[str, str], observed: Observed, function: str) -> None:
        settings = FunctionSettings.from_environment(environment)
        self._observed = observed
        self._resources = settings.resources
        self._pipeline = load_pipeline(settings.pipeline_file)
        clients = FunctionClients(environment)
        check_event_sources(clients.functions, function, stream_arn=self._resources.stream_arn)
        self._stream = stream = self._resources.stream_name
        self._time = TimeLeft(time.monotonic, time.sleep)
        parents = Parents(
            stream=KinesisParents(clients.kinesis, stream, sleep=self._wait_for_parent),
            watch=ClaimWatch(time.monotonic),
            abandoned_after_s=settings.abandoned_after_s,
            accept_gap=settings.accept_gap,
        )
        self._batches = ShardBatches(
            stream,
            clients.kinesis,
            session_opener(clients, self._resources, self._pipeline, parents=parents),
            store=state_store(clients, self._resources, self._pipeline),
            time=self._time,
            now_ms=_now_ms,
            rng=Random(),  # noqa: S311 - spreads what sandboxes do, guards no secret
            new_owner=lambda: str(uuid4()),
            settings=BatchSettings(accept_gap=settings.accept_gap),
        )

    def process(self, event: object, context: LambdaContext, *, total_s: float) -> BatchAnswer:
        """Apply the batch, say how it went, and answer."""
        shard_id, records = parse_event(event, stream_arn=self._resources.stream_arn)
        self._observed.about(
            shard=shard_id,
            first=records[0].sequence_number,
            last=records[-1].sequence_number,
        )
        with self._observed.segment("batch"):
            left_s = context.get_remaining_time_in_millis() / 1_000
            answer = self._batches.process(shard_id, records, left_s=left_s, total_s=total_s)
        self._say(answer, records=len(records), arrival_ms=records[-1].arrival_ms)
        if answer.failed_from is None:
            return {"batchItemFailures": []}
        return {"batchItemFailures": [{"itemIdentifier": answer.failed_from}]}

    def _say(self, answer: Answer, *, records: int, arrival_ms: int) -> None:
        now_ms = _now_ms()
        work = answer.work
        if answer.failed_from is not None:
            self._observed.warning(
                "the batch comes back from where it is not committed", failed_from=answer.failed_from, why=answer.reason
            )
        elif work.waiting_for is not None:
            self._observed.warning("results wait to be delivered", why=work.waiting_for)
        self._observed.info(
            "batch",
            records=records,
            events=work.after.positions - work.before.positions,
            claims=work.claims,
            conflicts=work.conflicts,
            gap_records=work.gap_records,
        )
        values = batch_metrics(answer, iterator_age_ms=max(0, now_ms - arrival_ms), now_ms=now_ms)
        self._observed.metrics(self._pipeline.name, values)

    def _wait_for_parent(self, seconds: float) -> None:
        if not self._time.wait(seconds):
            raise ParentBehind("the time of the invocation went into its parent", where=f"stream {self._stream}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
