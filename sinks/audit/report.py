"""What an audit says: checks that hold or do not, and the names of what is missing or double."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

import msgspec

__all__ = ["NAMES_SHOWN", "AuditReport", "Check", "report", "shown"]

NAMES_SHOWN = 20
"""How many names of one kind a check lists; a last entry counts the others."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check. It holds if `expected` equals `found` and nothing is missing or doubled.

    ``scope`` is what it is about: a shard, a source, an aggregate, or the archive.
    """

    name: str
    scope: str
    expected: int | str
    found: int | str
    missing: list[str] = msgspec.field(default_factory=list)
    doubled: list[str] = msgspec.field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.expected == self.found and not self.missing and not self.doubled


class AuditReport(msgspec.Struct, frozen=True):
    """The verdict, and every check that led to it."""

    audit: Literal["pass", "fail"]
    checks: list[Check]

    @property
    def failed(self) -> list[Check]:
        """The checks that do not hold."""
        return [check for check in self.checks if not check.holds]


def report(checks: Iterable[Check]) -> AuditReport:
    """The verdict over checks: without any, nothing is proven."""
    checks = list(checks)
    return AuditReport("pass" if checks and all(check.holds for check in checks) else "fail", checks)


def shown(names: Collection[str]) -> list[str]:
    """The first names, sorted, and how many others there are."""
    chosen = sorted(names)[:NAMES_SHOWN]
    others = len(names) - len(chosen)
    return [*chosen, f"and {others} more"] if others else chosen
