"""A pipeline for a file's data: written by ``init`` for keeps, by ``demo --from-file`` for one run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median, quantiles

import msgspec

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import format_duration
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.producers.load.files import FileEvent, FileSpec, read_events
from streamgauge.producers.load.infer import InferredSchema

__all__ = ["Scaffold", "event_table", "plan_scaffold", "write_schema"]

_SAMPLE_EVENTS = 100_000
# A window should hold some twenty events of a key; a user then changes what does not fit.
_EVENTS_PER_WINDOW = 20
_NICE_MS = [
    1_000 * seconds
    for seconds in (1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 604_800)
]
_MEASURED_FIELDS_MAX = 4
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The three files of a pipeline as text, and what was guessed for them, a sentence each."""

    type: str
    pipeline: str
    schema: dict[str, object]
    load_profile: str
    guesses: tuple[str, ...]

    def write(self, folder: Path) -> Pipeline:
        """Write ``pipeline.toml``, ``load.toml`` and the schema below `folder`, and load what was written.

        Raises
        ------
        StreamgaugeError
            The folder is there already, or cannot be written.
        """
        try:
            folder.mkdir(parents=True)
            write_schema(folder / "schemas", self.type, self.schema)
            (folder / "load.toml").write_text(self.load_profile, encoding="utf-8")
            (folder / "pipeline.toml").write_text(self.pipeline, encoding="utf-8")
        except FileExistsError:
            raise StreamgaugeError(
                "is there already and is not overwritten", where=str(folder), remedy="Choose another name, or remove it"
            ) from None
        except OSError as error:
            raise StreamgaugeError(f"cannot be written: {error.strerror or error}", where=str(folder)) from error
        return load_pipeline(folder / "pipeline.toml")


def write_schema(schemas: Path, type: str, schema: dict[str, object]) -> None:
    """Write the first version of a type's schema into a folder of schemas."""
    file = schemas / type / "1.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def event_table(type: str, inferred: InferredSchema) -> str:
    """The ``[event]`` table that reads rows put as plain JSON.

    Raises
    ------
    StreamgaugeError
        The times have no zone, so records that hold them cannot be read as they are.
    """
    if not inferred.time_has_zone:
        raise StreamgaugeError(
            f"times such as {inferred.time_format} have no time zone, so records that hold them cannot be read",
            where=f"column {inferred.time!r}",
            remedy="Write times with a zone, such as 2013-01-01T06:00:00Z",
        )
    lines = [
        "[event]",
        f"type = {_quoted(repr(type))}",
        f"key = {_quoted(inferred.key)}",
        f"time = {_quoted(inferred.time)}",
        f"time_format = {_quoted(inferred.time_format)}",
    ]
    return "\n".join(lines) + "\n"


def plan_scaffold(name: str, type: str, file: Path, inferred: InferredSchema) -> Scaffold:
    """Choose windows, measures and a threshold that fit the file's rows.

    Raises
    ------
    InputFileError
        The file cannot be read.
    """
    spec = FileSpec(inferred.key, inferred.time, inferred.time_format)
    rows = islice(read_events(file, spec, inferred.schema), _SAMPLE_EVENTS)
    events = [row for row in rows if isinstance(row, FileEvent)]
    step_ms = _step_ms(events)
    window_ms = _nice(step_ms * _EVENTS_PER_WINDOW)
    bound_ms = _nice(step_ms * 2)
    columns = _numeric_columns(type, inferred, events)
    measures = ['events = "count()"']
    for column, _ in columns:
        measures += [f'{column}_{kind} = "{kind}(data.{column})"' for kind in ("min", "mean", "max")]
    guesses = [
        *inferred.guesses,
        (
            f"Events of a key are about {format_duration(step_ms)} apart: windows of {format_duration(window_ms)}, "
            f"events may be {format_duration(bound_ms)} out of order."
        ),
    ]
    threshold = ""
    if columns:
        column, values = columns[0]
        raise_at, clear_at = _raise_and_clear(values)
        threshold = _THRESHOLD.format(column=column, raise_at=raise_at, clear_at=clear_at)
        guesses.append(f"As an example, a threshold event when {column}_max exceeds {raise_at}.")
    mapped = inferred.time_has_zone
    if not mapped:
        guesses.append("Times have no zone, so records of other producers are not read: there is no [event] table.")
    pipeline = _PIPELINE.format(
        name=_quoted(name),
        type=_quoted(type),
        file=file.name,
        bound=format_duration(bound_ms),
        window=format_duration(window_ms),
        measures="\n".join(measures),
        event=_EVENT_NOTE + event_table(type, inferred) + "\n" if mapped else "",
        threshold=threshold,
    )
    keys = sorted({event.key for event in events})
    return Scaffold(type, pipeline, inferred.schema, _load_profile(type, keys, window_ms), tuple(guesses))


