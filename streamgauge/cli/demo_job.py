"""What a demo runs: its pipeline file, made where the file's data ask for it, and what is put."""

from __future__ import annotations

import re
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

from streamgauge.cli.context import DEMO_PIPELINE
from streamgauge.cli.inputs import limited
from streamgauge.cli.scaffold import event_table, plan_scaffold, write_schema
from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.producers.load.infer import InferredSchema, infer_file

__all__ = ["DemoJob", "FileOptions", "prepare"]

_SCHEMAS = re.compile(r"^[ \t]*schemas[ \t]*=.*$", re.MULTILINE)
_PIPELINE = re.compile(r"^[ \t]*\[[ \t]*pipeline[ \t]*\].*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FileOptions:
    """The demo's options about a file, as they were given."""

    path: Path
    type: str | None
    key: str | None
    time: str | None
    data: str | None
    raw: bool

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The data columns; None for all."""
        return None if self.data is None else tuple(name.strip() for name in self.data.split(",") if name.strip())


@dataclass(frozen=True, slots=True)
class DemoJob:
    """A pipeline to run, and sentences about what was guessed for it. ``type`` is that of the file's rows."""

    pipeline: Pipeline
    pipeline_file: Path
    type: str
    notes: tuple[str, ...]


def prepare(work: Path, *, pipeline: Path | None, file: FileOptions | None) -> DemoJob:
    """Find or make the pipeline.

    Parameters
    ----------
    work
        A folder for what is made; what an earlier demo left there is removed.

    Raises
    ------
    StreamgaugeError
        The pipeline or the file is wrong.
    """
    shutil.rmtree(work, ignore_errors=True)
    if file is None:
        path = pipeline or DEMO_PIPELINE
        loaded = load_pipeline(path)
        return DemoJob(loaded, path, loaded.event_types[0], ())
    inferred = infer_file(file.path, key=file.key, time=file.time)
    wanted = file.columns
    if wanted is not None:
        missing = [name for name in wanted if name not in _names(inferred)]
        if missing:
            raise StreamgaugeError(
                f"there is no column {missing[0]!r}",
                where=str(file.path),
                remedy=f"Columns: {', '.join(_names(inferred))}",
            )
    if pipeline is None:
        return _inferred(work, file, inferred)
    return _given(work, pipeline, file, inferred)


def _inferred(work: Path, file: FileOptions, inferred: InferredSchema) -> DemoJob:
    event_type = file.type or re.sub(r"[^A-Za-z0-9]+", "_", file.path.name.split(".")[0]).strip("_").lower() + ".row"
    scaffold = plan_scaffold("demo", event_type, file.path, inferred)
    loaded = scaffold.write(work)
    return DemoJob(loaded, work / "pipeline.toml", event_type, scaffold.guesses)


def _given(work: Path, pipeline: Path, file: FileOptions, inferred: InferredSchema) -> DemoJob:
    """The user's pipeline as it is, or a copy of it with what it lacks."""
    try:
        text = pipeline.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
        named = tables["pipeline"]
        event_type = file.type or named["event_types"][0]
        folder = pipeline.parent / named.get("schemas", "schemas")
        reads = event_type in named["event_types"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, IndexError, AttributeError):
        # Whatever is wrong with it, loading says so with file and line.
        loaded = load_pipeline(pipeline)
        return DemoJob(loaded, pipeline, loaded.event_types[0], ())
    if not reads:
        raise StreamgaugeError(
            f"the pipeline does not read events of type {event_type!r}",
            where=str(pipeline),
            remedy=f"Add it to event_types, or give another --type: {', '.join(named['event_types'])}",
        )
    has_schema = any((folder / event_type).glob("*.json"))
    needs_mapping = file.raw and "event" not in tables
    if has_schema and not needs_mapping:
        return DemoJob(load_pipeline(pipeline), pipeline, event_type, ())
    notes: list[str] = []
    work.mkdir(parents=True)
    if folder.is_dir():
        shutil.copytree(folder, work / "schemas")
    if not has_schema:
        keep = None if file.columns is None else (inferred.key, inferred.time, *file.columns)
        write_schema(work / "schemas", event_type, limited(inferred.schema, keep))
        notes += [f"The catalogue has no type {event_type!r}, so it was inferred from {file.path.name}:"]
        notes += inferred.guesses
    line = 'schemas = "schemas"'
    text, found = _SCHEMAS.subn(line, text, count=1)
    if not found:
        text = _PIPELINE.sub(lambda header: f"{header[0]}\n{line}", text, count=1)
    if needs_mapping:
        table = event_table(event_type, inferred)
        text = f"{text.rstrip()}\n\n{table}"
        notes += ["The pipeline has no [event] table, so the rows are read through this one:", *table.splitlines()]
    copy = work / "pipeline.toml"
    copy.write_text(text, encoding="utf-8")
    return DemoJob(load_pipeline(copy), copy, event_type, tuple(notes))


def _names(inferred: InferredSchema) -> list[str]:
    properties = inferred.schema["properties"]
    assert isinstance(properties, dict)
    return list(properties)
