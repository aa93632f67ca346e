"""The snapshot's container."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import zstandard

from streamgauge.processors.core.container import MAGIC, VERSION, SnapshotError, decode_columns, encode_columns

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


def sealed(packed: bytes) -> bytes:
    """A container whose hash is right, whatever it holds."""
    return MAGIC + VERSION.to_bytes(2, "little") + sha256(packed).digest() + packed


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"no zstd frame",
        zstandard.compress(b""),
        zstandard.compress(b"\x02\x00\x00\x00{}"),
        zstandard.compress(b'\x3c\x00\x00\x00{"columns":[{"name":"a","kind":"i8","count":9,"bytes":72}]}'),
    ],
)
def test_a_forged_container_is_no_snapshot(packed: bytes) -> None:
    with pytest.raises(SnapshotError):
        decode_columns(sealed(packed))


def test_a_container_that_states_an_enormous_size_is_not_unpacked() -> None:
    # A frame with an 8-byte content size (RFC 8878, 3.1.1.1): 2**50 bytes.
    frame = b"\x28\xb5\x2f\xfd" + b"\xe0" + (2**50).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(SnapshotError, match="larger than"):
        decode_columns(sealed(frame))