_EVENT_NOTE = "# Records of other producers are read through this table; add `id` if they have one.\n"

_PIPELINE = """\
# Written by `streamgauge init` from {file}: change what it guessed wrong.
[pipeline]
name = {name}
stream = {name}
event_types = [{type}]
schemas = "schemas"
out_of_orderness = "{bound}"
state_epoch = 1

{event}[[aggregate]]
name = "overview"
key = ["subject"]
window = {{ tumbling = "{window}" }}
allowed_lateness = "{bound}"

[aggregate.measures]
{measures}
{threshold}"""

_THRESHOLD = """
[[threshold]]
name = "high_{column}"
aggregate = "overview"
raise_when = "{column}_max > {raise_at}"
clear_when = "{column}_max < {clear_at}"
"""

_LOAD = """\
# Written by `streamgauge init`: what `streamgauge produce` generates.
type = {type}
rate = {rate}
duration = "60s"
seed = 1
speedup = {speedup}
{keys}
[duplicates]
share = 0.02
copies = 2

[malformed]
broken_json = 0.0005
"""


def _load_profile(type: str, keys: Sequence[str], window_ms: int) -> str:
    """A minute of load in which about ten windows pass."""
    named = keys[:1_000]
    rate = 200
    speedup = max(1, round(window_ms * 10 / 60_000))
    listed = "\n[keys]\nnames = " + msgspec.json.encode(named).decode() + "\n" if named else ""
    return _LOAD.format(type=_quoted(type), rate=rate, speedup=speedup, keys=listed)


def _step_ms(events: Iterable[FileEvent]) -> int:
    """The median time between two events of a key."""
    times: dict[str, list[int]] = {}
    for event in events:
        times.setdefault(event.key, []).append(event.time_ms)
    steps: list[int] = []
    for of_key in times.values():
        of_key.sort()
        steps += [later - earlier for earlier, later in pairwise(of_key) if later > earlier]
    return max(int(median(steps)), 1) if steps else 1_000


def _nice(milliseconds: int) -> int:
    return next((nice for nice in _NICE_MS if nice >= milliseconds), _NICE_MS[-1])


def _numeric_columns(type: str, inferred: InferredSchema, events: Sequence[FileEvent]) -> list[tuple[str, list[float]]]:
    """The columns that vary most: numbers before integers, which are often parts of a date or codes."""
    fields = Catalogue([EventSchema(type, 1, inferred.schema)]).fields(type)
    rows = [msgspec.json.decode(event.data, type=dict[str, object]) for event in events]
    found: list[tuple[tuple[bool, int], str, list[float]]] = []
    for place, (path, field) in enumerate(fields.items()):
        if (
            field.kind not in ("integer", "number")
            or not _NAME.fullmatch(path)
            or path in (inferred.key, inferred.time)
        ):
            continue
        values = [float(value) for row in rows if isinstance(value := row.get(path), int | float)]
        if len(set(values)) > 1:
            found.append(((field.kind == "integer", place), path, values))
    return [(path, values) for _, path, values in sorted(found)[:_MEASURED_FIELDS_MAX]]


def _raise_and_clear(values: list[float]) -> tuple[float, float]:
    parts = quantiles(values, n=100)
    return round(parts[98], 6), round(parts[89], 6)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False)
