"""What can go wrong, where, and when. A schedule's faults are data, to be counted, left out and replayed."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import NamedTuple

__all__ = ["CELLS", "COMPONENTS", "Kind", "PlannedFault", "Tally"]


class Kind(StrEnum):
    """What goes wrong. The names are those of the coverage table."""

    CRASH = "crash"
    UPGRADE = "crash, new version"
    """The process dies, and what starts again is another version of the code."""
    UNAVAILABLE = "unavailable"
    """The call fails and has no effect."""
    ANSWER_LOST = "answer lost"
    """The call has its effect, and its caller hears nothing."""
    OUTAGE = "outage"
    """Everything behind the same component is unavailable for a while."""
    PAUSE = "pause"
    """The process stands still for longer than its lease lasts, and goes on: a zombie."""
    STEAL = "lease stolen"
    SPLIT = "split"
    MERGE = "merge"
    RESHARD = "several reshards"
    """Splits and merges right after each other, so that shards between stay empty."""
    TICK = "tick"
    PARTIAL = "partial failure"
    """Some of the entries of a call fail: any subset."""
    THROTTLE_SOME = "throttled 25 %"
    THROTTLE_ALL = "throttled 100 %"
    EXPIRED = "expired iterator"
    EMPTY = "empty reads"
    LATE_LANDING = "lands after its time-out"
    STUCK = "one record stuck"
    """A record is refused again and again while all others pass; its first attempt, of which nothing was heard, lands
    late, perhaps after its events have been given up."""
    STALE = "stale shard list"
    DOUBLE = "invoked twice at once"
    BISECT = "bisected"
    FAILS = "invocation fails"
    SLOW = "applies slowly"
    """The time of an invocation does not suffice for its batch."""
    CLOCK = "clock steps"
    STOPPED = "reshards while stopped"
    """All workers are down while the stream is resharded."""

    POISON = "poison record"
    CORRUPT = "corrupt aggregate"
    MISROUTED = "misrouted foreign aggregate"
    WRONG_KEY = "wrong partition key"
    BAD_DATA = "data off its schema"
    UNKNOWN_TYPE = "unknown type"
    NOT_READ = "type not read"
    BELOW_LIMIT = "record of limit - 1"
    AT_LIMIT = "record at limit"
    ABOVE_LIMIT = "record of limit + 1"
    FUTURE = "future event"
    LATE = "late event"
    COPIES = "sent again"
    FOREIGN = "foreign event twice"
    SKEW = "clock skew"


class PlannedFault(NamedTuple):
    """`kind` strikes when `step` is reached for the `nth` time (from 1) in the whole run.

    ``size`` means what its kind makes of it: a subset of entries as bits, a duration, a direction.
    """

    kind: Kind
    step: str
    nth: int
    size: int


COMPONENTS = {
    "create": "state",
    "claim": "state",
    "snapshot": "state",
    "put_snapshot": "state",
    "commit": "state",
    "renew": "state",
    "seal": "state",
    "reduce": "state",
    "store_failed": "archive",
    "store_late": "archive",
    "deliver_archive": "archive",
    "range": "archive",
    "object": "archive",
    "deliver_events": "bus",
    "deliver_panes": "served",
    "read": "kinesis",
    "archive_read": "kinesis",
    "put": "kinesis",
    "list": "kinesis",
}
"""Steps by the component that they call."""

_COMMIT_STEPS = [
    "create",
    "claim",
    "snapshot",
    "apply",
    "store_failed",
    "store_late",
    "put_snapshot",
    "commit",
    "renew",
    "seal",
    "reduce",
    "deliver_archive",
    "deliver_events",
    "deliver_panes",
    "checkpoint",
]
_OPENING = frozenset({"create", "claim", "renew", "seal", "reduce"})
"""Steps before a shard is in the hands of who takes them, or where it is in nobody's."""
_RESHARDED_AT = ["put", "list", "read", "apply", "commit", "deliver_events", "deliver_panes", "checkpoint"]
_READING = ["read"]
_ARCHIVING = ["range", "object"]
_INPUTS = [kind for kind in Kind if list(Kind).index(kind) >= list(Kind).index(Kind.POISON)]


