"""I4: the archive holds every acknowledged event, exactly after the removal of duplicates, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from simulation.checkers.leftovers import Leftovers, Row
from simulation.inputs import Attempt

__all__ = ["check_archive"]


def check_archive(left: Leftovers, attempts: Sequence[Attempt], overwritten: Sequence[str]) -> Iterator[str]:
    """What is wrong with the archive."""
    for name in overwritten:
        yield f"I4: {name} was overwritten with other bytes"
    places = Counter(row.place for row in left.rows)
    for place, count in places.items():
        if count > 1:
            yield f"I4: position {place} stands {count} times in the archive"
    archived = {(shard_id, number) for shard_id, number, _ in places}
    streamed = {(shard.shard_id, number) for shard in left.shards for number, _ in shard.records}
    for record in sorted(streamed ^ archived):
        yield f"I4: record {record} is only in the {'stream' if record in streamed else 'archive'}"
    yield from _check_events(left, attempts)


def _check_events(left: Leftovers, attempts: Sequence[Attempt]) -> Iterator[str]:
    kept: dict[tuple[str, str] | None, Row] = {}
    for row in left.rows:
        if row.table not in ("streamgauge_misrouted", "streamgauge_control", "streamgauge_ledger"):
            kept.setdefault(row.identity, row)
    payloads = {row.columns["payload"] for row in left.rows if row.table == "streamgauge_unarchivable"}
    for attempt in attempts:
        if attempt.outcome != "acknowledged":
            continue
        if attempt.identity not in kept or (attempt.identity is None and attempt.payload not in payloads):
            yield f"I4: acknowledged event {attempt.identity} of {attempt.subject} is not in the archive"
        landed = attempt.landed
        if landed is not None and attempt.identity is not None and landed not in left.places_of(attempt.identity):
            yield f"I4: {attempt.identity} is not where its producer was told, {landed}"
    attempted = {attempt.identity: attempt for attempt in attempts}
    for identity, row in kept.items():
        if identity is not None and identity[0] != "urn:stranger":
            yield from _differences(identity, row, attempted.get(identity))


def _differences(identity: tuple[str, str], row: Row, attempt: Attempt | None) -> Iterator[str]:
    if attempt is None:
        yield f"I4: {identity} is in the archive, and nobody put it"
        return
    if row.table == "streamgauge_unarchivable":
        return
    data = row.columns["data"]
    if (row.columns["subject"], data["n"]) != (attempt.subject, attempt.n):
        yield f"I4: {identity} is in the archive with other content"
    if "speed" in data and (data["speed"], data["place"]) != (attempt.speed, attempt.place):
        yield f"I4: {identity} is in the archive with other data"
