"""One shard under the KCL: what its daemon hands over is applied, committed, and only then checkpointed.

The reasons are in ``docs/adr/0026-kcl-host.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from streamgauge.events.position import Position
from streamgauge.events.records import StreamRecord, UserRecords
from streamgauge.events.times import instant_ms
from streamgauge.processors.commit.ports import Backpressure, Fenced, StateStore, StoreUnavailable
from streamgauge.processors.commit.session import SessionClosed, ShardSession
from streamgauge.processors.hosts.gap import read_gap
from streamgauge.processors.hosts.kcl.checkpoints import Checkpoints
from streamgauge.processors.hosts.kcl.child import CheckpointRequests
from streamgauge.processors.hosts.kcl.child_log import Progress, Say
from streamgauge.processors.hosts.kcl.messages import (
    Action,
    Initialize,
    LeaseLost,
    ProcessRecords,
    ShardEnded,
    user_records,
)
from streamgauge.processors.hosts.kcl.opening import InPlace, Opening, gap_end
from streamgauge.processors.hosts.shard_reader import ShardReader, TryLater
from streamgauge.processors.hosts.shard_run import LocalSettings
from streamgauge.processors.hosts.worker import OpenSession

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

__all__ = ["ShardProcessor"]

_REPORT_INTERVAL_S = 1.0
_STOP_ATTEMPTS = 3
_END_ATTEMPTS = 10


class ShardProcessor:
    """Handles the actions of one child. Not one of them returns before what it stands for has happened.

    Parameters
    ----------
    sleep
        Waits; raises once the daemon is gone.
    clock
        Seconds that only rise.
    """

    def __init__(
        self,
        stream: str,
        kinesis: KinesisClient,
        store: StateStore,
        open_session: OpenSession,
        *,
        settings: LocalSettings,
        say: Say,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._kinesis = kinesis
        self._settings = settings
        self._say = say
        self._clock = clock
        self._in_place = InPlace(settings, clock=clock, sleep=sleep, say=say)
        self._opening = Opening(
            stream, kinesis, store, open_session, settings=settings, in_place=self._in_place, say=say
        )
        self._shard_id = ""
        self._session: ShardSession | None = None
        self._is_stopped = False
        self._checkpoints = Checkpoints(self._in_place, say)
        self._commit_at = self._report_at = clock()
        self._uncommitted_bytes = 0
        self._records = 0
        self._positions_before = 0
        self._behind_ms: int | None = None

    def handle(self, action: Action) -> CheckpointRequests:
        """Carry out one action; see `ShardHandler`."""
        if isinstance(action, Initialize):
            self._initialize(action)
        elif isinstance(action, ProcessRecords):
            yield from self._process(action)
        elif isinstance(action, ShardEnded):
            yield from self._end()
        elif isinstance(action, LeaseLost):
            # After `shutdownRequested` the session is closed: the daemon lets go of the lease by itself.
            if self._session is not None:
                self._say("lease_lost", "another worker has the lease")
            self._leave()
        else:
            yield from self._stop()

    def abandoned(self) -> None:
        """Save what was applied: whoever has the shard next need not apply it again."""
        self._say("abandoned", "the daemon is gone", level="warning")
        self._leave()

    # --- the beginning ----------------------------------------------------------------------------------------------

    def _initialize(self, begun: Initialize) -> None:
        self._shard_id = self._say.shard = begun.shard_id
        session = self._session = self._opening.open(begun.shard_id)
        if session is None:
            self._say("sealed", "the shard is sealed: what is handed over has been applied")
            return
        self._positions_before = session.counters.positions
        found = session.position
        is_to_read, until = gap_end(begun, found)
        if is_to_read:
            self._in_place.until_done(lambda: self._join(session, until))
        self._commit_at = self._clock() + self._settings.commit_interval_s
        self._say("started", _difference(begun, found, session))
        self._report()

    def _join(self, session: ShardSession, until: int | None) -> None:
        """Apply what the stream holds from the state's position up to where the daemon goes on."""
        reader = ShardReader(
            self._kinesis,
            self._stream,
            self._shard_id,
            start=session.start,
            after=session.position,
            on_gap=session.accept_gap if self._settings.accept_gap else None,
            is_listed=self._opening.is_listed,
        )
        for records in read_gap(
            reader, until=until, max_records=self._settings.max_records, sleep=self._in_place.sleep
        ):
            self._apply(session, records)
            if self._uncommitted_bytes >= self._settings.commit_bytes:
                self._commit(session)

    # --- records ----------------------------------------------------------------------------------------------------

    def _process(self, given: ProcessRecords) -> CheckpointRequests:
        session = self._session
        self._behind_ms = given.millis_behind_latest
        if self._is_stopped:
            raise SessionClosed(
                "the KCL hands over records after it has asked this child to stop", where=f"shard {self._shard_id}"
            )
        if session is None:
            # The shard is sealed, so all of this has been applied.
            return
        records = user_records(given)
        if records:
            self._apply(session, _from_start(session, records))
            self._checkpoints.delivered = Position(int(records.sequence_numbers[-1]), records.places[-1])
            self._records += len(records)
        is_end = session.input_ended and session.committed != session.position
        is_much = self._uncommitted_bytes >= self._settings.commit_bytes
        if is_end or is_much or self._clock() >= self._commit_at:
            self._commit(session)
            yield from self._checkpoints.committed(session)
        if self._clock() >= self._report_at:
            self._report()

    def _apply(self, session: ShardSession, records: Sequence[StreamRecord]) -> None:
        patience = self._in_place.patience()
        while True:
            try:
                session.apply(records)
                break
            except Backpressure as full:
                self._commit(session)
                if not session.can_apply:
                    # A receiver may be down for as long as it likes; the daemon hands over nothing more meanwhile.
                    self._say("waiting", str(full), level="warning")
                    self._in_place.wait(patience)
        payloads = records.payloads if isinstance(records, UserRecords) else [record.data for record in records]
        self._uncommitted_bytes += sum(map(len, payloads))

    def _commit(self, session: ShardSession) -> None:
        self._in_place.until_done(session.commit)
        self._uncommitted_bytes = 0
        self._commit_at = self._clock() + self._settings.commit_interval_s

    # --- the end ----------------------------------------------------------------------------------------------------

    def _end(self) -> CheckpointRequests:
        session = self._session
        if session is not None:
            self._commit(session)
            # In this order: a crash between the two would leave children that no row names.
            self._in_place.until_done(self._name_children)
            self._report()
            self._in_place.until_done(session.seal)
            self._session = None
            self._say("sealed", "the shard was closed by a reshard, and is applied to its end")
        if not (yield from self._checkpoints.end(attempts=_END_ATTEMPTS)):
            self._say("checkpoint_lost", "its end is not checkpointed: it is handed over again", level="warning")

    def _name_children(self) -> None:
        listed = self._opening.register()
        is_parent = any(self._shard_id in shard.parents for shard in listed)
        if self._opening.is_listed and not is_parent:
            raise TryLater("its children are not listed yet", where=f"shard {self._shard_id}", is_throttled=False)

    def _stop(self) -> CheckpointRequests:
        session = self._session
        if session is None:
            return
        self._in_place.until_done(session.release)
        self._report()
        yield from self._checkpoints.committed(session, attempts=_STOP_ATTEMPTS)
        self._session, self._is_stopped = None, True
        self._say("stopped", "committed, and left to whoever comes")

    def _leave(self) -> None:
        """Save what was applied, if the shard is ours still; nobody waits for it."""
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.close()
        except Fenced as fenced:
            self._say("fenced", f"{fenced}. What was applied since the last commit has not left", level="warning")
        except StoreUnavailable as error:
            self._say("not_saved", str(error), level="warning")

    def _report(self) -> None:
        self._report_at = self._clock() + _REPORT_INTERVAL_S
        session = self._session
        if session is not None:
            self._say("progress", "", progress=self._progress(session))

    def _progress(self, session: ShardSession) -> Progress:
        return Progress(
            records=self._records,
            events=session.counters.positions - self._positions_before,
            behind_ms=self._behind_ms,
            watermark_ms=session.watermark_ms,
            committed=None if session.committed is None else str(session.committed),
            checkpoint=None if self._checkpoints.taken is None else str(self._checkpoints.taken),
            committed_at_ms=session.committed_at_ms,
            snapshot_bytes=session.snapshot_bytes,
            outbox_entries=session.outbox_entries,
            input_ended=session.input_ended,
            is_finished=session.input_ended
            and self._behind_ms == 0
            and session.outbox_entries == 0
            and session.committed == session.position,
            gaps=session.gaps,
            waiting_for=session.waiting_for,
            cpu_s=time.process_time(),
        )


def _difference(begun: Initialize, found: Position | None, session: ShardSession) -> str:
    """What the log says of the state and the KCL's checkpoint."""
    text = begun.sequence_number or "nowhere"
    state = f"the state is at {found or session.start}, the KCL's checkpoint at "
    if not text.isdecimal():
        return f"{state}{text}" + (": what it hands over again is skipped" if found is not None else "")
    checkpoint = Position(int(text), begun.sub_sequence_number or 0)
    if found is not None and found > checkpoint:
        return f"{state}{checkpoint}: what it hands over again is skipped"
    if found == checkpoint:
        return f"{state}the same place"
    return f"{state}{checkpoint}: what lies between was read from the stream"


def _from_start(session: ShardSession, records: UserRecords) -> UserRecords:
    """Without what lies before a start in time, which the daemon need not know of."""
    if session.position is not None or session.start == "TRIM_HORIZON":
        return records
    start_ms = instant_ms(session.start.removeprefix("AT_TIMESTAMP "))
    return UserRecords.of([record for record in records if record.arrival_ms >= start_ms])
