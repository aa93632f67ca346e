"""Events that break the contract, one kind at a time."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streamgauge.events.times import rfc3339
from streamgauge.producers.load.profile import MalformedKind

__all__ = ["malformed_event"]

_FUTURE_MS = 3_650 * 86_400_000

_json = msgspec.json.Encoder().encode


def malformed_event(
    kind: MalformedKind, *, run: str, number: int, type: str, key: str, time_ms: int, values: Mapping[str, object]
) -> bytes:
    """The bytes of the malformed event `number` of the load `run`, foreign to any source of ours.

    But for its fault it is an event of `type` with the data `values`: nothing else can be what it fails by.
    """
    event: dict[str, object] = {
        "specversion": "1.0",
        "id": str(number),
        "source": f"urn:streamgauge-load:{run}:malformed",
        "type": type,
        "time": rfc3339(time_ms),
        "subject": key,
        "data": dict(values),
    }
    if kind == "broken_json":
        whole = _json(event)
        return whole[: len(whole) * 2 // 3]
    if kind == "missing_key":
        del event["subject"]
    elif kind == "wrong_type":
        # An object inside a list fits no field that a schema can describe as a scalar, and none as an object.
        event["data"] = {name: [[{}]] for name in values}
    elif kind == "unknown_type":
        event["type"] = f"{type}.unknown"
    elif kind == "unknown_version":
        event["dataschema"] = f"urn:streamgauge:schema:{type}:999999"
    elif kind == "bad_time":
        event["time"] = "yesterday at noon"
    else:
        event["time"] = rfc3339(time_ms + _FUTURE_MS)
    return _json(event)
