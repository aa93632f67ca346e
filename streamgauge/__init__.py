"""Streaming analytics on Amazon Kinesis, effectively once.

The public names are imported on first use (PEP 562), so that a Lambda function does not load what it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamgauge.events.envelope import Event
    from streamgauge.events.errors import StreamgaugeError
    from streamgauge.processors.commit.session import ShardSession
    from streamgauge.processors.core.engine import Engine
    from streamgauge.processors.hosts.pipeline_file import load_pipeline
    from streamgauge.producers.client.producer import KinesisProducer
    from streamgauge.producers.client.settings import ProducerSettings

__version__ = "0.1.0"

_HOMES = {
    "Engine": "streamgauge.processors.core.engine",
    "Event": "streamgauge.events.envelope",
    "KinesisProducer": "streamgauge.producers.client.producer",
    "ProducerSettings": "streamgauge.producers.client.settings",
    "ShardSession": "streamgauge.processors.commit.session",
    "StreamgaugeError": "streamgauge.events.errors",
    "load_pipeline": "streamgauge.processors.hosts.pipeline_file",
}

__all__ = [
    "Engine",
    "Event",
    "KinesisProducer",
    "ProducerSettings",
    "ShardSession",
    "StreamgaugeError",
    "__version__",
    "load_pipeline",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
