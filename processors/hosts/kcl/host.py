"""The KCL host: keeps a daemon running until it is told to stop, and says in one line why it cannot.

The daemon ends whenever one of its children does, so that is no reason to give up: it is started again under the name
that it had, finds its leases, and each new child goes on at its shard's last commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.hosts.kcl.child_log import LogEntry
from streamgauge.processors.hosts.kcl.children import Children
from streamgauge.processors.hosts.kcl.daemon import Daemon, LogTail, are_running

__all__ = ["DaemonFailed", "HostSettings", "run_kcl"]


class DaemonFailed(StreamgaugeError):
    """The daemon, or one of its children, ends again and again."""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How a daemon is kept running.

    ``max_failures`` ends within ``failure_window_s`` are too many. ``grace_s`` is what the daemon is given to stop;
    its own grace is shorter; it is ended ``childless_s`` after its last child. ``check_interval_s``: how often the
    stream and the stores are looked at meanwhile.
    """

    max_failures: int = 5
    max_fenced: int = 3
    failure_window_s: float = 300.0
    backoff_s: float = 1.0
    grace_s: float = 60.0
    childless_s: float = 1.0
    poll_s: float = 0.2
    check_interval_s: float = 10.0


def run_kcl(
    start: Callable[[], Daemon],
    check: Callable[[], None],
    *,
    tail: LogTail,
    stop: threading.Event,
    settings: HostSettings | None = None,
    is_finished: Callable[[Children], bool] = lambda children: False,  # noqa: ARG005
    on_entry: Callable[[LogEntry], None] = lambda entry: None,  # noqa: ARG005
    on_progress: Callable[[Children], None] = lambda children: None,  # noqa: ARG005
    clock: Callable[[], float] = time.monotonic,
) -> Children:
    """Run the daemon until `stop` is set or `is_finished` holds, and end it in good order.

    Parameters
    ----------
    start
        Starts a daemon; called again when one has ended by itself.
    check
        Raises what keeps the daemon from working: before each start, and while it runs.
    tail
        The log that all its children append to.
    on_entry
        Given every entry but those of mere progress.

    Raises
    ------
    DaemonFailed
        It ends again and again; with the reason that its child gave, or else the last error in its log.
    StreamgaugeError
        What `check` raised.
    """
    host = _Host(tail, settings or HostSettings(), on_entry, on_progress, clock)
    failures: list[float] = []
    while not stop.is_set():
        check()
        daemon = start()
        try:
            ended = host.watch(daemon, stop, check, is_finished)
        finally:
            host.end(daemon)
        if not ended:
            break
        now = clock()
        failures = [at for at in failures if now - at < host.settings.failure_window_s] + [now]
        host.judge(daemon, len(failures))
        stop.wait(host.settings.backoff_s * 2.0 ** (len(failures) - 1))
    return host.children


class _Host:
    def __init__(
        self,
        tail: LogTail,
        settings: HostSettings,
        on_entry: Callable[[LogEntry], None],
        on_progress: Callable[[Children], None],
        clock: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.children = Children()
        self._tail = tail
        self._on_entry = on_entry
        self._on_progress = on_progress
        self._clock = clock

    def watch(
        self,
        daemon: Daemon,
        stop: threading.Event,
        check: Callable[[], None],
        is_finished: Callable[[Children], bool],
    ) -> bool:
        """Follow the children; whether the daemon has ended by itself."""
        self.children.error = None
        check_at = self._clock() + self.settings.check_interval_s
        while not stop.wait(self.settings.poll_s):
            has_ended = daemon.status is not None
            self.read_log()
            if has_ended:
                return True
            if is_finished(self.children):
                return False
            if self._clock() >= check_at:
                check()
                check_at = self._clock() + self.settings.check_interval_s
        return False

    def end(self, daemon: Daemon) -> None:
        """Stop the daemon if it runs, and read what its children still have to say."""
        began = self._clock()
        until = began + self.settings.grace_s
        childless_since = began
        daemon.ask_to_stop()
        while not daemon.wait(self.settings.poll_s) and self._clock() < until:
            self.read_log()
            if are_running(self.children.pids):
                childless_since = self._clock()
            # All is committed and checkpointed then. The daemon's own end takes it ten seconds more.
            elif self._clock() - childless_since > self.settings.childless_s:
                break
        # Children of a daemon that has crashed save what they have; whatever else is left is stuck.
        while are_running(self.children.pids) and self._clock() < until:
            time.sleep(self.settings.poll_s)
        daemon.kill()
        self.read_log()

    def read_log(self) -> None:
        """Take what the children have said since."""
        entries = self._tail.entries()
        for entry in entries:
            self.children.take(entry)
            if entry.event != "progress":
                self._on_entry(entry)
        if entries:
            self._on_progress(self.children)

    def judge(self, daemon: Daemon, failures: int) -> None:
        """Give up on a daemon that has ended too often.

        Raises
        ------
        DaemonFailed
            With the reason.
        """
        error = self.children.error
        if error is not None and error.event == "fenced" and failures >= self.settings.max_fenced:
            raise DaemonFailed(
                f"{error.message}: another host works on this pipeline, and each fences the other",
                where=f"shard {error.shard}",
                remedy="Let one host process it: stop the other, or disable its event source mapping",
            )
        if failures < self.settings.max_failures:
            return
        if error is not None:
            raise DaemonFailed(error.message, where=f"shard {error.shard}" if error.shard else "a child of the KCL")
        raise DaemonFailed(
            f"the KCL's daemon ends by itself, its last error being: {daemon.last_error()}", where=str(daemon.log)
        )
