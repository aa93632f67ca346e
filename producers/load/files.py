"""Rows of CSV and NDJSON files as events: typed by the schema, and every unreadable row reported."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.json_schema import FieldSchema, parse_object, violation
from streamgauge.events.mapping import EPOCH_MS, EPOCH_S, RFC3339, parse_time

__all__ = ["BadRow", "FileEvent", "FileSpec", "InputFileError", "RawRow", "read_events", "read_rows", "read_time"]

NULLS = frozenset({"", "NA"})
"""CSV cells that stand for null."""

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class InputFileError(StreamgaugeError):
    """The file as a whole cannot be read as events."""


class RawRow(NamedTuple):
    """One row before it is typed: text cells of CSV, JSON values of NDJSON; null is None. Lines count from 1."""

    line: int
    values: dict[str, object]
    is_csv: bool


class BadRow(NamedTuple):
    """A row that is no event, and why."""

    line: int
    reason: str


class FileEvent(NamedTuple):
    """A row as an event. `data` is a JSON object."""

    line: int
    key: str
    time_ms: int
    data: bytes


@dataclass(frozen=True, slots=True)
class FileSpec:
    """What the columns mean.

    ``time_format`` is one of `EventMapping`'s, or a strptime format without a time zone, which is read as UTC.
    ``columns`` go into ``data``; None takes all that the schema names but ``key`` and ``time``.
    """

    key: str
    time: str
    time_format: str = RFC3339
    columns: tuple[str, ...] | None = None


def read_rows(path: Path) -> Iterator[RawRow | BadRow]:
    """Stream the rows of a CSV file (with a header) or NDJSON file, told apart by name, else by the first character.

    A name that ends in ``.gz`` is decompressed. Blank lines are no rows.

    Raises
    ------
    InputFileError
        The file is missing, empty, unreadable, or its header is no header.
    """
    try:
        with _opened(path) as file:
            if _is_ndjson(path, file):
                yield from _json_rows(file, path)
            else:
                yield from _csv_rows(file, path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputFileError(f"cannot be read: {reason}", where=str(path), remedy="Check the file's name") from error


def read_events(path: Path, spec: FileSpec, schema: Mapping[str, object]) -> Iterator[FileEvent | BadRow]:
    """Stream the rows of a file as events of the type that `schema` (a JSON Schema) describes.

    Values are only typed here; bounds and enumerations are for the processor to judge, like those of any event.

    Raises
    ------
    InputFileError
        As `read_rows`, or a column that `spec` names is not there.
    """
    fields = parse_object(schema, file=f"the schema for {path}").properties
    wanted = _wanted(path, spec, fields)
    is_checked = False
    for row in read_rows(path):
        if isinstance(row, BadRow):
            yield row
            continue
        if not is_checked and row.is_csv:
            _check_columns(path, (spec.key, spec.time, *(spec.columns or ())), row)
        is_checked = True
        try:
            yield _event(row, spec, fields, wanted)
        except ValueError as error:
            yield BadRow(row.line, str(error))


def read_time(value: object, time_format: str) -> int:
    """Milliseconds since the epoch of a cell.

    Raises
    ------
    ValueError
        It is no such time.
    """
    if time_format in (EPOCH_S, EPOCH_MS) and isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            raise ValueError(f"must be a number, not {value!r}")
        value = int(value) if _INTEGER.fullmatch(value) else float(value)
    if time_format in (EPOCH_S, EPOCH_MS, RFC3339) or re.search("%[zZ]", time_format):
        return parse_time(value, time_format)
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {value!r}")  # noqa: TRY004 (a wrong value, not a bug)
    moment = datetime.strptime(value, time_format).replace(tzinfo=UTC)
    return round((moment - _EPOCH).total_seconds() * 1000)


def _opened(path: Path) -> io.TextIOWrapper:
    # Bytes that are no UTF-8 become surrogates, so that they spoil only their own row.
    raw = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115 (closed by the wrapper)
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _is_ndjson(path: Path, file: io.TextIOWrapper) -> bool:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() in (".ndjson", ".jsonl", ".csv", ".tsv"):
        return suffix.lower() in (".ndjson", ".jsonl")
    start = file.read(4_096)
    file.seek(0)
    return start.lstrip().startswith("{")


def _json_rows(file: io.TextIOWrapper, path: Path) -> Iterator[RawRow | BadRow]:
    decode = msgspec.json.Decoder(dict[str, object]).decode
    found = False
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        found = True
        try:
            yield RawRow(number, decode(line.encode()), is_csv=False)
        except msgspec.DecodeError as error:
            yield BadRow(number, f"no JSON object: {error}")
        except UnicodeEncodeError:
            yield BadRow(number, "not UTF-8")
    if not found:
        raise InputFileError("the file is empty", where=str(path))


def _csv_rows(file: io.TextIOWrapper, path: Path) -> Iterator[RawRow | BadRow]:
    first = file.readline()
    file.seek(0)
    if not first.strip():
        raise InputFileError("the file is empty, or does not begin with a header", where=str(path))
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(file, delimiter=delimiter)
    header = next(reader)
    if not all(header) or len(set(header)) != len(header) or any(_has_surrogates(name) for name in header):
        raise InputFileError(
            "the header must name every column, each by another name, in UTF-8",
            where=f"{path}:1",
            remedy=f"It reads: {first.strip()[:200]!r}",
        )
    found = False
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield BadRow(reader.line_num, str(error))
            continue
        if not cells:
            continue
        found = True
        if len(cells) != len(header):
            kind = "short" if len(cells) < len(header) else "long"
            yield BadRow(reader.line_num, f"too {kind}: {len(cells)} columns instead of {len(header)}")
        elif any(map(_has_surrogates, cells)):
            yield BadRow(reader.line_num, "not UTF-8")
        else:
            values: dict[str, object] = {
                name: None if cell in NULLS else cell for name, cell in zip(header, cells, strict=True)
            }
            yield RawRow(reader.line_num, values, is_csv=True)
    if not found:
        raise InputFileError("the file has a header and no rows", where=str(path))


def _has_surrogates(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def _wanted(path: Path, spec: FileSpec, fields: Mapping[str, FieldSchema]) -> tuple[str, ...]:
    """The data columns."""
    for name in spec.columns or ():
        if name not in fields:
            raise InputFileError(
                f"the schema has no field {name!r}", where=str(path), remedy=f"Fields: {', '.join(fields)}"
            )
    if spec.columns is not None:
        return spec.columns
    return tuple(name for name in fields if name not in (spec.key, spec.time))


def _check_columns(path: Path, names: tuple[str, ...], row: RawRow) -> None:
    for name in names:
        if name not in row.values:
            raise InputFileError(
                f"there is no column {name!r}", where=str(path), remedy=f"Columns: {', '.join(row.values)}"
            )


def _event(row: RawRow, spec: FileSpec, fields: Mapping[str, FieldSchema], wanted: tuple[str, ...]) -> FileEvent:
    values = row.values
    key = values.get(spec.key)
    if key is None or isinstance(key, bool) or not isinstance(key, str | int):
        raise ValueError(f"{spec.key}: the key is missing, or neither text nor an integer: {key!r}")
    time = values.get(spec.time)
    if time is None:
        raise ValueError(f"{spec.time}: the time is missing")
    try:
        time_ms = read_time(time, spec.time_format)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{spec.time}: {error}") from error
    data: dict[str, object] = {}
    for name in wanted:
        if name in values:
            field = fields[name]
            value = _typed(name, values[name], field)
            if value is not None or field.nullable:
                data[name] = value
                continue
        elif not fields[name].required:
            continue
        if fields[name].required:
            raise ValueError(f"{name}: missing, and the schema allows no null")
    return FileEvent(row.line, str(key), time_ms, msgspec.json.encode(data))


def _typed(name: str, value: object, field: FieldSchema) -> object:
    """A cell as the schema's type."""
    if field.kind == "string":
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name}: must be text, not {value!r}")
        return value
    if isinstance(value, str):
        value = _from_text(name, value, field.kind)
    if value is None:
        return None
    kind_only = FieldSchema(field.kind, properties=field.properties, items=field.items)
    wrong = violation(kind_only, value)
    if wrong is not None:
        raise ValueError(f"{name}: {wrong}")
    return value


def _from_text(name: str, text: str, kind: str) -> object:
    text = text.strip()
    if text in NULLS:
        return None
    if kind == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "number" and _NUMBER.fullmatch(text):
        return float(text)
    if kind == "boolean" and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if kind in ("object", "array"):
        raise ValueError(f"{name}: a cell cannot hold an {kind}")
    raise ValueError(f"{name}: must be of type {kind}, not {text!r}")
