"""Guesses what the rows of a sample are: schema, key and time. Every guess is said in a sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.json_schema import INT64_MAX
from streamgauge.events.mapping import EPOCH_MS, EPOCH_S, RFC3339
from streamgauge.producers.load.files import NULLS, BadRow, InputFileError, RawRow, read_rows, read_time

__all__ = ["CannotInfer", "InferredSchema", "infer_file", "infer_schema"]

SAMPLE_ROWS = 100_000

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TIME_NAME = re.compile(r"time|date|stamp|\bts\b|_ts|_at\b", re.IGNORECASE)
_KEY_NAME = re.compile(
    r"(^|_|\b)(id|key|station|origin|sensor|device|host|user|customer|account|symbol|machine|vehicle|site|city|name)"
    r"(_id)?$",
    re.IGNORECASE,
)
_FORMATS = (
    RFC3339,
    "%Y-%m-%d %H:%M:%S%z",
    "%Y-%m-%d %H:%M:%S %z",
    "%Y-%m-%d %H:%M:%S %Z",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M:%S.%f",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%Y-%m-%d",
)
# Of a column that nobody named, so many values must be times for it to be one.
_TIMES_SHARE_MIN = 0.9
_PROBED_TIMES = 500
# Between 1973 and 2096: other integers are hardly times.
_EPOCHS = ((EPOCH_MS, 10**11, 4 * 10**12), (EPOCH_S, 10**8, 4 * 10**9))


class CannotInfer(StreamgaugeError):
    """The sample does not show what is needed."""


@dataclass(frozen=True, slots=True)
class InferredSchema:
    """What was guessed. `schema` is a JSON Schema of all columns; key and time columns are not required in it.

    ``time_has_zone`` is False for a strptime format without a zone: times are then taken for UTC.
    """

    schema: dict[str, object]
    key: str
    time: str
    time_format: str
    guesses: tuple[str, ...]

    @property
    def time_has_zone(self) -> bool:
        """Whether `[event]` can read the time as it stands in the records."""
        return self.time_format in (RFC3339, EPOCH_S, EPOCH_MS) or bool(re.search("%[zZ]", self.time_format))


def infer_file(path: Path, *, key: str | None = None, time: str | None = None) -> InferredSchema:
    """Infer from the first 100,000 rows of a file; see `infer_schema`.

    Raises
    ------
    InputFileError, CannotInfer
        The file cannot be read, or has no column that could be the time.
    """
    sample: list[Mapping[str, object]] = []
    rows = read_rows(path)
    bad: list[BadRow] = []
    for row in islice(rows, SAMPLE_ROWS):
        if isinstance(row, RawRow):
            sample.append(row.values)
        else:
            bad.append(row)
    if not sample:
        first = f" (line {bad[0].line}: {bad[0].reason})" if bad else ""
        raise InputFileError(f"the file has no readable row{first}", where=str(path))
    is_whole = next(rows, None) is None
    return infer_schema(sample, is_whole=is_whole, key=key, time=time, where=str(path))


def infer_schema(
    rows: Sequence[Mapping[str, object]],
    *,
    is_whole: bool = True,
    key: str | None = None,
    time: str | None = None,
    where: str = "sample",
) -> InferredSchema:
    """Guess types, key and time from rows as `read_rows` gives them (text cells or JSON values).

    Parameters
    ----------
    is_whole
        Whether the rows are all there are. If not, every field may be null and integers may be any number: what comes
        later is not known.
    key, time
        Columns already known.

    Raises
    ------
    CannotInfer
        No row, a named column is missing, or no column could be the time.
    """
    if not rows:
        raise CannotInfer("there is no row to infer from", where=where)
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    for name in (key, time):
        if name is not None and name not in columns:
            raise CannotInfer(f"there is no column {name!r}", where=where, remedy=f"Columns: {', '.join(columns)}")
    guesses = [f"Read {len(rows)} rows with {len(columns)} columns."]
    time_name, time_format = _guess_time(columns, time, where)
    guesses.append(f"The event time is {time_name!r}, format {time_format}." + _zone_remark(time_format))
    key_name = key or _guess_key(columns, time_name)
    distinct = len({str(value) for value in columns[key_name] if value is not None})
    guesses.append(f"The key (subject and partition key) is {key_name!r}: {distinct} distinct values.")
    properties: dict[str, object] = {}
    for name, values in columns.items():
        properties[name] = _field(values, is_whole=is_whole, time_format=time_format if name == time_name else None)
        if name not in (key_name, time_name):
            guesses.append(f"{name!r} is {_described(properties[name])}.")
    required = [
        name for name in columns if name not in (key_name, time_name) and is_whole and all(name in row for row in rows)
    ]
    schema: dict[str, object] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": required,
    }
    return InferredSchema(schema, key_name, time_name, time_format, tuple(guesses))


def _guess_time(columns: Mapping[str, Sequence[object]], given: str | None, where: str) -> tuple[str, str]:
    candidates = []
    for place, (name, values) in enumerate(columns.items()):
        if given in (None, name):
            # Somebody who names the column knows that it holds times: then the best format will do.
            time_format = _time_format(values, share_min=0.0 if given else _TIMES_SHARE_MIN)
            if time_format is not None:
                hinted = bool(_TIME_NAME.search(name))
                is_epoch = time_format in (EPOCH_S, EPOCH_MS)
                # An integer is a time only if its name says so, unless there is nothing else.
                rank = (is_epoch and not hinted, time_format == "%Y-%m-%d", not hinted, place)
                candidates.append((rank, name, time_format))
    if not candidates:
        what = f"the column {given!r} holds no times that are known here" if given else "no column holds times"
        raise CannotInfer(what, where=where, remedy="Give RFC 3339 times, such as 2013-01-01T06:00:00Z")
    _, name, time_format = min(candidates)
    return name, time_format


def _time_format(values: Sequence[object], *, share_min: float) -> str | None:
    """The format that most values have; None if no more than `share_min` of them have one. A few rows may be bad."""
    present = [value for value in values if value is not None]
    # Evenly over the file: its beginning may not be like the rest.
    probe = present[:: max(1, len(present) // _PROBED_TIMES)]
    numbers = [
        float(str(value)) for value in probe if not isinstance(value, bool) and _NUMBER.fullmatch(str(value).strip())
    ]
    counts = {time_format: sum(low <= number <= high for number in numbers) for time_format, low, high in _EPOCHS}
    texts = [value for value in probe if isinstance(value, str)]
    for time_format in _FORMATS:
        # Most columns hold no times: one value in ten tells.
        if any(_is_time(value, time_format) for value in texts[::10]) or len(texts) < _PROBED_TIMES:
            counts[time_format] = sum(_is_time(value, time_format) for value in texts)
    best = max(counts, key=lambda time_format: counts[time_format])
    return best if counts[best] > share_min * len(probe) else None


def _is_time(value: object, time_format: str) -> bool:
    try:
        read_time(value, time_format)
    except (ValueError, OverflowError):
        return False
    return True


def _zone_remark(time_format: str) -> str:
    if time_format in (RFC3339, EPOCH_S, EPOCH_MS) or re.search("%[zZ]", time_format):
        return ""
    return " It has no time zone, so it is taken for UTC."


def _guess_key(columns: Mapping[str, Sequence[object]], time_name: str) -> str:
    candidates = []
    for place, (name, values) in enumerate(columns.items()):
        usable = all(isinstance(value, str | int) and not isinstance(value, bool) for value in values)
        if name == time_name or not usable:
            continue
        distinct = len(set(values))
        is_text = not all(_INTEGER.fullmatch(str(value)) for value in values)
        is_number = is_text and all(_NUMBER.fullmatch(str(value)) for value in values)
        if is_number:
            continue
        repeats = distinct <= max(1, len(values) // 2)
        hinted = bool(_KEY_NAME.search(name))
        candidates.append(((not (hinted and repeats), not (is_text and repeats), not hinted, place), name))
    if candidates:
        return min(candidates)[1]
    return next(iter(columns))


def _field(values: Sequence[object], *, is_whole: bool, time_format: str | None) -> dict[str, object]:
    present = [value for value in values if value is not None and not (isinstance(value, str) and value in NULLS)]
    nullable = not is_whole or len(present) < len(values)
    kind, convert = _kind(present)
    if kind == "integer" and not is_whole:
        kind, convert = "number", _number
    field: dict[str, object] = {"type": [kind, "null"] if nullable else kind}
    if kind == "string" and time_format == RFC3339:
        field["format"] = "date-time"
    elif kind in ("integer", "number"):
        # Not bounds, since a sample proves none, but what values look like: the load generator goes by them.
        numbers = sorted(convert(value) for value in present)
        field["examples"] = [numbers[len(numbers) * part // 100] for part in (5, 50, 95)]
    elif kind == "string" and present and time_format is None:
        field["examples"] = [text for text, _ in Counter(map(str, present)).most_common(5)]
    elif kind == "array":
        items = [item for value in present if isinstance(value, list) for item in value]
        field["items"] = _field(items, is_whole=False, time_format=None)
    elif kind == "object":
        rows = [value for value in present if isinstance(value, dict)]
        names = dict.fromkeys(str(name) for row in rows for name in row)
        field["properties"] = {
            name: _field([row.get(name) for row in rows], is_whole=is_whole, time_format=None) for name in names
        }
    return field


def _kind(present: Sequence[object]) -> tuple[str, Callable[[object], int | float]]:
    def all_are(check: Callable[[object], bool]) -> bool:
        return bool(present) and all(map(check, present))

    if all_are(lambda value: isinstance(value, bool) or str(value).lower() in ("true", "false")):
        return "boolean", _number
    if all_are(_is_integer):
        return "integer", lambda value: int(str(value))
    if all_are(lambda value: not isinstance(value, bool) and bool(_NUMBER.fullmatch(str(value)))):
        return "number", _number
    if all_are(lambda value: isinstance(value, list)):
        return "array", _number
    if all_are(lambda value: isinstance(value, dict)):
        return "object", _number
    return "string", _number


def _is_integer(value: object) -> bool:
    if isinstance(value, bool | float) or not _INTEGER.fullmatch(str(value)):
        return False
    return abs(int(str(value))) <= INT64_MAX


def _number(value: object) -> float:
    return float(str(value))


def _described(field: object) -> str:
    kind = field.get("type") if isinstance(field, dict) else None
    return f"{kind[0]} or null" if isinstance(kind, list) else f"{kind}, never null"
