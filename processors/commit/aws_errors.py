"""botocore's errors as the ports' errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's name
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
)

from streamgauge.processors.commit.ports import StoreRefused, StoreUnavailable

__all__ = ["AWS_ERRORS", "error_code", "is_transient", "port_errors", "reason_of", "remedy_for"]

AWS_ERRORS = (BotoCoreError, ClientError)

# Codes that go away by themselves, beside every answer of status 5xx. 507 says that the store's disk is full.
_TRANSIENT_CODES = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "KMSThrottlingException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_OUT_OF_SPACE = 507
# The call was right, and whoever signed it is not known, or not any more.
_CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "UnrecognizedClientException",
    }
)


def error_code(error: ClientError) -> str:
    """AWS's error code, such as ``ThrottlingException``."""
    return error.response.get("Error", {}).get("Code", "")


def is_transient(error: BotoCoreError | ClientError) -> bool:
    """Whether the same call may succeed later without anybody's help. What was sent may have happened all the same."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error_code(error) in _TRANSIENT_CODES or (status >= 500 and status != _OUT_OF_SPACE)
    return isinstance(error, HTTPClientError | ConnectionError | IncompleteReadError)


def reason_of(error: BotoCoreError | ClientError) -> str:
    """One line for a person: code and message."""
    if isinstance(error, ClientError):
        message = error.response.get("Error", {}).get("Message", "")
        return f"{error_code(error)}: {message}" if message else error_code(error)
    return str(error)


def remedy_for(error: BotoCoreError | ClientError, otherwise: str) -> str:
    """What to do about an error that does not pass: `otherwise`, unless the credentials are at fault."""
    if isinstance(error, NoCredentialsError):
        return "Set AWS credentials (any will do for the local stack)"
    if isinstance(error, ClientError) and error_code(error) in _CREDENTIAL_CODES:
        return "Renew the AWS credentials, then start again: what is saved is saved"
    return otherwise


@contextmanager
def port_errors(where: str) -> Iterator[None]:
    """Raise `StoreUnavailable` or `StoreRefused` for what botocore raises inside."""
    try:
        yield
    except AWS_ERRORS as error:
        if is_transient(error):
            raise StoreUnavailable(
                f"no usable answer: {reason_of(error)}",
                where=where,
                remedy="Look there if it lasts; what is saved already is not touched by it",
            ) from error
        if isinstance(error, ParamValidationError):
            raise
        remedy = remedy_for(error, "Check that it exists, that it has space, and that this process may use it")
        raise StoreRefused(reason_of(error), where=where, remedy=remedy) from error
