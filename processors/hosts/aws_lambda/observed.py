"""What a function says of itself: log lines, metrics, traces. Never a payload.

Metrics have the dimension ``pipeline`` alone, so that their number does not grow with shards or keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.core.counters import Counters
from streamgauge.processors.hosts.aws_lambda.batches import Answer

if TYPE_CHECKING:
    from aws_lambda_powertools.tracing import Tracer

__all__ = ["Observed", "batch_metrics"]

_NAMESPACE = "streamgauge"


class Observed:
    """Logger, metrics and tracer of one sandbox."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._log = Logger(
            service=environment.get("POWERTOOLS_SERVICE_NAME") or _NAMESPACE,
            level=environment.get("POWERTOOLS_LOG_LEVEL") or None,
            utc=True,
            use_rfc3339=True,
        )
        self._namespace = environment.get("POWERTOOLS_METRICS_NAMESPACE") or _NAMESPACE
        self._tracer: Tracer | None = None
        if environment.get("AWS_XRAY_DAEMON_ADDRESS"):
            from aws_lambda_powertools.tracing import Tracer  # noqa: PLC0415 - dear, and of no use without a daemon

            self._tracer = Tracer(patch_modules=("botocore",))

    def begin(self, request_id: str, *, is_cold: bool) -> None:
        """The lines from now on are about this invocation."""
        self._log.clear_state()
        self._log.append_keys(request_id=request_id, cold_start=is_cold)

    def about(self, **fields: object) -> None:
        """The lines from now on say this too."""
        self._log.append_keys(**fields)

    def error(self, error: BaseException) -> None:
        """One line with what is wrong and what to do; a bug brings its traceback."""
        if isinstance(error, StreamgaugeError):
            fields = {"where": error.where, "remedy": error.remedy, "error": type(error).__name__}
            self._log.error(error.what, extra=fields, stacklevel=3)
        else:
            self._log.error("unexpected: %s", type(error).__name__, exc_info=error)

    def warning(self, message: str, **fields: object) -> None:
        """Something that passes by itself."""
        self._log.warning(message, extra=fields, stacklevel=3)

    def info(self, message: str, **fields: object) -> None:
        """What was done."""
        self._log.info(message, extra=fields, stacklevel=3)

    def segment(self, name: str) -> AbstractContextManager[object]:
        """A subsegment of the trace, where there is a daemon to send it to."""
        if self._tracer is None:
            return nullcontext()
        return self._tracer.provider.in_subsegment(name=f"## {name}")

    def metrics(self, pipeline: str, values: Mapping[str, tuple[float, MetricUnit]]) -> None:
        """Print one line in CloudWatch's embedded metric format."""
        metrics = Metrics(namespace=self._namespace)
        metrics.provider.service = ""
        metrics.provider.dimension_set.clear()
        metrics.add_dimension("pipeline", pipeline)
        for name, (value, unit) in values.items():
            metrics.add_metric(name, unit, value)
        metrics.flush_metrics()


def batch_metrics(answer: Answer, *, iterator_age_ms: int, now_ms: int) -> dict[str, tuple[float, MetricUnit]]:
    """What an invocation did to its shard."""
    work = answer.work
    before, after = work.before, work.after
    count, ms = MetricUnit.Count, MetricUnit.Milliseconds
    found: dict[str, tuple[float, MetricUnit]] = {
        "Events": (after.positions - before.positions, count),
        "DuplicatesInWindow": (after.duplicate_in_window - before.duplicate_in_window, count),
        "DuplicatesBelowWindow": (after.duplicate_below_window - before.duplicate_below_window, count),
        "DuplicatesForeign": (after.duplicate_foreign - before.duplicate_foreign, count),
        "Redelivered": (after.redelivered - before.redelivered, count),
        "Late": (_late(after) - _late(before), count),
        "Failed": (sum(after.failed.values()) - sum(before.failed.values()), count),
        "ThresholdEvents": (_thresholds(after) - _thresholds(before), count),
        "Claims": (work.claims, count),
        "Conflicts": (work.conflicts, count),
        "GapRecords": (work.gap_records, count),
        "BatchesCutShort": (answer.failed_from is not None, count),
        "OutboxEntries": (work.outbox_entries, count),
        "CommitTime": (work.commit_s * 1_000, ms),
        "IteratorAge": (iterator_age_ms, ms),
        "StateSize": (work.snapshot_bytes, MetricUnit.Bytes),
    }
    if work.watermark_ms is not None:
        found["WatermarkLag"] = max(0, now_ms - work.watermark_ms), ms
    return found


def _late(counters: Counters) -> int:
    return sum(aggregate.late for aggregate in counters.aggregates.values())


def _thresholds(counters: Counters) -> int:
    return counters.threshold_events_raised + counters.threshold_events_cleared