def _both(steps: list[str]) -> list[str]:
    return [f"{step}.{moment}" for step in steps for moment in ("before", "after")]


def _cells() -> list[tuple[Kind, str]]:
    calls = [step for step in _COMMIT_STEPS if step in COMPONENTS]
    places: dict[Kind, list[str]] = {
        Kind.CRASH: _both([*_READING, *_COMMIT_STEPS, *_ARCHIVING, "put", "tick"]),
        Kind.UPGRADE: ["commit.before", "commit.after", "deliver_events.before"],
        Kind.UNAVAILABLE: [
            f"{step}.before" for step in [*calls, *_READING, *_ARCHIVING, "archive_read", "put", "list"]
        ],
        Kind.ANSWER_LOST: [f"{step}.after" for step in [*calls, *_ARCHIVING, "put"] if step != "snapshot"],
        Kind.OUTAGE: ["commit.before", "deliver_archive.before", "deliver_events.before", "deliver_panes.before"]
        + ["read.before", "put.before"],
        Kind.PAUSE: _both([*_READING, *_COMMIT_STEPS, *_ARCHIVING, "tick"]),
        Kind.STEAL: _both([*_READING, *[step for step in _COMMIT_STEPS if step not in _OPENING]]),
        Kind.SPLIT: [*_both(_RESHARDED_AT), "claim.before", "seal.before", "seal.after"],
        Kind.MERGE: [*_both(_RESHARDED_AT), "claim.before", "seal.before", "seal.after"],
        Kind.RESHARD: ["put.before", "read.before", "apply.after", "commit.before", "commit.after", "seal.before"],
        Kind.STOPPED: ["read.before", "commit.after"],
        Kind.TICK: [f"{step}.before" for step in ["put", *_READING, *_COMMIT_STEPS]],
        Kind.PARTIAL: ["put.before", "deliver_events.before"],
        Kind.THROTTLE_SOME: ["put.before", "read.before", "archive_read.before"],
        Kind.THROTTLE_ALL: ["put.before", "read.before", "archive_read.before"],
        Kind.EXPIRED: ["read.before", "archive_read.before"],
        Kind.EMPTY: ["read.before", "archive_read.before"],
        Kind.LATE_LANDING: ["put.before"],
        Kind.STUCK: ["put.before"],
        Kind.STALE: ["list.before"],
        Kind.DOUBLE: ["invoke.before"],
        Kind.BISECT: ["invoke.before"],
        Kind.FAILS: ["invoke.before", "invoke.after"],
        Kind.SLOW: ["invoke.before"],
        Kind.CLOCK: ["commit.before", "read.before", "put.before"],
        **{kind: ["event.before"] for kind in _INPUTS},
    }
    return [(kind, place) for kind, found in places.items() for place in found]


CELLS = _cells()
"""Every fault at every step where it makes sense: the rows of the coverage table."""


class Tally:
    """How often which fault hit which step, and how often each step was reached."""

    def __init__(self) -> None:
        self.hits: Counter[tuple[str, str]] = Counter()
        self.steps: Counter[str] = Counter()
        self.schedules = 0
        self.events = 0

    def add(self, other: Tally) -> None:
        self.hits.update(other.hits)
        self.steps.update(other.steps)
        self.schedules += other.schedules
        self.events += other.events

    def table(self) -> str:
        """One line a fault: its steps with the number of hits, ``>`` for before and ``<`` for after the step."""
        lines = []
        for kind in Kind:
            steps: dict[str, list[int]] = {}
            for name, place in CELLS:
                if name is kind:
                    steps.setdefault(place.split(".")[0], []).append(self.hits[kind, place])
            if steps:
                cells = "  ".join(f"{step} {'/'.join(map(str, counts))}" for step, counts in steps.items())
                lines.append(f"{kind.value:>28}  {cells}")
        return "\n".join(lines)

    def short_of(self, least: int) -> list[tuple[str, str, int]]:
        """The cells that were hit less often than `least`."""
        return [(kind.value, place, self.hits[kind, place]) for kind, place in CELLS if self.hits[kind, place] < least]
