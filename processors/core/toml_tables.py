"""TOML tables that know their file and lines, so that every complaint names the place.

``tomllib`` tells no lines, so they are found by scanning for headers and keys.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import duration_ms

__all__ = ["PipelineFileError", "Table", "TomlFile"]

_HEADER = re.compile(r"\s*\[(\[)?([^\[\]]+)\]")
_KEY_PART = r"(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
_KEY = re.compile(rf"\s*({_KEY_PART}(?:\s*\.\s*{_KEY_PART})*)\s*=")
_PARTS = re.compile(_KEY_PART)
_TOML_PLACE = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)

_Path = tuple[str, ...]


class PipelineFileError(StreamgaugeError):
    """A pipeline file that cannot be used; `where` is file and line."""


class TomlFile:
    """One parsed file.

    Raises
    ------
    PipelineFileError
        No TOML.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        try:
            self.values: Mapping[str, object] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            match = _TOML_PLACE.match(str(error))
            what, line, column = match.groups() if match else (str(error), None, None)
            place = f"line {line}, column {column}" if line else f"line {max(1, len(text.splitlines()))}"
            raise PipelineFileError(f"not TOML: {what}", where=f"{file}, {place}") from error
        self._lines = _scan(text)

    def where(self, table: str, index: int, path: _Path = ()) -> str:
        """File and line of a key, or of what holds it where the key has no line of its own."""
        for length in range(len(path), -1, -1):
            line = self._lines.get((table, index, path[:length]))
            if line is not None:
                return f"{self.file}, line {line}"
        return f"{self.file}, line 1"

    def check_tables(self, singles: Collection[str], arrays: Collection[str]) -> None:
        """Refuse anything at the top level but these tables and arrays of tables."""
        for name, value in self.values.items():
            if name not in singles and name not in arrays:
                raise PipelineFileError(
                    f"unknown table or key {name!r}", where=self.where(name, 0), remedy=_hint(name, [*singles, *arrays])
                )
            if name in singles and not isinstance(value, dict):
                raise PipelineFileError(f"{name} must be one table, [{name}]", where=self.where(name, 0))
            if name in arrays and not (isinstance(value, list) and all(isinstance(entry, dict) for entry in value)):
                raise PipelineFileError(f"{name} must be an array of tables, [[{name}]]", where=self.where(name, 0))

    def table(self, name: str) -> Table | None:
        """The table of that name, if there."""
        value = self.values.get(name)
        return Table(self, name, 0, value) if isinstance(value, dict) else None

    def tables(self, name: str) -> list[Table]:
        """The tables of the array of that name."""
        value = self.values.get(name)
        entries = value if isinstance(value, list) else []
        return [Table(self, name, index, entry) for index, entry in enumerate(entries)]


class Table:
    """One table, read key by key; each reader raises `PipelineFileError` naming the key's line."""

    def __init__(self, file: TomlFile, name: str, index: int, values: Mapping[str, object], path: _Path = ()) -> None:
        self._file = file
        self._name = name
        self._index = index
        self._path = path
        self.values = values

    def where(self, key: str | None = None) -> str:
        """File and line of `key`, or of the table."""
        return self._file.where(self._name, self._index, self._path + ((key,) if key else ()))

    def error(self, key: str | None, what: str, remedy: str | None = None) -> PipelineFileError:
        """An error at `key`."""
        return PipelineFileError(f"{key}: {what}" if key else what, where=self.where(key), remedy=remedy)

    def check_keys(self, known: Collection[str], unsupported: Mapping[str, str] | None = None) -> None:
        """Refuse other keys; `unsupported` maps those to come to what they are."""
        for key in self.values:
            if unsupported and key in unsupported:
                raise self.error(key, f"{unsupported[key]} not supported in this version")
            if key not in known:
                raise self.error(key, "unknown key", _hint(key, known))

    def string(self, key: str, default: str | None = None) -> str:
        """A string that is not empty; without a default it must be there."""
        value = self.values.get(key, default)
        if value is None:
            raise self.error(None, f"{self._title()} lacks {key!r}")
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, f"must be text in quotes, not {_shown(value)}")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of distinct strings, not empty."""
        value = self.values.get(key)
        if value is None:
            raise self.error(None, f"{self._title()} lacks {key!r}")
        if not isinstance(value, list) or not value or not all(isinstance(entry, str) and entry for entry in value):
            raise self.error(key, f"must be a list of texts in quotes, not {_shown(value)}")
        if len(set(value)) < len(value):
            raise self.error(key, f"names one twice: {_shown(value)}")
        return tuple(value)

    def duration(self, key: str, default: str | None = None, *, least_ms: int = 0) -> int:
        """A duration in milliseconds."""
        value = self.values.get(key, default)
        if value is None:
            raise self.error(None, f"{self._title()} lacks {key!r}", f'Write for example {key} = "5m"')
        try:
            if not isinstance(value, str):
                raise ValueError(f"not a duration in quotes (such as '90s', '2h', '1d'): {_shown(value)}")  # noqa: TRY301, TRY004
            length = duration_ms(value)
        except ValueError as error:
            raise self.error(key, str(error)) from error
        if not least_ms <= length < 2**53:
            raise self.error(key, f"must be at least {least_ms} ms and less than 2**53 ms, not {value!r}")
        return length

    def integer(self, key: str, default: int) -> int:
        """A whole number."""
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, f"must be a whole number, not {_shown(value)}")
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {_shown(value)}")
        return value

    def inner(self, key: str) -> Table:
        """A table inside this one."""
        value = self.values.get(key)
        if value is None:
            raise self.error(None, f"{self._title()} lacks {key!r}")
        if not isinstance(value, dict):
            raise self.error(key, f"must be a table, {{ … }}, not {_shown(value)}")
        return Table(self._file, self._name, self._index, value, (*self._path, key))

    def _title(self) -> str:
        return ".".join([f"[{self._name}]", *self._path])


def _scan(text: str) -> dict[tuple[str, int, _Path], int]:
    """Line of the n-th table of a name, and of each key path below it; the first one where a path stands twice."""
    lines: dict[tuple[str, int, _Path], int] = {}
    counts: dict[str, int] = {}
    table, inside = "", ""
    prefix: _Path = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if inside:
            inside = "" if inside in line else inside
            continue
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table, *rest = _parts(header[2]) or [""]
            prefix = tuple(rest)
            if header[1] and not rest:
                counts[table] = counts.get(table, -1) + 1
            lines.setdefault((table, counts.get(table, 0), prefix), number)
        elif key:
            path = prefix + tuple(_parts(key[1]))
            if table:
                for length in range(len(prefix) + 1, len(path) + 1):
                    lines.setdefault((table, counts.get(table, 0), path[:length]), number)
            else:
                lines.setdefault((path[0], 0, ()), number)
        inside = next((quotes for quotes in ('"""', "'''") if line.count(quotes) % 2), "")
    return lines


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PARTS.findall(dotted)]


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "…"


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2)
    return f"Did you mean {' or '.join(close)}" if close else f"Known are {', '.join(sorted(known))}"
