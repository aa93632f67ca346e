"""Load profiles: what the load generator does, as a small TOML file.

::

    type = "weather.observation"  # of the catalogue; the only key without a default
    rate = 500                    # events a second, put whether or not earlier ones are acknowledged
    duration = "60s"              # or count = 30000; without either, until stopped
    seed = 1
    fields = ["temp", "wind"]     # of the data; all fields of the schema by default
    start = "2024-01-01T00:00:00Z"  # event time of the first event; by default such that the last one's is now
    speedup = 60                  # event time runs this many times as fast as the clock

    [keys]
    count = 100
    prefix = "key-"               # key-0001 and so on; or names = ["EWR", "JFK"] instead of both
    distribution = "zipf"         # or "uniform"
    exponent = 1.1                # zipf's s: the n-th key has a share proportional to 1 / n ** s

    [duplicates]                  # producer retries: the same event, same source and sequence, sent several times
    share = 0.03                  # of the events
    copies = 2                    # how often each is sent in all
    behind = 100                  # events between two copies

    [disorder]                    # events older than their neighbours
    share = 0.1
    by = "5s"                     # up to this much: keep it within the pipeline's out_of_orderness

    [late]                        # events too old
    share = 0.001
    by = "1h"                     # this much: more than out_of_orderness, window and allowed_lateness together

    [malformed]                   # each with its share of the events, put besides them
    broken_json = 0.0005          # also: missing_key, wrong_type, unknown_type, unknown_version, bad_time, future
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import duration_ms, instant_ms

__all__ = [
    "Disorder",
    "Duplicates",
    "Keys",
    "Late",
    "LoadProfile",
    "MalformedKind",
    "ProfileError",
    "parse_load_profile",
]

MalformedKind = Literal[
    "broken_json", "missing_key", "wrong_type", "unknown_type", "unknown_version", "bad_time", "future"
]


class ProfileError(StreamgaugeError):
    """The load profile is wrong; the message names file and key."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Which keys there are, and how often each comes."""

    names: tuple[str, ...]
    distribution: Literal["uniform", "zipf"] = "uniform"
    exponent: float = 1.1


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Injected producer retries."""

    share: float = 0.0
    copies: int = 2
    behind: int = 100


@dataclass(frozen=True, slots=True)
class Disorder:
    """Events up to `by_ms` older than their neighbours."""

    share: float = 0.0
    by_ms: int = 0


@dataclass(frozen=True, slots=True)
class Late:
    """Events exactly `by_ms` older than their neighbours."""

    share: float = 0.0
    by_ms: int = 0


@dataclass(frozen=True, slots=True)
class LoadProfile:
    """A load profile, checked. Without `count` and `duration_ms` it ends when it is stopped.

    ``start_ms`` None: such that the event time of the last event is the clock's, or the first one's if there is no end.
    """

    type: str
    rate: float = 100.0
    duration_ms: int | None = None
    count: int | None = None
    seed: int = 1
    fields: tuple[str, ...] | None = None
    start_ms: int | None = None
    speedup: float = 1.0
    keys: Keys = field(default_factory=lambda: Keys(_numbered("key-", 100)))
    duplicates: Duplicates = field(default_factory=Duplicates)
    disorder: Disorder = field(default_factory=Disorder)
    late: Late = field(default_factory=Late)
    malformed: Mapping[MalformedKind, float] = field(default_factory=dict)

    @property
    def event_count(self) -> int | None:
        """How many events there will be; None without an end."""
        if self.count is not None:
            return self.count
        return None if self.duration_ms is None else int(self.rate * self.duration_ms / 1000)


class _Keys(msgspec.Struct, forbid_unknown_fields=True):
    count: int = 100
    prefix: str = "key-"
    names: list[str] | None = None
    distribution: Literal["uniform", "zipf"] = "uniform"
    exponent: float = 1.1


class _Duplicates(msgspec.Struct, forbid_unknown_fields=True):
    share: float
    copies: int = 2
    behind: int = 100


class _Shifted(msgspec.Struct, forbid_unknown_fields=True):
    share: float
    by: str


class _Profile(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    rate: float = 100.0
    duration: str | None = None
    count: int | None = None
    seed: int = 1
    fields: list[str] | None = None
    start: str | None = None
    speedup: float = 1.0
    keys: _Keys = msgspec.field(default_factory=_Keys)
    duplicates: _Duplicates | None = None
    disorder: _Shifted | None = None
    late: _Shifted | None = None
    malformed: dict[MalformedKind, float] = {}


def parse_load_profile(text: str, *, file: str) -> LoadProfile:
    """Read a load profile; the module says its grammar.

    Raises
    ------
    ProfileError
        No TOML, an unknown key, a value of a wrong type or out of range; with `file`, and the line of bad TOML.
    """
    try:
        read = msgspec.convert(tomllib.loads(text), _Profile)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"not TOML: {error}", where=file) from error
    except msgspec.ValidationError as error:
        raise ProfileError(
            str(error), where=file, remedy=f"Malformed kinds: {', '.join(get_args(MalformedKind))}"
        ) from error
    checks = _Checks(file)
    checks.positive("rate", read.rate)
    checks.positive("speedup", read.speedup)
    if read.count is not None and read.duration is not None:
        raise ProfileError("give count or duration, not both", where=file)
    if read.count is not None:
        checks.positive("count", read.count)
    names = tuple(read.keys.names) if read.keys.names is not None else None
    if names is None:
        checks.positive("keys.count", read.keys.count)
        names = _numbered(read.keys.prefix, read.keys.count)
    if not names or not all(1 <= len(name) <= 256 for name in names) or len(set(names)) != len(names):
        raise ProfileError("must be distinct texts of 1 to 256 characters", where=f"{file}: keys.names")
    checks.positive("keys.exponent", read.keys.exponent)
    duplicates = read.duplicates or _Duplicates(share=0.0)
    shares = {"duplicates.share": duplicates.share}
    shares |= {f"malformed.{kind}": share for kind, share in read.malformed.items()}
    for name, shifted in (("disorder", read.disorder), ("late", read.late)):
        if shifted is not None:
            shares[f"{name}.share"] = shifted.share
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ProfileError(f"a share is from 0 to 1, not {share}", where=f"{file}: {name}")
    if duplicates.copies < 2 or duplicates.behind < 0:
        raise ProfileError("copies are at least 2 in all, behind at least 0", where=f"{file}: duplicates")
    return LoadProfile(
        type=read.type,
        rate=read.rate,
        duration_ms=None if read.duration is None else checks.duration("duration", read.duration),
        count=read.count,
        seed=read.seed,
        fields=None if read.fields is None else tuple(read.fields),
        start_ms=None if read.start is None else checks.instant("start", read.start),
        speedup=read.speedup,
        keys=Keys(names, read.keys.distribution, read.keys.exponent),
        duplicates=Duplicates(duplicates.share, duplicates.copies, duplicates.behind),
        disorder=Disorder(read.disorder.share, checks.duration("disorder.by", read.disorder.by))
        if read.disorder
        else Disorder(),
        late=Late(read.late.share, checks.duration("late.by", read.late.by)) if read.late else Late(),
        malformed=dict(read.malformed),
    )


class _Checks:
    def __init__(self, file: str) -> None:
        self._file = file

    def positive(self, name: str, value: float) -> None:
        if not value > 0:
            raise ProfileError(f"must be above 0, not {value}", where=f"{self._file}: {name}")

    def duration(self, name: str, text: str) -> int:
        try:
            value = duration_ms(text)
        except ValueError as error:
            raise ProfileError(str(error), where=f"{self._file}: {name}") from error
        self.positive(name, value)
        return value

    def instant(self, name: str, text: str) -> int:
        try:
            return instant_ms(text)
        except ValueError as error:
            raise ProfileError(str(error), where=f"{self._file}: {name}") from error


def _numbered(prefix: str, count: int) -> tuple[str, ...]:
    width = len(str(count))
    return tuple(f"{prefix}{number:0{width}}" for number in range(1, count + 1))
