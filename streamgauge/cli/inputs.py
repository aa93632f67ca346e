"""Files as input: which columns are key, time and data, and in which order the rows go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from streamgauge.cli.output import say
from streamgauge.producers.load.files import BadRow, FileEvent, FileSpec, read_events
from streamgauge.producers.load.infer import InferredSchema, infer_file
from streamgauge.producers.load.ordering import ByTime, FileOrder, Ordering, Shuffled, ordered

__all__ = ["FileInput", "copies_behind", "file_options", "limited", "refuse", "say_bad_rows"]

Command = TypeVar("Command", bound=Callable[..., object])

# Copies come that many events after the event before, as a retry would that waited for an answer.
_COPIES_BEHIND = 500
_BAD_ROWS_SHOWN = 10


def file_options(command: Command) -> Command:
    """The options that say what a file's rows are; `FileInput.from_options` takes their values."""
    options = [
        click.option("--from-file", metavar="FILE", help="Put the rows of a CSV (with a header) or NDJSON file."),
        click.option("--type", "event_type", metavar="NAME", help="Event type of the file's rows."),
        click.option("--key", metavar="COLUMN", help="The file's key column. Guessed without."),
        click.option("--time", metavar="COLUMN", help="The file's time column. Guessed without."),
        click.option("--data", metavar="COL,COL", help="The file's data columns. All others without."),
        click.option(
            "--order",
            type=click.Choice(["time", "file", "shuffled"]),
            default="time",
            show_default=True,
            help="Order of the rows: by event time, as in the file, or shuffled within the out-of-orderness bound.",
        ),
        click.option(
            "--copies",
            type=click.IntRange(1, 20),
            default=1,
            show_default=True,
            help="Send every event so often, as a producer's retries would.",
        ),
        click.option("--raw", is_flag=True, help="Put the rows as plain JSON, by bare boto3."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def refuse(options: Mapping[str, object], only: str) -> None:
    """Wrong use, if any of these options was given; `only` says where they belong."""
    given = [name for name, value in options.items() if value]
    if given:
        raise click.UsageError(f"{', '.join(given)}: only {only}")


@dataclass(frozen=True, slots=True)
class FileInput:
    """The rows of one file as events. ``schema`` types the cells; ``inferred`` is what the file itself shows."""

    path: Path
    spec: FileSpec
    schema: Mapping[str, object]
    inferred: InferredSchema
    order: str
    copies: int
    raw: bool

    @classmethod
    def from_options(
        cls,
        path: str,
        *,
        schema: Mapping[str, object] | None,
        key: str | None,
        time: str | None,
        data: str | None,
        order: str,
        copies: int,
        raw: bool,
    ) -> FileInput:
        """Look at the file and decide what its columns are.

        Parameters
        ----------
        schema
            The JSON Schema of the event type, if the catalogue has it; it wins over what the file shows.

        Raises
        ------
        InputFileError, CannotInfer
            The file cannot be read, or lacks a column.
        """
        file = Path(path)
        inferred = infer_file(file, key=key, time=time)
        columns = None if data is None else tuple(name.strip() for name in data.split(",") if name.strip())
        typed = inferred.schema if schema is None else _overlaid(inferred.schema, schema) if raw else schema
        if raw:
            # The whole row is what such a program puts: key and time are fields of it.
            names = tuple(_properties(inferred.schema)) if columns is None else columns
            columns = tuple(dict.fromkeys((inferred.key, inferred.time, *names)))
        spec = FileSpec(inferred.key, inferred.time, inferred.time_format, columns)
        return cls(file, spec, typed, inferred, order, copies, raw)

    def rows(self, *, bound_ms: int, seed: int) -> Iterator[FileEvent | BadRow]:
        """The rows in the order asked for; ``shuffled`` keeps every event within `bound_ms` of the latest before it."""
        orderings: dict[str, Ordering] = {"time": ByTime(), "file": FileOrder(), "shuffled": Shuffled(bound_ms, seed)}
        return ordered(read_events(self.path, self.spec, self.schema), orderings[self.order])


def copies_behind(copies: int) -> int:
    """Events between two copies of one; bounded so that W holds them all."""
    return min(_COPIES_BEHIND, 8_000 // copies) if copies > 1 else 0


def say_bad_rows(shown: Sequence[BadRow], count: int) -> None:
    """Name the first unreadable rows, and how many there are."""
    for row in shown[:_BAD_ROWS_SHOWN]:
        say(f"unreadable: {f'line {row.line}: ' if row.line else ''}{row.reason}")
    if count > _BAD_ROWS_SHOWN:
        say(f"... {count:,} unreadable rows in all")


def limited(schema: Mapping[str, object], columns: Sequence[str] | None) -> dict[str, object]:
    """The schema of events that hold only these columns; all of it with None."""
    if columns is None:
        return dict(schema)
    required = schema.get("required")
    assert isinstance(required, list)
    return {
        **schema,
        "properties": {name: field for name, field in _properties(schema).items() if name in columns},
        "required": [name for name in required if name in columns],
    }


def _overlaid(inferred: Mapping[str, object], schema: Mapping[str, object]) -> dict[str, object]:
    """All of the file's columns, typed by the type's own schema where that names them."""
    return {**inferred, "properties": {**_properties(inferred), **_properties(schema)}}


def _properties(schema: Mapping[str, object]) -> Mapping[str, object]:
    properties = schema.get("properties")
    assert isinstance(properties, Mapping)
    return properties
