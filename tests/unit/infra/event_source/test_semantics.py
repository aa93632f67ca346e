"""AWS's semantics of Kinesis event source mappings, case by case, each with the page that says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from event_source_pages import FILTERS, KINESIS, KINESIS_FILTERS, MAPPINGS, ON_FAILURE, PARAMETERS, PARTIAL, QUOTAS
from event_source_world import (
    ERROR,
    QUEUE_ARN,
    SUCCESS,
    THROTTLE,
    Answer,
    Call,
    Function,
    World,
    mapping,
    partial,
    record,
)

from streamgauge.events.records import StreamRecord
from streamgauge.infra.local.event_source.answers import Answered, NotInvoked
from streamgauge.infra.local.event_source.records import ANSWER_BYTES_MAX, PAYLOAD_BYTES_MAX

ON = ["ReportBatchItemFailures"]
DESTINATION = {"OnFailure": {"Destination": QUEUE_ARN}}
HOUR_MS = 3_600_000


def fails(*poison: int) -> Function:
    """An error for every batch with one of the records in it."""

    def function(call: Call) -> Answer:
        return ERROR if set(poison) & set(call.records) else SUCCESS

    return function


def answers(*given: Answer) -> Function:
    """These in turn, then success."""

    def function(call: Call) -> Answer:
        return given[call.number] if call.number < len(given) else SUCCESS

    return function


def reports(poison: int) -> Function:
    """Partial answers of a function that stops at the record."""

    def function(call: Call) -> Answer:
        return partial(str(poison)) if poison in call.records else SUCCESS

    return function


@dataclass(frozen=True)
class Case:
    """`batches`: the records of every call; `given_up`: first, last, size and condition, as the destination hears."""

    name: str
    page: str
    properties: dict[str, object]
    batches: list[list[int]]
    function: Function = field(default=lambda _call: SUCCESS)
    records: Sequence[StreamRecord] = tuple(record(number) for number in range(1, 5))
    given_up: tuple[tuple[str, str, int, str], ...] = ()
    checkpoint: str | None = "4"
    until_ms: int = 60_000


MB = b"x" * (1024 * 1024 - 200)
# Four thirds of a megabyte each in base64: four fit, a fifth does not.
LARGE = tuple(record(number, data=MB) for number in range(1, 7))
JSONS = (record(1, data=b'{"type":"buy"}'), record(2, data=b'{"type":"sell"}'), record(3, data=b"\x00"))
OLD = (record(1, at_ms=-2 * HOUR_MS), record(2, at_ms=-2 * HOUR_MS), record(3), record(4))


def patterns(*each: object) -> dict[str, object]:
    return {"Filters": [{"Pattern": json.dumps(one)} for one in each]}


CASES = [
    Case("a batch holds at most BatchSize records", PARAMETERS, {"BatchSize": 3}, [[1, 2, 3], [4]]),
    Case("without a BatchSize, 100", PARAMETERS, {}, [list(range(1, 101)), [101]],
         records=tuple(record(number) for number in range(1, 102)), checkpoint="101"),
    Case("a payload holds at most 6 MB, of base64", MAPPINGS, {}, [[1, 2, 3, 4], [5, 6]], records=LARGE,
         checkpoint="6"),
    Case("without a window, what there is goes at once", KINESIS, {}, [[1], [2]],
         records=(record(1), record(2, at_ms=5_000)), checkpoint="2"),
    Case("an error sends the whole batch again", ON_FAILURE, {}, [[1, 2, 3, 4]] * 3, answers(ERROR, ERROR)),
    Case("the shard stops at a batch that fails", KINESIS, {"BatchSize": 2}, [[1, 2]] * 5, fails(2), checkpoint=None,
         until_ms=6_000),
    Case("without a retry limit there is no end to it", PARAMETERS, {}, [[1, 2, 3, 4]] * 51,
         answers(*[ERROR] * 50), until_ms=HOUR_MS // 4),
    Case("after MaximumRetryAttempts retries the batch is given up", ON_FAILURE,
         {"MaximumRetryAttempts": 2, "BatchSize": 2, "DestinationConfig": DESTINATION},
         [[1, 2], [1, 2], [1, 2], [3, 4]], fails(1), given_up=(("1", "2", 2, "RetryAttemptsExhausted"),)),
    Case("none retried means one attempt", PARAMETERS, {"MaximumRetryAttempts": 0, "BatchSize": 2},
         [[1, 2], [3, 4]], fails(1)),
    Case("given up without a destination, records are just skipped", ON_FAILURE,
         {"MaximumRetryAttempts": 1, "BatchSize": 2}, [[1, 2], [1, 2], [3, 4]], fails(1)),
    Case("a throttle is retried, and is no attempt", ON_FAILURE,
         {"MaximumRetryAttempts": 0, "DestinationConfig": DESTINATION}, [[1, 2, 3, 4]] * 4, answers(*[THROTTLE] * 3)),
    Case("no answer from Lambda is no attempt either", ON_FAILURE, {"MaximumRetryAttempts": 0}, [[1, 2, 3, 4]] * 3,
         answers(*[NotInvoked("connection refused")] * 2)),
    Case("records above MaximumRecordAgeInSeconds are given up before the function sees them", PARAMETERS,
         {"MaximumRecordAgeInSeconds": 3600, "DestinationConfig": DESTINATION}, [[3, 4]], records=OLD,
         given_up=(("1", "2", 2, "RecordAgeExceeded"),)),
    Case("with an age of -1 no record is too old", PARAMETERS, {"MaximumRecordAgeInSeconds": -1}, [[1, 2, 3, 4]],
         records=OLD),
    Case("a batch that fails is given up when it gets too old", ON_FAILURE,
         {"MaximumRecordAgeInSeconds": 60, "BatchSize": 2, "DestinationConfig": DESTINATION},
         [[1, 2]] * 10 + [[3, 4]], fails(1), records=(record(1), record(2), record(3, at_ms=70_000),
         record(4, at_ms=70_000)), given_up=(("1", "2", 2, "RecordAgeExceeded"),), until_ms=200_000),
    Case("so is one that is throttled", ON_FAILURE,
         {"MaximumRecordAgeInSeconds": 60, "DestinationConfig": DESTINATION}, [[1, 2, 3, 4]] * 10,
         lambda _call: THROTTLE, given_up=(("1", "4", 4, "RecordAgeExceeded"),), until_ms=200_000),
    Case("a bisected batch is tried in halves, the first one first", ON_FAILURE, {"BisectBatchOnFunctionError": True},
         [[1, 2, 3, 4], [1, 2], [3, 4]], answers(ERROR)),
    Case("bisecting isolates the bad record, and costs no attempt", ON_FAILURE,
         {"BisectBatchOnFunctionError": True, "MaximumRetryAttempts": 1, "DestinationConfig": DESTINATION},
         [[1, 2, 3, 4], [1, 2], [3, 4], [3], [3], [4]], fails(3), given_up=(("3", "3", 1, "RetryAttemptsExhausted"),)),
    Case("with ReportBatchItemFailures the batch is retried from the record named", PARTIAL,
         {"FunctionResponseTypes": ON}, [[1, 2, 3, 4], [3, 4]], answers(partial("3"))),
    Case("from the lowest of several", PARTIAL, {"FunctionResponseTypes": ON}, [[1, 2, 3, 4], [2, 3, 4]],
         answers(partial("4", "2", "3"))),
    Case("what comes before the record named is done", PARTIAL, {"FunctionResponseTypes": ON},
         [[1, 2, 3, 4], [3, 4], [3, 4]], reports(3), checkpoint="2", until_ms=1_000),
    Case("without ReportBatchItemFailures the answer is not looked at", PARTIAL, {}, [[1, 2, 3, 4]],
         answers(partial("3"))),
    Case("an exception fails the whole batch although partial answers are on", PARTIAL,
         {"FunctionResponseTypes": ON}, [[1, 2, 3, 4]] * 2, answers(ERROR)),
    *[
        Case(f"{named} is a whole success", PARTIAL, {"FunctionResponseTypes": ON}, [[1, 2, 3, 4]],
             answers(Answered(payload)))
        for named, payload in [
            ("an empty list", b'{"batchItemFailures":[]}'),
            ("a null list", b'{"batchItemFailures":null}'),
            ("an empty answer", b"{}"),
            ("null", b"null"),
            ("no answer", b""),
        ]
    ],
    *[
        Case(f"{named} fails the whole batch", PARTIAL, {"FunctionResponseTypes": ON}, [[1, 2, 3, 4]] * 2,
             answers(answer))
        for named, answer in [
            ("an empty identifier", partial("")),
            ("a null identifier", partial(None)),
            ("a bad key name", Answered(b'{"batchItemFailures":[{"itemIdentifer":"3"}]}')),
            ("an unknown identifier beside a known one", partial("3", "99")),
            ("a list that is none", Answered(b'{"batchItemFailures":"3"}')),
            ("an answer that is no object", Answered(b'"ok"')),
        ]
    ],
    Case("a partial answer that names the first record is an attempt", PARTIAL,
         {"FunctionResponseTypes": ON, "MaximumRetryAttempts": 1, "DestinationConfig": DESTINATION},
         [[1, 2, 3, 4]] * 2, reports(1), given_up=(("1", "4", 4, "RetryAttemptsExhausted"),)),
    Case("retries of the rest count on, and the rest is given up", PARTIAL,
         {"FunctionResponseTypes": ON, "MaximumRetryAttempts": 1, "DestinationConfig": DESTINATION},
         [[1, 2, 3, 4], [3, 4]], reports(3), given_up=(("3", "4", 2, "RetryAttemptsExhausted"),)),
    Case("bisect and partial: cut at the record named, which costs no attempt", PARTIAL,
         {"FunctionResponseTypes": ON, "BisectBatchOnFunctionError": True, "MaximumRetryAttempts": 0,
          "DestinationConfig": DESTINATION},
         [[1, 2, 3, 4], [3, 4], [3], [4]], reports(3), given_up=(("3", "3", 1, "RetryAttemptsExhausted"),)),
    Case("bisect and an exception: halves, whatever ReportBatchItemFailures says", PARTIAL,
         {"FunctionResponseTypes": ON, "BisectBatchOnFunctionError": True}, [[1, 2, 3, 4], [1, 2], [3, 4]],
         answers(ERROR)),
    Case("an answer above 6 MB is an error", QUOTAS, {}, [[1, 2, 3, 4]] * 2,
         answers(Answered.checked(b"x" * (ANSWER_BYTES_MAX + 1), function_error=None))),
    Case("an answer of 6 MB is none", QUOTAS, {}, [[1, 2, 3, 4]],
         answers(Answered.checked(b"x" * ANSWER_BYTES_MAX, function_error=None))),
    Case("a record that no filter matches is skipped, and is done", KINESIS_FILTERS,
         {"FilterCriteria": patterns({"data": {"type": ["sell"]}})}, [[2]], records=JSONS, checkpoint="3"),
    Case("filters are joined by or", FILTERS,
         {"FilterCriteria": patterns({"data": {"type": ["sell"]}}, {"data": {"type": ["buy"]}})}, [[1, 2]],
         records=JSONS, checkpoint="3"),
    Case("data that is no JSON is dropped by a filter on data", FILTERS,
         {"FilterCriteria": patterns({"data": {"type": [{"exists": False}]}})}, [], records=JSONS, checkpoint="3"),
    Case("and kept by one on the metadata alone", FILTERS, {"FilterCriteria": patterns({"partitionKey": ["k"]})},
         [[1, 2, 3]], records=JSONS, checkpoint="3"),
    Case("TRIM_HORIZON: all records of the stream", KINESIS, {"StartingPosition": "TRIM_HORIZON"},
         [[1, 2, 3, 4]], records=OLD),
    Case("LATEST: only new ones", KINESIS, {"StartingPosition": "LATEST"}, [[2]],
         records=(record(1), record(2, at_ms=5_000)), checkpoint="2"),
    Case("AT_TIMESTAMP: from that time on", KINESIS,
         {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1_700_000_000 - 60}, [[3, 4]], records=OLD),
    Case("a disabled mapping reads nothing", KINESIS, {"State": "Disabled"}, [], checkpoint=None),
]  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name.replace(" ", "_")) for case in CASES])
def test_the_poller_does_what_the_page_says(case: Case) -> None:
    world = World(mapping(**case.properties), case.records, case.function).run(case.until_ms)

    assert world.batches == case.batches, case.page
    told = [sent.record.document for sent in world.failures]
    assert [_told(document) for document in told] == list(case.given_up), case.page
    assert all(len(call.payload) <= PAYLOAD_BYTES_MAX for call in world.calls)
    assert world.poller.checkpoints.get("shardId-000000000000") == case.checkpoint, case.page


def _told(document: dict[str, object]) -> tuple[object, ...]:
    batch, request = document["KinesisBatchInfo"], document["requestContext"]
    assert isinstance(batch, dict)
    assert isinstance(request, dict)
    return batch["startSequenceNumber"], batch["endSequenceNumber"], batch["batchSize"], request["condition"]


def test_every_case_names_a_page_of_awss_documentation() -> None:
    assert all(case.page.startswith("https://docs.aws.amazon.com/") for case in CASES)
    assert len({case.name for case in CASES}) == len(CASES)
