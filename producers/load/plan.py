"""What a load profile puts, and when: pure and reproducible."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from streamgauge.producers.load.malformed import malformed_event
from streamgauge.producers.load.profile import Keys, LoadProfile, MalformedKind
from streamgauge.producers.load.values import ValueMaker, data_fields

__all__ = ["Planned", "plan"]


class Planned(NamedTuple):
    """One thing to put, `due_ms` after the start. `malformed` payloads are put raw; the others are ``data``."""

    due_ms: float
    key: str
    time_ms: int
    payload: bytes
    copies: int = 1
    is_disordered: bool = False
    is_late: bool = False
    malformed: MalformedKind | None = None


def plan(profile: LoadProfile, schema: Mapping[str, object], *, start_ms: int, run: str) -> Iterator[Planned]:
    """Everything that `profile` puts, in order of due time.

    Parameters
    ----------
    schema
        The JSON Schema of the profile's type.
    start_ms
        The clock at the start: what event times refer to without a `start` in the profile.
    run
        Part of the identity of malformed events; it does not repeat.
    """
    rng = random.Random(profile.seed)  # noqa: S311 (reproducible)
    fields = data_fields(schema, profile.fields, file=f"the schema of {profile.type}")
    maker = ValueMaker(schema, fields, random.Random(profile.seed + 1))  # noqa: S311
    pick_key = _picker(profile.keys, rng)
    count = profile.event_count
    first_ms = _first_time(profile, count, start_ms)
    malformed = list(profile.malformed.items())
    malformed_count = 0
    for number in range(count) if count is not None else itertools.count():
        due_ms = number * 1000 / profile.rate
        key = pick_key()
        time_ms = first_ms + int(due_ms * profile.speedup)
        for kind, share in malformed:
            if rng.random() < share:
                payload = malformed_event(
                    kind,
                    run=run,
                    number=malformed_count,
                    type=profile.type,
                    key=key,
                    time_ms=max(time_ms, start_ms) if kind == "future" else time_ms,
                    values=maker.values(key, time_ms),
                )
                malformed_count += 1
                yield Planned(due_ms, key, time_ms, payload, malformed=kind)
        is_late = rng.random() < profile.late.share
        is_disordered = rng.random() < profile.disorder.share and not is_late
        if is_late:
            time_ms -= profile.late.by_ms
        elif is_disordered:
            time_ms -= rng.randint(1, profile.disorder.by_ms)
        copies = profile.duplicates.copies if rng.random() < profile.duplicates.share else 1
        yield Planned(due_ms, key, time_ms, maker.data(key, time_ms), copies, is_disordered, is_late)


def _first_time(profile: LoadProfile, count: int | None, start_ms: int) -> int:
    if profile.start_ms is not None:
        return profile.start_ms
    if count is None:
        return start_ms
    # Faster event time would run into the future.
    length_ms = count * 1000 / profile.rate
    return start_ms - int(length_ms * max(profile.speedup - 1, 0))


def _picker(keys: Keys, rng: random.Random) -> Callable[[], str]:
    names = keys.names
    if keys.distribution == "uniform":
        return lambda: names[int(rng.random() * len(names))]
    weights = list(itertools.accumulate(1 / rank**keys.exponent for rank in range(1, len(names) + 1)))
    return lambda: rng.choices(names, cum_weights=weights)[0]
