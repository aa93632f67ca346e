"""What the responder's function logs: the trace of the event that decided, and nothing of anybody's data."""

from __future__ import annotations

import io
import json
from typing import Any, cast

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from streamgauge.processors.responders import handler as function
from streamgauge.processors.responders.alerts import Standing
from streamgauge.processors.responders.events import MalformedThresholdEvent

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MARK = "nobodys-business"


class Context:
    function_name = "responder"
    memory_limit_in_mb = 128
    invoked_function_arn = "arn"
    aws_request_id = "request"


CONTEXT = cast("LambdaContext", Context())


class Newest:
    def respond(self, *_: object) -> Standing:
        return Standing.NEWEST


def event(**detail: object) -> dict[str, object]:
    whole = {
        "id": "id-1", "pipeline": "weather", "state_epoch": 1, "rule": "gale", "aggregate": "wind",
        "key": {"subject": MARK}, "window_start": "", "window_end": "", "revision": 1, "kind": "raise",
        "state": "raised", "reason": "crossed", "takes_back": None, "crossing_ordinal": 1, "rule_sequence": "1",
        "measures": {}, "raise_when": MARK, "clear_when": None, "summary": MARK, "traceparent": TRACE,
    }  # fmt: skip
    outer = {"id": "1", "source": "streamgauge.weather", "time": "", "detail-type": "Gale"}
    return {**outer, "detail": {**whole, **detail}}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(function.logger.registered_handler, "stream", stream)
    monkeypatch.setattr(function, "_responder", Newest)
    return stream


def lines(said: io.StringIO) -> list[dict[str, Any]]:
    assert MARK not in said.getvalue()
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_a_line_names_the_event_and_the_trace_of_what_decided(said: io.StringIO) -> None:
    assert function.handler(event(), CONTEXT) == {"id": "id-1", "standing": "newest"}
    (line,) = lines(said)
    named = {name: line[name] for name in ("event_id", "rule", "pipeline", "traceparent", "standing", "state")}
    assert named == {
        "event_id": "id-1", "rule": "gale", "pipeline": "weather", "traceparent": TRACE,
        "standing": "newest", "state": "raised",
    }  # fmt: skip


def test_a_malformed_event_is_not_logged_under_the_name_of_the_one_before(said: io.StringIO) -> None:
    function.handler(event(), CONTEXT)
    with pytest.raises(MalformedThresholdEvent):
        function.handler(event(measures=MARK), CONTEXT)
    line = lines(said)[-1]
    assert line["level"] == "ERROR" and "$.detail.measures" in line["message"]
    assert not line.keys() & {"event_id", "rule", "pipeline", "traceparent"}
