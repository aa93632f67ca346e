"""What the function's event source must be set to, and the refusal to work under anything else.

With a limit on retries or age Lambda *discards* records and goes on; parallel batches of a shard come out of order.
Source of names and values: AWS Lambda's API reference, ListEventSourceMappings and EventSourceMappingConfiguration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, reason_of

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient
    from types_boto3_lambda.type_defs import EventSourceMappingConfigurationTypeDef

__all__ = ["UnsafeEventSource", "check_event_sources"]

_FOR_EVER = -1
_SETTINGS: Mapping[str, tuple[object, str]] = {
    "MaximumRetryAttempts": (_FOR_EVER, "records would be discarded after so many tries"),
    "MaximumRecordAgeInSeconds": (_FOR_EVER, "records would be discarded at that age"),
    "StartingPosition": ("TRIM_HORIZON", "what was in the stream before would never be counted"),
    "ParallelizationFactor": (1, "two batches of one shard would be processed at a time"),
}


class UnsafeEventSource(StreamgaugeError):
    """The event source is set so that records may be lost or come out of order, or nobody can tell."""


def check_event_sources(client: LambdaClient, function: str, *, stream_arn: str) -> None:
    """See that the mappings that read the stream for `function` lose nothing.

    Parameters
    ----------
    function
        Name or ARN, with the alias or version as which it is invoked.

    Raises
    ------
    UnsafeEventSource
        There is none, one has another setting, or they cannot be read. The batch is to come back.
    """
    mappings = [each for each in _listed(client, function) if each.get("EventSourceArn") == stream_arn]
    if not mappings:
        raise UnsafeEventSource(
            f"no event source mapping of this function reads {stream_arn}",
            where=f"function {function}",
            remedy="Deploy infra/template.yaml; do not invoke the function by other means",
        )
    for mapping in mappings:
        if wrong := _wrong(mapping):
            raise UnsafeEventSource(
                "; ".join(wrong),
                where=f"function {function}, event source mapping {mapping.get('UUID')}",
                remedy="Set them as infra/template.yaml does; until then the batches come back, and none is lost",
            )


def _wrong(mapping: EventSourceMappingConfigurationTypeDef) -> list[str]:
    values: Mapping[str, object] = {**mapping}
    wrong = [
        f"{name} is {values.get(name)}, not {right}: {why}"
        for name, (right, why) in _SETTINGS.items()
        if values.get(name) != right
    ]
    if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", []):
        wrong.append(
            "FunctionResponseTypes lacks ReportBatchItemFailures: what a batch left behind would count as done"
        )
    if mapping.get("TumblingWindowInSeconds"):
        wrong.append("TumblingWindowInSeconds is set: its windows are not the pipeline's, and hold 1 MB")
    if mapping.get("FilterCriteria", {}).get("Filters"):
        wrong.append("FilterCriteria is set: what it leaves out would not be counted")
    return wrong


def _listed(client: LambdaClient, function: str) -> list[EventSourceMappingConfigurationTypeDef]:
    found: list[EventSourceMappingConfigurationTypeDef] = []
    try:
        for page in client.get_paginator("list_event_source_mappings").paginate(FunctionName=function):
            found += page["EventSourceMappings"]
    except AWS_ERRORS as error:
        raise UnsafeEventSource(
            f"the settings of the event source cannot be read: {reason_of(error)}",
            where=f"function {function}",
            remedy="Its role needs lambda:ListEventSourceMappings; if it was throttled, the next invocation asks again",
        ) from error
    return found
