"""``python -m streamgauge.cli.kcl_child``: the process that the KCL's daemon starts for each shard."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.clients import Clients
from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.ports import Fenced
from streamgauge.processors.hosts.kcl.child import CheckpointRequests, run_child, take_standard_output
from streamgauge.processors.hosts.kcl.child_log import ChildLog
from streamgauge.processors.hosts.kcl.child_settings import ChildSettings
from streamgauge.processors.hosts.kcl.daemon import are_running
from streamgauge.processors.hosts.kcl.messages import Action
from streamgauge.processors.hosts.kcl.shard_processor import ShardProcessor
from streamgauge.processors.hosts.parent_stream import KinesisParents
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.processors.hosts.wiring import Resources, session_opener, state_store
from streamgauge.settings import Endpoints

__all__ = ["main"]

_LOOK_S = 0.5
# A batch is one line of up to 14 MB.
_INPUT_BUFFER = 1024 * 1024


class DaemonGone(StreamgaugeError):
    """Whoever started this process has ended, so nobody waits for its answer, or would end it in good order."""


class _WhileWanted:
    """Handles actions as long as the launcher lives: a daemon without one would go on, and nobody would know of it."""

    def __init__(self, processor: ShardProcessor, launcher: int) -> None:
        self._processor = processor
        self._launcher = launcher

    def handle(self, action: Action) -> CheckpointRequests:
        """See `ShardHandler`."""
        if not are_running([self._launcher]):
            self._processor.abandoned()
            raise DaemonGone("the process that had started the KCL's daemon is gone")
        return self._processor.handle(action)

    def abandoned(self) -> None:
        """See `ShardHandler`."""
        self._processor.abandoned()


def main() -> int:
    """Work on one shard until the daemon closes our input."""
    # A service manager may signal every process of a service; the daemon is told, and tells us in good order.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    protocol = take_standard_output()
    lines = os.fdopen(sys.stdin.fileno(), "rb", buffering=_INPUT_BUFFER, closefd=False)
    try:
        told = ChildSettings.from_environment(os.environ)
    except StreamgaugeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    with Path(told.log_file).open("ab", buffering=0) as file:
        log = ChildLog(file, pid=os.getpid())
        try:
            run_child(lines, protocol.write, _WhileWanted(_processor(told, log), told.launcher))
        except Fenced as fenced:
            log("fenced", f"{fenced}. What was applied since the last commit has not left", level="error")
        except StreamgaugeError as error:
            log("failed", str(error), level="error")
        except BaseException:
            # Of our own making: the batch is not reported as done, and the log says where it happened.
            log("crashed", traceback.format_exc(), level="error")
            raise
        else:
            return 0
    return 1


def _processor(told: ChildSettings, log: ChildLog) -> ShardProcessor:
    pipeline = load_pipeline(told.pipeline_file)
    clients = Clients(Endpoints.from_environment(os.environ), live=told.live)
    resources = Resources.from_environment(os.environ)
    sleep = _sleep_while_wanted(os.getppid())
    parents = Parents(
        stream=KinesisParents(clients.kinesis, pipeline.stream, sleep=sleep),
        watch=ClaimWatch(time.monotonic),
        abandoned_after_s=told.abandoned_after_s,
        accept_gap=told.settings.accept_gap,
    )
    return ShardProcessor(
        pipeline.stream,
        clients.kinesis,
        state_store(clients, resources, pipeline),
        session_opener(clients, resources, pipeline, parents=parents),
        settings=told.settings,
        say=log,
        sleep=sleep,
    )


def _sleep_while_wanted(daemon: int) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if os.getppid() != daemon:
                raise DaemonGone("the KCL's daemon is gone")
            time.sleep(min(left, _LOOK_S))

    return sleep


if __name__ == "__main__":
    sys.exit(main())
