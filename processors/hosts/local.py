"""The local host: a process that works on a stream's shards, alone or beside others like it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamgauge.events.times import instant_ms
from streamgauge.processors.commit.ports import StateStore
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.progress import LocalProgress, ShardProgress
from streamgauge.processors.hosts.shard_reader import ReadFailed
from streamgauge.processors.hosts.shard_run import LocalSettings
from streamgauge.processors.hosts.stream_shards import list_shards, stream_arn
from streamgauge.processors.hosts.worker import OpenSession, Worker

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

__all__ = [
    "LocalProgress",
    "LocalSettings",
    "OpenSession",
    "ShardProgress",
    "list_shards",
    "run_local",
    "stream_arn",
]


def run_local(
    pipeline: Pipeline,
    kinesis: KinesisClient,
    open_session: OpenSession,
    *,
    store: StateStore,
    stop: threading.Event,
    settings: LocalSettings | None = None,
    until_input_ended: bool = False,
    on_progress: Callable[[LocalProgress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> LocalProgress:
    """Process the pipeline's stream until `stop` is set, and leave every shard committed.

    Several may run at a time, here and elsewhere: they share the shards, follow every reshard, and take over from one
    that dies.

    Parameters
    ----------
    open_session
        Claims and restores a shard: `ShardSession.open` with everything else filled in.
    store
        The rows of the pipeline, as `open_session` uses them.
    stop
        Set it (on Ctrl-C, say) to commit and return.
    until_input_ended
        Return by itself, once every shard has seen its ``end_of_input`` and has delivered everything; shards that
        another worker holds, and shows that it does, are left to it.
    on_progress
        Called about once a second, and once at the end.
    clock
        Seconds that only rise.

    Returns
    -------
    How far it came. A shard that another worker has taken is left to it, and named in `LocalProgress.fenced`.

    Raises
    ------
    Gap, ParentMissing
        A shard's state stands at a record that the stream does not have any more, or a parent is gone unread.
    ReadFailed, StoreRefused, StoreUnavailable, SnapshotError
        Kinesis or a store refuses, or was down for longer than `LocalSettings.outage_s`. Nothing is lost: what is not
        committed is read again by the next run.
    """
    settings = settings or LocalSettings()
    _check_start(settings.start)
    worker = Worker(pipeline.stream, kinesis, open_session, store=store, settings=settings, clock=clock)
    try:
        progress_at = clock() + 1
        while not stop.is_set():
            worker.turn(stop.is_set)
            if until_input_ended and worker.is_finished:
                break
            if on_progress is not None and clock() >= progress_at:
                progress_at = clock() + 1
                on_progress(worker.progress)
            stop.wait(max(0.0, min(worker.due_at, progress_at) - clock()))
    except BaseException as error:
        worker.close_after(error)
        raise
    worker.close()
    if on_progress is not None:
        on_progress(worker.progress)
    return worker.progress


def _check_start(start: str) -> None:
    kind, _, text = start.partition(" ")
    try:
        if start == "TRIM_HORIZON" or (kind == "AT_TIMESTAMP" and instant_ms(text) >= 0):
            return
    except ValueError:
        pass
    # LATEST would mean something else at each start until the first commit.
    raise ReadFailed(
        f"cannot begin at {start!r}", where="start", remedy="Say TRIM_HORIZON, or AT_TIMESTAMP with an RFC 3339 time"
    )
