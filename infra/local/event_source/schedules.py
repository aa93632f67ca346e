"""Schedule rules: Lambda targets are invoked at an interval with the event that EventBridge sends.

Source of the event: Amazon EventBridge user guide, "EventBridge events detail reference", Scheduled Event.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import rfc3339
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, reason_of

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

__all__ = ["ScheduleHost", "ScheduleRefused", "ScheduleRule", "scheduled_event"]

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_UNIT_MS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}

_log = logging.getLogger(__name__)


class ScheduleRefused(StreamgaugeError):
    """The local poller cannot keep the rule's schedule."""


@dataclass(frozen=True, slots=True)
class ScheduleRule:
    """A rule with one function to invoke. ``input``: what the function gets instead of the scheduled event."""

    name: str
    arn: str
    expression: str
    function_arn: str
    input: str | None = None
    is_enabled: bool = True

    def interval_ms(self) -> int:
        """The interval of the rule's rate.

        Raises
        ------
        ScheduleRefused
            It is no rate.
        """
        rate = _RATE.fullmatch(self.expression)
        if rate is None:
            raise ScheduleRefused(
                f"{self.expression!r} is no rate(...), and the local poller keeps no calendar",
                where=f"rule {self.name}",
                remedy="Give an interval: --schedule-interval 1m",
            )
        return int(rate[1]) * _UNIT_MS[rate[2]]


def scheduled_event(rule: ScheduleRule, *, now_ms: int, event_id: str) -> bytes:
    """What the rule's function is invoked with."""
    if rule.input is not None:
        return rule.input.encode()
    _, _, _, region, account, _ = rule.arn.split(":", 5)
    event = {
        "version": "0",
        "id": event_id,
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": account,
        "time": f"{rfc3339(now_ms)[:19]}Z",
        "region": region,
        "resources": [rule.arn],
        "detail": {},
    }
    return json.dumps(event).encode()


class ScheduleHost:
    """Fires one rule, the first time after one interval.

    EventBridge would not wait for the function. Here the next firing does: at an interval of a second, calls that take
    longer would pile up.
    """

    def __init__(
        self, rule: ScheduleRule, client: LambdaClient, *, interval_ms: int, now_ms: Callable[[], int]
    ) -> None:
        self.rule = rule
        self.fired = 0
        self.failed = 0
        self._client = client
        self._interval_s = interval_ms / 1000
        self._now_ms = now_ms
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"schedule-{rule.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Fire no more."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the call under way. Whether it ended in time."""
        self._thread.join(max(timeout_s, 0))
        return not self._thread.is_alive()

    def _run(self) -> None:
        following = monotonic() + self._interval_s
        while not self._stopping.wait(max(following - monotonic(), 0)):
            if self.rule.is_enabled:
                self._fire()
            # What was missed meanwhile is not made up for.
            following = max(following + self._interval_s, monotonic())

    def _fire(self) -> None:
        payload = scheduled_event(self.rule, now_ms=self._now_ms(), event_id=str(uuid.uuid4()))
        try:
            answer = self._client.invoke(FunctionName=self.rule.function_arn, Payload=payload)
            error = answer["Payload"].read()[:300].decode(errors="replace") if "FunctionError" in answer else None
        except AWS_ERRORS as reason:
            error = reason_of(reason)
        self.fired += 1
        if error is not None:
            self.failed += 1
            _log.warning("rule %s: %s", self.rule.name, error)
