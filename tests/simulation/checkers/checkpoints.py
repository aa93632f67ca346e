"""I5: no host ever noted as done what its shard's row did not cover."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from simulation.world import Checkpoint

__all__ = ["check_checkpoints"]


def check_checkpoints(checkpoints: Sequence[Checkpoint]) -> Iterator[str]:
    """Checkpoints past unapplied data."""
    for noted in checkpoints:
        reached = noted.row.position if noted.row else None
        if reached is None or reached.sequence_number < noted.position.sequence_number:
            yield f"I5: {noted.shard_id} was checkpointed at {noted.position}, and committed up to {reached}"
