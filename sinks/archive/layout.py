"""Names in the archive: ``type=<table>/dt=YYYY-MM-DD/hour=HH/…``, by arrival in UTC.

A file of raw events lies under its event type as it is written; in SQL the table is named after the type with an
underscore for every other character. What delivery keeps for itself lies under ``delivery/``, outside every table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import rfc3339

__all__ = [
    "CONTROL",
    "DELIVERY_PREFIX",
    "LEDGER",
    "MISROUTED",
    "UNARCHIVABLE",
    "Partition",
    "parse_name",
    "partition_of",
    "sql_name",
    "sql_names",
    "table_prefix",
]

CONTROL = "streamgauge_control"
"""Ticks and ends of input."""
LEDGER = "streamgauge_ledger"
"""What producers state about their sources."""
MISROUTED = "streamgauge_misrouted"
"""The events of aggregates that a stale shard map sent to the wrong shard: their source sends them again."""
UNARCHIVABLE = "streamgauge_unarchivable"
"""What does not fit a table: unreadable records, unknown types and versions, data that breaks its schema."""

DELIVERY_PREFIX = "delivery/"

_OTHER = re.compile(r"[^a-z0-9_]")
_PARTITION = re.compile(r"type=([^/]+)/dt=(\d{4}-\d\d-\d\d)/hour=(\d\d)/[^/]+")


class Partition(NamedTuple):
    """One hour of one table. ``dt`` is ``YYYY-MM-DD`` and ``hour`` ``HH``, both UTC."""

    table: str
    dt: str
    hour: str

    @property
    def prefix(self) -> str:
        """The names of its objects begin with this."""
        return f"{table_prefix(self.table)}dt={self.dt}/hour={self.hour}/"


def table_prefix(table: str) -> str:
    """The prefix of all objects of an event type, or of one of our own tables."""
    # A slash, an equals sign or a percent sign in a type would be read as a part of the path.
    return f"type={quote(table, safe='')}/"


def partition_of(table: str, arrival_ms: int) -> Partition:
    """Where a row that arrived then lies."""
    text = rfc3339(arrival_ms)
    return Partition(table, text[:10], text[11:13])


def parse_name(name: str) -> Partition | None:
    """The partition of an object by its name; None for an object that belongs to no table."""
    match = _PARTITION.fullmatch(name)
    return None if match is None else Partition(unquote(match[1]), match[2], match[3])


def sql_name(table: str) -> str:
    """The name by which SQL knows a table: lower case, an underscore for whatever is no letter, digit or underscore."""
    return _OTHER.sub("_", table.lower())


def sql_names(tables: Iterable[str]) -> dict[str, str]:
    """SQL name -> table, by `sql_name`.

    Raises
    ------
    StreamgaugeError
        Two tables come to the same name.
    """
    found: dict[str, str] = {}
    for table in tables:
        name = sql_name(table)
        if name in found:
            raise StreamgaugeError(
                f"the types {found[name]!r} and {table!r} would both be the table {name!r}",
                where="catalogue",
                remedy="Rename one of them",
            )
        found[name] = table
    return found
