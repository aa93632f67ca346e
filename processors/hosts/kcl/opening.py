"""How a child comes by its shard: parents first, then the claim, then what lies before the KCL's checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.processors.commit.lineage import register_shards
from streamgauge.processors.commit.ports import Fenced, ParentBehind, StateStore, StoreUnavailable
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.kcl.child_log import Say
from streamgauge.processors.hosts.kcl.messages import Initialize
from streamgauge.processors.hosts.shard_reader import ReadFailed, TryLater
from streamgauge.processors.hosts.shard_run import LocalSettings, Patience
from streamgauge.processors.hosts.stream_shards import StreamUnreadable, list_shards
from streamgauge.processors.hosts.worker import OpenSession

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

__all__ = ["InPlace", "Opening", "gap_end", "is_passing"]

Result = TypeVar("Result")

_PARENT_PAUSE_S = 1.0


def is_passing(error: StreamgaugeError) -> bool:
    """Whether what failed may succeed a little later by itself."""
    return isinstance(error, StoreUnavailable | TryLater) or (
        isinstance(error, StreamUnreadable) and error.is_transient
    )


class InPlace:
    """Waits inside a call of the daemon's: meanwhile it renews the lease, and hands over nothing more.

    Parameters
    ----------
    sleep
        Waits; raises once the daemon is gone.
    """

    def __init__(
        self, settings: LocalSettings, *, clock: Callable[[], float], sleep: Callable[[float], None], say: Say
    ) -> None:
        self._settings = settings
        self._clock = clock
        self.sleep = sleep
        self._say = say
        self._jitter = Random(uuid4().int)  # noqa: S311 - spreads tries, guards no secret

    def patience(self) -> Patience:
        """Waits that grow from failure to failure."""
        return Patience(self._settings, self._clock, self._jitter)

    def wait(self, patience: Patience) -> None:
        """Wait once more."""
        self.sleep(max(0.0, patience.failed() - self._clock()))

    def until_done(self, call: Callable[[], Result]) -> Result:
        """Try until it succeeds; for `LocalSettings.outage_s` where a store or the stream is down.

        Raises
        ------
        StreamgaugeError
            What the last try raised.
        """
        patience = self.patience()
        while True:
            try:
                return call()
            except StreamgaugeError as error:
                if not is_passing(error) or patience.is_exhausted:
                    raise
                self._say("waiting", str(error), level="warning")
                self.wait(patience)


class Opening:
    """Opens the session of a shard, in whatever order the daemon starts its children."""

    def __init__(
        self,
        stream: str,
        kinesis: KinesisClient,
        store: StateStore,
        open_session: OpenSession,
        *,
        settings: LocalSettings,
        in_place: InPlace,
        say: Say,
    ) -> None:
        self._stream = stream
        self._kinesis = kinesis
        self._store = store
        self._open_session = open_session
        self._settings = settings
        self._in_place = in_place
        self._say = say
        self.is_listed = True
        """Whether the stream listed the shard when it was opened."""

    def register(self) -> list[Shard]:
        """List the stream, write a row for every shard that has none, and return what is listed.

        Raises
        ------
        StreamUnreadable, StoreUnavailable, StoreRefused
            As `list_shards` and the store.
        """
        listed = list_shards(self._kinesis, self._stream)
        register_shards(self._store, listed, start=self._settings.start)
        return listed

    def open(self, shard_id: str) -> ShardSession | None:
        """Claim the shard, once its parents are sealed; None where it is sealed itself, and nothing is left to do.

        Raises
        ------
        ReadFailed
            Neither the stream nor the pipeline knows the shard.
        StoreUnavailable, StoreRefused, SnapshotError, ParentMissing, Gap
            As `ShardSession.open`.
        """
        listed = {shard.shard_id: shard for shard in self._in_place.until_done(self.register)}
        self.is_listed = shard_id in listed
        is_told = False

        def claim() -> ShardSession:
            assert row is not None
            return self._open_session(row.shard, self._settings.start, owner=f"kcl.{uuid4()}", seen_version=None)

        while True:
            row = self._in_place.until_done(lambda: self._store.row(shard_id))
            if row is None:
                raise ReadFailed(
                    "the KCL has a lease for a shard that the stream does not list, and this pipeline has not met",
                    where=f"stream {self._stream}, shard {shard_id}",
                    remedy="Is the lease table that of another stream? Give this pipeline a lease table of its own",
                )
            if row.sealed:
                return None
            try:
                return self._in_place.until_done(claim)
            except (ParentBehind, Fenced) as later:
                # Fenced: sealed, or begun by another, in between; the row tells which.
                if not is_told:
                    self._say("waiting", str(later))
                    is_told = True
                self._in_place.sleep(_PARENT_PAUSE_S)


def gap_end(begun: Initialize, position: Position | None) -> tuple[bool, int | None]:
    """Whether the stream is to be read before the daemon's records are applied, and up to which sequence number.

    The daemon goes on behind its checkpoint, and does not show the record at it. So the record at our position is
    read by ourselves, to see that it is there; and where the checkpoint is ahead, everything up to it.
    """
    text = begun.sequence_number
    if text is not None and text.isdecimal():
        return True, max(int(text), -1 if position is None else position.sequence_number) + 1
    if text == "TRIM_HORIZON":
        return (False, None) if position is None else (True, position.sequence_number + 1)
    # LATEST, AT_TIMESTAMP: where that is nobody says, so everything there is.
    return True, None
