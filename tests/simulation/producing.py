"""Producers: the product's `ProducerCore` in virtual time, and the network between it and the stream."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

from simulation.actor import Actor
from simulation.faults import Kind
from simulation.inputs import QUIET_MS, Inputs
from simulation.pipelines import STREAM
from streamgauge.events.control import EndOfInput
from streamgauge.events.records import Shard
from streamgauge.events.shard_listing import ListedShard
from streamgauge.infra.local.kinesis.errors import KinesisError
from streamgauge.infra.local.kinesis.model import PutEntry, PutFailure
from streamgauge.producers.client.closing import Phase
from streamgauge.producers.client.core import ProducerCore
from streamgauge.producers.client.out_record import EntryAnswer, ListShards, OutRecord, PutRequest
from streamgauge.producers.client.retrier import Failure
from streamgauge.producers.client.settings import ProducerSettings

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["Producer"]

_TIMEOUT_MS = 1_000
_LATEST_LANDING_MS = 9_000
_LANDING_BOUND_MS = 12_000


class Producer(Actor):
    """One producer, and the network between it and the stream."""

    def __init__(self, world: World, index: int, events: int) -> None:
        super().__init__(world, f"producer {index}")
        self.index = index
        self.left = events
        self.requests_out = 0
        self._inputs = Inputs(world, self.name, self.rng, events=events)
        self._half = events // 2
        self._stuck: OutRecord | None = None
        self._stuck_until_ms = 0
        plan = world.plan
        self._burst = 10 if plan.shape == "burst" else 1
        self._settings = ProducerSettings(
            wire_format=plan.wire_format,
            # In order, a record that is stuck would hold up all that come after it.
            ordered=plan.shape != "burst",
            window=1_024,
            aggregate_linger_ms=self.rng.choice((50, 200, 600)),
            aggregate_events_max=self.rng.choice((3, 8, 40)),
            request_linger_ms=self.rng.choice((5, 100)),
            requests_in_flight_max=self.rng.choice((1, 2, 4)),
            resend_horizon_ms=self.rng.choice(
                (6_000, 6_000, 3_600_000) if plan.shape == "burst" else (6_000, 30_000, 3_600_000)
            ),
            landing_bound_ms=_LANDING_BOUND_MS,
            ledger_interval_ms=self.rng.choice((2_000, 10_000)),
            backoff_max_ms=2_000,
        )
        self._core: ProducerCore | None = None
        self._wake: int | None = None
        self.after(self.rng.randrange(500), self._start)

    @property
    def is_done(self) -> bool:
        return self.left == 0 and self._core is not None and self._core.phase is Phase.CLOSED and not self.requests_out

    def lose_memory(self) -> None:
        self._core = None

    def restart(self, *, upgrade: bool) -> None:
        self.act(self._start)

    @property
    def _now_ms(self) -> int:
        return self.clock.now_ms

    def _start(self) -> None:
        self._core = ProducerCore(
            self._settings,
            self._listed(0),
            rng=self.rng,
            new_uuid=lambda: UUID(int=self.rng.getrandbits(128), version=4),
            now_ms=self._now_ms,
        )
        self._wake = None
        self.after(0, self._next)

    def _next(self) -> None:
        """Put the next event, or close after the last."""
        core = self._core
        assert core is not None
        for _ in range(self._burst):
            if self.left and core.can_accept(2_000):
                self.left -= 1
                self._inputs.put(core)
        if not self.left:
            if core.phase is Phase.OPEN:
                part = EndOfInput("all", self.index, self.world.plan.producers)
                core.close(part if self.rng.random() < 0.7 else None)
        else:
            pace = self.world.pace_ms
            is_quiet = self.world.plan.shape == "backlog" and self.left == self._half
            self.after(QUIET_MS if is_quiet else self.rng.randrange(pace * 2), self._next)
        self._pump()

    # --- network -----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        core = self._core
        if core is None:
            return
        while (action := core.poll(self._now_ms)) is not None:
            if isinstance(action, ListShards):
                self._list(core)
            else:
                self._send(core, action)
        wake = core.wake_ms(self._now_ms)
        if wake is not None and wake != self._wake:
            self._wake = wake
            self.after(wake - self._now_ms, self._pump)

    def _list(self, core: ProducerCore) -> None:
        try:
            self.board.reach("list.before")
            lag_ms = 2_500 if self.board.take_note(Kind.STALE) else self.rng.choice((0, 0, 100, 700))
            listed = self._listed(lag_ms)
            self.board.reach("list.after")
        except Exception as error:  # noqa: BLE001 - whatever an injected fault raises
            reason = str(error)
            self._back(lambda: core.list_failed(reason, self._now_ms))
            return
        self._back(lambda: core.listed(listed, self._now_ms))

    def _listed(self, lag_ms: int) -> list[ListedShard]:
        """ListShards may be behind what has happened."""
        at = self.clock.now_ms - lag_ms
        shards = self.world.model.describe(STREAM, now_ms=self.world.stream_ms).shards.values()
        return [
            ListedShard(
                Shard(shard.shard_id, shard.hash_range, shard.parents), shard.closed_ms is None or shard.closed_ms > at
            )
            for shard in shards
            if shard.created_ms <= at or not shard.parents
        ]

    def _back(self, action: object) -> None:
        def run() -> None:
            action()  # type: ignore[operator]
            self._pump()

        self.after(self.rng.randrange(1, 40), run)

    def _send(self, core: ProducerCore, request: PutRequest) -> None:
        """Put the request on its way, and its answer or its time-out."""
        lost = late = False
        try:
            self.board.reach("put.before")
            late = self.board.take_note(Kind.LATE_LANDING)
            if self.board.take_note(Kind.STUCK):
                self._strand(request)
                lost = True
        except Exception:  # noqa: BLE001 - the request never arrives
            lost = True
        if not lost:
            self.requests_out += 1
            out_ms = self.rng.randrange(_TIMEOUT_MS, _LATEST_LANDING_MS) if late else self.rng.randrange(1, 40)
            # A request on its way does not die with who sent it.
            self.clock.after(out_ms, lambda: self._land(core, request, answer=not late, life=self.life))
        if lost or late:
            self.after(_TIMEOUT_MS, lambda: self._fail(core, request))

    def _strand(self, request: PutRequest) -> None:
        """The request arrives much later; until then its first record is refused whenever it is put again."""
        self._stuck = request.records[0]
        landing_ms = self.rng.randrange(7_000, _LATEST_LANDING_MS)
        self._stuck_until_ms = self._now_ms + landing_ms
        self.requests_out += 1

        def land() -> None:
            self.requests_out -= 1
            with suppress(KinesisError):
                self.world.model.put_records(STREAM, _entries(request.records), now_ms=self.world.stream_ms)

        self.clock.after(landing_ms, land)

    def _is_stuck(self, record: OutRecord) -> bool:
        stuck = self._stuck
        return (
            stuck is not None
            and self._now_ms < self._stuck_until_ms
            and not self.board.healed
            and any(event is other for event in record.events for other in stuck.events)
        )

    def _fail(self, core: ProducerCore, request: PutRequest) -> None:
        core.failed(request.request_id, Failure.LOST, "timed out", self._now_ms)
        self._pump()

    def _put(self, records: Sequence[OutRecord]) -> list[EntryAnswer]:
        """The stream takes the records, but for one that is stuck."""
        passing = [record for record in records if not self._is_stuck(record)]
        results = iter(
            self.world.model.put_records(STREAM, _entries(passing), now_ms=self.world.stream_ms) if passing else ()
        )
        answers = []
        for record in records:
            result = PutFailure("InternalFailure", "stuck") if self._is_stuck(record) else next(results)
            if isinstance(result, PutFailure):
                answers.append(EntryAnswer(None, None, result.code, result.message))
            else:
                answers.append(EntryAnswer(result.shard_id, result.sequence_number))
        return answers

    def _land(self, core: ProducerCore, request: PutRequest, *, answer: bool, life: int) -> None:
        self.requests_out -= 1
        try:
            answers = self._put(request.records)
        except KinesisError:
            answer = False
            answers = []
        if life != self.life:
            return

        def landed() -> None:
            nonlocal answer
            try:
                self.board.reach("put.after")
            except Exception:  # noqa: BLE001 - the answer is lost
                answer = False
                self.after(_TIMEOUT_MS, lambda: self._fail(core, request))
            if answer:
                back = lambda: (core.answered(request.request_id, answers, self._now_ms), self._pump())  # noqa: E731
                self.after(self.rng.randrange(1, 40), back)

        if self.is_busy:
            self.after(0, landed)
        else:
            self.act(landed)


def _entries(records: Sequence[OutRecord]) -> list[PutEntry]:
    return [PutEntry(record.partition_key, record.data, record.explicit_hash_key) for record in records]
