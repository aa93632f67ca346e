"""Streaming analytics on Amazon Kinesis, effectively once.

The public names are imported on first use (PEP 562), so that a Lambda function does not load what it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamgauge.events.envelope import Event
    from streamgauge.events.errors import StreamgaugeError

__version__ = "0.1.0"

_HOMES = {
    "Event": "streamgauge.events.envelope",
    "StreamgaugeError": "streamgauge.events.errors",
}

__all__ = ["Event", "StreamgaugeError", "__version__"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
