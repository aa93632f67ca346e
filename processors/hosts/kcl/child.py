"""The loop of a child: standard input and output around the dialogue, and nothing else on standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable
from typing import BinaryIO, Protocol

from streamgauge.events.position import Position
from streamgauge.processors.hosts.kcl.dialogue import Dialogue, ProtocolViolation
from streamgauge.processors.hosts.kcl.messages import Action, Checkpointed

__all__ = ["CheckpointRequests", "ShardHandler", "run_child", "take_standard_output"]

CheckpointRequests = Generator[Position | None, str | None, None]
"""Asks for checkpoints while an action is carried out, and is sent the error of each, or None."""


class ShardHandler(Protocol):
    """What a child does with what it is asked for."""

    def handle(self, action: Action) -> CheckpointRequests:
        """Carry out one action. Whatever it raises ends the child, and the action is never reported as done."""
        ...

    def abandoned(self) -> None:
        """The daemon is gone, and has not said that it would go."""
        ...


def run_child(lines: Iterable[bytes], write: Callable[[bytes], object], handler: ShardHandler) -> None:
    """Answer the daemon until it closes our input.

    Parameters
    ----------
    lines
        What the daemon sends.
    write
        Sends bytes to it at once.

    Raises
    ------
    ProtocolViolation
        As in `Dialogue`.
    """
    dialogue = Dialogue()
    # Not by `strip`, which would copy megabytes.
    received = (line for line in lines if not line.isspace())
    for line in received:
        action = dialogue.receive(line)
        assert not isinstance(action, Checkpointed), "an answer without a question is refused"
        requests = handler.handle(action)
        try:
            position = next(requests)
            while True:
                write(_framed(dialogue.checkpoint(position)))
                position = requests.send(_answer(dialogue, next(received, b"")))
        except StopIteration:
            write(_framed(dialogue.done()))
    if not dialogue.is_ended:
        handler.abandoned()


def _answer(dialogue: Dialogue, line: bytes) -> str | None:
    if not line:
        raise ProtocolViolation("the KCL's daemon went away before it had answered a checkpoint")
    answer = dialogue.receive(line)
    assert isinstance(answer, Checkpointed), "nothing else passes where a checkpoint is asked for"
    return answer.error


def _framed(line: bytes) -> bytes:
    # A newline before it, too: whatever else may have come to standard output stays a line of its own.
    return b"\n" + line + b"\n"


def take_standard_output() -> BinaryIO:
    """Keep standard output for the protocol: whoever prints from now on, in Python or below it, writes to stderr."""
    sys.stdout.flush()
    protocol = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = sys.stderr
    return protocol
