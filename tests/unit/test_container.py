"""The snapshot's container."""

from __future__ import annotations

import numpy as np
import pytest

from streamgauge.processors.core.container import SnapshotError, decode_columns, encode_columns

COLUMNS = {
    "state_format": np.array([1], dtype=np.int64),
    "sums": np.array([0.1, -0.0, np.inf], dtype=np.float64),
    "bits": np.array([2**64 - 1], dtype=np.uint64),
    "registers": np.array([7, 0], dtype=np.uint8),
    "present": np.array([True, False], dtype=np.bool_),
    "keys": ["", "EWR", "Zürich\n"],
    "payloads": [b"", b"\xff\x00"],
    "none": np.array([], dtype=np.int64),
}


def test_columns_come_back_with_their_types() -> None:
    restored = decode_columns(encode_columns(COLUMNS))
    assert list(restored) == list(COLUMNS)
    for name, column in COLUMNS.items():
        if isinstance(column, np.ndarray):
            got = restored[name]
            assert isinstance(got, np.ndarray)
            assert got.dtype == column.dtype
            assert got.tobytes() == column.tobytes()
        else:
            assert restored[name] == column


def test_equal_columns_give_equal_bytes() -> None:
    assert encode_columns(COLUMNS) == encode_columns(dict(COLUMNS))


@pytest.mark.parametrize("offset", [11, 41, 42, -1])
def test_an_altered_byte_is_found(offset: int) -> None:
    blob = bytearray(encode_columns(COLUMNS))
    blob[offset] ^= 1
    with pytest.raises(SnapshotError, match="corrupted"):
        decode_columns(bytes(blob))


def test_a_later_version_is_named() -> None:
    blob = bytearray(encode_columns(COLUMNS))
    blob[8] = 9
    with pytest.raises(SnapshotError, match="container version 9"):
        decode_columns(bytes(blob))


def test_other_bytes_are_no_snapshot() -> None:
    with pytest.raises(SnapshotError, match="magic"):
        decode_columns(b"{}")
