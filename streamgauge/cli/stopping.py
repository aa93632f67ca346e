"""Ctrl-C and SIGTERM: the first asks a command to stop cleanly, a second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from streamgauge.cli.output import say

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals(message: str) -> Iterator[threading.Event]:
    """An event that the first signal sets; `message` then tells what happens until the command ends."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's signature)
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not stop.is_set():
            stop.set()
            say(message)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
