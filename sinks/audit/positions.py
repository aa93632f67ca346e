"""Checks of objects and positions: is the archive whole up to where the processor is, and does every position count?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from streamgauge.events.position import Position
from streamgauge.processors.commit.archive_rows import COMMITS, FAILED_EVENTS, LATE_EVENTS, PANES, THRESHOLD_EVENTS
from streamgauge.processors.core.counters import Counters
from streamgauge.sinks.archive.ranges import DeliveredRange
from streamgauge.sinks.audit.archived import ArchivedPositions
from streamgauge.sinks.audit.report import NAMES_SHOWN, Check, shown
from streamgauge.sinks.audit.stores import Stores

__all__ = ["delivery_checks", "object_checks", "outbox_check", "position_checks", "shard_count_checks"]


def delivery_checks(stores: Stores) -> Iterator[Check]:
    """Per shard: delivery has reached the position up to which the shard is processed, or its end if it was sealed."""
    reached: dict[str, int] = {}
    closed: set[str] = set()
    there = set().union(*(stores.tables.names(table) for table in stores.tables.schemas))
    last = _last_ranges(stores)
    for item in stores.ranges:
        if item is last[item.shard_id] and not all(part.name in there for part in item.objects):
            continue
        if item.last is not None:
            reached[item.shard_id] = int(item.last)
        if item.closed:
            closed.add(item.shard_id)
    for shard_id, cut in sorted(stores.cuts.items()):
        far = reached.get(shard_id, -1)
        is_covered = shard_id in closed or (far >= cut.sequence_number and shard_id not in stores.ended)
        behind = f"delivery is behind: it has reached {far if far >= 0 else 'no record'}"
        text = "archived to its end" if shard_id in stores.ended else f"archived up to {cut.sequence_number}"
        yield Check(name="delivery", scope=f"shard {shard_id}", expected=text, found=text if is_covered else behind)


def outbox_check(stores: Stores) -> Check:
    """Everything that the processors committed has reached the archive."""
    # An object that several children took over from their parent is one object still.
    outboxes = {item.name for state in stores.states for item in state.outbox.archive_objects}
    there = {name for table in _OUTBOX_TABLES for name in stores.tables.names(table)}
    missing = outboxes - there
    return Check(
        name="outbox",
        scope="archive",
        expected=len(outboxes),
        found=len(outboxes) - len(missing),
        missing=shown(missing),
    )


def object_checks(stores: Stores) -> Iterator[Check]:
    """The objects that delivery wrote down are there, and no others; so are those that commits list."""
    last = _last_ranges(stores)
    expected: dict[str, int] = {}
    for item in stores.ranges:
        # The last range of a shard may be just being written, beyond what is processed.
        if item is not last[item.shard_id] or _is_needed(item, stores):
            expected |= {part.name: part.rows for part in item.objects}
    written_down = {part.name for item in stores.later_ranges for part in item.objects}
    there = [name for table in stores.tables.schemas for name in stores.tables.names(table)]
    yield _objects("archive", sorted(expected), there, [name for name in there if name not in written_down])
    for table, listed in ((FAILED_EVENTS, stores.failed_objects), (LATE_EVENTS, stores.late_objects)):
        yield _objects(table, listed, stores.tables.names(table), [])
    gaps = sorted(
        {f"{item.shard_id}: delivery, {item.gap}" for item in stores.ranges if item.gap is not None}
        | {f"{commit.shard_id}: {gap}" for commit in stores.commits for gap in commit.gaps}
        | {f"{state.row.shard.shard_id}: {gap}" for state in stores.states for gap in state.gaps}
    )
    yield Check(name="gaps", scope="archive", expected=0, found=len(gaps), missing=shown(gaps))


def _objects(scope: str, expected: list[str], there: list[str], unexpected: list[str]) -> Check:
    missing = set(expected).difference(there)
    return Check(
        name="objects",
        scope=scope,
        expected=len(expected),
        found=len(expected) - len(missing),
        missing=shown(missing),
        doubled=shown([f"{name}: written by no delivery" for name in unexpected]),
    )


def _last_ranges(stores: Stores) -> dict[str, DeliveredRange]:
    return {item.shard_id: item for item in stores.ranges}


def _is_needed(item: DeliveredRange, stores: Stores) -> bool:
    cut = stores.cuts.get(item.shard_id)
    return cut is not None and item.first is not None and int(item.first) <= cut.sequence_number


def position_checks(archived: ArchivedPositions) -> Iterator[Check]:
    """No position stands in the archive twice, and no aggregate lacks one of its events."""
    rows = archived.rows(
        "SELECT shard_id, number, sub, count(*) FROM archived GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT ?",
        [NAMES_SHOWN + 1],
    )
    total = archived.count("SELECT count(*) FROM archived")
    distinct = archived.count("SELECT count(*) FROM positions")
    holes = archived.rows(
        "SELECT shard_id, number, max(sub) + 1 - count(*) FROM positions GROUP BY shard_id, number "
        "HAVING max(sub) + 1 > count(*) ORDER BY ALL LIMIT ?",
        [NAMES_SHOWN + 1],
    )
    yield Check(
        name="positions_once",
        scope="archive",
        expected=distinct,
        found=total,
        missing=shown([f"shard {shard}, record {number}: {lacking} events" for shard, number, lacking in holes]),
        doubled=shown([f"shard {shard}, {number}/{sub}: {count} times" for shard, number, sub, count in rows]),
    )


def shard_count_checks(stores: Stores, archived: ArchivedPositions) -> Iterator[Check]:
    """Per shard: the counters add up, and are what the archive gives."""
    by_class: dict[tuple[str, str], int] = defaultdict(int)
    for shard_id, kind, count in archived.rows("SELECT shard_id, class, count(*) FROM positions GROUP BY ALL"):
        assert isinstance(count, int)
        by_class[str(shard_id), str(kind)] = count
    fresh = _counts(archived, "SELECT shard_id, count(*) FROM passed GROUP BY ALL")
    accepted = _counts(archived, "SELECT shard_id, count(*) FROM accepted GROUP BY ALL")
    failed: dict[str, list[Position]] = defaultdict(list)
    for row in stores.failed_rows:
        failed[row.shard_id].append(Position(int(row.sequence_number), row.sub_sequence_number))
    for state in stores.states:
        shard_id, counters = state.row.shard.shard_id, state.engine.counters
        scope = f"shard {shard_id}"
        yield Check(name="counters", scope=scope, expected=counters.positions, found=_sum(counters))
        events = by_class[shard_id, "event"] + by_class[shard_id, "unarchivable"]
        for name, expected, found in (
            ("positions", counters.positions, sum(by_class[shard_id, kind] for kind in _KINDS)),
            ("control", counters.control, by_class[shard_id, "control"]),
            ("ledger", counters.ledger, by_class[shard_id, "ledger"]),
            ("misrouted", counters.misrouted, by_class[shard_id, "misrouted"]),
            ("duplicates", _duplicates(counters), events - fresh[shard_id] - len(set(failed[shard_id]))),
            ("accepted", counters.accepted, accepted[shard_id]),
            ("type_not_read", counters.type_not_read, fresh[shard_id] - accepted[shard_id]),
        ):
            yield Check(name=name, scope=scope, expected=expected, found=found)
        positions = failed[shard_id]
        doubled = (
            {str(position) for position in positions if positions.count(position) > 1}
            if len(set(positions)) < len(positions)
            else set()
        )
        yield Check(
            name="failed",
            scope=scope,
            expected=sum(counters.failed.values()),
            found=len(positions),
            doubled=shown(doubled),
        )


_OUTBOX_TABLES = (PANES, THRESHOLD_EVENTS, COMMITS)
_KINDS = ("event", "unarchivable", "control", "ledger", "misrouted")


def _counts(archived: ArchivedPositions, sql: str) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for shard_id, count in archived.rows(sql):
        assert isinstance(count, int)
        found[str(shard_id)] = count
    return found


def _duplicates(counters: Counters) -> int:
    return counters.duplicate_in_window + counters.duplicate_below_window + counters.duplicate_foreign


def _sum(counters: Counters) -> int:
    others = counters.type_not_read + counters.control + counters.ledger + counters.misrouted
    return counters.accepted + _duplicates(counters) + sum(counters.failed.values()) + others
