"""The audit over streams that were split and merged: identities are judged along the lineage, panes counted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from archive_world import CATALOGUE, OURS, T0, WEATHER, FolderStore, PipelineWorld, aggregate, event

from streamgauge.events.control import Tick, control_event
from streamgauge.events.envelope import encode_event
from streamgauge.events.hash_key import hash_key
from streamgauge.events.records import Shard
from streamgauge.events.times import rfc3339
from streamgauge.infra.local.kinesis.model import PutEntry
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.commit.memory import MemoryStateStore
from streamgauge.processors.commit.ports import ShardRow, StoreUnavailable
from streamgauge.processors.commit.snapshots import Snapshot, decode_snapshot, encode_snapshot
from streamgauge.processors.core.effects import Outbox
from streamgauge.sinks.archive.layout import MISROUTED
from streamgauge.sinks.audit.report import AuditReport, Check

KEYS = ["LGA", "JFK", "EWR", "BOS", "SEA"]
DAY_MS = 86_400_000


def put(world: PipelineWorld, *numbers: int, at_ms: int = T0, source: str = OURS) -> None:
    """Events of ours, each under the key that its number gives."""
    for number in numbers:
        key = KEYS[number % len(KEYS)]
        payload = event(number, subject=key, at_ms=at_ms + 100 * number, source=source)
        world.put_plain(payload, key=key)


def tick_all(world: PipelineWorld, at_ms: int) -> None:
    for shard in world.open_shards:
        tick = control_event("test", Tick(at_ms), id=f"{shard.shard_id}-{at_ms}", time_ms=at_ms)
        world.put(PutEntry("x", encode_event(tick), shard.hash_range.first))


def failing(report: AuditReport) -> dict[str, Check]:
    assert report.audit == "fail"
    return {check.name: check for check in report.failed}


def total(report: AuditReport, name: str) -> int:
    return sum(int(check.expected) for check in report.checks if check.name == name)


@pytest.fixture
def world(tmp_path: Path) -> PipelineWorld:
    """A shard was split, its children were merged, the merged one was split, with events and copies all along."""
    world = PipelineWorld(tmp_path / "archive")
    put(world, *range(10))
    world.process()
    (root,) = world.open_shards
    world.split(root)
    put(world, *range(6, 14))
    world.process()
    low, high = world.open_shards
    world.merge(low, high)
    put(world, *range(10, 18), at_ms=T0 + 5_000)
    world.process()
    (merged,) = world.open_shards
    world.split(merged)
    put(world, *range(20))
    world.process()
    world.deliver()
    return world


def shard(world: PipelineWorld, number: int) -> Shard:
    return world.shards[number]


def test_a_copy_in_any_descendant_is_a_duplicate(world: PipelineWorld) -> None:
    result = world.audit()
    assert result.failed == []
    assert total(result, "accepted") == 20
    assert total(result, "duplicates") == 4 + 4 + 18


def test_a_copy_in_a_shard_that_does_not_descend_is_an_event_of_its_own(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path, shards=2)
    low, high = world.open_shards
    for each in (low, high):
        payload = event(0)
        world.put(PutEntry("LGA", payload, each.hash_range.first))
    world.process()
    world.deliver()
    result = world.audit()
    assert result.failed == []
    # The one that is not the key's is a failed event; neither is a duplicate of the other.
    assert total(result, "accepted") == 1
    assert total(result, "failed") == 1
    assert total(result, "duplicates") == 0
    world.merge(low, high)
    world.put_plain(event(0))
    world.process()
    world.deliver()
    assert total(world.audit(), "duplicates") == 1


def test_a_foreign_copy_is_a_duplicate_within_the_horizon_of_the_last_one_in_its_lineage(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    world.put_plain(event(None, source="s", id="1"), event(None, source="s", id="2"))
    world.process()
    world.split(world.open_shards[0])
    world.pass_time(3_600_000 - 60_000)
    world.put_plain(event(None, source="s", id="1"))
    world.pass_time(1)
    world.put_plain(event(None, source="s", id="2"))
    world.process()
    world.deliver()
    result = world.audit()
    assert result.failed == []
    assert total(result, "duplicates") == 1
    assert total(result, "accepted") == 3


def test_expiry_is_judged_by_the_latest_arrival_of_the_lineage(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path, shards=2)
    low, high = world.open_shards
    ahead = next(key for key in KEYS if hash_key(key) in high.hash_range)
    behind = next(key for key in KEYS if hash_key(key) in low.hash_range)
    copy = event(None, source="s", id="1", subject=behind)
    world.put_plain(copy, key=behind)
    world.pass_time(3_700_000)
    put_one = event(None, source="s", id="2", subject=ahead)
    world.put_plain(put_one, key=ahead)
    world.process()
    world.merge(low, high)
    # The clock of the child's host is behind that of one parent.
    world.pass_time(-500_000)
    world.put_plain(copy, key=behind)
    world.process()
    world.deliver()
    result = world.audit()
    assert result.failed == []
    assert total(result, "duplicates") == 0


def test_an_event_that_was_counted_in_a_parent_and_again_in_its_child_is_seen(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    put(world, *range(10))
    world.process()
    world.split(world.open_shards[0])
    forget(world, "dedupe.")
    put(world, 3)
    world.process()
    world.deliver()
    checks = failing(world.audit())
    assert checks["duplicates"].expected == 0
    assert checks["duplicates"].found == 1
    assert checks["windows"].doubled


def test_an_open_pane_that_no_child_took_over_is_missing(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    put(world, *range(10))
    world.process()
    world.split(world.open_shards[0])
    forget(world, "aggregate.all.pane.", "aggregate.all.key.", "aggregate.all.flag.")
    world.process()
    world.deliver()
    checks = failing(world.audit())
    assert len(checks["windows"].missing) == len(KEYS)
    assert "accepted" not in checks


def forget(world: PipelineWorld, *prefixes: str) -> None:
    """What a hand-over that forgets some columns would leave: the parent seals itself, and they are gone."""
    fresh = core_engine(world.arn)
    world.process(only=[world.shards[0].shard_id])
    row = world.store.row(world.shards[0].shard_id)
    assert row is not None and row.sealed
    blob = world.store.snapshot(row)
    assert blob is not None
    snapshot = decode_snapshot(blob)
    empty = fresh(world.pipeline, row.shard, None).snapshot()
    columns = {
        name: empty.get(name, column) if name.startswith(prefixes) else column
        for name, column in snapshot.engine.items()
    }
    replace_snapshot(world, row, replace(snapshot, engine=columns))


def replace_snapshot(world: PipelineWorld, row: ShardRow, snapshot: Snapshot) -> None:
    body = encode_snapshot(snapshot)
    plain = MemoryStateStore()
    plain.create(row.shard, start=row.start)
    claimed = plain.claim(row.shard.shard_id, owner="x")
    written = plain.commit(claimed, snapshot=body, position=row.position, now_ms=0)
    world.store._rows[row.shard.shard_id] = replace(
        row, snapshot_sha256=written.snapshot_sha256, snapshot_bytes=len(body)
    )
    world.store._snapshots |= plain._snapshots


def test_open_panes_of_a_sealed_shard_are_counted_once_whoever_holds_them(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    put(world, *range(10))
    world.process()
    world.split(world.open_shards[0])
    root, low, high = world.shards
    # Sealed, and nobody has begun; then one child, then both.
    for only, begun in (([root], 0), ([low], 1), ([high], 2)):
        world.process(only=[each.shard_id for each in only])
        world.deliver()
        assert world.audit().failed == []
        panes = world.results("all", include_open=True)
        assert [(pane.key["partitionkey"], pane.measures["n"]) for pane in panes] == [(key, 2) for key in sorted(KEYS)]
        states = [row for row in world.store.rows() if row.snapshot_sha256 is not None]
        assert len(states) == 1 + begun


def test_children_that_have_had_no_event_hold_panes_and_outbox(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    put(world, *range(10))
    world.process()
    for _ in range(2):
        for each in world.open_shards:
            world.split(each)
    world.process()
    world.deliver()
    assert len(world.open_shards) == 4
    assert all(row.position is None for row in world.store.rows()[1:])
    assert world.audit().failed == []
    # Delivered, and applied by none of them yet.
    put(world, *range(10, 20))
    world.deliver()
    assert world.audit().failed == []
    assert len(world.results("all", include_open=True)) == len(KEYS)


def test_what_stands_in_the_outboxes_of_two_children_is_one_object(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    (root,) = world.open_shards
    put(world, *range(10))
    tick_all(world, T0 + DAY_MS)
    world.archive = DownForTables(world.root)
    world.process()
    world.split(root)
    world.process()
    outboxes = [
        item.name
        for row in world.store.rows()
        if not row.sealed
        for item in decode_snapshot(world.store.snapshot(row) or b"").outbox.archive_objects
    ]
    world.deliver()
    assert len(outboxes) == 2 * len(set(outboxes)) > 0
    check = failing(world.audit())["outbox"]
    assert check.expected == len(set(outboxes))
    assert check.missing == sorted(set(outboxes))
    assert [pane.measures["n"] for pane in world.results("all")] == [2] * len(KEYS)


class DownForTables(FolderStore):
    """An archive that takes nothing."""

    def put(self, name: str, body: bytes) -> None:
        raise StoreUnavailable("down")


def test_a_pane_that_a_child_emits_again_is_doubled(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    put(world, *range(10))
    tick_all(world, T0 + DAY_MS)
    world.process()
    world.split(world.open_shards[0])
    # A hand-over that takes the watermark back, and lets the child begin closed windows anew.
    forget(world, "watermark.", "aggregate.all.pane.revision")
    world.process()
    put(world, 10, at_ms=T0)
    tick_all(world, T0 + DAY_MS)
    world.process()
    world.deliver()
    checks = failing(world.audit())
    assert checks["revisions"].doubled


def test_a_late_event_below_a_floor_is_in_the_late_table(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path, shards=2)
    low, high = world.open_shards
    keys = {each: [key for key in KEYS if hash_key(key) in each.hash_range] for each in (low, high)}
    ahead, behind = keys[low][0], keys[high][0]
    world.put_plain(event(0, subject=ahead, at_ms=T0 + 600_000), key=ahead)
    world.put_plain(event(1, subject=behind, at_ms=T0), key=behind)
    world.process()
    world.merge(low, high)
    for number, key in ((2, ahead), (3, behind)):
        world.put_plain(event(number, subject=key, at_ms=T0 + 1_000), key=key)
    world.process()
    world.deliver()
    result = world.audit()
    assert result.failed == []
    # Of the shard that was ahead the window had closed; that of the other is open still.
    late = [(check.scope, check.expected) for check in result.checks if check.name == "late"]
    assert late == [("wind", 1), ("all", 1)]
    panes = {(pane.key["partitionkey"], pane.window_start): pane for pane in world.results("all", include_open=True)}
    assert panes[behind, rfc3339(T0)].measures["n"] == 2
    assert (ahead, rfc3339(T0)) not in panes
    for path in world.root.glob("type=streamgauge_late_events/**/*.gz"):
        path.unlink()
    assert {"late", "windows", "objects"} <= failing(world.audit()).keys()


def test_a_misrouted_aggregate_is_no_event_and_its_second_sending_is_counted(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    put(world, 0)
    world.process()
    world.split(world.open_shards[0])
    low, _ = world.open_shards
    records = [(key, event(10 + place, subject=key)) for place, key in enumerate(KEYS)]
    together = aggregate(*records)
    world.put(PutEntry(together.partition_key, together.data, low.hash_range.first))
    for key, payload in records:
        world.put(aggregate((key, payload)))
    world.process()
    world.deliver()
    result = world.audit()
    assert result.failed == []
    assert total(result, "misrouted") == len(KEYS)
    assert total(result, "accepted") == 1 + len(KEYS)
    assert len(world.rows(WEATHER, CATALOGUE)) == 1 + len(KEYS)
    for path in world.root.glob(f"type={MISROUTED}/**/*.parquet"):
        path.unlink()
    assert {"misrouted", "positions", "objects"} <= failing(world.audit()).keys()


@pytest.mark.parametrize("applied", [0, 6])
def test_a_shard_that_was_sealed_before_its_end_is_named_with_what_it_held(tmp_path: Path, applied: int) -> None:
    world = PipelineWorld(tmp_path)
    put(world, *range(applied))
    world.process()
    # The rest comes while the shard is being sealed, wrongly.
    results = [world.put_plain(event(number, subject="LGA"), key="LGA")[0] for number in range(applied, 10)]
    (root,) = world.open_shards
    row = world.store.row(root.shard_id)
    assert row is not None
    if not applied:
        empty = core_engine(world.arn)(world.pipeline, root, None).snapshot()
        row = world.store.claim(root.shard_id, owner="x")
        row = world.store.commit(row, snapshot=encode_snapshot(Snapshot(empty, Outbox())), position=None, now_ms=0)
    world.store.seal(row)
    world.split(root)
    put(world, 10)
    world.process()
    world.deliver()
    checks = failing(world.audit())
    assert set(checks) == {"left_behind"}
    assert checks["left_behind"].scope == f"shard {root.shard_id}"
    assert checks["left_behind"].missing == sorted(f"{result.sequence_number}/0" for result in results)


def alter(world: PipelineWorld, each: Shard, **changes: object) -> None:
    row = world.store.row(each.shard_id)
    assert row is not None
    world.store._rows[each.shard_id] = replace(row, **changes)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda world: alter(world, shard(world, 0), sealed=False), "not sealed, although"),
        (lambda world: world.store._rows.pop(shard(world, 0).shard_id), "no row, although"),
        (lambda world: world.store._rows.pop(shard(world, 4).shard_id), "which is not all of its hash keys"),
    ],
)
def test_a_broken_lineage_is_named(
    world: PipelineWorld, break_it: Callable[[PipelineWorld], object], says: str
) -> None:
    break_it(world)
    assert says in str(failing(world.audit())["handed_over"].found)


def test_delivery_is_waited_for_to_the_end_of_a_sealed_shard(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    delivery = world.delivery()
    put(world, *range(10))
    world.process()
    world.run(delivery)
    assert world.audit().failed == []
    world.split(world.open_shards[0])
    world.process()
    check = failing(world.audit())["delivery"]
    assert check.expected == "archived to its end"
    world.deliver()
    assert world.audit().failed == []


def test_what_came_before_the_pipelines_start_is_none_of_its_business(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    put(world, *range(10))
    world.split(world.open_shards[0])
    put(world, *range(5, 12))
    start = f"AT_TIMESTAMP {rfc3339(world.now_ms)}"
    put(world, *range(8, 20))
    world.process(start=start)
    world.deliver()
    result = world.audit()
    assert result.failed == []
    assert total(result, "positions") == 7 + 12


def test_a_child_that_begins_while_the_states_are_read_does_not_confuse_the_reader(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    put(world, *range(10))
    world.process()
    world.split(world.open_shards[0])
    world.deliver()
    store = world.store
    world.process(only=[world.shards[0].shard_id])
    reads: list[str] = []

    class Meanwhile(MemoryStateStore):
        """The children begin after they have been looked at, and before their parent is."""

        def row(self, shard_id: str) -> ShardRow | None:
            reads.append(shard_id)
            if reads.count(world.shards[0].shard_id) == 1 == len(reads) - 2:
                world.store = store
                world.process()
                world.store = meanwhile
            return store.row(shard_id)

        def rows(self) -> list[ShardRow]:
            return store.rows()

        def snapshot(self, row: ShardRow) -> bytes | None:
            return store.snapshot(row)

    world.store = meanwhile = Meanwhile()
    panes = world.results("all", include_open=True)
    assert [pane.measures["n"] for pane in panes] == [2] * len(KEYS)
    assert reads.count(world.shards[0].shard_id) == 2
