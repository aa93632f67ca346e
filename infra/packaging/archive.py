"""A zip whose bytes depend on its contents alone."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from streamgauge.events.errors import StreamgaugeError

__all__ = ["UNPACKED_BYTES_MAX", "Archived", "PackageTooLarge", "write_archive"]

UNPACKED_BYTES_MAX = 262_144_000
"""AWS Lambda developer guide, "Lambda quotas": deployment package, unzipped, 250 MB."""

_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644
_UNIX = 3
_DIGEST_CHARS = 16
_LARGEST_SHOWN = 5
_BYTECODE = "__pycache__"


class PackageTooLarge(StreamgaugeError):
    """Lambda would refuse the package."""


@dataclass(frozen=True, slots=True)
class Archived:
    """The zip that was written. ``digest`` is that of its contents, names and bytes, but for bytecode."""

    path: Path
    digest: str
    unpacked_bytes: int
    packed_bytes: int


def write_archive(
    files: Mapping[str, bytes | Path], folder: Path, *, stem: str, level: int, limit: int = UNPACKED_BYTES_MAX
) -> Archived:
    """Write ``<stem>-<digest>.zip`` into `folder`; one of that name is there already with the same contents.

    Parameters
    ----------
    files
        By name in the zip: the bytes, or where they are.
    level
        How hard zlib tries, 1 to 9; 0 stores.
    limit
        Bytes that the files may have together.

    Raises
    ------
    PackageTooLarge
        They have more.
    """
    contents = {name: _read(files[name]) for name in sorted(files)}
    size = sum(map(len, contents.values()))
    if size > limit:
        raise PackageTooLarge(
            f"unpacked it has {size / 1e6:.0f} MB, and Lambda takes {limit / 1e6:.0f} MB at most; "
            f"the largest parts: {_largest(contents)}",
            where=f"the package of {stem}",
            remedy="Leave out of it what no function needs (infra/packaging/contents.py)",
        )
    digest = sha256()
    for name, body in contents.items():
        if _BYTECODE in PurePosixPath(name).parts:
            # It says nothing that its source does not, and is there or not by chance.
            continue
        digest.update(f"{name}\0{sha256(body).hexdigest()}\n".encode())
    name = digest.hexdigest()[:_DIGEST_CHARS]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{name}.zip"
    if not path.exists():
        _write(contents, path, level)
    return Archived(path, name, size, path.stat().st_size)


def _read(source: bytes | Path) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def _write(contents: Mapping[str, bytes], path: Path, level: int) -> None:
    # Under its name only when it is whole.
    unfinished = path.with_suffix(".part")
    method = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    with zipfile.ZipFile(unfinished, "w", method, compresslevel=level or None) as archive:
        for name, body in contents.items():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = method
            entry.create_system = _UNIX
            entry.external_attr = _MODE << 16
            archive.writestr(entry, body)
    unfinished.replace(path)


def _largest(contents: Mapping[str, bytes]) -> str:
    sizes: dict[str, int] = {}
    for name, body in contents.items():
        top = name.partition("/")[0]
        sizes[top] = sizes.get(top, 0) + len(body)
    ranked = sorted(sizes.items(), key=lambda entry: -entry[1])[:_LARGEST_SHOWN]
    return ", ".join(f"{top} {size / 1e6:.0f} MB" for top, size in ranked)
