"""What a world left behind, as plain values: the archive's rows, results, counters and what the bus took."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import md5
from typing import Any

import pyarrow.parquet as pq

__all__ = ["Leftovers", "Row", "ShardFacts", "hash_of", "sequence_and_sub"]


@dataclass(frozen=True)
class Row:
    """One position of the archive. ``identity`` is (source, sequence or id), None where unreadable."""

    table: str
    shard_id: str
    number: int
    sub: int
    arrival_ms: int
    identity: tuple[str, str] | None
    columns: dict[str, Any]

    @property
    def place(self) -> tuple[str, int, int]:
        return self.shard_id, self.number, self.sub


@dataclass(frozen=True)
class ShardFacts:
    """A shard as the stream describes it."""

    shard_id: str
    first: int
    last: int
    parents: tuple[str, ...]
    records: tuple[tuple[int, bytes], ...]
    """Sequence number and bytes of every record."""


class Leftovers:
    """Reads an archive's objects, each table as rows; of the results those of one state_epoch."""

    def __init__(
        self,
        objects: dict[str, bytes],
        shards: list[ShardFacts],
        bus: list[str],
        *,
        epoch: int = 1,
        rows: list[Row] | None = None,
    ) -> None:
        self.objects = objects
        self._places: dict[tuple[str, str], set[tuple[str, int, int]]] = {}
        self.shards = shards
        self.epoch = epoch
        self._bus = bus
        self.bus = [detail for detail in map(json.loads, bus) if detail["state_epoch"] == epoch]
        self.rows = sorted(self._raw_rows(), key=lambda row: row.place) if rows is None else rows
        self.commits = self.lines("streamgauge_commits")
        self.panes = self.lines("streamgauge_panes")
        self.threshold_events = self.lines("streamgauge_threshold_events")
        self.failed = self._listed("failed_object")
        self.late = self._listed("late_object")

    def of_epoch(self, epoch: int) -> Leftovers:
        """The same archive, and the results of that state_epoch."""
        if epoch == self.epoch:
            return self
        return Leftovers(self.objects, self.shards, self._bus, epoch=epoch, rows=self.rows)

    def places_of(self, identity: tuple[str, str]) -> set[tuple[str, int, int]]:
        """Every position at which an event stands."""
        if not self._places:
            for row in self.rows:
                if row.identity is not None:
                    self._places.setdefault(row.identity, set()).add(row.place)
        return self._places.get(identity, set())

    def lines(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table of results."""
        prefix = f"type={table}/"
        found: list[dict[str, Any]] = []
        for name in sorted(self.objects):
            if name.startswith(prefix):
                found += [row for row in self._lines_of(name) if row["state_epoch"] == self.epoch]
        return found

    def last_commits(self) -> dict[str, dict[str, Any]]:
        """By shard, the row of its last commit."""
        last: dict[str, dict[str, Any]] = {}
        for commit in sorted(self.commits, key=lambda row: row["claim_version"]):
            last[commit["shard_id"]] = commit
        return last

    def _listed(self, field: str) -> list[dict[str, Any]]:
        """The rows of the objects that commits list: the others were written by who lost the race."""
        names = Counter(commit[field] for commit in self.commits if commit[field])
        assert not names or max(names.values()) == 1, f"two commits list one {field}"
        missing = [name for name in names if name not in self.objects]
        assert not missing, f"commits list objects that do not exist: {missing}"
        return [row for name in sorted(names) for row in self._lines_of(name)]

    def _lines_of(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in gzip.decompress(self.objects[name]).splitlines()]

    def _raw_rows(self) -> Iterator[Row]:
        for name, body in self.objects.items():
            if not name.endswith(".parquet"):
                continue
            table = name.split("/")[0].removeprefix("type=")
            for columns in pq.read_table(io.BytesIO(body), use_threads=False).to_pylist():  # type: ignore[no-untyped-call]
                yield _row(table, columns)


def _row(table: str, columns: dict[str, Any]) -> Row:
    source = columns.get("source")
    if table in ("streamgauge_unarchivable", "streamgauge_misrouted"):
        identity = columns["identity"]
    else:
        identity = columns["sequence"] or columns["id"]
    return Row(
        table,
        columns["shard_id"],
        int(columns["sequence_number"]),
        columns["sub_sequence_number"],
        _ms(columns["arrival"]),
        None if source is None or identity is None else (source, identity),
        columns,
    )


def _ms(instant: Any) -> int:
    return round(instant.timestamp() * 1000)


def hash_of(key: str) -> int:
    """Where a partition key lies among the hash keys."""
    return int(md5(key.encode(), usedforsecurity=False).hexdigest(), 16)


def sequence_and_sub(row: dict[str, Any]) -> tuple[str, int, int]:
    """The position that a row of results names."""
    return row["shard_id"], int(row["sequence_number"]), row["sub_sequence_number"]
