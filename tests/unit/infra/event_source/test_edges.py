"""The poller's edges against scripted clients: iterators, answers of Lambda, schedules."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from event_source_pages import QUOTAS, SCHEDULED, says
from event_source_world import FUNCTION_ARN, SHARD
from scripted_kinesis import client_error

from streamgauge.infra.local.event_source.actions import Invoke, Read
from streamgauge.infra.local.event_source.answers import Answered, NotInvoked
from streamgauge.infra.local.event_source.calls import invoke
from streamgauge.infra.local.event_source.mapping import StartAt
from streamgauge.infra.local.event_source.reader import StreamReader
from streamgauge.infra.local.event_source.records import ANSWER_BYTES_MAX
from streamgauge.infra.local.event_source.schedules import ScheduleRefused, ScheduleRule, scheduled_event

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW_MS = 1_700_000_000_000
LATEST = StartAt("LATEST")
HORIZON = StartAt("TRIM_HORIZON")


class Kinesis:
    """Notes which iterators are asked for; each read gives one record, or raises what is scripted."""

    def __init__(self, *faults: Exception | None) -> None:
        self.asked: list[dict[str, object]] = []
        self.faults: Iterator[Exception | None] = iter(faults)
        self.reads = 0

    def get_shard_iterator(self, **arguments: object) -> dict[str, str]:
        self.asked.append({key: value for key, value in arguments.items() if key not in {"StreamName", "ShardId"}})
        return {"ShardIterator": f"new-{len(self.asked)}"}

    def get_records(self, *, ShardIterator: str) -> dict[str, object]:  # noqa: N803
        if (fault := next(self.faults, None)) is not None:
            raise fault
        self.reads += 1
        record = {
            "SequenceNumber": str(self.reads),
            "PartitionKey": "k",
            "ApproximateArrivalTimestamp": EPOCH + timedelta(milliseconds=NOW_MS),
            "Data": ShardIterator.encode(),
        }
        return {"Records": [record], "NextShardIterator": f"next-{self.reads}", "MillisBehindLatest": 7}


def reader(kinesis: Kinesis) -> StreamReader:
    return StreamReader(kinesis, "observations", lambda: NOW_MS)  # type: ignore[arg-type]


def test_a_shard_is_read_on_from_the_iterator_of_the_last_answer() -> None:
    kinesis = Kinesis()
    shard = reader(kinesis)
    first = shard.read(Read(SHARD, None, HORIZON))
    second = shard.read(Read(SHARD, "1", HORIZON))

    assert (first.records[0].data, second.records[0].data) == (b"new-1", b"next-1")
    assert (first.behind_ms, first.is_end, first.records[0].arrival_ms) == (7, False, NOW_MS)
    assert kinesis.asked == [{"ShardIteratorType": "TRIM_HORIZON"}]


def test_an_iterator_that_does_not_go_on_where_it_must_is_not_used() -> None:
    kinesis = Kinesis()
    shard = reader(kinesis)
    shard.read(Read(SHARD, None, HORIZON))
    shard.read(Read(SHARD, "0", HORIZON))

    assert kinesis.asked[1] == {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "0"}


def test_an_expired_iterator_is_replaced() -> None:
    kinesis = Kinesis(None, client_error("ExpiredIteratorException"))
    shard = reader(kinesis)
    shard.read(Read(SHARD, None, HORIZON))
    assert shard.read(Read(SHARD, "1", HORIZON)).records == []
    shard.read(Read(SHARD, "1", HORIZON))

    assert kinesis.asked[1] == {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "1"}


def test_a_throttled_read_keeps_its_iterator() -> None:
    kinesis = Kinesis(client_error("ProvisionedThroughputExceededException"))
    shard = reader(kinesis)
    with pytest.raises(ClientError):
        shard.read(Read(SHARD, None, HORIZON))
    shard.read(Read(SHARD, None, HORIZON))

    assert len(kinesis.asked) == 1


@pytest.mark.parametrize(
    "fault", [client_error("ExpiredIteratorException"), EndpointConnectionError(endpoint_url="http://127.0.0.1:1")]
)
def test_what_arrives_while_latest_is_lost_is_not_skipped(fault: Exception) -> None:
    kinesis = Kinesis(fault)
    shard = reader(kinesis)
    with contextlib.suppress(EndpointConnectionError):
        shard.read(Read(SHARD, None, LATEST))
    shard.read(Read(SHARD, None, LATEST))

    since = EPOCH + timedelta(milliseconds=NOW_MS)
    assert kinesis.asked == [
        {"ShardIteratorType": "LATEST"},
        {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": since},
    ]


def test_a_timestamp_is_asked_for() -> None:
    kinesis = Kinesis()
    reader(kinesis).read(Read(SHARD, None, StartAt("AT_TIMESTAMP", 86_400_000)))

    assert kinesis.asked == [
        {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime(1970, 1, 2, tzinfo=UTC)},
    ]


class Payload:
    """A body that is read once."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self) -> bytes:
        return self._content


