"""Delivery: every position becomes one row, once, whatever happens to those who write it."""

from __future__ import annotations

import json
import random
import threading
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path

import pytest
from archive_world import (
    CATALOGUE,
    OURS,
    STREAM,
    T0,
    V1,
    WEATHER,
    Crash,
    CrashingObjects,
    StreamWorld,
    aggregate,
    event,
)

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.control import EndOfInput, Ledger, Tick, control_event, ledger_event
from streamgauge.events.envelope import encode_event
from streamgauge.events.hash_key import MAX_HASH_KEY, hash_key
from streamgauge.events.kpl import KPL_MAGIC
from streamgauge.events.mapping import parse_mapping
from streamgauge.infra.local.kinesis.faults import Fault, Rule, ScriptedFaults
from streamgauge.infra.local.kinesis.model import PutEntry
from streamgauge.processors.commit.ports import StoreUnavailable
from streamgauge.sinks.archive.layout import CONTROL, LEDGER, MISROUTED, UNARCHIVABLE
from streamgauge.sinks.archive.objects import FolderObjects
from streamgauge.sinks.archive.tables import ArchiveTables
from streamgauge.sinks.delivery.delivery import run_delivery
from streamgauge.sinks.delivery.settings import DeliverySettings
from streamgauge.sinks.delivery.shard import DeliveryConflict
from streamgauge.sinks.delivery.stream import StreamUnreadable, TrimmedRecords

TABLES = [WEATHER, "sea-level", CONTROL, LEDGER, MISROUTED, UNARCHIVABLE]
HOUR_MS = 3_600_000


@pytest.fixture
def world(tmp_path: Path) -> StreamWorld:
    return StreamWorld(tmp_path)


def end_of_input(input: str = "file", part: int = 0, parts: int = 1) -> bytes:
    return encode_event(control_event("test", EndOfInput(input, part, parts), id=f"{input}-{part}", time_ms=T0))


def everything(count: int) -> list[PutEntry]:
    """Records of every kind, of `count` + 8 positions."""
    good = [PutEntry("LGA", event(number)) for number in range(count - 2)]
    pair = aggregate(("LGA", event(count - 2)), ("JFK", event(count - 1, subject="JFK")))
    ledger = ledger_event(OURS, Ledger([(0, count - 1)], [], [], final=True), number=0, time_ms=T0)
    others = [
        event(100, type="sea-level", data={"cm": 7}),
        event(101, type="unheard.of"),
        event(102, dataschema="urn:streamgauge:schema:weather.observation:9"),
        event(103, data={"wind": "strong"}),
        b'{"half": ',
        encode_event(control_event("test", Tick(T0), id="tick", time_ms=T0)),
        encode_event(ledger),
        KPL_MAGIC + b"corrupt, since no digest follows",
    ]
    return [*good, pair, *(PutEntry("LGA", payload) for payload in others)]


def test_every_position_becomes_one_row_of_its_table(world: StreamWorld) -> None:
    world.put(*everything(6))
    world.deliver()
    assert len(world.rows(WEATHER)) == 6
    assert len(world.rows("sea-level")) == len(world.rows(CONTROL)) == len(world.rows(LEDGER)) == 1
    reasons = [row["reason"] for row in world.rows(UNARCHIVABLE)]
    assert reasons == ["unknown_type", "unknown_version", "data", "malformed_json", "corrupt_aggregate"]
    positions = world.positions(TABLES)
    assert len(positions) == len(set(positions)) == 14


def test_a_row_holds_envelope_data_and_position(world: StreamWorld) -> None:
    world.pass_time(1_234)
    payload = event(
        7, subject="LGA", partitionkey="NY", traceparent="00-1", colour="red", data={"wind": 4, "extra": [1]}
    )
    (put,) = world.put_plain(payload, key="NY")
    world.deliver()
    (row,) = world.rows(WEATHER)
    assert row == {
        "id": "7",
        "source": OURS,
        "type": WEATHER,
        "time": datetime.fromtimestamp(T0 / 1000, UTC),
        "subject": "LGA",
        "dataschema": None,
        "datacontenttype": None,
        "partitionkey": "NY",
        "sequence": "00000000000000000007",
        "traceparent": "00-1",
        "extensions": '{"colour":"red"}',
        "data": {"temp": None, "wind": 4.0, "unit": "mph", "tags": None, "place": None},
        "data_rest": '{"extra":[1]}',
        "shard_id": put.shard_id,
        "sequence_number": put.sequence_number,
        "sub_sequence_number": 0,
        "arrival": datetime.fromtimestamp((T0 + 1_234) / 1000, UTC),
        "dt": "2026-03-01",
        "hour": "10",
    }


