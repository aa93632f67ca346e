"""Bytecode for a package that stays on this machine: a cold start then need not compile what it imports."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path

__all__ = ["bytecode"]

# The layout of a .pyc file (PEP 552): the magic number, flags, then either time and size of the source, or its hash.
_HEADER_BYTES = 16
_BY_TIME = 0
_BY_HASH_UNCHECKED = 1
_UINT32 = 0xFFFFFFFF


def bytecode(files: Mapping[str, bytes | Path]) -> dict[str, bytes]:
    """Bytecode that this interpreter holds for modules among `files`, named as it will look for it.

    It is marked as valid without a look at its source: the files' times do not survive in a package.
    """
    found: dict[str, bytes] = {}
    for name, source in files.items():
        if isinstance(source, Path) and name.endswith(".py") and (code := _cached(source)) is not None:
            found[cache_from_source(name)] = code
    return found


def _cached(source: Path) -> bytes | None:
    """What was compiled from the source as it is now; None where that has not been."""
    try:
        code = Path(cache_from_source(str(source))).read_bytes()
        stat = source.stat()
    except OSError:
        return None
    by_time = _uint32(_BY_TIME) + _uint32(int(stat.st_mtime)) + _uint32(stat.st_size)
    if code[:_HEADER_BYTES] != MAGIC_NUMBER + by_time:
        return None
    return MAGIC_NUMBER + _uint32(_BY_HASH_UNCHECKED) + source_hash(source.read_bytes()) + code[_HEADER_BYTES:]


def _uint32(value: int) -> bytes:
    return (value & _UINT32).to_bytes(4, "little")
