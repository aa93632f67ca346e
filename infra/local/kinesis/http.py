"""The ASGI application: AWS JSON 1.1 in front of the model.

Signatures are not checked: the server is for one machine. Requests are answered on the event loop, one after the other,
so the model needs no lock; each call on it is short.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping

import msgspec
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from streamgauge.infra.local.kinesis.calls import CallLog
from streamgauge.infra.local.kinesis.errors import (
    AnswerLost,
    KinesisError,
    SerializationException,
    UnknownOperationException,
    UnsupportedOperation,
)
from streamgauge.infra.local.kinesis.model import KinesisModel
from streamgauge.infra.local.kinesis.operations import answer

__all__ = ["KinesisApp"]

_TARGET_PREFIX = "Kinesis_20131202."
_JSON = b"application/x-amz-json-1.1"
# 10 MiB of records in base64, with 500 keys of 256 four-byte characters and room for escapes.
_MAX_BODY_BYTES = 20 * 1024 * 1024
_GREETING = b"streamgauge local Kinesis: records are kept in memory only\n"


class KinesisApp:
    """ASGI application over one model.

    Parameters
    ----------
    model
        What answers. It is only touched on the event loop that runs the application.
    now_ms
        The clock, in milliseconds since the epoch.
    calls
        Where to log who called what.
    """

    def __init__(self, model: KinesisModel, now_ms: Callable[[], int], calls: CallLog | None = None) -> None:
        self.model = model
        self._now_ms = now_ms
        self._calls = calls
        self._request_ids = itertools.count(1)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})

    async def _live(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        body = await _body(receive)
        if body is None:
            return
        if scope["method"] == "GET":
            await self._send(send, 200, _GREETING, b"text/plain")
            return
        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            operation = _operation(headers, body)
            if self._calls is not None:
                self._calls.note(headers.get(b"authorization", b""), operation, bytes(body))
            if delay_ms := self.model.faults.delay_ms(operation):
                await asyncio.sleep(delay_ms / 1000)
            answered = answer(self.model, operation, bytes(body), self._now_ms())
        except AnswerLost:
            # A length that never comes: the connection ends, and the caller knows no more than that.
            endless = [(b"content-type", _JSON), (b"content-length", b"1048576")]
            await send({"type": "http.response.start", "status": 200, "headers": endless})
            return
        except KinesisError as error:
            text = msgspec.json.encode({"__type": error.code, "message": str(error)})
            await self._send(send, error.status, text, _JSON)
            return
        await self._send(send, 200, answered, _JSON)

    async def _send(self, send: ASGISendCallable, status: int, body: bytes, content_type: bytes) -> None:
        headers = [
            (b"x-amzn-requestid", b"%032x" % next(self._request_ids)),
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def _body(receive: ASGIReceiveCallable) -> bytearray | None:
    """The request's body, cut off one byte past the bound; None where the caller went away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        if len(body) <= _MAX_BODY_BYTES:
            body += message["body"]
        if not message["more_body"]:
            return body


def _operation(headers: Mapping[bytes, bytes], body: bytearray) -> str:
    content_type = headers.get(b"content-type", b"").partition(b";")[0].strip()
    if content_type == b"application/x-amz-cbor-1.1":
        raise UnsupportedOperation(
            "The local Kinesis does not speak CBOR (application/x-amz-cbor-1.1), only JSON "
            "(application/x-amz-json-1.1): start a Java client with -Daws.cborEnabled=false or AWS_CBOR_DISABLE=true"
        )
    if len(body) > _MAX_BODY_BYTES:
        raise SerializationException(f"The request's body exceeds {_MAX_BODY_BYTES} bytes")
    target = headers.get(b"x-amz-target", b"").decode("latin-1")
    if not target.startswith(_TARGET_PREFIX):
        raise UnknownOperationException(
            f"X-Amz-Target must be {_TARGET_PREFIX}<operation>, was {target!r}: is this request meant for Kinesis?"
        )
    return target.removeprefix(_TARGET_PREFIX)
