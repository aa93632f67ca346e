"""The session's part of a snapshot: what goes in comes out."""

from __future__ import annotations

import numpy as np
import pytest
from commit_world import make_crossing, make_panes
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.processors.commit.snapshots import Snapshot, decode_snapshot, encode_snapshot, outbox_bytes
from streamgauge.processors.core.container import SnapshotError, decode_columns, encode_columns
from streamgauge.processors.core.effects import ArchiveObject, Outbox, PaneBatch

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
batches = st.lists(st.tuples(texts, st.integers(0, 2**40), st.integers(0, 2**40)), max_size=3).map(
    lambda rows: make_panes(*rows)
)
outboxes = st.builds(
    Outbox,
    archive_objects=st.lists(st.builds(ArchiveObject, texts, st.binary(max_size=5)), max_size=3).map(tuple),
    threshold_events=st.lists(st.builds(make_crossing, st.integers(0, 999), key=texts), max_size=3).map(tuple),
    served_panes=st.lists(batches, max_size=3).map(tuple),
)


def as_plain(batch: PaneBatch) -> object:
    return (
        batch.aggregate,
        batch.key_fields,
        list(batch.keys),
        list(batch.partition_keys),
        [
            (array.dtype, array.tolist())
            for array in (
                batch.window_start_ms,
                batch.window_end_ms,
                batch.revision,
                batch.event_count,
                batch.tombstone,
            )
        ],
        [
            (name, column.values.dtype, column.values.tolist(), column.present.tolist())
            for name, column in batch.measures.items()
        ],
    )


@given(outboxes, st.lists(texts, max_size=2).map(tuple))
def test_an_outbox_survives_the_snapshot(outbox: Outbox, gaps: tuple[str, ...]) -> None:
    found = decode_snapshot(encode_snapshot(Snapshot({"a": np.array([1, 2])}, outbox, gaps)))
    assert found.gaps == gaps
    assert found.engine["a"].tolist() == [1, 2]
    assert found.outbox.archive_objects == outbox.archive_objects
    assert found.outbox.threshold_events == outbox.threshold_events
    assert [*map(as_plain, found.outbox.served_panes)] == [*map(as_plain, outbox.served_panes)]
    assert outbox_bytes(found.outbox) == outbox_bytes(outbox)


def test_integers_stay_integers_and_large_sequence_numbers_stay_whole() -> None:
    outbox = Outbox(threshold_events=(make_crossing(1),))
    (event,) = decode_snapshot(encode_snapshot(Snapshot({}, outbox))).outbox.threshold_events
    assert event.rule_sequence == (10**55 + 1, 0, 0)
    assert [type(value) for _, value in event.measures] == [int, float, type(None)]


def test_equal_snapshots_are_equal_bytes() -> None:
    def one() -> bytes:
        return encode_snapshot(Snapshot({"a": ["x"]}, Outbox(served_panes=(make_panes(("lga", 0, 1)),))))

    assert one() == one()


def test_a_snapshot_of_a_later_format_is_refused_by_name() -> None:
    columns = dict(decode_columns(encode_snapshot(Snapshot({}, Outbox()))))
    columns["session_format"] = np.array([2])
    with pytest.raises(SnapshotError, match="session format 2; this release reads format 1"):
        decode_snapshot(encode_columns(columns))


def test_a_container_of_something_else_is_refused() -> None:
    with pytest.raises(SnapshotError, match="not the snapshot of a shard session"):
        decode_snapshot(encode_columns({"a": ["x"]}))
