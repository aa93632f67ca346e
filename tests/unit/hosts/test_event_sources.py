"""What the function's event source must be set to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scripted_kinesis import client_error

from streamgauge.processors.hosts.aws_lambda.event_sources import UnsafeEventSource, check_event_sources

STREAM_ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/observations"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:processor"
GOOD = {
    "UUID": "m-1",
    "EventSourceArn": STREAM_ARN,
    "MaximumRetryAttempts": -1,
    "MaximumRecordAgeInSeconds": -1,
    "StartingPosition": "TRIM_HORIZON",
    "ParallelizationFactor": 1,
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
    "FilterCriteria": {"Filters": []},
    "BisectBatchOnFunctionError": True,
    "BatchSize": 1_000,
}


class Lambda:
    """The pages of ListEventSourceMappings, or an error."""

    def __init__(self, *pages: list[dict[str, Any]], error: Exception | None = None) -> None:
        self._pages = pages
        self._error = error
        self.asked: list[str] = []

    def get_paginator(self, operation: str) -> Lambda:
        assert operation == "list_event_source_mappings"
        return self

    def paginate(self, *, FunctionName: str) -> Iterator[dict[str, Any]]:  # noqa: N803
        self.asked.append(FunctionName)
        if self._error is not None:
            raise self._error
        for page in self._pages:
            yield {"EventSourceMappings": page}


def check(client: Lambda) -> None:
    check_event_sources(client, FUNCTION, stream_arn=STREAM_ARN)  # type: ignore[arg-type]


def test_a_mapping_that_loses_nothing_is_accepted() -> None:
    client = Lambda([GOOD])
    check(client)
    assert client.asked == [FUNCTION]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MaximumRetryAttempts", 10_000),
        ("MaximumRetryAttempts", 0),
        ("MaximumRetryAttempts", None),
        ("MaximumRecordAgeInSeconds", 604_800),
        ("StartingPosition", "LATEST"),
        ("StartingPosition", "AT_TIMESTAMP"),
        ("ParallelizationFactor", 2),
        ("FunctionResponseTypes", []),
        ("TumblingWindowInSeconds", 30),
        ("FilterCriteria", {"Filters": [{"Pattern": "{}"}]}),
    ],
)
def test_a_setting_under_which_records_may_be_lost_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UnsafeEventSource, match=rf"event source mapping m-1: {name} .*infra/template.yaml"):
        check(Lambda([{**GOOD, name: value}]))


@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"UUID", "EventSourceArn", "FilterCriteria", "BatchSize"}))
def test_a_setting_that_is_not_told_is_no_good_setting(name: str) -> None:
    mapping = {key: value for key, value in GOOD.items() if key != name}
    if name == "BisectBatchOnFunctionError":
        check(Lambda([mapping]))
        return
    with pytest.raises(UnsafeEventSource, match=name):
        check(Lambda([mapping]))


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UnsafeEventSource, match=r"MaximumRetryAttempts is 3.*; ParallelizationFactor is 10"):
        check(Lambda([{**GOOD, "MaximumRetryAttempts": 3, "ParallelizationFactor": 10}]))


def test_mappings_on_every_page_are_looked_at_and_those_of_other_streams_are_not() -> None:
    other = {**GOOD, "EventSourceArn": "arn:aws:sqs:us-east-1:0:queue", "MaximumRetryAttempts": 3}
    check(Lambda([other], [GOOD]))
    with pytest.raises(UnsafeEventSource, match="MaximumRetryAttempts"):
        check(Lambda([GOOD, other], [{**GOOD, "MaximumRetryAttempts": 3}]))


def test_a_function_that_nothing_reads_the_stream_for_is_refused() -> None:
    with pytest.raises(UnsafeEventSource, match=f"no event source mapping of this function reads {STREAM_ARN}"):
        check(Lambda([], []))


@pytest.mark.parametrize("code", ["AccessDeniedException", "TooManyRequestsException"])
def test_mappings_that_cannot_be_read_are_an_error_that_names_the_permission(code: str) -> None:
    with pytest.raises(UnsafeEventSource, match=f"cannot be read: {code}.*lambda:ListEventSourceMappings"):
        check(Lambda(error=client_error(code)))
