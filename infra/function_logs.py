"""What a function's log says of errors: one JSON object a line, as Powertools' logger writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient
    from types_boto3_logs import CloudWatchLogsClient

__all__ = ["LoggedError", "last_error"]

_ERRORS = '"ERROR"'
_LEVELS = {"ERROR", "CRITICAL"}


@dataclass(frozen=True, slots=True)
class LoggedError:
    """An error, and when it was written: milliseconds since the epoch."""

    at_ms: int
    text: str


class _Line(msgspec.Struct):
    level: str
    message: str
    where: str | None = None
    remedy: str | None = None
    exception_name: str | None = None
    exception: str | None = None

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        remedy = f". {self.remedy}" if self.remedy else ""
        # A bug's own words are the last line of its traceback.
        cause = f": {self.exception.strip().splitlines()[-1]}" if self.exception and not self.where else ""
        return f"{where}{self.message}{cause}{remedy}"


def last_error(functions: LambdaClient, logs: CloudWatchLogsClient, name: str, *, since_ms: int) -> LoggedError | None:
    """The last error that a function has logged since `since_ms`; None without one, or where its log is not to be had.

    Whoever asks is about to say that something is wrong: no further error is wanted.
    """
    try:
        configured = functions.get_function_configuration(FunctionName=name)
        group = configured.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{name}"
        events = logs.filter_log_events(logGroupName=group, filterPattern=_ERRORS, startTime=since_ms)["events"]
    except (BotoCoreError, ClientError):
        return None
    for event in reversed(events):
        text = _error_in(event.get("message", ""))
        if text is not None:
            return LoggedError(event.get("timestamp", since_ms), text)
    return None


def _error_in(message: str) -> str | None:
    try:
        line = msgspec.json.decode(message, type=_Line)
    except msgspec.DecodeError:
        return None
    return str(line) if line.level in _LEVELS else None
