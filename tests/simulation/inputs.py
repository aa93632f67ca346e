"""What producers are given: events of every kind, and what should become of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from simulation.faults import Kind
from simulation.pipelines import NOT_READ, WIND
from streamgauge.events.hash_key import FULL_RANGE, hash_key
from streamgauge.events.records import MAX_RECORD_BYTES
from streamgauge.events.times import rfc3339
from streamgauge.producers.client.core import EventTooLarge, ProducerCore
from streamgauge.producers.client.delivery import Acknowledged, Delivery, GivenUp, Unknown
from streamgauge.producers.client.encoding import EnvelopeEncoder

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["QUIET_MS", "Attempt", "Inputs"]

QUIET_MS = 24_000
"""So long nothing is put in the middle of a ``backlog``."""
_AHEAD_MS = 25_000
"""So far ahead in event time the keys of the upper half are where shards stand ``apart``."""
_UPPER_HALF = FULL_RANGE.even_parts(2)[1]


@dataclass
class Attempt:
    """One event that was handed to a producer, and what the producer said of it.

    `fate` is what should become of it once it is in the stream: ``counted``, ``failed`` or ``not read``. `identity` is
    (source, sequence of 20 digits) of ours, (source, id) of foreign ones, None without one; `payload` is kept of raw
    ones. `outcome` stays None where the producer died before it could tell.
    """

    fate: str
    identity: tuple[str, str] | None
    subject: str
    time_ms: int
    n: int
    speed: float
    place: str
    payload: bytes = b""
    outcome: str | None = None
    landed: tuple[str, int, int] | None = None

    def told(self, done: Delivery) -> None:
        """The producer gives its word."""
        match done.outcome:
            case Acknowledged(shard_id, position):
                self.outcome = "acknowledged"
                self.landed = shard_id, *position
            case GivenUp():
                self.outcome = "given up"
            case Unknown():
                self.outcome = "unknown"


class Inputs:
    """Makes the events of one producer, whose clock may be off, and puts them."""

    def __init__(self, world: World, name: str, rng: Random, *, events: int) -> None:
        self._world = world
        self._half = events // 2
        self._name = name
        self._rng = rng
        self._skew_ms = 0
        self._puts = 0
        self._sequences: dict[str, int] = {}

    def put(self, core: ProducerCore) -> None:
        """Put the next event, and whatever else has been planned for now."""
        self._puts += 1
        attempt = self._make()
        board = self._world.board
        board.reach("event.before")
        if board.take_note(Kind.SKEW):
            self._skew_ms = self._rng.choice((-4_000, -1_500, 1_500, 4_000))
        self._put_strange(core, attempt)
        kind = self._disguised(attempt)
        copies = self._rng.choice((2, 3)) if board.take_note(Kind.COPIES) else 1
        data = _data(attempt)
        fits = True
        for limit, over in ((Kind.BELOW_LIMIT, -1), (Kind.AT_LIMIT, 0), (Kind.ABOVE_LIMIT, 1)):
            if board.take_note(limit):
                data = self._padded(core, attempt, kind, over)
                fits = over <= 0
        self._put_one(core, attempt, kind, data, copies=copies, fits=fits)

    def _make(self) -> Attempt:
        world, rng = self._world, self._rng
        subject = f"k{rng.randrange(world.plan.keys)}"
        return Attempt(
            fate="counted",
            identity=None,
            subject=subject,
            time_ms=world.clock.now_ms + self._skew_ms - self._age_ms(subject),
            n=rng.randrange(-50, 1_000),
            speed=float(rng.choice((10, 30, 55, 65, 80, 95))) + rng.choice((0.0, 0.5)),
            place=rng.choice(("hill", "sea")),
        )

    def _age_ms(self, subject: str) -> int:
        """How long before now an event happened, by its producer's clock; less than nothing: it is ahead."""
        world, rng = self._world, self._rng
        match world.plan.shape:
            case "backlog" if self._puts > self._half:
                return rng.randrange(QUIET_MS)
            case "apart" if hash_key(subject) in _UPPER_HALF:
                is_late = world.clock.now_ms < world.resharded_ms + 4_000 and rng.random() < 0.6
                return rng.randrange(2_500) + (rng.choice((6_000, 9_000, 14_000)) if is_late else 0) - _AHEAD_MS
            case _:
                return rng.randrange(2_500)

    def _put_strange(self, core: ProducerCore, like: Attempt) -> None:
        """Records that are no events of this producer's source."""
        note, stranger, key = self._world.board.take_note, self._world.stranger, like.subject
        strangers: dict[Kind, Callable[[str], None]] = {
            Kind.CORRUPT: stranger.put_corrupt,
            Kind.MISROUTED: stranger.put_misrouted,
            Kind.WRONG_KEY: stranger.put_wrong_key,
        }
        for kind, put in strangers.items():
            if note(kind):
                put(key)
        if note(Kind.POISON):
            self._put_raw(core, Attempt("failed", None, key, 0, 0, 0.0, "", b'{"specversion":"1.0",'))
        if note(Kind.FOREIGN):
            identity = "urn:elsewhere", f"{self._name}-{self._puts}"
            body = _foreign(identity, like)
            for _ in range(2):
                self._put_raw(core, Attempt("counted", identity, key, 0, like.n, like.speed, like.place, body))

    def _disguised(self, attempt: Attempt) -> str:
        """Make the event one that fails, is late or is not read, if that is planned; its type."""
        note = self._world.board.take_note
        if note(Kind.BAD_DATA):
            attempt.speed, attempt.fate = 1_000.0, "failed"
        elif note(Kind.UNKNOWN_TYPE):
            attempt.fate = "failed"
            return "weather.unheard"
        elif note(Kind.NOT_READ):
            attempt.fate = "not read"
            return NOT_READ
        elif note(Kind.FUTURE):
            attempt.time_ms, attempt.fate = self._world.clock.now_ms + 600_000, "failed"
        elif note(Kind.LATE):
            attempt.time_ms -= self._rng.choice((6_000, 12_000, 40_000))
        return WIND

    def _put_one(
        self, core: ProducerCore, attempt: Attempt, kind: str, data: bytes, *, copies: int, fits: bool
    ) -> None:
        source = core.source
        try:
            delivery = core.put(
                kind,
                attempt.subject,
                attempt.time_ms,
                data,
                now_ms=self._world.clock.now_ms,
                copies=copies,
                copies_behind=self._rng.choice((0, 3)) if copies > 1 else 0,
                on_done=attempt.told,
            )
        except EventTooLarge:
            assert not fits or core.source != source, "an event that fits into a record was refused"
            return
        assert fits, "an event that does not fit into a record was taken"
        assert delivery.log is not None
        self._sequences[delivery.log.source] = delivery.sequence + 1
        attempt.identity = delivery.log.source, f"{delivery.sequence:020}"
        self._world.attempts.append(attempt)

    def _put_raw(self, core: ProducerCore, attempt: Attempt) -> None:
        self._world.attempts.append(attempt)
        core.put_raw(attempt.payload, attempt.subject, now_ms=self._world.clock.now_ms, on_done=attempt.told)

    def _padded(self, core: ProducerCore, attempt: Attempt, kind: str, over: int) -> bytes:
        """Data that make the record as large as one may be, and `over` bytes more."""
        encoder = EnvelopeEncoder(core.source)
        sequence = self._sequences.get(core.source, 0)
        bare = encoder.encode(sequence, kind, attempt.subject, attempt.time_ms, _data(attempt, pad=1))
        return _data(attempt, pad=1 + MAX_RECORD_BYTES + over - len(bare) - len(attempt.subject))


def _data(attempt: Attempt, *, pad: int = 0) -> bytes:
    data: dict[str, object] = {"n": attempt.n, "speed": attempt.speed, "place": attempt.place}
    if pad:
        data["pad"] = "x" * pad
    return json.dumps(data).encode()


def _foreign(identity: tuple[str, str], like: Attempt) -> bytes:
    source, name = identity
    event = {
        "specversion": "1.0",
        "id": name,
        "source": source,
        "type": WIND,
        "time": rfc3339(like.time_ms),
        "subject": like.subject,
        "data": {"n": like.n, "speed": like.speed, "place": like.place},
    }
    return json.dumps(event).encode()
