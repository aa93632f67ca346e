"""Who called what: a log of the requests, by the access key that signed them.

Nothing is refused here. Whoever wants to know whether the caller was allowed to holds the log against its policies.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.local.kinesis.errors import InvalidArgumentException
from streamgauge.infra.local.kinesis.iterators import IteratorToken, ShardsToken, decode_token

__all__ = ["Call", "CallLog", "read_calls"]

# AWS General Reference, "Elements of an AWS API request signature": Credential=<access key>/<date>/<region>/...
_CREDENTIAL = re.compile(rb"Credential=([^/,\s]+)/")


class Call(msgspec.Struct, frozen=True):
    """One request that was answered, or refused for another reason than who sent it.

    ``access_key`` is empty where the request bears no signature, ``stream`` where it names none: it is the stream's
    name, also where the request has an ARN, an iterator or a token.
    """

    access_key: str
    operation: str
    stream: str


class _Fields(msgspec.Struct, frozen=True, rename="pascal"):
    stream_name: str = ""
    stream_arn: str = msgspec.field(name="StreamARN", default="")
    resource_arn: str = msgspec.field(name="ResourceARN", default="")
    shard_iterator: str = ""
    next_token: str = ""


class CallLog:
    """Appends to a file, a line of JSON for each call; a context manager.

    Raises
    ------
    StreamgaugeError
        The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise StreamgaugeError(f"no calls can be logged: {error.strerror}", where=str(path)) from error

    def __enter__(self) -> CallLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def note(self, authorization: bytes, operation: str, body: bytes) -> None:
        """Log one call: the value of its header ``Authorization``, what it asks for, and with which fields."""
        found = _CREDENTIAL.search(authorization)
        access_key = found[1].decode("latin-1") if found else ""
        self._file.write(msgspec.json.encode(Call(access_key, operation, _stream(body))) + b"\n")


def read_calls(path: Path) -> list[Call]:
    """What a `CallLog` has written."""
    return msgspec.json.decode(b"[" + b",".join(path.read_bytes().splitlines()) + b"]", type=list[Call])


def _stream(body: bytes) -> str:
    try:
        fields = msgspec.json.decode(body or b"{}", type=_Fields)
        if fields.shard_iterator:
            return decode_token(fields.shard_iterator, IteratorToken, name="ShardIterator").stream
        if fields.next_token:
            return decode_token(fields.next_token, ShardsToken, name="NextToken").stream
    except (msgspec.DecodeError, UnicodeError, InvalidArgumentException):
        # Refused, whoever sends it.
        return ""
    return fields.stream_name or (fields.stream_arn or fields.resource_arn).rpartition("/")[2]
