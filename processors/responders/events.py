"""A threshold event as EventBridge hands it to a target."""

from __future__ import annotations

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.commit.threshold_detail import ThresholdDetail

__all__ = ["MalformedThresholdEvent", "ThresholdNotice", "parse_notice"]

_STATES = ("raised", "cleared")


class MalformedThresholdEvent(StreamgaugeError):
    """What came is no threshold event of a streamgauge pipeline."""


class ThresholdNotice(msgspec.Struct, frozen=True, kw_only=True, rename={"detail_type": "detail-type"}):
    """EventBridge's envelope around one threshold event; ``id`` is EventBridge's own, another at each delivery's put.

    Source: AWS, "Events in Amazon EventBridge", the structure of events. Fields that are not read are left out.
    """

    id: str
    source: str
    time: str
    detail_type: str
    detail: ThresholdDetail


def parse_notice(event: object) -> ThresholdNotice:
    """Check what a target was invoked with.

    Raises
    ------
    MalformedThresholdEvent
        It is something else; says where.
    """
    remedy = "Does the rule take other events too? Its pattern should name the source prefix `streamgauge.`"
    try:
        notice = msgspec.convert(event, ThresholdNotice)
    except msgspec.ValidationError as error:
        raise MalformedThresholdEvent(str(error), where="EventBridge event", remedy=remedy) from error
    if not notice.source.startswith("streamgauge."):
        raise MalformedThresholdEvent(
            f"its source is {notice.source!r}", where=f"EventBridge event {notice.id}", remedy=remedy
        )
    if notice.detail.state not in _STATES:
        raise MalformedThresholdEvent(
            f"detail.state is {notice.detail.state!r}, not one of {', '.join(_STATES)}",
            where=f"EventBridge event {notice.id}",
            remedy="Was it written by hand? docs/events.md describes the event",
        )
    return notice
