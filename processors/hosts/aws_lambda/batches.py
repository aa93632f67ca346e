"""One batch on its way through an invocation, and what is answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from streamgauge.events.position import Position
from streamgauge.events.records import StreamRecord
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.core.counters import Counters

__all__ = ["Answer", "Batch", "Work", "runs"]


@dataclass(slots=True)
class Work:
    """What an invocation has done, for logs and metrics.

    ``before`` and ``after`` are the shard's counters; what a fenced session counted has not happened.
    ``is_overtaken``: the state at hand was an old one, and was let go before anything was applied to it.
    """

    claims: int = 0
    is_overtaken: bool = False
    conflicts: int = 0
    gap_records: int = 0
    commit_s: float = 0.0
    before: Counters = field(default_factory=Counters)
    after: Counters = field(default_factory=Counters)
    committed: Position | None = None
    snapshot_bytes: int = 0
    outbox_entries: int = 0
    watermark_ms: int | None = None
    waiting_for: str | None = None

    def begin(self, session: ShardSession) -> None:
        """From now on `session` works on the batch."""
        self.before = deepcopy(session.counters)
        self.look(session)

    def look(self, session: ShardSession) -> None:
        """Note how far the session is."""
        self.after = deepcopy(session.counters)
        self.committed = session.committed
        self.snapshot_bytes = session.snapshot_bytes
        self.outbox_entries = session.outbox_entries
        self.watermark_ms = session.watermark_ms
        self.waiting_for = session.waiting_for

    def undo(self) -> None:
        """The session was fenced."""
        self.after = self.before


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a batch. ``failed_from`` is the sequence number of its first record that is not committed.

    None: all of it is. ``reason`` says why something was left.
    """

    failed_from: str | None
    reason: str | None
    work: Work


class Batch:
    """Records of one shard in stream order, at least one."""

    def __init__(self, shard_id: str, records: Sequence[StreamRecord]) -> None:
        assert records, "an event source sends no empty batches"
        self.shard_id = shard_id
        self.records = records
        self.first = int(records[0].sequence_number)
        self.last = int(records[-1].sequence_number)

    def is_covered_by(self, position: Position | None) -> bool:
        """Whether a shard that is committed up to `position` needs nothing of the batch."""
        return position is not None and position.sequence_number >= self.last

    def rest(self, position: Position | None) -> str | None:
        """The sequence number of the first record after `position`; None where it covers all."""
        reached = -1 if position is None else position.sequence_number
        return next(
            (record.sequence_number for record in self.records if int(record.sequence_number) > reached),
            None,
        )


def runs(records: Sequence[StreamRecord], max_bytes: int) -> Iterator[Sequence[StreamRecord]]:
    """The records in runs of about `max_bytes`: between two of them the time that is left can be looked at."""
    first = size = 0
    for index, record in enumerate(records):
        size += len(record.data)
        if size >= max_bytes:
            yield records[first : index + 1]
            first, size = index + 1, 0
    if first < len(records):
        yield records[first:]
