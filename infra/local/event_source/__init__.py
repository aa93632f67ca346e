"""The event source poller: what invokes the stack's functions locally, with the semantics of AWS Lambda's own."""

from __future__ import annotations

from streamgauge.infra.local.event_source.deployed import disable_own
from streamgauge.infra.local.event_source.run import RunSettings, run_event_sources

__all__ = ["RunSettings", "disable_own", "run_event_sources"]
