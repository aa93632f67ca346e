"""A stream in memory, read as boto3 would read it, and an archive in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from botocore.exceptions import ClientError

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.control import Ledger, Tick, control_event, ledger_event
from streamgauge.events.envelope import OwnSource, encode_event
from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.events.mapping import EventMapping
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.events.times import instant_ms, rfc3339
from streamgauge.infra.local.kinesis.errors import KinesisError
from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.infra.local.kinesis.model import KinesisModel, PutEntry, PutResult
from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.claim_watch import ClaimWatch
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.commit.lineage import register_shards
from streamgauge.processors.commit.memory import MemoryReceiver, MemoryStateStore
from streamgauge.processors.commit.ports import ParentBehind, Receivers, ShardRow
from streamgauge.processors.commit.s3 import ArchiveReceiver
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.core.effects import PaneBatch, ThresholdEvent
from streamgauge.processors.core.parse import parse_pipeline
from streamgauge.processors.hosts.shard_reader import ShardReader
from streamgauge.processors.hosts.time_zones import load_time_zone
from streamgauge.sinks.archive.files import ArchiveFiles
from streamgauge.sinks.archive.objects import FolderObjects
from streamgauge.sinks.archive.tables import ArchiveTables
from streamgauge.sinks.audit.audit import audit
from streamgauge.sinks.audit.report import AuditReport
from streamgauge.sinks.delivery.delivery import Delivery
from streamgauge.sinks.delivery.settings import DeliverySettings
from streamgauge.sinks.queries.results import ResultPane, results
from streamgauge.sinks.queries.sql import query

Answer = TypeVar("Answer")

STREAM = "observations"
T0 = instant_ms("2026-03-01T10:15:00Z")
OURS = str(OwnSource(UUID("a8098c1a-f86e-11da-bd1a-00112444be1e"), 1024))

V1: dict[str, object] = {
    "type": "object",
    "properties": {"temp": {"type": ["number", "null"]}, "wind": {"type": "integer", "minimum": 0}},
    "required": ["wind"],
}
V2: dict[str, object] = {
    "type": "object",
    "properties": {
        "temp": {"type": ["number", "null"]},
        "wind": {"type": "number", "minimum": 0},
        "unit": {"type": "string", "default": "mph"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "place": {"type": "object", "properties": {"lat": {"type": "number"}}},
    },
    "required": ["wind"],
}
CATALOGUE = Catalogue(
    [
        EventSchema("weather.observation", 1, V1),
        EventSchema("weather.observation", 2, V2),
        EventSchema("sea-level", 1, {"type": "object", "properties": {"cm": {"type": "integer"}}, "required": ["cm"]}),
    ]
)
WEATHER = "weather.observation"


def event(
    sequence: int | None,
    *,
    subject: str = "LGA",
    at_ms: int = T0,
    type: str = WEATHER,
    data: object = None,
    source: str = OURS,
    **attributes: object,
) -> bytes:
    """One CloudEvent as bytes: of ours with a sequence, foreign with an ``id`` among the attributes."""
    body: dict[str, object] = {
        "specversion": "1.0",
        "id": str(sequence),
        "source": source,
        "type": type,
        "time": rfc3339(at_ms),
        "subject": subject,
    }
    if sequence is not None:
        body["sequence"] = f"{sequence:020}"
    content = {"data": {"wind": 3, "temp": 11.5} if data is None else data}
    return json.dumps(body | attributes | content).encode()


def aggregate(*records: tuple[str, bytes]) -> PutEntry:
    """A KPL aggregate of (partition key, payload)."""
    builder = AggregateBuilder()
    for key, payload in records:
        builder.add(UserRecord(key, None, payload))
    return PutEntry(builder.partition_key, builder.encode())


class ModelKinesis:
    """boto3's client over the model; `now_ms` is its clock."""

    def __init__(self, model: KinesisModel, now_ms: int) -> None:
        self.model = model
        self.now_ms = now_ms
        self.reads = 0

    def list_shards(self, *, StreamName: str) -> Mapping[str, object]:  # noqa: N803
        shards, _ = self._call(lambda: self.model.list_shards(StreamName, now_ms=self.now_ms))
        return {
            "Shards": [
                {
                    "ShardId": shard.shard_id,
                    "HashKeyRange": {
                        "StartingHashKey": str(shard.hash_range.first),
                        "EndingHashKey": str(shard.hash_range.last),
                    },
                    "SequenceNumberRange": {"StartingSequenceNumber": "0"}
                    | ({} if shard.closed_ms is None else {"EndingSequenceNumber": "1"}),
                    **dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False)),
                }
                for shard in shards
            ]
        }

    def get_shard_iterator(self, *, Timestamp: datetime | None = None, **arguments: str) -> Mapping[str, object]:  # noqa: N803
        timestamp = Timestamp
        iterator = self._call(
            lambda: self.model.get_shard_iterator(
                arguments["StreamName"],
                arguments["ShardId"],
                arguments["ShardIteratorType"],  # type: ignore[arg-type]
                now_ms=self.now_ms,
                sequence_number=arguments.get("StartingSequenceNumber"),
                timestamp_ms=None if timestamp is None else round(timestamp.timestamp() * 1_000),
            )
        )
        return {"ShardIterator": iterator}

    def get_records(self, *, ShardIterator: str, Limit: int) -> Mapping[str, object]:  # noqa: N803
        self.reads += 1
        read = self._call(lambda: self.model.get_records(ShardIterator, now_ms=self.now_ms, limit=Limit))
        answer: dict[str, object] = {
            "Records": [
                {
                    "SequenceNumber": record.sequence_number,
                    "PartitionKey": record.partition_key,
                    "ApproximateArrivalTimestamp": datetime.fromtimestamp(record.arrival_ms / 1000, UTC),
                    "Data": record.data,
                }
                for record in read.records
            ],
            "MillisBehindLatest": read.behind_ms,
        }
        if read.next_iterator is not None:
            answer["NextShardIterator"] = read.next_iterator
        return answer

    def _call(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except KinesisError as error:
            raise ClientError(
                {
                    "Error": {"Code": error.code, "Message": error.what},
                    "ResponseMetadata": {"HTTPStatusCode": error.status},  # type: ignore[typeddict-item]
                },
                "Call",
            ) from error


class Crash(BaseException):
    """The process dies here."""


class CrashingObjects(FolderObjects):
    """An archive whose writer dies before or after its n-th creation."""

    def __init__(self, root: Path, *, before: int | None = None, after: int | None = None) -> None:
        super().__init__(root)
        self._before, self._after = before, after
        self.creations = 0

    def create(self, name: str, body: bytes) -> bool:
        self.creations += 1
        if self.creations == self._before:
            raise Crash
        created = super().create(name, body)
        if self.creations == self._after:
            raise Crash
        return created


class StreamWorld:
    """A stream, its clock, and its archive below `root`."""

    def __init__(self, root: Path, *, shards: int = 1) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)
        self.model = KinesisModel(limits=Limits(enforced=False))
        self.arn = self.model.create_stream(STREAM, shards, now_ms=T0).arn
        self.client = ModelKinesis(self.model, T0)
        self.files = ArchiveFiles.folder(root)

    @property
    def now_ms(self) -> int:
        return self.client.now_ms

    def pass_time(self, ms: int) -> None:
        self.client.now_ms += ms

    def put(self, *entries: PutEntry) -> list[PutResult]:
        results = self.model.put_records(STREAM, entries, now_ms=self.now_ms)
        return [result for result in results if isinstance(result, PutResult)]

    def put_plain(self, *payloads: bytes, key: str = "LGA") -> list[PutResult]:
        return self.put(*(PutEntry(key, payload) for payload in payloads))

    def delivery(
        self,
        *,
        objects: FolderObjects | None = None,
        catalogue: Catalogue = CATALOGUE,
        mapping: EventMapping | None = None,
        settings: DeliverySettings | None = None,
        accept_gap: bool = False,
    ) -> Delivery:
        return Delivery(
            self.client,
            stream=STREAM,
            stream_arn=self.arn,
            objects=objects or FolderObjects(self.root),
            catalogue=catalogue,
            mapping=mapping,
            settings=settings,
            accept_gap=accept_gap,
        )

    def run(self, delivery: Delivery, *, steps: int = 10, flush: bool = True) -> None:
        """Drive a delivery until it has seen what there is."""
        for _ in range(steps):
            self.client.now_ms = max(self.now_ms, delivery.step(self.now_ms))
        if flush:
            delivery.flush(self.now_ms)

    def deliver(self, **options: object) -> Delivery:
        delivery = self.delivery(**options)  # type: ignore[arg-type]
        self.run(delivery)
        return delivery

    def rows(self, table: str, catalogue: Catalogue = CATALOGUE) -> list[dict[str, object]]:
        """The rows of a table, in order of their positions."""
        rows = ArchiveTables(self.files, catalogue).dataset(table).to_table().to_pylist()
        return sorted(rows, key=lambda row: (row["shard_id"], int(row["sequence_number"]), row["sub_sequence_number"]))

    def positions(self, tables: Sequence[str], catalogue: Catalogue = CATALOGUE) -> list[tuple[str, int, int]]:
        """The positions of all rows of the tables, doubles included."""
        return sorted(
            (str(row["shard_id"]), int(str(row["sequence_number"])), int(str(row["sub_sequence_number"])))
            for table in tables
            for row in self.rows(table, catalogue)
        )


