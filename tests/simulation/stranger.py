"""Whoever else writes to the stream, or changes it: foreign producers, schedulers of ticks, the operator."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

from simulation.pipelines import STREAM, WIND
from streamgauge.events.control import Tick, control_event
from streamgauge.events.envelope import encode_event
from streamgauge.events.hash_key import hash_key
from streamgauge.events.kpl import KPL_MAGIC, AggregateBuilder, UserRecord
from streamgauge.events.times import rfc3339
from streamgauge.infra.local.kinesis.errors import KinesisError
from streamgauge.infra.local.kinesis.faults import Faults
from streamgauge.infra.local.kinesis.model import PutEntry, PutResult
from streamgauge.infra.local.kinesis.shards import ShardState

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["MOST_SHARDS", "Stranger"]

MOST_SHARDS = 6


class Stranger:
    """Its calls reach the stream at once and never fail."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = Random(f"{world.plan.seed} stranger")
        self._ticks = 0
        self.reshards = 0
        self.records: list[tuple[str, str]] = []
        """(shard, sequence number) of every record that must become one failed event."""

    # --- records -----------------------------------------------------------------------------------------------------

    def put_corrupt(self, key: str) -> None:
        """A KPL aggregate with a damaged byte."""
        data = bytearray(_aggregate([(key, self._event(key))]))
        data[self._rng.randrange(len(KPL_MAGIC), len(data))] ^= 1 << self._rng.randrange(8)
        self._put(PutEntry(key, bytes(data)), failed=True)

    def put_misrouted(self, key: str) -> None:
        """A foreign aggregate with a key that belongs elsewhere, if there is an elsewhere."""
        keys = [key, *(f"k{index}" for index in range(self._world.plan.keys))]
        data = _aggregate([(each, self._event(each)) for each in keys])
        shards = self._open()
        into = self._rng.choice(shards)
        is_whole = all(hash_key(each) in into.hash_range for each in keys)
        if not is_whole:
            self._put(PutEntry(key, data, into.hash_range.first), failed=True)

    def put_wrong_key(self, key: str) -> None:
        """A foreign event under another partition key than its own."""
        self._put(PutEntry(key + "x", self._event(key)), failed=True)

    def tick(self, skew_ms: int = 0, *, ahead_ms: int = 0) -> None:
        """A tick into every open shard."""
        world = self._world
        at_ms = world.clock.now_ms + skew_ms + ahead_ms
        for shard in self._open():
            self._ticks += 1
            event = control_event("sim", Tick(at_ms), id=str(self._ticks), time_ms=at_ms)
            self._put(PutEntry("sim", encode_event(event), shard.hash_range.first), failed=False)

    def _event(self, key: str) -> bytes:
        world = self._world
        event = {
            "specversion": "1.0",
            "id": f"stranger-{self._rng.getrandbits(40)}",
            "source": "urn:stranger",
            "type": WIND,
            "time": rfc3339(world.clock.now_ms),
            "subject": key,
            "data": {"n": 1, "speed": 99.0, "place": "hill"},
        }
        return json.dumps(event).encode()

    def _put(self, entry: PutEntry, *, failed: bool) -> None:
        model, faults = self._world.model, self._world.model.faults
        model.faults = Faults()
        try:
            result = model.put_records(STREAM, [entry], now_ms=self._world.stream_ms)[0]
        finally:
            model.faults = faults
        if failed and isinstance(result, PutResult):
            self.records.append((result.shard_id, result.sequence_number))

    # --- shards ------------------------------------------------------------------------------------------------------

    def split(self, size: int) -> None:
        """Split one open shard, at its middle or between two keys."""
        shards = self._open()
        if len(shards) >= MOST_SHARDS:
            return
        shard = shards[size % len(shards)]
        first, last = shard.hash_range
        within = sorted(hash_key(f"k{i}") for i in range(self._world.plan.keys))
        within = [key for key in within if first + 1 < key < last]
        at = within[size // 8 % len(within)] if within and size & 4096 else (first + last) // 2 + 1
        self._reshard(lambda: self._world.model.split_shard(STREAM, shard.shard_id, at, now_ms=self._world.stream_ms))

    def merge(self, size: int) -> None:
        """Merge two open neighbours."""
        shards = sorted(self._open(), key=lambda shard: shard.hash_range)
        if len(shards) < 2:
            return
        at = size % (len(shards) - 1)
        pair = shards[at].shard_id, shards[at + 1].shard_id
        self._reshard(lambda: self._world.model.merge_shards(STREAM, *pair, now_ms=self._world.stream_ms))

    def reshard(self, size: int) -> None:
        """Two to four splits and merges at once: the shards between stay empty."""
        rng = Random(size)
        for _ in range(rng.randint(2, 4)):
            rng.choice((self.split, self.merge))(rng.getrandbits(13))

    def _reshard(self, call: object) -> None:
        try:
            call()  # type: ignore[operator]
        except KinesisError:
            return
        self.reshards += 1
        self._world.resharded()

    def _open(self) -> list[ShardState]:
        return self._world.model.describe(STREAM, now_ms=self._world.stream_ms).open


def _aggregate(records: list[tuple[str, bytes]]) -> bytes:
    builder = AggregateBuilder()
    for key, payload in records:
        builder.add(UserRecord(key, None, payload))
    return builder.encode()