class Lambda:
    """Gives one answer."""

    def __init__(self, answer: bytes | Exception, error: str | None = None) -> None:
        self.answer = answer
        self.error = error
        self.asked: list[dict[str, object]] = []

    def invoke(self, **arguments: object) -> dict[str, object]:
        self.asked.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        error = {"FunctionError": self.error} if self.error else {}
        metadata = {"ResponseMetadata": {"RequestId": "r"}}
        return {"StatusCode": 200, "Payload": Payload(self.answer), "ExecutedVersion": "3", **metadata, **error}


def called(answer: bytes | Exception, error: str | None = None) -> Answered | NotInvoked:
    return invoke(Lambda(answer, error), Invoke(SHARD, 0, FUNCTION_ARN, b"{}", 1))  # type: ignore[arg-type]


def test_an_answer_is_handed_on() -> None:
    assert called(b"null") == Answered(b"null", None, 200, "3", "r")
    assert called(b'{"errorMessage":"bad"}', "Unhandled") == Answered(
        b'{"errorMessage":"bad"}', "Unhandled", 200, "3", "r"
    )


@says(QUOTAS)
def test_an_answer_that_is_too_large_is_the_functions_error() -> None:
    answer = called(b"x" * (ANSWER_BYTES_MAX + 1))

    assert isinstance(answer, Answered)
    assert answer.function_error == "Unhandled"
    assert json.loads(answer.payload)["errorType"] == "Function.ResponseSizeTooLarge"


@pytest.mark.parametrize(
    ("error", "is_throttle"),
    [
        (client_error("TooManyRequestsException", 429), True),
        (client_error("ResourceNotFoundException", 404), False),
        (client_error("ServiceException", 500), False),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), False),
    ],
)
def test_what_did_not_reach_the_function_is_told_apart(error: Exception, is_throttle: bool) -> None:
    answer = called(error)

    assert isinstance(answer, NotInvoked)
    assert answer.is_throttle is is_throttle


RULE = ScheduleRule("tick", "arn:aws:events:us-east-1:123456789012:rule/tick", "rate(1 minute)", FUNCTION_ARN)


@says(SCHEDULED)
def test_a_scheduled_event_is_the_one_of_eventbridges_guide() -> None:
    assert json.loads(scheduled_event(RULE, now_ms=1_483_123_489_999, event_id="89d1")) == {
        "version": "0",
        "id": "89d1",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2016-12-30T18:44:49Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/tick"],
        "detail": {},
    }


def test_a_constant_input_takes_its_place() -> None:
    rule = ScheduleRule("tick", RULE.arn, RULE.expression, FUNCTION_ARN, input='{"a":1}')

    assert scheduled_event(rule, now_ms=0, event_id="e") == b'{"a":1}'


@pytest.mark.parametrize(
    ("expression", "interval_ms"),
    [
        ("rate(1 minute)", 60_000),
        ("rate(5 minutes)", 300_000),
        ("rate(2 hours)", 7_200_000),
        ("rate(1 day)", 86_400_000),
    ],
)
def test_rates_are_kept(expression: str, interval_ms: int) -> None:
    assert ScheduleRule("tick", RULE.arn, expression, FUNCTION_ARN).interval_ms() == interval_ms


def test_a_calendar_needs_an_interval() -> None:
    with pytest.raises(ScheduleRefused, match="--schedule-interval"):
        ScheduleRule("tick", RULE.arn, "cron(0 12 * * ? *)", FUNCTION_ARN).interval_ms()


class TestPurity:
    """The core reads no clock, network or randomness: a simulation can drive it."""

    CORE: ClassVar = ["actions", "answers", "failures", "filters", "lane", "mapping", "records", "shard", "stream"]
    IMPURE: ClassVar = {"boto3", "botocore", "os", "random", "secrets", "socket", "threading", "time", "uuid"}

    @pytest.mark.parametrize("module", CORE)
    def test_the_core_imports_nothing_impure(self, module: str) -> None:
        folder = Path(__file__).parents[4] / "infra/local/event_source"
        imported: set[str] = set()
        for node in ast.walk(ast.parse((folder / f"{module}.py").read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
                prefix = "streamgauge.infra.local.event_source."
                if (node.module or "").startswith(prefix):
                    assert (node.module or "").removeprefix(prefix) in self.CORE

        assert not imported & self.IMPURE
