"""What a function's log says of errors, for whoever waits for the function."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from streamgauge.infra.function_logs import LoggedError, last_error

GROUP = "the-log"


class Functions:
    def get_function_configuration(self, **arguments):
        if arguments != {"FunctionName": "processor"}:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetFunctionConfiguration")
        return {"LoggingConfig": {"LogGroup": GROUP}}


class Logs:
    def __init__(self, *messages: str) -> None:
        self.messages = messages

    def filter_log_events(self, **arguments):
        begin = arguments.pop("startTime")
        assert arguments == {"logGroupName": GROUP, "filterPattern": '"ERROR"'}
        return {"events": [{"message": text, "timestamp": begin + at} for at, text in enumerate(self.messages)]}


def line(**fields: object) -> str:
    return json.dumps({"level": "ERROR", "message": "gone", **fields})


def test_the_last_error_is_told_with_place_and_remedy() -> None:
    logs = Logs(line(), line(where="table t", remedy="Deploy it"), line(level="INFO", message="an ERROR is over"))
    assert last_error(Functions(), logs, "processor", since_ms=5) == LoggedError(6, "table t: gone. Deploy it")


def test_a_bug_is_told_by_the_last_line_of_its_traceback() -> None:
    logs = Logs(line(message="unexpected: KeyError", exception="Traceback ...\n  File ...\nKeyError: 'x'\n"))
    found = last_error(Functions(), logs, "processor", since_ms=0)
    assert found is not None
    assert found.text == "unexpected: KeyError: KeyError: 'x'"


@pytest.mark.parametrize("message", ["ERROR in plain text", '{"ERROR": 1}', "{", '"ERROR"', ""])
def test_what_is_no_error_line_of_ours_is_passed_over(message: str) -> None:
    assert last_error(Functions(), Logs(message), "processor", since_ms=0) is None


def test_where_there_is_no_log_there_is_no_error() -> None:
    assert last_error(Functions(), Logs(line()), "another", since_ms=0) is None