PIPELINE = """
[pipeline]
name = "weather"
stream = "observations"
event_types = ["weather.observation"]
schemas = "schemas"
out_of_orderness = "2s"
state_epoch = 1

[[aggregate]]
name = "wind"
key = ["subject"]
window = { tumbling = "10s" }
allowed_lateness = "5s"
where = "data.wind < 200 and type == 'weather.observation'"
measures = { n = "count()", top = "max(data.wind)", mean = "mean(data.temp)" }

[[aggregate]]
name = "all"
key = ["partitionkey"]
window = { tumbling = "1m" }
measures = { n = "count()" }

[[threshold]]
name = "gale"
aggregate = "wind"
raise_when = "top > 40"
clear_when = "top < 30"
detail_type = "Gale"
"""

EVERY_KIND = (
    PIPELINE
    + """
[[aggregate]]
name = "hops"
key = ["subject"]
window = { hopping = "12s", every = "4s" }
allowed_lateness = "5s"
measures = { n = "count()", top = "max(data.wind)" }

[[aggregate]]
name = "visits"
key = ["subject"]
window = { session = "6s", max_length = "25s" }
allowed_lateness = "9s"
measures = { n = "count()", top = "max(data.wind)" }

[[aggregate]]
name = "days"
key = ["subject"]
window = { tumbling = "1d", time_zone = "America/New_York" }
measures = { n = "count()" }

[[threshold]]
name = "surge"
aggregate = "hops"
raise_when = "top > 40"
clear_when = "top < 30"

[[threshold]]
name = "storm"
aggregate = "visits"
raise_when = "top > 40"
clear_when = "n > 1 and top < 30"
"""
)
"""The same with an aggregate for every other kind of window."""


