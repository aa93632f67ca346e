"""What must have come of the stream, by the plainest means: one event after the other, sets and dictionaries.

The positions are the archive's, which `archived` holds against the stream and against what the producers were told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import variance

from window_models import Shown, Values, model_of

from simulation.checkers.leftovers import Leftovers, Row, ShardFacts, hash_of
from simulation.pipelines import BOUND_MS, FUTURE_BOUND_MS, LATENESS_MS, NOT_READ, OTHER_WINDOWS, WIND, WINDOW_MS
from streamgauge.processors.core.hashes import text_digest

__all__ = ["Pane", "PaneKey", "Reference"]

PaneKey = tuple[str, tuple[str, ...], int]
"""Aggregate, key, window start in ms."""


@dataclass
class Pane:
    """Every event of one pane, and how often it was looked at after its window had closed."""

    ns: list[int] = field(default_factory=list)
    order: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Time, digest of the source, sequence and n of every event."""
    speeds: list[float] = field(default_factory=list)
    in_time: int = 0
    corrections: int = 0

    @property
    def revision(self) -> int:
        return bool(self.in_time) + self.corrections

    def measures(self, aggregate: str) -> dict[str, float | None]:
        if aggregate == "places":
            return {"low": min(self.speeds), "kinds": len(set(self.ns))}
        return {
            "n": len(self.ns),
            "top": max(self.speeds),
            "total": sum(self.ns),
            "mean": sum(self.speeds) / len(self.speeds),
            "spread": variance(self.speeds) if len(self.speeds) > 1 else None,
            "latest": max(self.order)[-1],
            "high": sorted(self.speeds)[-(-9 * len(self.speeds) // 10) - 1],
        }


@dataclass(frozen=True)
class Standing:
    """A pane of windows that are not tumbling, as it stands at the end; it counts as many `ns` as it has events."""

    ns: range
    values: dict[str, float | None]
    revision: int

    def measures(self, aggregate: str) -> dict[str, float | None]:
        """Its measures, whichever aggregate it is of."""
        del aggregate
        return self.values


class _Shard:
    """Memory of one shard while its rows pass."""

    def __init__(self, facts: ShardFacts, parents: list[_Shard]) -> None:
        self.facts = facts
        self.seen: set[tuple[str, str]] = set().union(*(parent.seen for parent in parents))
        self.counts: Counter[str] = Counter()
        self.aggregates: dict[str, Counter[str]] = defaultdict(Counter)
        self.arrival_ms = max((parent.arrival_ms for parent in parents), default=-(2**62))
        self.watermark: int | None = None
        self.highest = self.highest_arrival = self.latest = 0
        known = [parent for parent in parents if parent.watermark is not None]
        if known:
            lowest = min(known, key=_Shard.pace)
            self.watermark, self.highest = lowest.watermark, lowest.highest
            self.highest_arrival = lowest.highest_arrival
            # What may still be open is as late as the latest event of any parent: ADR 8.
            self.latest = max(parent.latest for parent in known)
        self.parents = parents
        held = [parent.parts for parent in parents]
        self.parts = set.intersection(*held) if held else set()

    def pace(self) -> tuple[int, int, int]:
        """Of two parents the one that is behind gives the time: by its watermark, then by what a tick would make it."""
        return self.watermark or 0, self.highest - self.highest_arrival, self.highest

    def floor(self, key: str) -> int:
        """Up to where windows of `key` were closed before this shard."""
        place = hash_of(key)
        floors = [-(2**62)]
        for parent in self.parents:
            if parent.facts.first <= place <= parent.facts.last:
                floors += [parent.floor(key), -(2**62) if parent.watermark is None else parent.watermark]
        return max(floors)

    def judged_by(self, key: str) -> int:
        return max(self.floor(key), -(2**62) if self.watermark is None else self.watermark)

    def rise(self, to: int) -> None:
        self.watermark = to if self.watermark is None else max(self.watermark, to)

    @property
    def end_of_latest(self) -> int:
        ends = [self.latest - self.latest % size + size for size in WINDOW_MS.values()]
        return max(ends + [window.latest_end_ms(self.latest) for window, _ in OTHER_WINDOWS.values()])


class Reference:
    """Passes every row of every shard, parents first.

    Attributes
    ----------
    panes
        Every pane that has an event.
    counted, failed, late
        Positions: of accepted events, of failed events, and of (aggregate, position) past the allowed lateness.
    before
        Positions that stand before the instant at which the pipeline begins, which `begins_ms` names by shard.
    """

    def __init__(self, left: Leftovers, must_fail: set[tuple[str, int]], begins_ms: Mapping[str, int]) -> None:
        self.panes: dict[PaneKey, Pane | Standing] = {}
        self._models = {name: model_of(window, late, ()) for name, (window, late) in OTHER_WINDOWS.items()}
        self.counted: dict[tuple[str, str], Row] = {}
        self.not_read: dict[tuple[str, str], Row] = {}
        self.failed: set[tuple[str, int, int]] = set()
        self.failed_identities: set[tuple[str, str]] = set()
        self.late: set[tuple[str, tuple[str, int, int]]] = set()
        self.late_identities: set[tuple[str, tuple[str, str]]] = set()
        self.shards: dict[str, _Shard] = {}
        self._subjects: set[str] = set()
        self.twice: list[tuple[str, str]] = []
        self.before: set[tuple[str, int, int]] = set()
        self._must_fail = must_fail
        by_shard: dict[str, list[Row]] = defaultdict(list)
        for row in left.rows:
            by_shard[row.shard_id].append(row)
        for facts in left.shards:
            shard = _Shard(facts, [self.shards[parent] for parent in facts.parents])
            self.shards[facts.shard_id] = shard
            rows = by_shard[facts.shard_id]
            earliest = begins_ms[facts.shard_id]
            first = next((index for index, row in enumerate(rows) if row.arrival_ms >= earliest), len(rows))
            self.before.update(row.place for row in rows[:first])
            for row in rows[first:]:
                self._pass(shard, row)

    def _stand(self, aggregate: str, subject: str, start: int, values: Values, *, revision: int) -> None:
        shown = {"n": values["n"], "top": values["high"]}
        self.panes[aggregate, (subject,), start] = Standing(range(int(values["n"] or 0)), shown, revision)

    def _show(self, aggregate: str, panes: list[Shown]) -> None:
        for pane in panes:
            self.panes.pop((aggregate, (pane.key,), pane.start), None)
            if not pane.tombstone:
                self._stand(aggregate, pane.key, pane.start, pane.measures, revision=pane.revision)

    def _close(self, shard: _Shard) -> None:
        """Close what the watermark has reached, of the keys that the shard has."""
        if shard.watermark is None:
            return
        held = [key for key in self._subjects if shard.facts.first <= hash_of(key) <= shard.facts.last]
        for name, model in self._models.items():
            self._show(name, model.close(held, shard.watermark))

    def holder(self, key: str) -> _Shard:
        """The last shard of the lineage that a key belongs to."""
        place = hash_of(key)
        return [shard for shard in self.shards.values() if shard.facts.first <= place <= shard.facts.last][-1]

    def _pass(self, shard: _Shard, row: Row) -> None:
        shard.arrival_ms = max(shard.arrival_ms, row.arrival_ms)
        shard.counts["positions"] += 1
        if row.table == "streamgauge_control":
            shard.counts["control"] += 1
            self._control(shard, row)
        elif row.table in ("streamgauge_ledger", "streamgauge_misrouted"):
            shard.counts[row.table.removeprefix("streamgauge_")] += 1
        elif row.identity is not None and row.identity in shard.seen:
            shard.counts["duplicates"] += 1
        else:
            if row.identity is not None:
                shard.seen.add(row.identity)
            self._new(shard, row)

    def _control(self, shard: _Shard, row: Row) -> None:
        data = row.columns["data"]
        if data["at_ms"] is None:
            part = data["part"]
            is_last = part not in shard.parts and len(shard.parts) == data["parts"] - 1
            shard.parts.add(part)
            if is_last and shard.watermark is not None:
                shard.rise(shard.end_of_latest)
        elif shard.watermark is not None:
            idle = data["at_ms"] - shard.highest_arrival
            shard.rise(min(shard.highest - BOUND_MS + idle, shard.end_of_latest))
        self._close(shard)

    def _new(self, shard: _Shard, row: Row) -> None:
        columns = row.columns
        is_failed = row.table == "streamgauge_unarchivable" or (row.shard_id, row.number) in self._must_fail
        if not is_failed and row.table == NOT_READ:
            shard.counts["type_not_read"] += 1
            assert row.identity is not None
            self.not_read[row.identity] = row
            return
        if not is_failed:
            assert row.table == WIND, f"an unknown table {row.table}"
            time_ms = round(columns["time"].timestamp() * 1000)
            is_failed = time_ms - shard.arrival_ms > FUTURE_BOUND_MS
        if is_failed:
            shard.counts["failed"] += 1
            self.failed.add(row.place)
            if row.identity is not None:
                self.failed_identities.add(row.identity)
            return
        self._accept(shard, row, time_ms)

    def _accept(self, shard: _Shard, row: Row, time_ms: int) -> None:
        assert row.identity is not None
        if row.identity in self.counted:
            self.twice.append(row.identity)
        self.counted[row.identity] = row
        shard.counts["accepted"] += 1
        if shard.watermark is None or time_ms > shard.highest:
            shard.highest, shard.highest_arrival = time_ms, shard.arrival_ms
            shard.latest = max(shard.latest, time_ms)
        shard.rise(shard.highest - BOUND_MS)
        data, subject = row.columns["data"], row.columns["subject"]
        for aggregate, size in WINDOW_MS.items():
            counts = shard.aggregates[aggregate]
            if aggregate == "places" and not data["speed"] < 90:
                counts["filtered"] += 1
                continue
            start = time_ms - time_ms % size
            judged_by = shard.judged_by(subject)
            if judged_by >= start + size + LATENESS_MS[aggregate]:
                counts["late"] += 1
                self.late.add((aggregate, row.place))
                self.late_identities.add((aggregate, row.identity))
                continue
            counts["applied"] += 1
            key = (subject,) if aggregate == "gusts" else (subject, data["place"])
            pane = self.panes.setdefault((aggregate, key, start), Pane())
            assert isinstance(pane, Pane)
            pane.ns.append(data["n"])
            columns = row.columns
            sequence = -1 if columns["sequence"] is None else int(columns["sequence"])
            pane.order.append((time_ms, text_digest(columns["source"]), sequence, data["n"]))
            pane.speeds.append(data["speed"])
            if judged_by >= start + size:
                pane.corrections += 1
            else:
                pane.in_time += 1
        self._subjects.add(subject)
        for aggregate, model in self._models.items():
            judged_by = shard.judged_by(subject)
            # A key that is new has had its windows closed all the same.
            self._show(aggregate, model.close([subject], judged_by))
            panes, late = model.add(subject, time_ms, None, data["speed"], judged_by)
            self._show(aggregate, panes)
            if late is not None:
                self.late.add((aggregate, row.place))
                self.late_identities.add((aggregate, row.identity))
            whole = late is not None and not late.in_part
            shard.aggregates[aggregate]["late" if whole else "applied"] += 1
        self._close(shard)
