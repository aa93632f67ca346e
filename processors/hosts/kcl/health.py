"""``python -m streamgauge.processors.hosts.kcl.health FOLDER``: whether the host that logs into FOLDER is well.

The host touches a file there whenever the stream and the stores have answered it, which it asks for every ten seconds
while its daemon runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["is_well", "main", "note"]

_FILE = "alive"
_SILENCE_S_MAX = 60.0


def note(folder: Path) -> None:
    """Say that the host is well."""
    (folder / _FILE).touch()


def is_well(folder: Path, *, now_s: float) -> bool:
    """Whether it has said so within the last minute; `now_s` as ``time.time``."""
    try:
        return now_s - (folder / _FILE).stat().st_mtime < _SILENCE_S_MAX
    except FileNotFoundError:
        return False


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 if it is well, 1 if not."""
    (folder,) = arguments
    return 0 if is_well(Path(folder), now_s=time.time()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
