"""The record of a running local stack: ``<home>/.streamgauge/stack.json``, readable by its owner alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.clients import LOCAL_CREDENTIALS
from streamgauge.infra.local.processes import ProcessInfo, is_running
from streamgauge.settings import Endpoints

__all__ = [
    "FOLDER",
    "SERVERS",
    "NoStack",
    "StackInfo",
    "StackRunning",
    "exclusive",
    "load_stack",
    "read_stack",
    "remove_stack",
    "save_stack",
]

FOLDER = ".streamgauge"
SERVERS = 2
"""The first processes of a stack are its servers: MiniStack, then our Kinesis."""

_RECORD = "stack.json"


class StackRunning(StreamgaugeError):
    """A stack of this home runs already, or is being started or stopped."""


class NoStack(StreamgaugeError):
    """No stack of this home runs, or a part of it has died."""


class StackInfo(msgspec.Struct, frozen=True):
    """A running stack, as ``stack.json`` keeps it. Paths are absolute.

    ``outputs`` are the template's; they are empty until it has been deployed. ``processes`` are in the order in which
    they were started, the two servers first.
    """

    home: str
    stack_name: str
    pipeline_file: str
    region: str
    account: str
    aws_url: str
    kinesis_url: str
    outputs: dict[str, str]
    processes: tuple[ProcessInfo, ...]

    @property
    def endpoints(self) -> Endpoints:
        """The stack's own addresses."""
        return Endpoints(aws=self.aws_url, kinesis=self.kinesis_url)

    @property
    def folder(self) -> Path:
        """Where the record and the logs are."""
        return Path(self.home) / FOLDER

    @property
    def logs(self) -> dict[str, str]:
        """The log file of each process, by name."""
        return {process.name: process.log for process in self.processes}

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The user's `environment`, led to this stack; endpoints that it names itself win."""
        endpoints = Endpoints.from_environment(environment, stack=self.endpoints)
        led = {
            "AWS_ENDPOINT_URL": endpoints.aws or self.aws_url,
            "AWS_ENDPOINT_URL_KINESIS": endpoints.kinesis or self.kinesis_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": LOCAL_CREDENTIALS.access_key,
            "AWS_SECRET_ACCESS_KEY": LOCAL_CREDENTIALS.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        kept = {name: value for name, value in environment.items() if name not in {"AWS_PROFILE", "AWS_SESSION_TOKEN"}}
        return kept | led


def read_stack(home: Path) -> StackInfo | None:
    """What is recorded for this home, whether it still runs or not; None without a record.

    Raises
    ------
    StreamgaugeError
        The record cannot be read.
    """
    path = home.absolute() / FOLDER / _RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=StackInfo)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise StreamgaugeError(
            f"the record of the local stack cannot be read: {error}",
            where=str(path),
            remedy="End the stack's processes by hand if any run, and remove the file",
        ) from error


def load_stack(home: Path) -> StackInfo:
    """The stack that runs for this home.

    Raises
    ------
    NoStack
        None runs, it is not complete, or one of its servers has died.
    """
    info = read_stack(home)
    where = str(home.absolute())
    if info is None or not any(map(is_running, info.processes)):
        raise NoStack("no local stack runs here", where=where, remedy="Start one with `streamgauge up`")
    dead = [process for process in info.processes[:SERVERS] if not is_running(process)]
    if dead:
        raise NoStack(
            f"{dead[0].name} of the local stack has died; its log is {dead[0].log}",
            where=where,
            remedy="Run `streamgauge down`, then `streamgauge up`",
        )
    if not info.outputs:
        raise NoStack("the local stack is still being started, or its start was interrupted", where=where)
    return info


def save_stack(info: StackInfo) -> None:
    """Write the record.

    Raises
    ------
    StreamgaugeError
        It cannot be written.
    """
    path = info.folder / _RECORD
    body = msgspec.json.format(msgspec.json.encode(info), indent=2)
    try:
        # Replaced whole, so that no reader meets half a record; created by mkstemp, so readable by its owner alone.
        descriptor, temporary = tempfile.mkstemp(prefix=_RECORD, dir=info.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StreamgaugeError(f"the stack cannot be recorded: {error}", where=str(path)) from error


def remove_stack(info: StackInfo) -> None:
    """Remove the record, if there is one."""
    (info.folder / _RECORD).unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Keep every other command from starting or stopping the stack of this home meanwhile.

    Raises
    ------
    StackRunning
        Another command is doing so.
    """
    folder = home / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
    except OSError as error:
        raise StreamgaugeError(f"the local stack's files cannot be written: {error}", where=str(folder)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackRunning(
                "another command is starting or stopping the stack", where=str(home), remedy="Wait for it"
            ) from error
        yield
