"""What a function is told by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.hosts.wiring import Resources

__all__ = ["FunctionSettings"]

_PIPELINE = "STREAMGAUGE_PIPELINE"
_ACCEPT_GAP = "STREAMGAUGE_ACCEPT_GAP"
_ABANDONED_AFTER = "STREAMGAUGE_ABANDONED_AFTER_S"
_ABANDONED_AFTER_S_MIN = 1.0


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """The settings of both functions.

    ``accept_gap`` (``STREAMGAUGE_ACCEPT_GAP``, true or false): go on where records are gone from the stream, counted
    and named in every commit. ``abandoned_after_s`` (``STREAMGAUGE_ABANDONED_AFTER_S``): a closed shard whose row has
    not changed for so long is applied to its end by its child; longer than any invocation takes, or work is wasted.
    """

    resources: Resources
    pipeline_file: Path
    accept_gap: bool
    abandoned_after_s: float

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> FunctionSettings:
        """Read them.

        Raises
        ------
        StreamgaugeError
            A variable is missing, or has a value that it cannot have.
        """
        root = environment.get("LAMBDA_TASK_ROOT", "")
        return cls(
            resources=Resources.from_environment(environment),
            pipeline_file=Path(root) / (environment.get(_PIPELINE) or "pipeline/pipeline.toml"),
            accept_gap=_flag(environment, _ACCEPT_GAP),
            abandoned_after_s=_seconds(environment, _ABANDONED_AFTER, 120.0),
        )


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "").lower()
    if text not in ("", "true", "false"):
        raise StreamgaugeError(f"{text!r} is neither true nor false", where=f"environment, {name}")
    return text == "true"


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not _ABANDONED_AFTER_S_MIN <= value < float("inf"):
        raise StreamgaugeError(
            f"{text!r} is no number of seconds from {_ABANDONED_AFTER_S_MIN:g} up", where=f"environment, {name}"
        )
    return value
