"""What stands between functions and MiniStack, and sees every call that they make.

It speaks to MiniStack as something that ends TLS would, so that policies which demand TLS let the calls pass. MiniStack
says which action and which resource a call is checked for; so what is seen here is what was checked there.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from ministack.core.iam_actions import (
    eventbridge_resource_arns,
    extract_iam_action,
    extract_resource_arn,
    s3_service_context,
)
from ministack.core.router import detect_service

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/")
_TIMEOUT_S = 60.0
_MISTAKEN = "events:DescribeEventBus"
REGION, ACCOUNT = "us-east-1", "000000000000"


@dataclass(frozen=True)
class Seen:
    """One call: the access key that signed it, what it was checked for, and whether it was denied."""

    access_key: str
    action: str
    resource: str
    context: Mapping[str, str]
    was_denied: bool


class Trouble(NamedTuple):
    """What becomes of a call: it is refused with a status, or it has its effect and its answer is lost."""

    status: int = 0
    is_lost: bool = False


class CallWitness:
    """A server on a free loopback port, as a context manager.

    Attributes
    ----------
    seen
        All calls so far.
    trouble
        Asked about each call, by action and resource; None: no trouble.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None and parts.port is not None
        self.target = (parts.hostname, parts.port)
        self.seen: list[Seen] = []
        self.trouble: Callable[[str, str], Trouble | None] = lambda _action, _resource: None
        witness = self

        class Handler(_Handler):
            of = witness

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="call-witness", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> CallWitness:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    of: CallWitness
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self._body()
        call = _call(self.command, self.path, dict(self.headers.items()), body)
        trouble = None if call is None else self.of.trouble(call.action, call.resource)
        if trouble is not None and trouble.status:
            self._answer(trouble.status, [("Content-Type", "application/json")], b'{"__type":"InternalError"}')
            return
        status, headers, answer = self._ask(body)
        if call is not None:
            denied = status == 403 or (status == 400 and b"AccessDenied" in answer)
            # MiniStack takes the bus's name for that of a rule, which no role may see.
            denied = denied and call.action != _MISTAKEN
            self.of.seen.append(Seen(call.access_key, call.action, call.resource, call.context, denied))
        if trouble is not None and trouble.is_lost:
            self.close_connection = True
            return
        self._answer(status, headers, answer)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815 - the names are the standard library's

    def log_message(self, *arguments: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        assert "Transfer-Encoding" not in self.headers, "a body without a length cannot be passed on"
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.of.target, timeout=_TIMEOUT_S)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.putheader("X-Forwarded-Proto", "https")
            connection.endheaders(body)
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OF_THE_HOP]
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


_OF_THE_HOP = ("connection", "content-length", "transfer-encoding", "keep-alive")


def _call(method: str, target: str, named: Mapping[str, str], body: bytes) -> Seen | None:
    headers = {name.lower(): value for name, value in named.items()}
    parts = urlsplit(target)
    path = unquote(parts.path)
    params = parse_qs(parts.query, keep_blank_values=True)
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        params = {**parse_qs(body.decode(), keep_blank_values=True), **params}
    service = detect_service(method, path, headers, params)
    action = extract_iam_action(service, method, path, headers, body, params)
    found = _CREDENTIAL.search(headers.get("authorization", ""))
    if action is None or found is None:
        return None
    if action == "events:PutEvents":
        (resource,) = eventbridge_resource_arns(body, REGION, ACCOUNT)
    elif action == _MISTAKEN:
        resource = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{json.loads(body)['Name']}"
    else:
        resource = extract_resource_arn(service, method, path, headers, body, params, REGION, ACCOUNT)
    # What a write carries in its headers is no matter of the roles.
    context = s3_service_context(action, params) if action == "s3:ListBucket" else {}
    return Seen(found[1], action, resource, context, was_denied=False)
