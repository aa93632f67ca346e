"""The child's side of the MultiLang protocol as a state machine: lines in, messages out; lines to send come back.

The daemon sends an action and waits. The child may ask for checkpoints, one after the other, each answered by a line,
and ends the action with its status. Only what was done has a status: a child that cannot do what it was asked for has
no line to say so, and ends. The daemon ends with it then, and the records are handed to another child.
"""

from __future__ import annotations

from enum import Enum, auto

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.position import Position
from streamgauge.processors.hosts.kcl.messages import (
    Action,
    Checkpointed,
    Initialize,
    LeaseLost,
    Message,
    MessageError,
    ProcessRecords,
    ShardEnded,
    ShutdownRequested,
    checkpoint_line,
    decode_message,
    status_line,
)

__all__ = ["Dialogue", "ProtocolViolation"]


class ProtocolViolation(StreamgaugeError):
    """The daemon sent what cannot come at this point, so it is not the daemon that this host knows."""

    def __init__(self, what: str) -> None:
        super().__init__(
            what, where="standard input", remedy="Run the daemon of the amazon_kclpy that `streamgauge[kcl]` names"
        )


class _State(Enum):
    NEW = auto()
    IDLE = auto()
    WORKING = auto()
    ASKING = auto()
    ENDED = auto()


class Dialogue:
    """Where the dialogue stands. Nothing is read or written here."""

    def __init__(self) -> None:
        self._state = _State.NEW
        self._action: Action | None = None

    @property
    def is_ended(self) -> bool:
        """The daemon wants nothing more: it closes our input next."""
        return self._state is _State.ENDED

    def receive(self, line: bytes) -> Message:
        """Take one line of the daemon's: an action to carry out, or the answer to a checkpoint.

        Raises
        ------
        ProtocolViolation
            The line is no message, or cannot come now.
        """
        try:
            message = decode_message(line)
        except MessageError as error:
            raise ProtocolViolation(str(error)) from error
        if isinstance(message, Checkpointed):
            self._check(message, _State.ASKING)
        else:
            self._check(message, _State.NEW if isinstance(message, Initialize) else _State.IDLE)
            self._action = message
        self._state = _State.WORKING
        return message

    def checkpoint(self, position: Position | None) -> bytes:
        """The line that asks to checkpoint up to `position`; None: all that was handed over, the shard's end included.

        The next line is its answer.
        """
        assert self._state is _State.WORKING
        assert isinstance(self._action, ProcessRecords | ShardEnded | ShutdownRequested), "it takes no checkpoint"
        self._state = _State.ASKING
        if position is None:
            return checkpoint_line(None, None)
        return checkpoint_line(position.sequence_number, position.sub_sequence_number)

    def done(self) -> bytes:
        """The line that says that the action was carried out."""
        assert self._state is _State.WORKING and self._action is not None
        self._state = _State.ENDED if isinstance(self._action, LeaseLost | ShardEnded) else _State.IDLE
        return status_line(self._action)

    def _check(self, message: Message, expected: _State) -> None:
        if self._state is not expected:
            kind = message.__struct_config__.tag
            raise ProtocolViolation(f"the KCL's daemon sent {kind!r} while this child was {self._state.name.lower()}")
