r"""The snapshot's container: named typed columns in one checked, versioned blob. No code is run on reading.

Layout (all integers little-endian)::

    8 bytes   magic ``SGSNAP\\r\\n``
    2 bytes   container version (1)
    32 bytes  SHA-256 of everything after it
    rest      one zstd frame: 4 bytes length of the header, the header, the columns' bytes one after the other

The header is JSON: ``{"columns": [{"name", "kind", "count", "bytes"}, …]}``. Kinds: ``i8`` int64, ``f8`` float64,
``u8`` uint64, ``u1`` uint8, ``b1`` bool, ``s`` UTF-8 strings and ``y`` byte strings, both as 4-byte lengths followed
by the bytes. What the columns mean is the business of who wrote them; ``state_format`` among them says which reader
fits.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from hashlib import sha256

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from streamgauge.events.errors import StreamgaugeError

__all__ = ["MAGIC", "VERSION", "Column", "Columns", "SnapshotError", "decode_columns", "encode_columns"]

MAGIC = b"SGSNAP\r\n"
VERSION = 1

Column = (
    NDArray[np.int64]
    | NDArray[np.float64]
    | NDArray[np.uint64]
    | NDArray[np.uint8]
    | NDArray[np.bool_]
    | list[str]
    | list[bytes]
)
Columns = Mapping[str, Column]

_PREFIX = struct.Struct("<8sH32s")
_LENGTH = struct.Struct("<I")
_ARRAYS: dict[str, np.dtype[np.generic]] = {
    "i8": np.dtype("<i8"),
    "f8": np.dtype("<f8"),
    "u8": np.dtype("<u8"),
    "u1": np.dtype("u1"),
    "b1": np.dtype("?"),
}
_KINDS = {dtype: kind for kind, dtype in _ARRAYS.items()}
# Bounds what a forged length can make a reader allocate.
_MAX_UNPACKED_BYTES = 4 * 1024**3


class SnapshotError(StreamgaugeError):
    """Bytes that are no snapshot this version can read."""


class _ColumnHeader(msgspec.Struct):
    name: str
    kind: str
    count: int
    bytes: int


class _Header(msgspec.Struct):
    columns: list[_ColumnHeader]


def encode_columns(columns: Columns, *, level: int = 1) -> bytes:
    """The columns as one blob; equal columns give equal bytes. Arrays must have one dimension."""
    headers: list[_ColumnHeader] = []
    bodies: list[bytes] = []
    for name, column in columns.items():
        kind, body = _encode_array(column) if isinstance(column, np.ndarray) else _encode_texts(column)
        headers.append(_ColumnHeader(name, kind, len(column), len(body)))
        bodies.append(body)
    header = msgspec.json.encode(_Header(headers))
    packed = zstandard.ZstdCompressor(level=level).compress(b"".join([_LENGTH.pack(len(header)), header, *bodies]))
    return _PREFIX.pack(MAGIC, VERSION, sha256(packed).digest()) + packed


def decode_columns(blob: bytes) -> dict[str, Column]:
    """Read what `encode_columns` wrote.

    Raises
    ------
    SnapshotError
        No container, one of a later version, or one whose bytes were altered.
    """
    if len(blob) < _PREFIX.size or not blob.startswith(MAGIC):
        raise SnapshotError("not a snapshot: the magic bytes are missing", where="snapshot")
    _, version, digest = _PREFIX.unpack_from(blob)
    if version != VERSION:
        raise SnapshotError(
            f"written in container version {version}; this release reads version {VERSION}",
            where="snapshot",
            remedy="Run the release that wrote it, or a later one",
        )
    packed = memoryview(blob)[_PREFIX.size :]
    if sha256(packed).digest() != digest:
        raise SnapshotError(
            "corrupted: its bytes do not have the hash that was written with them",
            where="snapshot",
            remedy="Restore it, or raise state_epoch to begin anew",
        )
    try:
        return _unpack(packed)
    except (zstandard.ZstdError, struct.error, msgspec.DecodeError, ValueError) as error:
        raise SnapshotError(f"not in the form that its version has: {error}", where="snapshot") from error


def _unpack(packed: memoryview) -> dict[str, Column]:
    # The decompressor believes a size that the frame states, and bounds only what states none.
    if zstandard.frame_content_size(packed) > _MAX_UNPACKED_BYTES:
        raise SnapshotError(f"larger than {_MAX_UNPACKED_BYTES} bytes", where="snapshot")
    unpacked = zstandard.ZstdDecompressor().decompress(packed, max_output_size=_MAX_UNPACKED_BYTES)
    (header_bytes,) = _LENGTH.unpack_from(unpacked)
    offset = _LENGTH.size + header_bytes
    header = msgspec.json.decode(memoryview(unpacked)[_LENGTH.size : offset], type=_Header)
    columns: dict[str, Column] = {}
    for column in header.columns:
        body = unpacked[offset : offset + column.bytes]
        offset += column.bytes
        columns[column.name] = _decode_column(column, body)
    return columns


def _encode_array(array: NDArray[np.generic]) -> tuple[str, bytes]:
    kind = _KINDS.get(array.dtype)
    assert kind is not None and array.ndim == 1, f"no snapshot column: dtype {array.dtype}, shape {array.shape}"
    return kind, array.tobytes()


def _encode_texts(texts: list[str] | list[bytes]) -> tuple[str, bytes]:
    is_bytes = bool(texts) and isinstance(texts[0], bytes)
    raw = [text if isinstance(text, bytes) else text.encode() for text in texts]
    lengths = np.fromiter(map(len, raw), dtype="<u4", count=len(raw))
    return "y" if is_bytes else "s", b"".join([lengths.tobytes(), *raw])


def _decode_column(header: _ColumnHeader, body: bytes) -> Column:
    dtype = _ARRAYS.get(header.kind)
    if dtype is not None:
        # A copy, since what is restored is written to.
        array: Column = np.frombuffer(body, dtype=dtype, count=header.count).copy()
        return array
    if header.kind not in ("s", "y"):
        raise SnapshotError(f"column {header.name!r} has the unknown kind {header.kind!r}", where="snapshot")
    ends = np.cumsum(np.frombuffer(body, dtype="<u4", count=header.count), dtype=np.int64) + 4 * header.count
    edges = [4 * header.count, *ends.tolist()]
    pieces = [body[first:last] for first, last in itertools.pairwise(edges)]
    return [piece.decode() for piece in pieces] if header.kind == "s" else pieces
