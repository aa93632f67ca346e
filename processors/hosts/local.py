"""The local host: one process that reads all shards of a stream in turn, applies, and commits every few seconds."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.hash_key import HashRange
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.events.times import instant_ms
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, error_code, reason_of
from streamgauge.processors.commit.ports import Fenced
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.shard_reader import ReadFailed
from streamgauge.processors.hosts.shard_run import LocalSettings, ShardRun

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient
    from types_boto3_kinesis.type_defs import ListShardsInputTypeDef

__all__ = [
    "LocalProgress",
    "LocalSettings",
    "OpenSession",
    "ReshardingUnsupported",
    "ShardProgress",
    "list_shards",
    "run_local",
    "stream_arn",
]


class ReshardingUnsupported(StreamgaugeError):
    """The stream was resharded, and this version cannot hand a shard's state to its children."""


class OpenSession(Protocol):
    """Opens the session of a shard; `start` is where reading begins if the shard is new, as in `ShardRow`."""

    def __call__(self, shard: Shard, start: str) -> ShardSession: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """How far one shard is. ``behind_ms`` is None before the first answer; ``ended_by`` says what took it from us."""

    shard_id: str
    records: int
    size_bytes: int
    events: int
    behind_ms: int | None
    watermark_ms: int | None
    position: Position | None
    committed: Position | None
    outbox_entries: int
    waiting_for: str | None
    input_ended: bool
    gaps: tuple[str, ...]
    ended_by: str | None


@dataclass(frozen=True, slots=True)
class LocalProgress:
    """What this run has read so far, in all and by shard."""

    shards: tuple[ShardProgress, ...]

    @property
    def records(self) -> int:
        """Records read by this run."""
        return sum(shard.records for shard in self.shards)

    @property
    def events(self) -> int:
        """Positions that this run applied."""
        return sum(shard.events for shard in self.shards)

    @property
    def behind_ms(self) -> int | None:
        """How far the slowest shard is behind; None until each has answered."""
        behind = [shard.behind_ms for shard in self.shards]
        known = [value for value in behind if value is not None]
        return max(known) if known and len(known) == len(behind) else None

    @property
    def fenced(self) -> dict[str, str]:
        """By shard that somebody else has taken: the message."""
        return {shard.shard_id: shard.ended_by for shard in self.shards if shard.ended_by is not None}


