"""Building the function's package: our code, the locked distributions, the pipeline."""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path, PurePosixPath

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.packaging.archive import UNPACKED_BYTES_MAX, Archived, write_archive
from streamgauge.infra.packaging.bytecode import bytecode
from streamgauge.infra.packaging.contents import is_needed
from streamgauge.infra.packaging.distributions import files_of
from streamgauge.infra.packaging.lock import Target, lock_text, locked, running
from streamgauge.processors.hosts.pipeline_file import load_pipeline

__all__ = ["PIPELINE_FILE", "build_package"]

PIPELINE_FILE = "pipeline/pipeline.toml"
"""Where a function finds its pipeline, relative to ``LAMBDA_TASK_ROOT``."""

# What the handlers import, as the wheel maps it.
_MODULES = ("__init__.py", "settings.py", "py.typed", "events", "processors")
_SCHEMAS = re.compile(r"^[ \t]*schemas[ \t]*=.*$", re.MULTILINE)
_SCHEMAS_FOLDER = "schemas"
_UPLOADED_LEVEL = 6
# What stays on this machine is unpacked at each cold start, and saves nothing by being small.
_LOCAL_LEVEL = 0


def build_package(
    pipeline_file: Path,
    folder: Path,
    *,
    target: Target | None,
    say: Callable[[str], None],
    limit: int = UNPACKED_BYTES_MAX,
) -> Archived:
    """Build the package of a pipeline's functions; the same contents give the same name.

    Parameters
    ----------
    folder
        Where the zip goes.
    target
        The runtime of Lambda that it is for. None: the interpreter that runs this, which is what the local stack runs
        functions with.
    say
        Told what takes its time.
    limit
        Bytes that it may have unpacked.

    Raises
    ------
    PipelineFileError, SchemaError
        The pipeline cannot be read.
    LockError, PackagesMissing
        The dependencies are not to be had.
    PackageTooLarge
        Lambda would refuse it.
    """
    pipeline = load_pipeline(pipeline_file)
    wanted = locked(lock_text(), target)
    with tempfile.TemporaryDirectory(prefix="streamgauge-package-") as work:
        fetched = Path(work) / "fetched"
        fetched.mkdir()
        contents: dict[str, bytes | Path] = {**files_of(wanted, target, work=fetched, say=say)}
        contents |= _own()
        contents |= _pipeline(pipeline_file)
        if target is None:
            contents |= bytecode(contents)
        built = write_archive(
            contents,
            folder,
            stem=f"streamgauge-{pipeline.name}",
            level=_LOCAL_LEVEL if target is None else _UPLOADED_LEVEL,
            limit=limit,
        )
    say(
        f"package for {target or running()}: {len(contents):,} files, {built.unpacked_bytes / 1e6:.0f} MB unpacked, "
        f"{built.packed_bytes / 1e6:.0f} MB as a zip"
    )
    return built


def _own() -> dict[str, Path]:
    root = Path(str(files("streamgauge")))
    found: dict[str, Path] = {}
    for name in _MODULES:
        start = root / name
        # In a checkout the folders are links, under which `rglob` does not look by itself.
        paths = [start] if start.is_file() else [path for path in start.resolve().rglob("*") if path.is_file()]
        for path in paths:
            inside = PurePosixPath(name) if start.is_file() else name / PurePosixPath(path.relative_to(start.resolve()))
            if is_needed(inside) and inside.suffix != ".md":
                found[f"streamgauge/{inside}"] = path
    return found


def _pipeline(pipeline_file: Path) -> dict[str, bytes | Path]:
    """The pipeline's file and its schemas, which move to the folder beside it."""
    text = pipeline_file.read_text(encoding="utf-8")
    table = tomllib.loads(text)
    schemas = pipeline_file.parent / table["pipeline"]["schemas"]
    wanted = {**table, "pipeline": {**table["pipeline"], "schemas": _SCHEMAS_FOLDER}}
    if table != wanted:
        text = _SCHEMAS.sub(f'schemas = "{_SCHEMAS_FOLDER}"', text, count=1)
        if tomllib.loads(text) != wanted:
            raise StreamgaugeError(
                "the folder of schemas cannot be moved into the package",
                where=f"{pipeline_file}, [pipeline]",
                remedy='Write it on a line of its own: schemas = "schemas"',
            )
    beside = PurePosixPath(PIPELINE_FILE).parent / _SCHEMAS_FOLDER
    found: dict[str, bytes | Path] = {PIPELINE_FILE: text.encode()}
    found |= {f"{beside}/{path.relative_to(schemas).as_posix()}": path for path in sorted(schemas.glob("*/*.json"))}
    return found
