"""The pages of AWS's documentation that the event source poller is held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_LAMBDA = "https://docs.aws.amazon.com/lambda/latest/dg"
_STREAMS = "https://docs.aws.amazon.com/streams/latest/dev"
_EVENTS = "https://docs.aws.amazon.com/eventbridge/latest/userguide"

KINESIS = f"{_LAMBDA}/with-kinesis.html"
"""Using Lambda to process records from Amazon Kinesis Data Streams."""
MAPPINGS = f"{_LAMBDA}/invocation-eventsourcemapping.html"
"""How Lambda processes records from stream and queue-based event sources."""
PARAMETERS = f"{_LAMBDA}/services-kinesis-parameters.html"
"""Lambda parameters for Amazon Kinesis Data Streams event source mappings."""
PARTIAL = f"{_LAMBDA}/services-kinesis-batchfailurereporting.html"
"""Configuring partial batch response with Kinesis Data Streams and Lambda."""
ON_FAILURE = f"{_LAMBDA}/kinesis-on-failure-destination.html"
"""Retain discarded batch records for a Kinesis Data Streams event source in Lambda."""
QUOTAS = f"{_LAMBDA}/gettingstarted-limits.html"
"""Lambda quotas."""
FILTERS = f"{_LAMBDA}/invocation-eventfiltering.html"
"""Control which events Lambda sends to your function."""
KINESIS_FILTERS = f"{_LAMBDA}/with-kinesis-filtering.html"
"""Using event filtering with a Kinesis event source."""
CREATE_MAPPING = "https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html"
"""CreateEventSourceMapping."""
RESHARDING = f"{_STREAMS}/kinesis-using-sdk-java-after-resharding.html"
"""Complete the resharding action: data routing, data persistence, and shard state after a reshard."""
STREAM_QUOTAS = f"{_STREAMS}/service-sizes-and-limits.html"
"""Quotas and limits of Kinesis Data Streams."""
OPERATORS = f"{_EVENTS}/eb-create-pattern-operators.html"
"""Comparison operators for use in event patterns in Amazon EventBridge."""
SCHEDULED = f"{_EVENTS}/event-reference.html"
"""EventBridge events detail reference."""

_Test = TypeVar("_Test", bound=Callable[..., object])


def says(*pages: str) -> Callable[[_Test], _Test]:
    """Name the page that says what a test demands."""
    assert pages and all(page.startswith("https://docs.aws.amazon.com/") for page in pages)

    def name(test: _Test) -> _Test:
        return test

    return name