def test_an_older_version_is_read_as_the_newest(world: StreamWorld) -> None:
    old = event(
        0, dataschema="urn:streamgauge:schema:weather.observation:1", data={"wind": 3, "unit": "never declared"}
    )
    new = event(1, data={"wind": 2.5, "unit": "kn", "tags": ["a", "b"], "place": {"lat": 40, "lon": -73}})
    world.put_plain(old, new)
    world.deliver()
    first, second = world.rows(WEATHER)
    assert first["data"] == {"temp": None, "wind": 3.0, "unit": "mph", "tags": None, "place": None}
    assert first["data_rest"] == '{"unit":"never declared"}'
    assert second["data"] == {"temp": None, "wind": 2.5, "unit": "kn", "tags": ["a", "b"], "place": {"lat": 40.0}}
    assert second["data_rest"] == '{"place":{"lon":-73}}'


def test_a_damaged_event_of_ours_keeps_its_identity(world: StreamWorld) -> None:
    world.put_plain(event(5)[:-20], event(6, data={"wind": -1}), event(8, subject=""))
    world.deliver()
    rows = world.rows(UNARCHIVABLE)
    assert [(row["source"], row["identity"]) for row in rows] == [(OURS, f"{n:020}") for n in (5, 6, 8)]
    assert [row["reason"] for row in rows] == ["malformed_json", "data", "key"]
    assert rows[0]["payload"] == event(5)[:-20]


def test_records_are_read_through_the_mapping_but_ours_and_control_records_are_not(world: StreamWorld) -> None:
    mapping = parse_mapping(
        {"time": "at", "time_format": "epoch_ms", "type": "'weather.observation'", "key": "station"}, where="[event]"
    )
    raw = json.dumps({"at": T0, "station": "EWR", "wind": 9}).encode()
    world.put(PutEntry("EWR", raw), PutEntry("LGA", event(0)), PutEntry("x", end_of_input()), PutEntry("x", b"[]"))
    world.deliver(mapping=mapping)
    mapped, ours = world.rows(WEATHER)
    assert (mapped["subject"], mapped["source"], mapped["sequence"]) == ("EWR", world.arn, None)
    assert mapped["id"] == f"{mapped['sequence_number']}/0"
    assert mapped["data"] == {"temp": None, "wind": 9.0, "unit": "mph", "tags": None, "place": None}
    assert json.loads(str(mapped["data_rest"])) == {"at": T0, "station": "EWR"}
    assert ours["source"] == OURS
    assert len(world.rows(CONTROL)) == len(world.rows(UNARCHIVABLE)) == 1