def run_local(
    pipeline: Pipeline,
    kinesis: KinesisClient,
    open_session: OpenSession,
    *,
    stop: threading.Event,
    settings: LocalSettings | None = None,
    until_input_ended: bool = False,
    on_progress: Callable[[LocalProgress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> LocalProgress:
    """Process the pipeline's stream until `stop` is set, and leave every shard committed.

    Parameters
    ----------
    open_session
        Claims and restores a shard: `ShardSession.open` with everything but shard and start filled in.
    stop
        Set it (on Ctrl-C, say) to commit and return.
    until_input_ended
        Return by itself, once every shard has seen its ``end_of_input`` and has delivered everything.
    on_progress
        Called about once a second, and once at the end.
    clock
        Seconds that only rise.

    Returns
    -------
    How far it came. A shard that another process has claimed is left to it, and named in `LocalProgress.fenced`.

    Raises
    ------
    ReshardingUnsupported
        A shard has parents, or was closed by a split or merge. What was read up to there is committed.
    Gap
        A shard's state stands at a record that the stream does not have any more.
    ReadFailed, StoreRefused, StoreUnavailable, SnapshotError
        Kinesis or a store refuses, or was down for longer than `LocalSettings.outage_s`. Nothing is lost: what is not
        committed is read again by the next run.
    """
    settings = settings or LocalSettings()
    _check_start(settings.start)
    runs: list[ShardRun] = []
    try:
        for shard in list_shards(kinesis, pipeline.stream):
            session = open_session(shard, settings.start)
            jitter = random.Random(shard.shard_id)  # noqa: S311 - spreads retries, guards no secret
            runs.append(
                ShardRun(
                    session, kinesis=kinesis, stream=pipeline.stream, settings=settings, clock=clock, jitter=jitter
                )
            )
        _loop(runs, stop, clock, on_progress, until_input_ended=until_input_ended)
    except BaseException as error:
        _close_after(error, runs)
        raise
    for run in runs:
        run.close()
    progress = _progress(runs)
    if on_progress is not None:
        on_progress(progress)
    return progress


def stream_arn(kinesis: KinesisClient, stream: str) -> str:
    """The stream's ARN.

    Raises
    ------
    ReadFailed
        No such stream, or no answer.
    """
    try:
        return kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamARN"]
    except AWS_ERRORS as error:
        raise _unreadable(stream, error) from error


def list_shards(kinesis: KinesisClient, stream: str) -> list[Shard]:
    """The stream's shards in order of their ids.

    Raises
    ------
    ReshardingUnsupported
        One of them has parents.
    ReadFailed
        No such stream, or no answer.
    """
    shards: list[Shard] = []
    arguments: ListShardsInputTypeDef = {"StreamName": stream}
    try:
        while True:
            answer = kinesis.list_shards(**arguments)
            for found in answer["Shards"]:
                hash_keys = found["HashKeyRange"]
                parents = (found.get("ParentShardId"), found.get("AdjacentParentShardId"))
                shards.append(
                    Shard(
                        found["ShardId"],
                        HashRange(int(hash_keys["StartingHashKey"]), int(hash_keys["EndingHashKey"])),
                        tuple(parent for parent in parents if parent),
                    )
                )
            token = answer.get("NextToken")
            if not token:
                break
            arguments = {"NextToken": token}
    except AWS_ERRORS as error:
        raise _unreadable(stream, error) from error
    for shard in shards:
        if shard.parents:
            raise _resharded(stream, shard.shard_id, f"it has the parents {', '.join(shard.parents)}")
    return sorted(shards)


def _loop(
    runs: list[ShardRun],
    stop: threading.Event,
    clock: Callable[[], float],
    on_progress: Callable[[LocalProgress], None] | None,
    *,
    until_input_ended: bool,
) -> None:
    progress_at = clock() + 1
    while not stop.is_set() and not all(run.is_over for run in runs):
        for run in runs:
            _step(run)
            if stop.is_set():
                return
        if until_input_ended and all(run.is_over or run.is_finished for run in runs):
            return
        if on_progress is not None and clock() >= progress_at:
            progress_at = clock() + 1
            on_progress(_progress(runs))
        due = min((run.due_at for run in runs if not run.is_over), default=clock())
        stop.wait(max(0.0, min(due, progress_at) - clock()))


def _step(run: ShardRun) -> None:
    if run.is_over:
        return
    try:
        run.step()
    except Fenced as fenced:
        run.ended_by = str(fenced)
    if run.children:
        raise _resharded(run.stream, run.shard_id, f"it was closed, and {', '.join(run.children)} go on")


def _close_after(error: BaseException, runs: list[ShardRun]) -> None:
    """Commit what the other shards have; a second error must not hide the first."""
    for run in runs:
        try:
            run.close(patiently=False)
        except StreamgaugeError as second:
            error.add_note(f"and then {second}")


def _progress(runs: list[ShardRun]) -> LocalProgress:
    return LocalProgress(
        tuple(
            ShardProgress(
                shard_id=run.shard_id,
                records=run.records,
                size_bytes=run.size_bytes,
                events=run.events,
                behind_ms=run.behind_ms,
                watermark_ms=run.session.watermark_ms,
                position=run.session.position,
                committed=run.session.committed,
                outbox_entries=run.session.outbox_entries,
                waiting_for=run.waiting_for,
                input_ended=run.session.input_ended,
                gaps=run.session.gaps,
                ended_by=run.ended_by,
            )
            for run in runs
        )
    )


def _unreadable(stream: str, error: BotoCoreError | ClientError) -> ReadFailed:
    missing = isinstance(error, ClientError) and error_code(error) == "ResourceNotFoundException"
    return ReadFailed(
        "there is no such stream" if missing else reason_of(error),
        where=f"stream {stream}",
        remedy="Create it, or correct `stream` in the pipeline file" if missing else "Is Kinesis reachable?",
    )


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


def _resharded(stream: str, shard_id: str, why: str) -> ReshardingUnsupported:
    return ReshardingUnsupported(
        f"resharding is not supported by this version: {why}. Everything read before is committed, nothing is lost",
        where=f"stream {stream}, shard {shard_id}",
        remedy="Keep the number of shards, or process a stream that was created with as many as you need",
    )
