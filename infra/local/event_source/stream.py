"""The poller of a stream for one mapping: which shards are read when, through reshards.

Lambda's guide does not promise that parents come before children. Kinesis's own guide tells consumers to read them in
that order ("Consider data routing, data persistence, and shard state after a reshard"), and so does this poller.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamgauge.events.records import Shard, StreamRecord
from streamgauge.infra.local.event_source.actions import Action, Counters, ListShards, Patience
from streamgauge.infra.local.event_source.answers import Answered, NotInvoked
from streamgauge.infra.local.event_source.mapping import EventSourceMapping, MappingRefused, StartAt
from streamgauge.infra.local.event_source.shard import ShardPoller

__all__ = ["StreamPoller"]

_FROM_ITS_BEGINNING = StartAt("TRIM_HORIZON")


class StreamPoller:
    """One mapping. Without I/O and clock: its host carries out `actions`, and answers each once.

    Parameters
    ----------
    mapping
        A disabled one does nothing until `configure` enables it, and then goes on where it was.
    """

    def __init__(self, mapping: EventSourceMapping, patience: Patience | None = None) -> None:
        self.mapping = mapping
        self._patience = patience or Patience()
        self._polled: dict[str, ShardPoller] = {}
        self._queued: dict[str, Shard] = {}
        self._starts: dict[str, StartAt] = {}
        self._finished: set[str] = set()
        self._past = Counters()
        self._was_listed = False
        self._is_listing = False
        self._list_failures = 0
        self._list_not_before_ms = 0

    @property
    def counters(self) -> Counters:
        """Those of all shards, the finished ones too. May be asked from another thread."""
        return sum((shard.counters for shard in list(self._polled.values())), self._past)

    @property
    def checkpoints(self) -> dict[str, str | None]:
        """Up to where each shard that is read is done."""
        return {shard_id: shard.checkpoint for shard_id, shard in self._polled.items()}

    def configure(self, mapping: EventSourceMapping) -> None:
        """Put new settings in force, for batches that are not formed yet.

        Raises
        ------
        MappingRefused
            The parallelization factor has changed: records wait in as many lanes.
        """
        if mapping.parallelization_factor != self.mapping.parallelization_factor:
            raise MappingRefused(
                "it cannot be changed while the poller runs",
                where=f"event source mapping {mapping.uuid}, ParallelizationFactor",
                remedy="Start the poller anew",
            )
        self.mapping = mapping
        for shard in self._polled.values():
            shard.mapping = mapping

    def actions(self, now_ms: int) -> list[Action]:
        """What to do now."""
        if not self.mapping.is_enabled:
            return []
        found: list[Action] = []
        if not self._is_listing and now_ms >= self._list_not_before_ms:
            self._is_listing = True
            found.append(ListShards())
        for shard in list(self._polled.values()):
            found += shard.actions(now_ms)
            self._settle(shard, now_ms)
        return found

    def wake_ms(self) -> int | None:
        """When to ask for `actions` again if no answer comes before; None: only then."""
        if not self.mapping.is_enabled:
            return None
        moments = [moment for shard in self._polled.values() if (moment := shard.wake_ms()) is not None]
        if not self._is_listing:
            moments.append(self._list_not_before_ms)
        return min(moments, default=None)

    def listed(self, now_ms: int, shards: Sequence[Shard]) -> None:
        """Take the stream's shards, closed ones too."""
        self._is_listing = False
        self._list_failures = 0
        self._list_not_before_ms = now_ms + self._patience.list_interval_ms
        # What appears later is a child of what is read: all of it is new.
        is_later = self._was_listed and self.mapping.start.type == "LATEST"
        for shard in shards:
            if shard.shard_id not in self._starts:
                self._starts[shard.shard_id] = _FROM_ITS_BEGINNING if is_later else self.mapping.start
                self._queued[shard.shard_id] = shard
        self._was_listed = True
        self._start_ready()

    def list_failed(self, now_ms: int) -> None:
        """A `ListShards` gave nothing: later again."""
        self._is_listing = False
        self._list_failures += 1
        wait = max(self._patience.list_interval_ms, self._patience.backoff_ms(self._list_failures))
        self._list_not_before_ms = now_ms + wait

    def read(
        self, now_ms: int, shard_id: str, records: Sequence[StreamRecord], *, behind_ms: int, is_end: bool
    ) -> None:
        """Take what a `Read` gave; see `ShardPoller.read`."""
        shard = self._polled[shard_id]
        shard.read(now_ms, records, behind_ms=behind_ms, is_end=is_end)
        self._settle(shard, now_ms)

    def read_failed(self, now_ms: int, shard_id: str) -> None:
        """A `Read` gave nothing."""
        self._polled[shard_id].read_failed(now_ms)

    def answered(self, now_ms: int, shard_id: str, lane: int, answer: Answered | NotInvoked) -> None:
        """Take the answer to an `Invoke`."""
        shard = self._polled[shard_id]
        shard.answered(now_ms, lane, answer)
        self._settle(shard, now_ms)

    def sent(self, now_ms: int, shard_id: str, lane: int) -> None:
        """A `SendFailure` is settled."""
        shard = self._polled[shard_id]
        shard.sent(lane)
        self._settle(shard, now_ms)

    def _settle(self, shard: ShardPoller, now_ms: int) -> None:
        if not shard.is_finished:
            return
        del self._polled[shard.shard_id]
        self._finished.add(shard.shard_id)
        shard.counters.behind_ms = 0
        self._past += shard.counters
        self._start_ready()
        # Its children may not have been seen yet.
        self._list_not_before_ms = min(self._list_not_before_ms, now_ms)

    def _start_ready(self) -> None:
        for shard in list(self._queued.values()):
            # A parent that was never listed is gone from the stream.
            if all(parent in self._finished or parent not in self._starts for parent in shard.parents):
                del self._queued[shard.shard_id]
                start = self._starts[shard.shard_id]
                self._polled[shard.shard_id] = ShardPoller(self.mapping, shard.shard_id, start, self._patience)