def test_a_misrouted_aggregate_of_ours_is_no_event_and_a_foreign_one_is_unarchivable(tmp_path: Path) -> None:
    world = StreamWorld(tmp_path, shards=2)
    low = next(key for key in map(str, range(99)) if hash_key(key) <= MAX_HASH_KEY // 2)
    high = next(key for key in map(str, range(99)) if hash_key(key) > MAX_HASH_KEY // 2)
    world.put(
        aggregate((low, event(0, subject=low)), (high, event(1, subject=high))),
        aggregate((low, event(None, subject=low, source="s", id="1")), (high, event(None, source="s", id="2"))),
    )
    world.deliver()
    assert world.rows(WEATHER) == []
    assert [row["identity"] for row in world.rows(MISROUTED)] == [f"{0:020}", f"{1:020}"]
    assert [row["reason"] for row in world.rows(UNARCHIVABLE)] == ["misrouted_aggregate"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_any_step_neither_loses_nor_doubles_a_row(tmp_path: Path, moment: str) -> None:
    settings = DeliverySettings(max_rows=4)
    undisturbed = StreamWorld(tmp_path / "undisturbed")
    undisturbed.put(*everything(9))
    whole = CrashingObjects(undisturbed.root)
    undisturbed.deliver(settings=settings, objects=whole)
    expected = undisturbed.positions(TABLES)
    assert whole.creations > 10
    for step in range(1, whole.creations + 1):
        world = StreamWorld(tmp_path / str(step))
        world.put(*everything(9))
        dying = CrashingObjects(world.root, **{moment: step})
        with pytest.raises(Crash):
            world.deliver(settings=settings, objects=dying)
        world.pass_time(1_000)
        world.deliver(settings=settings)
        assert world.positions(TABLES) == expected, f"crash {moment} creation {step}"


def test_a_restart_cuts_an_unfinished_range_where_it_was_cut_before(world: StreamWorld) -> None:
    world.put(*everything(6))
    with pytest.raises(Crash):
        world.deliver(objects=CrashingObjects(world.root, after=2))
    written = {path: path.read_bytes() for path in world.root.rglob("*.parquet")}
    assert len(written) == 1
    world.put_plain(event(50))
    world.deliver()
    assert all(path.read_bytes() == body for path, body in written.items())
    ranges = ArchiveTables(world.files, CATALOGUE).ranges
    assert [item.number for item in ranges] == [0, 1]
    assert len(world.positions(TABLES)) == len(set(world.positions(TABLES))) == 15


@pytest.mark.parametrize("seed", range(20))
def test_two_deliverers_at_once_do_no_harm(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    world = StreamWorld(tmp_path, shards=2)
    deliveries = [
        world.delivery(settings=DeliverySettings(max_rows=chance.randint(2, 6), max_age_ms=chance.choice([500, 5_000])))
        for _ in range(2)
    ]
    put = 0
    for _ in range(60):
        if chance.random() < 0.4:
            key = chance.choice("abcdefgh")
            world.put_plain(event(put, subject=key), key=key)
            put += 1
        if chance.random() < 0.1:
            chance.choice(deliveries).flush(world.now_ms)
        chance.choice(deliveries).step(world.now_ms)
        world.pass_time(chance.choice([0, 300, 1_000]))
    for delivery in deliveries:
        world.run(delivery)
    positions = world.positions(TABLES)
    assert len(positions) == len(set(positions)) == put


def test_resharding_loses_nothing_and_children_wait_for_their_parents(tmp_path: Path) -> None:
    world = StreamWorld(tmp_path, shards=1)
    delivery = world.delivery()
    keys = [f"k{number}" for number in range(20)]
    put = 0

    def put_all() -> None:
        nonlocal put
        for key in keys:
            world.put_plain(event(put, subject=key), key=key)
            put += 1

    put_all()
    parent = world.model.list_shards(STREAM, now_ms=world.now_ms)[0][0]
    delivery.step(world.now_ms)
    world.model.split_shard(STREAM, parent.shard_id, 2**127, now_ms=world.now_ms)
    world.pass_time(60_000)
    put_all()
    left, right = (shard.shard_id for shard in world.model.list_shards(STREAM, now_ms=world.now_ms)[0][1:])
    world.run(delivery, flush=False)
    world.model.merge_shards(STREAM, left, right, now_ms=world.now_ms)
    world.pass_time(60_000)
    put_all()
    world.run(delivery)
    assert len(set(world.positions([WEATHER]))) == len(world.positions([WEATHER])) == put
    assert delivery.progress.closed_shards == 3
    restarted = world.deliver()
    assert restarted.progress.objects == 0
    assert restarted.progress.closed_shards == 3


def test_a_range_ends_at_its_bounds(world: StreamWorld) -> None:
    def ranges() -> int:
        return len(ArchiveTables(world.files, CATALOGUE).ranges)

    delivery = world.delivery(settings=DeliverySettings(max_rows=3, max_age_ms=5_000, max_bytes=10_000))
    world.put_plain(*(event(number) for number in range(7)))
    delivery.step(world.now_ms)
    assert ranges() == 2
    world.pass_time(4_999)
    delivery.step(world.now_ms)
    assert ranges() == 2
    world.pass_time(1)
    delivery.step(world.now_ms)
    world.pass_time(5_000)
    delivery.step(world.now_ms)
    assert ranges() == 3
    world.put_plain(event(7), event(8, data={"wind": 1, "note": "x" * 20_000}))
    world.pass_time(1_000)
    delivery.step(world.now_ms)
    assert ranges() == 4


def test_a_new_hour_ends_a_range(world: StreamWorld) -> None:
    delivery = world.delivery()
    world.put_plain(event(0))
    world.pass_time(HOUR_MS)
    world.put_plain(event(1))
    delivery.step(world.now_ms)
    assert [row["hour"] for row in world.rows(WEATHER)] == ["10"]
    delivery.flush(world.now_ms)
    assert [row["hour"] for row in world.rows(WEATHER)] == ["10", "11"]


def test_an_object_is_named_by_shard_and_position_range(world: StreamWorld) -> None:
    puts = world.put_plain(event(0), event(1), event(2))
    world.deliver()
    (name,) = world.files.names(f"type={WEATHER}/")
    stem = f"{puts[0].shard_id}-{puts[0].sequence_number}-{puts[2].sequence_number}"
    assert name == f"type={WEATHER}/dt=2026-03-01/hour=10/{stem}.parquet"


def test_a_shard_is_read_twice_a_second_at_most(world: StreamWorld) -> None:
    delivery = world.delivery()
    for number in range(100):
        world.put_plain(event(number))
        delivery.step(world.now_ms)
        world.pass_time(100)
    assert world.client.reads <= 20


@pytest.mark.parametrize(
    "fault", [Fault.THROTTLE, Fault.EXPIRE_ITERATOR, Fault.UNAVAILABLE, Fault.LOSE_ANSWER, Fault.EMPTY_READ]
)
def test_faults_of_the_stream_delay_and_lose_nothing(world: StreamWorld, fault: Fault) -> None:
    world.model.faults = ScriptedFaults(Rule(fault, "GetRecords", skip=2, times=3))
    delivery = world.delivery()
    for number in range(10):
        world.put_plain(event(number))
        world.run(delivery, steps=2, flush=False)
    world.run(delivery)
    assert len(set(world.positions([WEATHER]))) == len(world.positions([WEATHER])) == 10


def test_records_trimmed_before_they_were_delivered_stop_delivery_or_are_written_down(world: StreamWorld) -> None:
    world.put_plain(event(0))
    world.deliver()
    world.pass_time(HOUR_MS)
    world.put_plain(event(1))
    world.pass_time(24 * HOUR_MS)
    world.put_plain(event(2))
    with pytest.raises(TrimmedRecords, match="accept-gap"):
        world.deliver()
    world.deliver(accept_gap=True)
    assert [row["id"] for row in world.rows(WEATHER)] == ["0", "2"]
    ranges = ArchiveTables(world.files, CATALOGUE).ranges
    assert [item.gap is not None for item in ranges] == [False, True]


def test_an_unfinished_range_is_not_finished_with_other_schemas(world: StreamWorld) -> None:
    world.put(*everything(6))
    with pytest.raises(Crash):
        world.deliver(objects=CrashingObjects(world.root, after=2))
    with pytest.raises(DeliveryConflict, match="other schemas"):
        world.deliver(catalogue=Catalogue([EventSchema("unheard.of", 1, V1)]))
    world.deliver()
    assert len(set(world.positions(TABLES))) == len(world.positions(TABLES)) == 14


def test_an_archive_of_another_stream_is_refused(world: StreamWorld) -> None:
    world.put_plain(event(0))
    world.deliver()
    world.arn += "-other"
    with pytest.raises(DeliveryConflict, match="an archive of its own"):
        world.deliver()


def test_a_stream_that_does_not_exist_is_a_clear_error(world: StreamWorld) -> None:
    world.model.delete_stream(STREAM, now_ms=world.now_ms)
    with pytest.raises(StreamUnreadable, match="ResourceNotFoundException"):
        world.deliver()


def test_an_input_has_ended_once_all_its_parts_are_in_every_open_shard(tmp_path: Path) -> None:
    world = StreamWorld(tmp_path, shards=2)
    delivery = world.delivery()
    keys = [0, 2**127]

    def put(payload: bytes, shard: int) -> None:
        world.put(PutEntry("x", payload, keys[shard]))
        world.run(delivery, steps=4, flush=False)

    put(end_of_input(parts=2, part=0), 0)
    put(end_of_input(parts=2, part=0), 1)
    put(end_of_input(parts=2, part=1), 0)
    assert not delivery.input_ended
    restarted = world.delivery()
    put(end_of_input(parts=2, part=1), 1)
    world.run(restarted, steps=4, flush=False)
    assert delivery.input_ended
    assert restarted.input_ended
    first = world.model.list_shards(STREAM, now_ms=world.now_ms)[0][0]
    world.model.split_shard(STREAM, first.shard_id, 2**126, now_ms=world.now_ms)
    world.pass_time(60_000)
    world.run(delivery)
    assert delivery.input_ended
    world.put(PutEntry("x", event(0), keys[1]))
    world.run(delivery)
    assert not delivery.input_ended


def test_the_loop_ends_at_the_end_of_input_and_has_flushed(world: StreamWorld) -> None:
    world.put_plain(event(0), event(1), end_of_input())
    progress = run_delivery(
        world.delivery(), stop=threading.Event(), now_ms=lambda: world.now_ms, until_end_of_input=True
    )
    assert progress.rows == {WEATHER: 2, CONTROL: 1}
    assert not progress.undelivered
    assert len(world.rows(WEATHER)) == 2


def test_the_loop_flushes_when_it_is_stopped(world: StreamWorld) -> None:
    world.put_plain(event(0))
    stop = threading.Event()
    run_delivery(world.delivery(), stop=stop, now_ms=lambda: world.now_ms, on_progress=lambda progress: stop.set())
    assert len(world.rows(WEATHER)) == 1


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    digests = []
    for name in "ab":
        world = StreamWorld(tmp_path / name)
        world.put(*everything(6))
        world.deliver()
        digests.append({name: md5(world.files.read(name)).digest() for name in world.files.names("")})
    assert digests[0] == digests[1]


def test_a_folder_shows_no_half_written_object(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    assert objects.create("a/b", b"first")
    assert not objects.create("a/b", b"second")
    assert objects.get("a/b") == b"first"
    assert objects.get("a/c") is None
    assert objects.names("a/") == ["a/b"]


def test_a_closed_shard_is_left_alone(world: StreamWorld) -> None:
    world.put_plain(event(0))
    parent = world.model.list_shards(STREAM, now_ms=world.now_ms)[0][0]
    world.model.split_shard(STREAM, parent.shard_id, 2**127, now_ms=world.now_ms)
    world.pass_time(60_000)
    delivery = world.delivery()
    world.run(delivery)
    start_ms, reads = world.now_ms, world.client.reads
    world.run(delivery, steps=20)
    assert world.now_ms - start_ms >= 9_000
    assert world.client.reads - reads <= 2 * ((world.now_ms - start_ms) // 1_000 + 1)


def test_a_child_is_read_once_its_parent_is_whole(world: StreamWorld) -> None:
    world.put_plain(event(0))
    parent = world.model.list_shards(STREAM, now_ms=world.now_ms)[0][0]
    world.model.split_shard(STREAM, parent.shard_id, 2**127, now_ms=world.now_ms)
    world.pass_time(60_000)
    world.model.faults = ScriptedFaults(Rule(Fault.THROTTLE, "GetRecords", shard_id=parent.shard_id, times=3))
    world.put_plain(event(1))
    delivery = world.delivery()
    for _ in range(3):
        delivery.step(world.now_ms)
        delivery.flush(world.now_ms)
        world.pass_time(1_000)
    assert world.rows(WEATHER) == []
    world.run(delivery)
    assert [row["id"] for row in world.rows(WEATHER)] == ["0", "1"]


def test_a_shard_that_the_stream_forgot_before_its_end_was_delivered_is_not_lost_silently(world: StreamWorld) -> None:
    world.put_plain(event(0))
    world.deliver()
    parent = world.model.list_shards(STREAM, now_ms=world.now_ms)[0][0]
    world.put_plain(event(1))
    world.model.split_shard(STREAM, parent.shard_id, 2**127, now_ms=world.now_ms)
    world.pass_time(26 * HOUR_MS)
    world.put_plain(event(2))
    assert parent.shard_id not in {each.shard_id for each in world.model.list_shards(STREAM, now_ms=world.now_ms)[0]}
    with pytest.raises(TrimmedRecords, match="forgotten the shard"):
        world.deliver()
    world.deliver(accept_gap=True)
    assert [row["id"] for row in world.rows(WEATHER)] == ["0", "2"]
    last = [item for item in ArchiveTables(world.files, CATALOGUE).ranges if item.shard_id == parent.shard_id][-1]
    assert last.closed and last.gap is not None
    world.deliver()


def test_a_shard_delivered_to_its_end_may_be_forgotten(world: StreamWorld) -> None:
    world.put_plain(event(0))
    parent = world.model.list_shards(STREAM, now_ms=world.now_ms)[0][0]
    world.model.split_shard(STREAM, parent.shard_id, 2**127, now_ms=world.now_ms)
    world.pass_time(60_000)
    delivery = world.deliver()
    world.pass_time(26 * HOUR_MS)
    world.run(delivery)
    world.deliver()
    assert len(world.rows(WEATHER)) == 1


class FailingObjects(FolderObjects):
    """An archive that is down for a while; every second creation that it takes seems to have failed."""

    calls = 0

    def create(self, name: str, body: bytes) -> bool:
        self.calls += 1
        if self.calls < 4:
            raise StoreUnavailable("down", where="archive")
        created = super().create(name, body)
        if self.calls % 2:
            raise StoreUnavailable("the answer was lost", where="archive")
        return created


def test_an_archive_that_is_down_delays_and_loses_nothing(world: StreamWorld) -> None:
    delivery = world.delivery(objects=FailingObjects(world.root), settings=DeliverySettings(max_rows=2))
    world.put(*everything(9))
    delivery.step(world.now_ms)
    assert delivery.progress.trouble == "archive: down"
    world.run(delivery, steps=40, flush=False)
    assert delivery.progress.trouble is None
    world.run(world.delivery())
    assert len(set(world.positions(TABLES))) == len(world.positions(TABLES)) == 17
