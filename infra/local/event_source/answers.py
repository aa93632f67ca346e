"""What an invocation came to, and which records of its batch are done.

Source: AWS Lambda developer guide, "Configuring partial batch response with Kinesis Data Streams and Lambda"
(services-kinesis-batchfailurereporting).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from streamgauge.infra.local.event_source.records import ANSWER_BYTES_MAX

__all__ = ["Answered", "NotInvoked", "first_failed"]


@dataclass(frozen=True, slots=True)
class Answered:
    """The function ran. ``function_error`` is None, ``Handled`` or ``Unhandled``; ``payload`` its answer or error."""

    payload: bytes
    function_error: str | None = None
    status_code: int = 200
    executed_version: str = "$LATEST"
    request_id: str = ""

    @classmethod
    def checked(
        cls,
        payload: bytes,
        *,
        function_error: str | None,
        status_code: int = 200,
        executed_version: str = "$LATEST",
        request_id: str = "",
    ) -> Answered:
        """The answer as Lambda hands it on: one above the limit is an error of the function."""
        if function_error is None and len(payload) > ANSWER_BYTES_MAX:
            function_error = "Unhandled"
            message = f"Response payload size exceeded maximum allowed payload size ({ANSWER_BYTES_MAX} bytes)."
            payload = json.dumps({"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message}).encode()
        return cls(payload, function_error, status_code, executed_version, request_id)


@dataclass(frozen=True, slots=True)
class NotInvoked:
    """The batch did not reach the function, as far as one can tell: a throttle, or Lambda gave no answer."""

    reason: str
    is_throttle: bool = False


def first_failed(answer: Answered, sequence_numbers: Sequence[str], *, is_partial_allowed: bool) -> int | None:
    """The index of the first record that is to be tried again: 0 for the whole batch, None if all are done.

    Parameters
    ----------
    sequence_numbers
        Those of the batch, in its order.
    is_partial_allowed
        Whether ``ReportBatchItemFailures`` is on. If not, whatever the function returns is success.
    """
    if answer.function_error is not None:
        return 0
    if not is_partial_allowed:
        return None
    try:
        returned = json.loads(answer.payload or b"null")
    except ValueError:
        return 0
    if returned is None or returned == {}:
        return None
    if not isinstance(returned, dict):
        # AWS does not say. A batch too often is better than a record too few.
        return 0
    failures = returned.get("batchItemFailures")
    if failures is None or failures == []:
        return None
    if not isinstance(failures, list):
        return 0
    index_of = {number: index for index, number in enumerate(sequence_numbers)}
    failed: list[int] = []
    for item in failures:
        identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
        if not isinstance(identifier, str) or identifier not in index_of:
            return 0
        failed.append(index_of[identifier])
    return min(failed)
