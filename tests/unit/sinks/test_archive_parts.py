"""The archive's parts, each by itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from archive_world import CATALOGUE, OURS, WEATHER, event
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import StreamRecord
from streamgauge.sinks.archive.columns import event_columns, raw_tables
from streamgauge.sinks.archive.files import ArchiveFiles, ArchiveUnavailable
from streamgauge.sinks.archive.layout import Partition, parse_name, partition_of, sql_names, table_prefix
from streamgauge.sinks.archive.objects import FolderObjects
from streamgauge.sinks.audit.sources import _gaps, _inside
from streamgauge.sinks.delivery.data import DataReader, UnfitData
from streamgauge.sinks.delivery.held import Held, full_range
from streamgauge.sinks.delivery.rows import Row, readable_identity
from streamgauge.sinks.delivery.settings import DeliverySettings

TYPES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(TYPES, st.integers(0, 4_102_444_800_000))
def test_an_objects_name_tells_its_partition(table: str, arrival_ms: int) -> None:
    partition = partition_of(table, arrival_ms)
    assert parse_name(f"{partition.prefix}object.parquet") == partition
    assert partition.prefix.startswith(table_prefix(table))
    assert table_prefix(table).count("/") == 1


@pytest.mark.parametrize("name", ["delivery/s/1.json", "type=a/x.parquet", "type=a/dt=2026-01-01/hour=01/", "x"])
def test_a_name_outside_every_table_has_no_partition(name: str) -> None:
    assert parse_name(name) is None


def test_partitions_are_of_utc() -> None:
    assert partition_of("a", 1_000 * 3_600 * 25) == Partition("a", "1970-01-02", "01")


def test_types_that_would_be_one_table_are_refused() -> None:
    assert sql_names(["weather.observation", "A-b"]) == {"weather_observation": "weather.observation", "a_b": "A-b"}
    with pytest.raises(StreamgaugeError, match=r"'a\.b' and 'a-b' would both be the table 'a_b'"):
        sql_names(["a.b", "a-b"])


def test_the_columns_are_frozen() -> None:
    envelope = ["id", "source", "type", "time", "subject", "dataschema", "datacontenttype", "partitionkey", "sequence"]
    position = ["shard_id", "sequence_number", "sub_sequence_number", "arrival"]
    schema = event_columns(CATALOGUE, WEATHER)
    assert schema.names == [*envelope, "traceparent", "extensions", "data", "data_rest", *position]
    assert schema.field("time").type == schema.field("arrival").type == pa.timestamp("ms", tz="UTC")
    assert schema.field("data").type == pa.struct(
        [
            ("temp", pa.float64()),
            ("wind", pa.float64()),
            ("unit", pa.string()),
            ("tags", pa.list_(pa.string())),
            ("place", pa.struct([("lat", pa.float64())])),
        ]
    )
    assert set(raw_tables(CATALOGUE)) == {
        WEATHER,
        "sea-level",
        *(f"streamgauge_{name}" for name in ("control", "ledger", "misrouted", "unarchivable")),
    }
    assert all(name == name.lower() for table in raw_tables(CATALOGUE).values() for name in table.names)


@pytest.mark.parametrize(
    "data",
    [
        {"temp": 1},
        {"wind": "1"},
        {"wind": -1},
        {"wind": 1, "temp": True},
        {"wind": 1, "tags": [1]},
        {"wind": 1, "place": {"lat": "x"}},
        [],
        None,
    ],
)
def test_data_that_breaks_its_schema_is_unfit(data: object) -> None:
    with pytest.raises(UnfitData):
        DataReader(CATALOGUE).read(WEATHER, 2, json.dumps(data).encode())


@given(
    st.dictionaries(
        st.text(max_size=5), st.none() | st.integers() | st.text(max_size=3) | st.lists(st.booleans(), max_size=2)
    )
)
def test_nothing_of_data_is_lost(more: dict[str, object]) -> None:
    known = {"wind", "temp", "unit", "tags", "place"}
    rest = {name: value for name, value in more.items() if name not in known}
    shaped, found = DataReader(CATALOGUE).read(WEATHER, 2, json.dumps({**rest, "wind": 1}).encode())
    assert isinstance(shaped, dict) and shaped["wind"] == 1.0
    assert (json.loads(found) if found else {}) == rest


@given(st.integers(0, 60), st.integers(0, 60), st.sets(st.integers(0, 80)))
def test_gaps_are_what_a_range_lacks(first: int, length: int, held: set[int]) -> None:
    last = first + length
    gaps = _gaps(np.array(sorted(held), dtype=np.int64), first, last)
    assert [n for start, end in gaps for n in range(start, end + 1)] == sorted(set(range(first, last + 1)) - held)
    assert all(end - start >= 0 for start, end in gaps)


@given(st.sets(st.integers(0, 80)), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 10)), max_size=4))
def test_inside_is_membership_of_any_range(held: set[int], spans: list[tuple[int, int]]) -> None:
    ranges = [(first, first + length) for first, length in spans]
    numbers = sorted(held)
    inside = _inside(np.array(numbers, dtype=np.int64), ranges).tolist()
    assert inside == [any(first <= number <= last for first, last in ranges) for number in numbers]


@given(st.integers(0, 300))
def test_the_identity_of_a_damaged_event_is_read_where_it_is_whole(cut: int) -> None:
    payload = event(7)
    source, identity = readable_identity(payload[: len(payload) - cut])
    assert (source, identity) in ((OURS, f"{7:020}"), (None, None))
    if cut < 30:
        assert source == OURS


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=30), st.integers(1, 6))
def test_a_full_range_keeps_its_bounds(records: list[tuple[int, int]], max_rows: int) -> None:
    settings = DeliverySettings(max_rows=max_rows, max_bytes=10**9)
    held = [
        Held(StreamRecord(str(number), "k", hour * 3_600_000, b"x"), [Row("t", {})] * rows)
        for number, (hour, rows) in enumerate(records)
    ]
    count = full_range(held, settings)
    chosen = records[:count]
    # One record more than needed is never taken, and no range reaches into a later hour.
    assert sum(rows for _, rows in chosen[:-1]) < max_rows or not chosen
    assert all(hour <= chosen[0][0] for hour, _ in chosen)
    if not count:
        assert sum(rows for _, rows in records) < max_rows
        assert all(hour <= records[0][0] for hour, _ in records)


def test_many_objects_are_read_in_their_order(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    for number in range(100):
        objects.create(f"a/{number:03}", str(number).encode())
    files = ArchiveFiles.folder(tmp_path)
    (tmp_path / "a" / ".unfinished").write_bytes(b"")
    names = files.names("a/")
    assert list(files.each(names, files.read)) == [str(number).encode() for number in range(100)]
    assert files.names("b/") == []


def test_an_object_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnavailable, match="no-such-object"):
        ArchiveFiles.folder(tmp_path).read("no-such-object")
