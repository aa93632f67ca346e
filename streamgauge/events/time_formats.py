"""How a record of somebody else states its time: ``rfc3339``, ``epoch_s``, ``epoch_ms`` or a strptime format."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import checked_instant, instant_ms

__all__ = ["EPOCH_MS", "EPOCH_S", "RFC3339", "TimeFormatError", "check_time_format", "parse_time"]

RFC3339 = "rfc3339"
EPOCH_S = "epoch_s"
EPOCH_MS = "epoch_ms"

_PROBE = datetime(2013, 6, 25, 16, 45, 58, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeFormatError(StreamgaugeError):
    """A time format that is none, or does not name one instant."""


def check_time_format(time_format: str, *, where: str) -> None:
    """See that a format names one instant for each text.

    Raises
    ------
    TimeFormatError
        Not one of the named formats and no strptime format; or without a time zone, a year, a day.
    """
    if time_format in (RFC3339, EPOCH_S, EPOCH_MS):
        return
    directives = set(re.findall(r"%(.)", time_format))
    if not directives:
        raise TimeFormatError(
            f"not a time format: {time_format!r}",
            where=where,
            remedy=f"Use {RFC3339}, {EPOCH_S}, {EPOCH_MS}, or a strptime format such as %Y-%m-%d %H:%M:%S %z",
        )
    if not directives & {"z", "Z"}:
        raise TimeFormatError(
            f"the format has no time zone: {time_format!r}",
            where=where,
            remedy="Add %z (it reads Z, +01:00 and +0100) or %Z (it reads UTC and GMT)",
        )
    if not directives & {"Y", "y", "G", "c", "x"}:
        raise TimeFormatError(f"the format has no year: {time_format!r}", where=where)
    try:
        read = _EPOCH + timedelta(milliseconds=_strptime_ms(_PROBE.strftime(time_format), time_format))
    except ValueError as error:
        raise TimeFormatError(f"not a strptime format: {time_format!r} ({error})", where=where) from error
    parts = zip((read.hour, read.minute, read.second), (_PROBE.hour, _PROBE.minute, _PROBE.second), strict=True)
    if read.date() != _PROBE.date() or any(got not in (0, true) for got, true in parts):
        raise TimeFormatError(f"the format does not tell one time from another: {time_format!r}", where=where)


def parse_time(value: object, time_format: str) -> int:
    """Milliseconds since the epoch of a time as a record states it; finer parts are cut off towards the past.

    Parameters
    ----------
    value
        As JSON gives it: text for ``rfc3339`` and strptime formats, a number for ``epoch_s`` and ``epoch_ms``. A float
        stands for the shortest decimal that reads back as it, so that 0.123 seconds are 123 ms.
    time_format
        Checked by `check_time_format`.

    Raises
    ------
    ValueError
        No such time, or outside the years 1 to 9999.
    """
    if time_format in (EPOCH_S, EPOCH_MS):
        return checked_instant(_epoch_ms(value, 1000 if time_format == EPOCH_S else 1))
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {value!r}")  # noqa: TRY004 - a wrong value, not a bug
    return instant_ms(value) if time_format == RFC3339 else checked_instant(_strptime_ms(value, time_format))


def _epoch_ms(value: object, unit_ms: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value * unit_ms
    if isinstance(value, float) and math.isfinite(value):
        return math.floor(Fraction(Decimal(repr(value))) * unit_ms)
    raise ValueError(f"must be a number, not {value!r}")


def _strptime_ms(text: str, time_format: str) -> int:
    moment = datetime.strptime(text, time_format)  # noqa: DTZ007 - the zone follows
    if moment.tzinfo is None:
        # %Z reads the names of the machine's own zone too, and keeps none of them.
        if re.search(r"\b(?:UTC|GMT)\b", text, re.IGNORECASE) is None:
            raise ValueError(f"the time zone is neither UTC nor GMT: {text!r}")
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)
