"""The local Kinesis as a server: HTTP/1.1 and clear-text HTTP/2 (prior knowledge) on loopback.

Records are kept in memory only, and are gone when the process ends.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.local.kinesis.calls import CallLog
from streamgauge.infra.local.kinesis.faults import Faults
from streamgauge.infra.local.kinesis.http import KinesisApp
from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.infra.local.kinesis.model import KinesisModel

__all__ = ["LocalKinesis", "PortTaken", "bind", "endpoint_url", "serve", "wall_clock_ms"]

_BACKLOG = 256
# Longer than any client keeps an idle connection that it means to use again: a connection closed by the server while
# a put is under way would make its outcome unknown.
_KEEP_ALIVE_SECONDS = 900.0
_START_SECONDS = 30.0

Result = TypeVar("Result")


class PortTaken(StreamgaugeError):
    """Somebody else listens on the port."""


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Connections made before the server runs wait for it.

    Raises
    ------
    PortTaken
        The port is in use, or may not be used.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as cause:
        listener.close()
        reason = cause.strerror if isinstance(cause, OSError) else str(cause)
        raise PortTaken(
            f"cannot listen: {reason}",
            where=f"{host}:{port}",
            remedy="Choose another port with --port, or --port 0 for a free one, or stop what listens there",
        ) from cause
    return listener


def endpoint_url(listener: socket.socket) -> str:
    """``http://127.0.0.1:4567``."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    model: KinesisModel,
    listener: socket.socket,
    *,
    stop: asyncio.Event,
    now_ms: Callable[[], int] = wall_clock_ms,
    calls: CallLog | None = None,
) -> None:
    """Serve the model on a socket from `bind` until `stop` is set; the socket is closed at the end."""
    config = Config()
    # hypercorn takes the descriptor over and closes it.
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = _BACKLOG
    config.accesslog = None
    config.errorlog = logging.getLogger("streamgauge.infra.local.kinesis")
    config.loglevel = "WARNING"
    config.keep_alive_timeout = _KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = 2**62
    config.graceful_timeout = 1.0
    config.include_server_header = False
    await hypercorn_serve(KinesisApp(model, now_ms, calls), config, shutdown_trigger=stop.wait, mode="asgi")


class LocalKinesis:
    """The server in a thread of this process, for tests: a context manager.

    Parameters
    ----------
    limits, faults
        As for `KinesisModel`; by default limits are enforced and there are no faults.
    model
        One to serve instead of a fresh one.
    now_ms
        The clock.
    port
        0 takes a free one.

    Attributes
    ----------
    endpoint_url
        For boto3's ``endpoint_url`` or ``AWS_ENDPOINT_URL_KINESIS``.
    model
        What is served. While the server runs, touch it only within `run`.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        faults: Faults | None = None,
        model: KinesisModel | None = None,
        now_ms: Callable[[], int] = wall_clock_ms,
        port: int = 0,
    ) -> None:
        self.model = model or KinesisModel(limits=limits, faults=faults)
        self.endpoint_url = ""
        self._now_ms = now_ms
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LocalKinesis:
        listener = bind("127.0.0.1", self._port)
        self.endpoint_url = endpoint_url(listener)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(listener, ready)), name="local-kinesis", daemon=True
        )
        self._thread.start()
        if not ready.wait(_START_SECONDS):
            raise StreamgaugeError("the local Kinesis did not start", where=self.endpoint_url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None and self._stop is not None and self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def run(self, action: Callable[[KinesisModel], Result]) -> Result:
        """Do something with the model between two requests; its result, or its error."""

        async def act() -> Result:
            return action(self.model)

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(act(), self._loop).result()

    async def _main(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await serve(self.model, listener, stop=self._stop, now_ms=self._now_ms)
