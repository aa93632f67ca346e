"""A daemon of the KCL in memory: it hands over user records, and takes checkpoints as the real one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from commit_world import SCRIPTED_HANDOVER, World, memory_world
from scripted_kinesis import ScriptedKinesis

from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.events.times import instant_ms
from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.archive_rows import PANES, PaneRow, decode_rows
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.hosts.kcl.child_log import Progress
from streamgauge.processors.hosts.kcl.messages import Action, Initialize, ProcessRecords, Record
from streamgauge.processors.hosts.kcl.shard_processor import ShardProcessor
from streamgauge.processors.hosts.parent_stream import KinesisParents
from streamgauge.processors.hosts.shard_run import LocalSettings

__all__ = ["Child", "Log", "Office"]


@dataclass
class Log:
    shard: str = ""
    entries: list[tuple[str, str, str]] = field(default_factory=list)
    last: Progress | None = None

    def __call__(self, event: str, message: str, *, level: str = "info", progress: Progress | None = None) -> None:
        self.entries.append((event, message, level))
        self.last = progress or self.last

    def said(self, event: str) -> list[str]:
        return [message for name, message, _ in self.entries if name == event]


@dataclass
class Office:
    """The world, a clock that only waiting moves, and the leases' checkpoints as the KCL keeps them."""

    kinesis: ScriptedKinesis
    world: World = field(default_factory=memory_world)
    now_s: float = 0.0
    checkpoints: dict[str, str] = field(default_factory=dict)
    on_sleep: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.on_sleep()

    def child(self, settings: LocalSettings | None = None, **changes: object) -> Child:
        return Child(self, settings or LocalSettings(**changes))  # type: ignore[arg-type]

    @property
    def counted(self) -> list[int]:
        """The numbers of the records whose panes have left, in the order of their archive objects."""
        archive = self.world.archive
        rows = [
            row
            for name in archive.names("")
            if f"type={PANES}/" in name
            for row in decode_rows(archive.get(name) or b"", PaneRow)
        ]
        return [instant_ms(row.window_start) // 1_000 for row in rows]


class Child:
    """One child, and the daemon that talks to it: it keeps to the KCL's rules for checkpoints."""

    def __init__(self, office: Office, settings: LocalSettings) -> None:
        self.office = office
        self.log = Log()
        self.errors: list[str] = []
        self.delivered: Position | None = None
        self.shard_id = ""
        watch = ClaimWatch(lambda: office.now_s)
        stream = KinesisParents(office.kinesis, "observations", sleep=office.sleep)  # type: ignore[arg-type]
        parents = Parents(stream=stream, watch=watch, abandoned_after_s=30.0, handover=SCRIPTED_HANDOVER)

        def open_session(shard: Shard, start: str, *, owner: str, seen_version: int | None) -> ShardSession:
            return office.world.open(shard, start, owner=owner, seen_version=seen_version, parents=parents)

        self.processor = ShardProcessor(
            "observations",
            office.kinesis,  # type: ignore[arg-type]
            office.world.store,
            open_session,
            settings=settings,
            say=self.log,
            sleep=office.sleep,
            clock=lambda: office.now_s,
        )

    def do(self, action: Action) -> list[str]:
        """Carry out an action to its status; the checkpoints that were taken on the way."""
        taken: list[str] = []
        requests = self.processor.handle(action)
        try:
            asked = next(requests)
            while True:
                error = self.errors.pop(0) if self.errors else None
                if error is None:
                    taken.append(self._take(asked))
                asked = requests.send(error)
        except StopIteration:
            return taken

    def _take(self, asked: Position | None) -> str:
        last = self.office.checkpoints.get(self.shard_id, "TRIM_HORIZON")
        if asked is not None:
            assert self.delivered is not None and asked <= self.delivered, "IllegalArgumentException"
            assert not last[0].isdigit() or Position.parse(last) <= asked, "IllegalArgumentException"
            row = self.office.world.store.row(self.shard_id)
            assert row is not None and row.position is not None and asked <= row.position, "past unapplied data"
        self.office.checkpoints[self.shard_id] = "SHARD_END" if asked is None else str(asked)
        return self.office.checkpoints[self.shard_id]

    def start(self, shard_id: str = "shardId-000000000000") -> Child:
        self.shard_id = shard_id
        number, _, sub = self.office.checkpoints.get(shard_id, "TRIM_HORIZON").partition("/")
        self.do(Initialize(shard_id, number, int(sub or 0)))
        return self

    def hand_over(self, *records: StreamRecord, later_s: float = 0.0, behind_ms: int = 0) -> list[str]:
        self.office.now_s += later_s
        taken = [Record(r.sequence_number, r.partition_key, r.arrival_ms, r.data) for r in records]
        if records:
            self.delivered = Position(int(records[-1].sequence_number), 0)
        return self.do(ProcessRecords(taken, behind_ms))
