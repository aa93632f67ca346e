"""A threshold event as the bus carries it. ``docs/events.md`` tells what it means to whoever acts on it."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from streamgauge.events.times import rfc3339
from streamgauge.processors.commit.commit_objects import rule_sequence_text
from streamgauge.processors.core.definition import Severity
from streamgauge.processors.core.effects import ThresholdEvent

__all__ = ["DEFAULT_SEVERITY", "SCHEMA_VERSION", "ThresholdDetail", "threshold_detail"]

DEFAULT_SEVERITY: Severity = "warning"
SCHEMA_VERSION = 1
"""Of docs/threshold-event.schema.json: rises when a field goes or changes its meaning, not when one is added."""

_SUMMARY_MAX = 500
_ALERT_ID_CHARS = 32
# A summary stands in quotes in templates that quote nothing themselves.
_PLAIN = {ord('"'): "'", ord("\\"): "/", **dict.fromkeys((*range(0x20), 0x7F), " ")}


class ThresholdDetail(msgspec.Struct, frozen=True, kw_only=True):
    """The detail of an entry: one threshold event. Times are RFC 3339 UTC, ``rule_sequence`` texts compare.

    `alert_id` is that of (pipeline, state_epoch, rule, key): what is raised and cleared, again and again. `summary` is
    one line for people. `traceparent` is the W3C trace context of the event that decided. `oversize`: the event is
    larger than EventBridge takes, so it comes without its key; its row in ``streamgauge_threshold_events`` of the
    archive has the same id and is whole.
    """

    id: str
    pipeline: str
    state_epoch: int
    rule: str
    aggregate: str
    key: dict[str, str]
    window_start: str
    window_end: str
    revision: int
    kind: str
    state: str
    reason: str
    takes_back: str | None
    crossing_ordinal: int
    rule_sequence: str
    measures: dict[str, int | float | None]
    raise_when: str
    clear_when: str | None
    oversize: bool = False
    schema_version: int = SCHEMA_VERSION
    severity: Severity = DEFAULT_SEVERITY
    alert_id: str = ""
    summary: str = ""
    traceparent: str | None = None


def threshold_detail(event: ThresholdEvent, *, severity: Severity) -> ThresholdDetail:
    """The detail of `event`, whose rule has the severity."""
    return ThresholdDetail(
        id=event.id,
        pipeline=event.pipeline,
        state_epoch=event.state_epoch,
        rule=event.rule,
        aggregate=event.aggregate,
        key=dict(event.key),
        window_start=rfc3339(event.window_start_ms),
        window_end=rfc3339(event.window_end_ms),
        revision=event.revision,
        kind=event.kind,
        state=event.state,
        reason=event.reason,
        takes_back=event.takes_back,
        crossing_ordinal=event.crossing_ordinal,
        rule_sequence=rule_sequence_text(event.rule_sequence),
        measures=dict(event.measures),
        raise_when=event.raise_when,
        clear_when=event.clear_when,
        severity=severity,
        alert_id=_alert_id(event),
        summary=_summary(event),
        traceparent=event.traceparent,
    )


def _alert_id(event: ThresholdEvent) -> str:
    named = [event.pipeline, event.state_epoch, event.rule, sorted(event.key)]
    return sha256(msgspec.json.encode(named)).hexdigest()[:_ALERT_ID_CHARS]


def _summary(event: ThresholdEvent) -> str:
    """Such as ``Gale raised for EWR: gust_max = 51.8 in the window 2026-01-01T00:00:00.000Z to ...``."""
    key = event.key[0][1] if len(event.key) == 1 else ", ".join(f"{name} {value}" for name, value in event.key)
    measures = ", ".join(f"{name} = {_number(value)}" for name, value in event.measures)
    corrected = ", by a correction" if event.reason == "corrected" else ""
    window = f"{rfc3339(event.window_start_ms)} to {rfc3339(event.window_end_ms)}"
    # A rule about absent keys looks at no measures.
    what = f"{measures} in the window {window}" if measures else f"last seen {rfc3339(event.window_start_ms)}"
    text = f"{event.detail_type} {event.state} for {key}{corrected}: {what}"
    plain = text.translate(_PLAIN)
    return plain if len(plain) <= _SUMMARY_MAX else plain[: _SUMMARY_MAX - 3] + "..."


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
