"""The audit holds over a sound pipeline, and says by name what is missing or double in any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_world import OURS, PIPELINE, STREAM, T0, WEATHER, PipelineWorld, event, put_weather

from streamgauge.events.control import Ledger, ledger_event
from streamgauge.events.envelope import encode_event
from streamgauge.infra.local.kinesis.model import PutEntry
from streamgauge.processors.commit.archive_rows import (
    FAILED_EVENTS,
    LATE_EVENTS,
    PANES,
    THRESHOLD_EVENTS,
    FailedRow,
    LateRow,
    PaneRow,
    ThresholdRow,
    decode_rows,
    encode_rows,
)
from streamgauge.sinks.archive.layout import LEDGER
from streamgauge.sinks.audit.report import NAMES_SHOWN, AuditReport, Check, report, shown
from streamgauge.sinks.delivery.settings import DeliverySettings


@pytest.fixture
def world(tmp_path: Path) -> PipelineWorld:
    """A pipeline that ran over events of every fate, in several commits and ranges."""
    world = PipelineWorld(tmp_path / "archive", shards=2)
    delivery = world.delivery(settings=DeliverySettings(max_rows=30))
    put_weather(world)
    world.process()
    world.run(delivery)
    world.pass_time(5_000)
    for number in range(100, 130):
        world.put_plain(event(number, at_ms=T0 + 60_000 + number, source=OURS.replace("1024", "2048")))
    world.process()
    world.run(delivery)
    return world


def failing(report: AuditReport) -> dict[str, Check]:
    assert report.audit == "fail"
    return {check.name: check for check in report.failed}


def objects(world: PipelineWorld, table: str) -> list[Path]:
    return sorted(world.root.glob(f"type={table}/**/*.*"))


def rewrite(path: Path, row_type: type[msgspec.Struct], change: Callable[[list[object]], list[object]]) -> None:
    rows = decode_rows(path.read_bytes(), row_type)
    path.write_bytes(encode_rows(change(list(rows))))  # type: ignore[arg-type]


def rewrite_parquet(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = pq.ParquetFile(path).read()
    changed = change(table)
    assert changed.num_rows != table.num_rows
    pq.write_table(changed, path)


def without(rows: list[object], index: int) -> list[object]:
    return rows[:index] + rows[index + 1 :]


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_a_sound_pipeline_passes(tmp_path: Path, shards: int) -> None:
    world = PipelineWorld(tmp_path, shards=shards)
    put_weather(world)
    world.process()
    world.deliver()
    result = world.audit()
    assert result.failed == []
    assert result.audit == "pass"
    found = {check.name: check for check in result.checks if check.scope in ("wind", "gale")}
    assert found["windows"].expected == 62
    assert found["crossings"].expected == 3
    assert found["late"].expected == 2


ADDED = """
[[threshold]]
name = "breeze"
aggregate = "wind"
raise_when = "top > 5"
"""
ADDED_WITH_STATE = ADDED + 'clear_when = "top < 3"\n'


@pytest.mark.parametrize("rule", [ADDED, ADDED_WITH_STATE])
@pytest.mark.parametrize("splits", [False, True])
def test_a_rule_that_is_added_owes_nothing_for_windows_that_had_closed(
    tmp_path: Path, rule: str, *, splits: bool
) -> None:
    world = PipelineWorld(tmp_path)
    keys = ["LGA", "JFK", "EWR", "BOS"]
    sequence = 0

    def put(second: float, wind: float) -> None:
        nonlocal sequence
        for key in keys:
            payload = event(sequence, subject=key, at_ms=T0 + int(1_000 * second), data={"wind": wind})
            world.put_plain(payload, key=key)
            sequence += 1

    for second in (1, 12, 23, 34):
        put(second, 10)
    world.process()
    world.upgrade(PIPELINE + rule)
    if splits:
        world.split(world.open_shards[0])
    # Late, and within the allowed lateness: it corrects a window that had closed before the rule was there.
    put(25, 12)
    for second in (36, 47, 58, 69):
        put(second, 20 if second < 50 else 1)
    for _ in range(3):
        world.process()
        world.deliver()
    result = world.audit()
    assert result.failed == []
    found = {check.scope: check for check in result.checks if check.name == "crossings"}
    assert found["breeze"].found >= len(keys)


def test_copies_that_come_after_reshards_are_duplicates_of_what_the_ancestors_had(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    keys = ["LGA", "JFK", "EWR", "BOS"]
    ours = {key: event(number, subject=key, at_ms=T0 + 1_000 * number) for number, key in enumerate(keys)}
    foreign = {key: event(None, source="https://example.org", id=key, subject=key, at_ms=T0 + 5_000) for key in keys}

    def put_all_and_process() -> None:
        for key in keys:
            world.put_plain(ours[key], foreign[key], key=key)
        world.pass_time(100)
        world.process()
        world.process()

    put_all_and_process()
    (root,) = world.model.list_shards(STREAM, now_ms=world.now_ms)[0]
    world.model.split_shard(STREAM, root.shard_id, 2**127, now_ms=world.now_ms)
    world.pass_time(60_000)
    put_all_and_process()
    left, right = sorted({row.shard.shard_id for row in world.store.rows()} - {root.shard_id})
    world.model.merge_shards(STREAM, left, right, now_ms=world.now_ms)
    world.pass_time(60_000)
    # In the grandchild, which itself has had neither.
    put_all_and_process()
    # Past the foreign horizon a foreign id is a new event again; one of ours never is.
    world.pass_time(2 * 3_600_000)
    put_all_and_process()
    world.deliver()
    report = world.audit()
    assert report.failed == []
    duplicates = {check.scope: check.found for check in report.checks if check.name == "duplicates"}
    assert sum(map(int, duplicates.values())) == 2 * 8 + 4
    assert duplicates[f"shard {root.shard_id}"] == 0


def test_several_commits_and_ranges_pass(world: PipelineWorld) -> None:
    assert world.audit().failed == []


def test_a_report_is_json_of_its_documented_form(world: PipelineWorld) -> None:
    body = msgspec.to_builtins(world.audit())
    assert set(body) == {"audit", "checks"}
    assert all(set(check) == {"name", "scope", "expected", "found", "missing", "doubled"} for check in body["checks"])


def test_without_a_commit_nothing_is_proven(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    put_weather(world)
    world.deliver()
    assert "processed" in failing(world.audit())
    assert report([]).audit == "fail"


def test_a_removed_parquet_file_is_named(world: PipelineWorld) -> None:
    path = objects(world, WEATHER)[0]
    events = pq.ParquetFile(path).metadata.num_rows
    path.unlink()
    checks = failing(world.audit())
    assert checks["objects"].missing == [path.relative_to(world.root).as_posix()]
    assert checks["positions"].expected - checks["positions"].found == events  # type: ignore[operator]
    assert checks["acknowledged"].missing
    assert checks["windows"].doubled


def test_a_removed_pane_object_is_named_by_its_windows(world: PipelineWorld) -> None:
    path = objects(world, PANES)[0]
    panes = decode_rows(path.read_bytes(), PaneRow)
    path.unlink()
    checks = failing(world.audit())
    wind = next(pane for pane in panes if pane.aggregate == "wind")
    assert any(f"{wind.key['subject']} {wind.window_start}" in name for name in checks["windows"].missing)
    assert "positions" not in checks


def test_a_single_pane_that_is_gone_or_too_low_or_too_high_is_named(world: PipelineWorld) -> None:
    path = objects(world, PANES)[0]
    whole = path.read_bytes()
    rewrite(path, PaneRow, lambda rows: without(rows, 0))
    (missing,) = failing(world.audit())["windows"].missing
    assert missing.endswith("no pane")
    for change, where in ((-1, "missing"), (1, "doubled")):
        path.write_bytes(whole)

        def alter(rows: list[object], change: int = change) -> list[object]:
            pane = rows[0]
            assert isinstance(pane, PaneRow)
            return [msgspec.structs.replace(pane, event_count=pane.event_count + change), *rows[1:]]

        rewrite(path, PaneRow, alter)
        (name,) = getattr(failing(world.audit())["windows"], where)
        assert "events, pane holds" in name


def test_a_doubled_pane_is_named(world: PipelineWorld) -> None:
    path = objects(world, PANES)[0]
    shutil.copy(path, path.with_name("copy.jsonl.gz"))
    assert failing(world.audit())["revisions"].doubled


def test_a_missing_revision_is_named(world: PipelineWorld) -> None:
    path = objects(world, PANES)[0]

    def raise_revision(rows: list[object]) -> list[object]:
        pane = rows[0]
        assert isinstance(pane, PaneRow)
        return [msgspec.structs.replace(pane, revision=pane.revision + 1), *rows[1:]]

    rewrite(path, PaneRow, raise_revision)
    (missing,) = failing(world.audit())["revisions"].missing
    assert missing.endswith("revision 1")


def test_an_acknowledged_record_that_is_not_archived_is_named_by_its_sequence(world: PipelineWorld) -> None:
    path = objects(world, WEATHER)[0]
    rows = pq.ParquetFile(path).read().to_pylist()
    victims = {row["sequence"] for row in rows if row["source"] == OURS and int(row["sequence"]) in (3, 4, 5, 6)}
    assert victims
    for other in objects(world, WEATHER):
        rewrite_path = other
        table = pq.ParquetFile(rewrite_path).read()
        keep = [value not in victims for value in table.column("sequence").to_pylist()]
        pq.write_table(table.filter(pa.array(keep)), rewrite_path)
    check = failing(world.audit())["acknowledged"]
    named = {
        number
        for span in check.missing
        for number in range(int(span.partition("..")[0]), int(span.rpartition("..")[2]) + 1)
    }
    assert named == {int(victim) for victim in victims}
    assert check.expected - check.found == len(victims)  # type: ignore[operator]


def test_a_doubled_parquet_file_is_named(world: PipelineWorld) -> None:
    path = objects(world, WEATHER)[0]
    shutil.copy(path, path.with_name("copy.parquet"))
    checks = failing(world.audit())
    assert checks["objects"].doubled == [
        f"{path.with_name('copy.parquet').relative_to(world.root).as_posix()}: written by no delivery"
    ]
    assert checks["positions_once"].doubled
    assert "windows" not in checks


def test_a_hole_in_an_aggregated_record_is_named(world: PipelineWorld) -> None:
    for path in objects(world, WEATHER):
        table = pq.ParquetFile(path).read()
        subs = table.column("sub_sequence_number").to_pylist()
        if 1 in subs:
            table = table.slice(0, subs.index(1)) if subs.index(1) else table
            keep = [place != subs.index(1) - 1 for place in range(len(subs))]
            rewrite_parquet(path, lambda whole, keep=keep: whole.filter(pa.array(keep)))
            break
    assert failing(world.audit())["positions_once"].missing


def test_a_sequence_that_was_never_attempted_is_named(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    world.put_plain(event(0), event(1), event(2))
    ledger = ledger_event(OURS, Ledger([(0, 0)], [(1, 1)], [], final=True), number=0, time_ms=T0)
    world.put(PutEntry(OURS, encode_event(ledger)))
    world.process()
    world.deliver()
    assert failing(world.audit())["attempted"].doubled == ["2: never attempted"]


def test_the_latest_statement_of_a_ledger_counts(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    world.put_plain(event(0), event(1))
    for number, last in ((10, 1), (9, 0)):
        ledger = ledger_event(OURS, Ledger([(0, last)], [], [], final=number == 10), number=number, time_ms=T0)
        world.put(PutEntry(OURS, encode_event(ledger)))
    world.process()
    world.deliver()
    result = world.audit()
    assert result.failed == []
    assert [check.expected for check in result.checks if check.name == "acknowledged"] == [2]


@pytest.mark.parametrize(
    ("table", "row_type", "name"),
    [
        (FAILED_EVENTS, FailedRow, "failed"),
        (LATE_EVENTS, LateRow, "late"),
        (THRESHOLD_EVENTS, ThresholdRow, "crossings"),
    ],
)
def test_a_lost_or_doubled_failed_late_or_threshold_event_is_seen(
    world: PipelineWorld, table: str, row_type: type[msgspec.Struct], name: str
) -> None:
    path = objects(world, table)[0]
    whole = path.read_bytes()
    rewrite(path, row_type, lambda rows: without(rows, 0))
    check = failing(world.audit())[name]
    assert check.expected - check.found == 1  # type: ignore[operator]
    path.write_bytes(whole)
    rewrite(path, row_type, lambda rows: [rows[0], *rows])
    assert failing(world.audit())[name].doubled


@pytest.mark.parametrize("table", [FAILED_EVENTS, LATE_EVENTS])
def test_an_object_that_a_commit_lists_and_nobody_finds_is_named(world: PipelineWorld, table: str) -> None:
    path = objects(world, table)[0]
    path.unlink()
    scopes = {check.scope: check for check in world.audit().failed if check.name == "objects"}
    assert scopes[table].missing == [path.relative_to(world.root).as_posix()]


def test_an_object_of_failed_events_that_no_commit_lists_does_not_count(world: PipelineWorld) -> None:
    path = objects(world, FAILED_EVENTS)[0]
    shutil.copy(path, path.with_name("of-a-zombie.jsonl.gz"))
    assert world.audit().failed == []


def test_a_lost_ledger_is_seen(world: PipelineWorld) -> None:
    objects(world, LEDGER)[0].unlink()
    assert "ledger" in failing(world.audit())


def test_delivery_that_is_behind_is_waited_for_and_then_named(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    put_weather(world)
    world.process()
    asked = []

    def give_up() -> bool:
        asked.append(True)
        return len(asked) < 3

    check = failing(world.audit(give_up))["delivery"]
    assert "delivery is behind" in str(check.found)
    assert len(asked) == 3

    def deliver() -> bool:
        world.deliver()
        return True

    assert world.audit(deliver).audit == "pass"


def test_what_was_delivered_but_not_processed_yet_is_no_fault(world: PipelineWorld) -> None:
    world.put_plain(*(event(number, at_ms=T0 + 70_000, source="s", id=str(number)) for number in range(10)))
    world.deliver()
    assert world.audit().failed == []


def test_a_range_that_is_being_written_beyond_the_cut_is_no_fault(world: PipelineWorld) -> None:
    world.put_plain(event(None, source="s", id="1"))
    world.deliver()
    newest = max(objects(world, WEATHER), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    assert world.audit().failed == []


def test_an_accepted_gap_is_named(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    world.put_plain(event(0))
    world.deliver()
    world.pass_time(3_600_000)
    world.put_plain(event(1))
    world.pass_time(24 * 3_600_000)
    world.put_plain(event(2))
    world.deliver(accept_gap=True)
    world.process()
    (gap,) = failing(world.audit())["gaps"].missing
    assert "shardId-000000000000" in gap


@pytest.mark.parametrize("changes", [{}, {"time": "never"}], ids=["tick of an own source", "and without a time"])
def test_a_reserved_type_of_a_source_of_ours_is_none_of_its_events(tmp_path: Path, changes: dict[str, str]) -> None:
    world = PipelineWorld(tmp_path)
    forged = msgspec.json.decode(event(0)) | {"type": "streamgauge.tick"} | changes
    world.put_plain(msgspec.json.encode(forged), event(0))
    world.process()
    world.deliver()
    result = world.audit()
    assert result.failed == []
    accepted = [check.found for check in result.checks if check.name == "accepted"]
    assert accepted == [1]


def test_a_statement_that_cannot_be_read_is_no_copy_of_an_event(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    world.put_plain(event(1, type="streamgauge.ledger", data={}), event(1), event(1))
    world.process()
    world.deliver()
    result = world.audit()
    assert result.failed == []
    assert [check.expected for check in result.checks if check.name in ("duplicates", "accepted")] == [1, 1]


def test_foreign_copies_beyond_the_horizon_are_events_of_their_own(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path)
    for wait_ms in (0, 3_600_000, 3_600_001):
        world.pass_time(wait_ms)
        world.put_plain(event(None, source="s", id="1"))
    world.process()
    world.deliver()
    result = world.audit()
    assert result.failed == []
    assert [check.expected for check in result.checks if check.name == "accepted"] == [2]


def test_raw_records_read_through_a_mapping_are_audited(tmp_path: Path) -> None:
    text = PIPELINE.replace('["partitionkey"]', '["subject"]') + (
        '[event]\ntime = "at"\ntime_format = "epoch_ms"\ntype = "\'weather.observation\'"\nkey = "station"\n'
    )
    world = PipelineWorld(tmp_path, text=text)
    for number in range(40):
        body: Mapping[str, object] = {"at": T0 + number * 1_000, "station": "LGA", "wind": number * 2, "note": "x"}
        world.put_plain(msgspec.json.encode(body), msgspec.json.encode(body))
    world.put_plain(b"{}", b'{"at": 1, "station": "LGA"}', b'{"at": 1, "station": 7, "wind": 1}')
    world.process()
    world.deliver(mapping=world.pipeline.mapping)
    result = world.audit()
    assert result.failed == []
    assert [check.expected for check in result.checks if check.name == "accepted"] == [80]


def test_resharded_streams_are_delivered_and_every_processed_shard_is_audited(tmp_path: Path) -> None:
    world = PipelineWorld(tmp_path, shards=2)
    put_weather(world)
    world.process()
    first = world.model.list_shards(STREAM, now_ms=world.now_ms)[0][0]
    world.model.split_shard(STREAM, first.shard_id, 2**126, now_ms=world.now_ms)
    world.pass_time(60_000)
    world.deliver()
    assert world.audit().failed == []


def test_lists_of_names_are_bounded() -> None:
    names = shown([f"{number:03}" for number in range(50)])
    assert names[:2] == ["000", "001"]
    assert names[-1] == "and 30 more"
    assert len(names) == NAMES_SHOWN + 1


@pytest.mark.parametrize("table", [PANES, THRESHOLD_EVENTS])
def test_an_object_of_the_last_commit_that_is_gone_is_named(tmp_path: Path, table: str) -> None:
    world = PipelineWorld(tmp_path)
    put_weather(world)
    world.process()
    world.deliver()
    path = objects(world, table)[0]
    path.unlink()
    checks = failing(world.audit())
    assert checks["outbox"].missing == [path.relative_to(world.root).as_posix()]
    assert {"windows", "threshold_events", "crossings"} & set(checks)
