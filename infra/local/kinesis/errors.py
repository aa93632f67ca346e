"""The errors of the Kinesis API, named as AWS names them.

Source: Amazon Kinesis Data Streams API Reference, "Errors" of each operation and "Common Error Types".
"""

from __future__ import annotations

from typing import ClassVar

from streamgauge.events.errors import StreamgaugeError

__all__ = [
    "AnswerLost",
    "ExpiredIteratorException",
    "ExpiredNextTokenException",
    "InternalFailure",
    "InvalidArgumentException",
    "KinesisError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ResourceInUseException",
    "ResourceNotFoundException",
    "SerializationException",
    "ServiceUnavailable",
    "UnknownOperationException",
    "UnsupportedOperation",
    "ValidationException",
]


class KinesisError(StreamgaugeError):
    """A request refused. ``code`` and ``status`` are what goes over the wire beside the text."""

    code: ClassVar[str] = "InternalFailure"
    status: ClassVar[int] = 400


class ResourceNotFoundException(KinesisError):
    """No such stream or shard."""

    code = "ResourceNotFoundException"


class ResourceInUseException(KinesisError):
    """The stream exists already."""

    code = "ResourceInUseException"


class InvalidArgumentException(KinesisError):
    """A parameter is well-formed, and does not fit the stream."""

    code = "InvalidArgumentException"


class ValidationException(KinesisError):
    """A parameter breaks a constraint of the API's model."""

    code = "ValidationException"


class LimitExceededException(KinesisError):
    """A quota of the account or the stream."""

    code = "LimitExceededException"


class ProvisionedThroughputExceededException(KinesisError):
    """A shard's rate is exceeded; the same call may succeed a second later."""

    code = "ProvisionedThroughputExceededException"


class ExpiredIteratorException(KinesisError):
    """A shard iterator older than five minutes."""

    code = "ExpiredIteratorException"


class ExpiredNextTokenException(KinesisError):
    """A pagination token older than five minutes."""

    code = "ExpiredNextTokenException"


class SerializationException(KinesisError):
    """The body is not the JSON that the operation takes."""

    code = "SerializationException"


class UnknownOperationException(KinesisError):
    """The target header names no operation of the API."""

    code = "UnknownOperationException"


class UnsupportedOperation(KinesisError):
    """AWS has it; the local Kinesis does not."""

    code = "UnsupportedOperation"


class InternalFailure(KinesisError):
    """AWS's own failure, before anything was done."""

    code = "InternalFailure"
    status = 500


class ServiceUnavailable(KinesisError):
    """The service does not answer at the moment."""

    code = "ServiceUnavailable"
    status = 503


class AnswerLost(KinesisError):
    """The call had its effect, and its caller never hears so. Only an injected fault raises it."""

    code = "InternalFailure"
    status = 500
