"""Lists of decoded values to numpy columns, without a Python step per event where the values allow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from streamgauge.events.envelope import SEQUENCE_DIGITS
from streamgauge.events.times import instant_ms
from streamgauge.processors.core.batch import FieldColumn
from streamgauge.processors.core.expressions import Kind

__all__ = ["are_texts", "empty_column", "field_column", "instants", "sequences"]

_SECONDS_FORM = "0000-00-00T00:00:00Z"
_MILLISECONDS_FORM = "0000-00-00T00:00:00.000Z"
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)
_DAYS_BEFORE_MONTH = np.concatenate([[0], np.cumsum(_MONTH_DAYS)[:-1]])
_DAYS_TO_EPOCH = 719_162
_ZERO = ord("0")


def instants(texts: Sequence[str]) -> tuple[NDArray[np.int64], list[int]]:
    """Milliseconds since the epoch of n RFC 3339 times, exactly as `instant_ms` reads them.

    Returns
    -------
    int64, shape (n,), 0 where the text is no time; and the indexes of those texts.
    """
    lengths = set(map(len, texts))
    if len(lengths) == 1:
        read = _canonical_instants("".join(texts), len(texts), lengths.pop())
        if read is not None:
            return read
    result = np.zeros(len(texts), dtype=np.int64)
    odd: list[int] = []
    for index, text in enumerate(texts):
        try:
            result[index] = instant_ms(text)
        except ValueError:
            odd.append(index)
    return result, odd


def _canonical_instants(joined: str, n: int, width: int) -> tuple[NDArray[np.int64], list[int]] | None:
    """The two forms that producers write; None where a text is of another, or where one is doubtful."""
    form = {len(_SECONDS_FORM): _SECONDS_FORM, len(_MILLISECONDS_FORM): _MILLISECONDS_FORM}.get(width)
    if form is None or not joined.isascii():
        return None
    characters = _characters(joined, n, width)
    if (characters[:_DATE_WIDTH] == characters[:_DATE_WIDTH, :1]).all():
        return _instants_of_one_day(joined[:_DATE_WIDTH], characters[_DATE_WIDTH:], form[_DATE_WIDTH:])
    signs = [place for place, character in enumerate(form) if character != "0"]
    digits = [place for place, character in enumerate(form) if character == "0"]
    if (characters[signs] != _characters(form, 1, width)[signs]).any():
        return None
    values = (characters[digits] - np.uint8(_ZERO)).astype(np.int64)
    if (values > 9).any():
        return None
    year = values[0] * 1000 + values[1] * 100 + values[2] * 10 + values[3]
    month, day, hour, minute, second = (values[place] * 10 + values[place + 1] for place in range(4, 14, 2))
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    month_days = _MONTH_DAYS[np.minimum(month, 12)] + (leap & (month == 2))
    valid = (year > 0) & (month > 0) & (month < 13) & (day > 0) & (day <= month_days)
    if not (valid & (hour < 24) & (minute < 60) & (second < 60)).all():
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - _DAYS_TO_EPOCH
    days += _DAYS_BEFORE_MONTH[month] + (leap & (month > 2)) + day - 1
    result = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000
    if width == len(_MILLISECONDS_FORM):
        result += values[14] * 100 + values[15] * 10 + values[16]
    return result, []


_DATE_WIDTH = len("0000-00-00T")
# Milliseconds for which each digit of 00:00:00.000 stands; 0 for the signs, which are compared instead.
_DIGIT_MS = np.array([36e6, 36e5, 0, 6e5, 6e4, 0, 1e4, 1e3, 0, 100, 10, 1, 0])


def _instants_of_one_day(
    date: str, characters: NDArray[np.uint8], form: str
) -> tuple[NDArray[np.int64], list[int]] | None:
    """The usual case, several times faster: only the time of day is read for each."""
    try:
        midnight = instant_ms(date + "00:00:00Z")
    except ValueError:
        return None
    pattern = _characters(form, 1, len(form))
    is_digit = pattern == _ZERO
    # What must be 0 at signs and at most a digit elsewhere; smaller characters wrap to large ones.
    values = characters - pattern
    most = np.where(is_digit, 9, 0).astype(np.uint8)
    most[[0, 3, 6], 0] = (2, 5, 5)
    if (values > most).any() or ((values[0] == 2) & (values[1] > 3)).any():
        return None
    return midnight + (_DIGIT_MS[: len(form)] @ values.astype(np.float64)).astype(np.int64), []


def _characters(joined: str, n: int, width: int) -> NDArray[np.uint8]:
    """The characters of n texts of one width, shape (width, n): numpy works along the last axis."""
    return np.ascontiguousarray(np.frombuffer(joined.encode(), dtype=np.uint8).reshape(n, width).T)


_WEIGHTS = np.array([10**power for power in range(SEQUENCE_DIGITS - 2, -1, -1)], dtype=np.uint64)
# Numbers of 15 digits are exact as float64, whose products are many times faster.
_EXACT_DIGITS = 15
_FLOAT_WEIGHTS = 10.0 ** np.arange(_EXACT_DIGITS - 1, -1, -1)


def sequences(texts: Sequence[str | None]) -> tuple[NDArray[np.int64], list[int]]:
    """The numbers in n ``sequence`` attributes, exactly as `parse_sequence` reads them.

    Returns
    -------
    int64, shape (n,), -1 where the text is none; and the indexes of those texts.
    """
    odd: list[int] = []
    if not (are_texts(texts) and set(map(len, texts)) == {SEQUENCE_DIGITS} and (joined := "".join(texts)).isascii()):
        odd = [index for index, text in enumerate(texts) if text is None or not _is_plain(text)]
        joined = "".join(text if text is not None and _is_plain(text) else "x" * SEQUENCE_DIGITS for text in texts)
    digits = _characters(joined, len(texts), SEQUENCE_DIGITS) - np.uint8(_ZERO)
    if not odd and not digits[:-_EXACT_DIGITS].any() and digits.max() <= 9:
        return (_FLOAT_WEIGHTS @ digits[-_EXACT_DIGITS:].astype(np.float64)).astype(np.int64), []
    # With a leading zero 19 digits are left, which fit uint64 and show there whether they fit int64.
    numbers = _WEIGHTS @ digits[1:].astype(np.uint64)
    wrong = (digits > 9).any(axis=0) | (digits[0] != 0) | (numbers >= np.uint64(2**63))
    result = np.where(wrong, 0, numbers).astype(np.int64)
    result[wrong] = -1
    return result, np.flatnonzero(wrong).tolist()


def _is_plain(text: str) -> bool:
    return len(text) == SEQUENCE_DIGITS and text.isascii()


def are_texts(values: Sequence[object]) -> TypeGuard[Sequence[str]]:
    """Whether all values are strings."""
    return set(map(type, values)) <= {str}


def empty_column(kind: Kind, n: int) -> FieldColumn:
    """N nulls."""
    present = np.zeros(n, dtype=np.bool_)
    if kind == "string":
        return FieldColumn([""] * n, present)
    if kind == "integer":
        return FieldColumn(np.zeros(n, dtype=np.int64), present)
    if kind == "number":
        return FieldColumn(np.zeros(n, dtype=np.float64), present)
    return FieldColumn(np.zeros(n, dtype=np.bool_), present)


def field_column(kind: Kind, values: list[object]) -> FieldColumn:
    """A column of n decoded values of one kind, None for null."""
    n = len(values)
    nulls = values.count(None)
    if nulls == n:
        return empty_column(kind, n)
    if kind == "number":
        numbers = np.array(values, dtype=np.float64)
        # JSON has no NaN, so it can stand for null on the way.
        present = ~np.isnan(numbers) if nulls else np.ones(n, dtype=np.bool_)
        if nulls:
            numbers[~present] = 0.0
        return FieldColumn(numbers, present)
    if nulls:
        present = np.fromiter((value is not None for value in values), dtype=np.bool_, count=n)
        fill: object = "" if kind == "string" else 0
        values = [fill if value is None else value for value in values]
    else:
        present = np.ones(n, dtype=np.bool_)
    if kind == "string":
        return FieldColumn([str(value) for value in values], present)
    if kind == "integer":
        return FieldColumn(np.array(values, dtype=np.int64), present)
    return FieldColumn(np.array(values, dtype=np.bool_), present)
