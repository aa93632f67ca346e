"""How a producer batches, retries and bounds itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamgauge.events.envelope import DEFAULT_SEQUENCE_WINDOW, MAX_SEQUENCE_WINDOW, MIN_SEQUENCE_WINDOW
from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.records import MAX_RECORD_BYTES

__all__ = ["InvalidSettings", "ProducerSettings", "WireFormat"]

WireFormat = Literal["kpl", "plain"]


class InvalidSettings(StreamgaugeError):
    """A setting of the producer is out of its range."""


@dataclass(frozen=True, slots=True)
class ProducerSettings:
    """Settings of one producer; the defaults fit a provisioned stream on AWS.

    Parameters
    ----------
    wire_format
        ``kpl``: several events in one record (KPL aggregation). ``plain``: one event a record.
    ordered
        Keep the order of puts within a shard, so that a retry makes nothing late: one request at a time per shard, with
        one record for it, and what was refused goes before what came later. ``plain`` requests hold many records, which
        may still overtake one another when Kinesis refuses some. False trades the order for more in flight.
    window
        W: the most sequences from the oldest unacknowledged to the newest. A power of two from 1,024 to 1,048,576.
    aggregate_bytes_max, aggregate_events_max, aggregate_linger_ms
        An aggregate is closed at whichever comes first. 51,200 bytes is the KPL's own default.
    request_records_max, request_bytes_max, request_linger_ms
        The same for a PutRecords request (AWS: 500 records, 5 MiB with partition keys).
    requests_in_flight_max
        PutRecords calls at one time.
    events_in_flight_max, bytes_in_flight_max
        What has been put and has no outcome yet; a put beyond it waits.
    shard_bytes_per_s, shard_records_per_s
        The limiter's rates per shard. AWS takes 1 MiB and 1,000 records in a second, from all producers together; the
        defaults leave room for one burst, so that a lone producer is not throttled.
    backoff_base_ms, backoff_max_ms
        The n-th retry waits a random part of ``min(backoff_max_ms, backoff_base_ms * 2**n)`` ("full jitter").
    resend_horizon_ms
        R: nothing is sent again later than this after its first attempt.
    landing_bound_ms
        How long after its start a request without an answer can still land. AWS refuses a request that arrives more
        than five minutes after the time in its signature (Signature Version 4); clocks that are five minutes apart
        pass as well, and five more minutes are left for what happens after a request was accepted.
    ledger_interval_ms
        Between two ledger records, while there is something new to state.
    """

    wire_format: WireFormat = "kpl"
    ordered: bool = True
    window: int = DEFAULT_SEQUENCE_WINDOW
    aggregate_bytes_max: int = 51_200
    aggregate_events_max: int = 10_000
    aggregate_linger_ms: int = 100
    request_records_max: int = 500
    request_bytes_max: int = 5 * 1024 * 1024
    request_linger_ms: int = 10
    requests_in_flight_max: int = 4
    events_in_flight_max: int = 100_000
    bytes_in_flight_max: int = 64 * 1024 * 1024
    shard_bytes_per_s: int = 990_000
    shard_records_per_s: int = 960
    backoff_base_ms: int = 50
    backoff_max_ms: int = 5_000
    resend_horizon_ms: int = 24 * 3_600_000
    landing_bound_ms: int = 15 * 60_000
    ledger_interval_ms: int = 10_000

    def __post_init__(self) -> None:
        if self.wire_format not in ("kpl", "plain"):
            raise InvalidSettings("must be kpl or plain", where=f"wire_format {self.wire_format!r}")
        if self.window & (self.window - 1) or not MIN_SEQUENCE_WINDOW <= self.window <= MAX_SEQUENCE_WINDOW:
            raise InvalidSettings(
                f"must be a power of two from {MIN_SEQUENCE_WINDOW} to {MAX_SEQUENCE_WINDOW}",
                where=f"window {self.window}",
            )
        bounds = {
            "aggregate_bytes_max": (1, MAX_RECORD_BYTES),
            "aggregate_events_max": (1, None),
            "aggregate_linger_ms": (0, None),
            "request_records_max": (1, 500),
            "request_bytes_max": (MAX_RECORD_BYTES, 5 * 1024 * 1024),
            "request_linger_ms": (0, None),
            "requests_in_flight_max": (1, None),
            "events_in_flight_max": (1, None),
            "bytes_in_flight_max": (1, None),
            "shard_bytes_per_s": (1, None),
            "shard_records_per_s": (1, None),
            "backoff_base_ms": (1, None),
            "backoff_max_ms": (1, None),
            "resend_horizon_ms": (1, None),
            "landing_bound_ms": (0, None),
            "ledger_interval_ms": (1, None),
        }
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if value < least or (most is not None and value > most):
                limit = f"at least {least}" if most is None else f"from {least} to {most}"
                raise InvalidSettings(f"must be {limit}", where=f"{name} {value}")