class FolderStore(FolderObjects):
    """The processors' object store over the same folder."""

    def put(self, name: str, body: bytes) -> None:
        self.delete(name)
        self.create(name, body)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    @property
    def root(self) -> Path:
        return self._root


class ParentRecords:
    """What a child reads of its parents."""

    def __init__(self, world: PipelineWorld) -> None:
        self._world = world

    def shard(self, shard_id: str) -> Shard | None:
        return next((shard for shard in self._world.shards if shard.shard_id == shard_id), None)

    def rest(self, row: ShardRow, *, on_gap: Callable[[str], None] | None) -> Iterator[Sequence[StreamRecord]]:
        reader = self._world.reader(row.shard.shard_id, row.start, row.position)
        while not reader.is_closed:
            records = reader.read(1_000).records
            if not records and not reader.is_closed:
                raise ParentBehind("open still", where=row.shard.shard_id)
            yield records


class PipelineWorld(StreamWorld):
    """A stream, its archive, and the processor's real session and engine over state in memory."""

    def __init__(self, root: Path, *, shards: int = 1, text: str = PIPELINE, catalogue: Catalogue = CATALOGUE) -> None:
        super().__init__(root, shards=shards)
        self.pipeline = parse_pipeline(text, file="pipeline.toml", schemas=catalogue, time_zones=load_time_zone)
        self.store = MemoryStateStore()
        self.engine = core_engine(self.arn)
        self.crossings: MemoryReceiver[ThresholdEvent] = MemoryReceiver("crossings")
        self.served: MemoryReceiver[PaneBatch] = MemoryReceiver("served")
        self.archive = FolderStore(self.root)
        self._sessions: dict[str, ShardSession] = {}

    @property
    def shards(self) -> list[Shard]:
        """The shards that the stream lists."""
        found = self.model.list_shards(STREAM, now_ms=self.now_ms)[0]
        return [Shard(shard.shard_id, shard.hash_range, shard.parents) for shard in found]

    @property
    def open_shards(self) -> list[Shard]:
        """Those that take records, by hash key."""
        shards = self.shards
        parents = {parent for shard in shards for parent in shard.parents}
        return sorted((shard for shard in shards if shard.shard_id not in parents), key=lambda shard: shard.hash_range)

    def split(self, shard: Shard, at: int | None = None) -> None:
        """Split a shard in the middle of its hash keys, or so that its second child begins at `at`."""
        first, last = shard.hash_range
        self.model.split_shard(STREAM, shard.shard_id, at or (first + last + 1) // 2, now_ms=self.now_ms)
        self.pass_time(60_000)

    def merge(self, shard: Shard, adjacent: Shard) -> None:
        """Merge two adjoining shards."""
        self.model.merge_shards(STREAM, shard.shard_id, adjacent.shard_id, now_ms=self.now_ms)
        self.pass_time(60_000)

    def process(self, *, start: str = "TRIM_HORIZON", only: Collection[str] | None = None) -> None:
        """Apply what is in the stream, and commit: of all shards, or of `only` those and what they inherit from."""
        register_shards(self.store, self.shards, start=start)
        for shard in self.shards:
            if only is None or shard.shard_id in only:
                self._process(shard)

    def _process(self, shard: Shard) -> None:
        row = self.store.row(shard.shard_id)
        assert row is not None
        if row.sealed:
            return
        session = self._sessions.get(shard.shard_id)
        if session is None:
            session = self._sessions[shard.shard_id] = ShardSession.open(
                self.pipeline,
                shard,
                store=self.store,
                archive=self.archive,
                receivers=Receivers(ArchiveReceiver(self.archive), self.crossings, self.served),
                owner=f"owner-{shard.shard_id}",
                now_ms=lambda: self.now_ms,
                engine=self.engine,
                # A parent that is not at its end is applied by its child at once.
                parents=Parents(stream=ParentRecords(self), watch=ClaimWatch(lambda: 0.0), abandoned_after_s=0),
            )
        # A new one, because iterators do not live for as long as a test lets pass at once.
        reader = self.reader(shard.shard_id, session.start, session.position)
        while True:
            batch = reader.read(1_000)
            session.apply(batch.records)
            if reader.is_closed or not batch.records:
                break
        session.commit()
        if reader.is_closed:
            session.seal()

    def upgrade(self, text: str) -> None:
        """Go on with another pipeline file, as after a deployment."""
        self.pipeline = parse_pipeline(
            text, file="pipeline.toml", schemas=self.pipeline.catalogue, time_zones=load_time_zone
        )
        self._sessions.clear()

    def reader(self, shard_id: str, start: str, after: Position | None) -> ShardReader:
        """The product's own, over the stream's client."""
        return ShardReader(self.client, STREAM, shard_id, start=start, after=after, on_gap=None)  # type: ignore[arg-type]

    def audit(self, wait: Callable[[], bool] = lambda: False) -> AuditReport:
        return audit(self.pipeline, files=self.files, store=self.store, engine=self.engine, wait=wait)

    def results(self, aggregate: str, *, include_open: bool = False) -> list[ResultPane]:
        return results(
            aggregate,
            pipeline=self.pipeline,
            tables=ArchiveTables(self.files, self.pipeline.catalogue),
            store=self.store,
            engine=self.engine,
            include_open=include_open,
        )

    def query(self, sql: str) -> list[dict[str, object]]:
        return query(sql, ArchiveTables(self.files, self.pipeline.catalogue), self.pipeline).objects()


def put_weather(world: StreamWorld) -> int:
    """Events of every fate, and their ledger; the number of distinct good ones of ours."""
    count = 60
    keys = ["LGA", "JFK", "EWR"]
    for number in range(count):
        wind = 45 if number // 12 % 2 else 10
        at_ms = T0 + 1_000 * number
        key = keys[number % 3]
        payload = event(number, subject=key, at_ms=at_ms, data={"wind": wind, "temp": number / 7})
        world.put_plain(payload, key=key)
        if number % 10 == 0:
            world.put_plain(payload, key=key)
        if number % 20 == 19:
            world.put(aggregate((key, payload), (key, payload)))
    extra = count
    for at_ms, data, attributes in (
        (T0 + 41_000, {"wind": 5}, {}),
        (T0, {"wind": 5}, {}),
        (T0 + 59_000, {"wind": 500}, {}),
        (T0 + 59_000, {"wind": "strong"}, {}),
        (T0 + 59_000, {"wind": 7, "temp": "odd, and named by a measure"}, {}),
        (T0 + 59_000, {"wind": 8, "unit": 5}, {}),
        (T0 + 59_000, {"cm": 3}, {"type": "sea-level"}),
        (T0 + 59_000, {"cm": "three"}, {"type": "sea-level"}),
        (T0 + 59_000, {"wind": 9}, {"type": "unheard.of"}),
        (T0 + 999_000_000_000, {"wind": 9}, {}),
    ):
        world.put_plain(event(extra, at_ms=at_ms, data=data, **attributes))
        extra += 1
    foreign = event(None, source="https://example.org", id="7", at_ms=T0 + 59_500)
    world.put_plain(foreign, foreign, b"{", event(None, source="s", id="8", subject=""), key="LGA")
    world.put_plain(event(None, source="s", id="9"), key="not the key")
    ledger = ledger_event(OURS, Ledger([(0, extra - 1)], [], [], final=True), number=1, time_ms=T0)
    world.put(PutEntry(OURS, encode_event(ledger)))
    for shard in world.model.list_shards(STREAM, now_ms=world.now_ms)[0]:
        tick = control_event("test", Tick(T0), id=f"tick-{shard.shard_id}", time_ms=T0)
        world.put(PutEntry("x", encode_event(tick), shard.hash_range.first))
    return extra
