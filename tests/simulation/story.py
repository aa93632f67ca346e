"""What a failing schedule tells: what broke, what struck, and the command that shows it again."""

from __future__ import annotations

from simulation.plan import Plan
from simulation.run import Violation
from simulation.shrink import failure_of, shrink

__all__ = ["tell"]


def tell(plan: Plan, error: BaseException, *, shrinks: bool) -> str:
    """The story of one failure, shrunk if that is asked for."""
    lines = [f"seed {plan.seed}: {type(error).__name__}: {error}"]
    if shrinks:
        plan, kept = shrink(plan)
        error = failure_of(plan) or error
        lines.append(f"shrunk to {len(kept)} faults and {plan.events} events: {type(error).__name__}: {error}")
        keep = ",".join(map(str, kept))
        lines.append(f"replay: pytest tests/simulation --seed {plan.seed} --keep {keep!r} --events {plan.events}")
    lines.append(str(plan))
    if isinstance(error, Violation):
        lines += error.log
    return "\n".join(lines)
