"""Faults by injection: what a caller must survive, decided per call by an object that a test or a simulation gives.

The base class injects nothing. `ScriptedFaults` injects what it was told, in order; `RandomFaults` draws from a seeded
generator. The model consults them and stays deterministic; only ``delay_ms`` is for whoever serves the model, because
a pure model cannot wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import NamedTuple

__all__ = ["Call", "Fault", "Faults", "RandomFaults", "Rule", "ScriptedFaults"]


class Fault(Enum):
    """What can go wrong with a call."""

    UNAVAILABLE = "unavailable"
    """The call fails with 503 and has no effect."""
    INTERNAL_FAILURE = "internal failure"
    """The call fails with 500 and has no effect. In PutRecords: the entries chosen, each with InternalFailure."""
    THROTTLE = "throttle"
    """The shard's rate counts as exceeded. In PutRecords: for the entries chosen."""
    LOSE_ANSWER = "lose answer"
    """The call has its effect, and the answer is lost."""
    EXPIRE_ITERATOR = "expire iterator"
    """GetRecords: the iterator counts as expired."""
    EMPTY_READ = "empty read"
    """GetRecords: no records, the same position, although there are some."""


class Call(NamedTuple):
    """One call as the faults see it. ``entry`` is the index in PutRecords, ``shard_id`` None where several may do."""

    operation: str
    stream: str | None
    shard_id: str | None
    entry: int | None
    now_ms: int


class Faults:
    """No faults. Subclasses override what they inject."""

    def strikes(self, fault: Fault, call: Call) -> bool:
        """Whether `fault` befalls `call`. Asked once per kind that applies, in the order of `Fault`."""
        del fault, call
        return False

    def delay_ms(self, operation: str) -> int:
        """How long the answer to an operation is held back, in milliseconds."""
        del operation
        return 0


@dataclass(slots=True)
class Rule:
    """One scripted fault. None matches everything; ``times`` None strikes for ever."""

    fault: Fault
    operation: str | None = None
    stream: str | None = None
    shard_id: str | None = None
    entries: Sequence[int] | None = None
    skip: int = 0
    """Matching calls that pass before the first strike."""
    times: int | None = 1

    def strikes(self, fault: Fault, call: Call) -> bool:
        """Whether this rule strikes now; it counts its own strikes."""
        matches = (
            fault is self.fault
            and self.operation in (None, call.operation)
            and self.stream in (None, call.stream)
            and self.shard_id in (None, call.shard_id)
            and (self.entries is None or call.entry in self.entries)
        )
        if not matches or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class ScriptedFaults(Faults):
    """Strikes where a rule says so. Rules may be added at any time."""

    def __init__(self, *rules: Rule, delays_ms: dict[str, int] | None = None) -> None:
        self.rules = list(rules)
        self.delays_ms = delays_ms or {}

    def strikes(self, fault: Fault, call: Call) -> bool:
        """As the first rule that matches says."""
        return any(rule.strikes(fault, call) for rule in self.rules)

    def delay_ms(self, operation: str) -> int:
        """As given per operation."""
        return self.delays_ms.get(operation, 0)


@dataclass(slots=True)
class RandomFaults(Faults):
    """Strikes each fault with its share (0 to 1) of the calls, or entries, that it applies to."""

    random: Random
    shares: dict[Fault, float] = field(default_factory=dict)
    delay_ms_max: int = 0

    def strikes(self, fault: Fault, call: Call) -> bool:
        """As the generator draws; a kind without a share draws nothing."""
        del call
        share = self.shares.get(fault, 0.0)
        return share > 0 and self.random.random() < share

    def delay_ms(self, operation: str) -> int:
        """Uniform between 0 and ``delay_ms_max``."""
        del operation
        return self.random.randint(0, self.delay_ms_max) if self.delay_ms_max else 0
