"""What a child says of itself: one JSON object a line. Standard output belongs to the protocol."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import BinaryIO, Protocol

import msgspec

__all__ = ["ChildLog", "LogEntry", "Progress", "Say", "decode_entry"]


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a child is. ``records`` are user records handed over, ``events`` positions applied, by this child.

    ``checkpoint`` is the last one that the KCL has taken. ``is_finished``: the input has ended, and everything is
    committed and delivered. ``cpu_s`` is the child's CPU time.
    """

    records: int
    events: int
    behind_ms: int | None
    watermark_ms: int | None
    committed: str | None
    checkpoint: str | None
    committed_at_ms: int | None
    snapshot_bytes: int
    outbox_entries: int
    input_ended: bool
    is_finished: bool
    gaps: tuple[str, ...]
    waiting_for: str | None
    cpu_s: float


class LogEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. ``event`` says what happened, ``message`` says it to a person; ``progress`` stands in some."""

    time_ms: int
    level: str
    event: str
    shard: str
    pid: int
    message: str
    progress: Progress | None = None


class Say(Protocol):
    """Writes one entry of a child's log. ``shard``: of the entries to come; set once it is known."""

    shard: str

    def __call__(  # noqa: D102
        self, event: str, message: str, *, level: str = "info", progress: Progress | None = None
    ) -> None: ...


_decoder = msgspec.json.Decoder(LogEntry)


def decode_entry(line: bytes) -> LogEntry | None:
    """Read one line; None where it is something else, such as a warning that a library printed."""
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError:
        return None


class ChildLog:
    """Writes entries to a file that all children of a daemon append to, one `write` each."""

    def __init__(
        self, file: BinaryIO, *, pid: int, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._file = file
        self._pid = pid
        self._now_ms = now_ms
        self.shard = ""

    def __call__(self, event: str, message: str, *, level: str = "info", progress: Progress | None = None) -> None:
        """See `Say`."""
        entry = LogEntry(self._now_ms(), level, event, self.shard, self._pid, message, progress)
        self._file.write(msgspec.json.encode(entry) + b"\n")
