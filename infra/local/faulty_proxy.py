"""A proxy between clients and the local stack that loses and delays answers, as a network would.

HTTP/1.1, one exchange a connection: the request is read whole, passed on, and the answer read whole before anything is
decided about it. So a lost answer is one whose call has had its effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["FaultyProxy", "Treatment"]

_HOST = "127.0.0.1"
_HEADERS_MAX = 256 * 1024
_START_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Treatment:
    """What becomes of one call.

    ``refuse``: its connection breaks before it has had any effect. ``lose``: it breaks after the effect, without an
    answer. ``delay_s`` is how long the answer, or the break, is held back.
    """

    refuse: bool = False
    lose: bool = False
    delay_s: float = 0.0


class _Request(NamedTuple):
    head: bytes
    body: bytes
    operation: str


class FaultyProxy:
    """Listens on a free loopback port, in a thread of its own, from `start` to `close`.

    Parameters
    ----------
    target
        The server's address, ``http://127.0.0.1:<port>``.
    treat
        What becomes of a call, by its operation: the name in ``X-Amz-Target``, or else the HTTP method. It is called in
        the proxy's thread.
    """

    def __init__(self, target: str, treat: Callable[[str], Treatment]) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None and parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._treat = treat
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.passed: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def start(self) -> FaultyProxy:
        """Begin to listen."""
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._accept, _HOST, 0), self._loop)
        self._server = listening.result(_START_DEADLINE_S)
        return self

    def close(self) -> None:
        """Listen no more, and break what is open."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_START_DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_DEADLINE_S)
        self._loop.close()

    def __enter__(self) -> FaultyProxy:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"http://{_HOST}:{self._server.sockets[0].getsockname()[1]}"

    @property
    def calls_open(self) -> int:
        """Calls that have begun and not ended: at 0 nothing is on its way any more."""
        return len(self._open)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            # A client that was killed has broken its connection; its call has its effect all the same.
            # One that is cancelled is broken off by `close`, which nobody waits to hear of.
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, ValueError, asyncio.CancelledError):
                await self._exchange(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read_request(reader, writer)
        treatment = self._treat(request.operation)
        if treatment.refuse:
            self.refused[request.operation] += 1
            await asyncio.sleep(treatment.delay_s)
            return
        answer = await self._ask(request)
        await asyncio.sleep(treatment.delay_s)
        if treatment.lose:
            self.lost[request.operation] += 1
            return
        self.passed[request.operation] += 1
        writer.write(answer)
        await writer.drain()

    async def _ask(self, request: _Request) -> bytes:
        reader, writer = await asyncio.open_connection(*self._target)
        try:
            writer.write(request.head + request.body)
            await writer.drain()
            # The server closes after its answer, as the request asked it to.
            return await reader.read()
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Request:
    first = await reader.readline()
    lines: list[bytes] = []
    operation = first.partition(b" ")[0].decode("latin-1")
    length, chunked, size = 0, False, 0
    while (line := await reader.readline()) not in (b"\r\n", b""):
        size += len(line)
        if size > _HEADERS_MAX:
            raise asyncio.LimitOverrunError("headers without an end", size)
        name, _, value = line.partition(b":")
        name, value = name.strip().lower(), value.strip()
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = value.lower() == b"chunked"
        elif name == b"x-amz-target":
            operation = value.rpartition(b".")[2].decode("latin-1")
        if name == b"expect":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
        elif name != b"connection":
            lines.append(line)
    if not first:
        raise asyncio.IncompleteReadError(b"", None)
    body = await _read_chunks(reader) if chunked else await reader.readexactly(length)
    return _Request(b"".join([first, *lines, b"Connection: close\r\n\r\n"]), body, operation)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body as it stands, trailers included."""
    parts: list[bytes] = []
    while True:
        line = await reader.readline()
        parts.append(line)
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        parts.append(await reader.readexactly(size + 2))
    while (line := await reader.readline()) not in (b"\r\n", b""):
        parts.append(line)
    return b"".join([*parts, b"\r\n"])
