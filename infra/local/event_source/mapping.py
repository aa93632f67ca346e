"""An event source mapping: what Lambda's API says of it, checked as the API checks it.

Source: AWS Lambda developer guide, "Lambda parameters for Amazon Kinesis Data Streams event source mappings"
(services-kinesis-parameters), and the API reference of CreateEventSourceMapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.local.event_source.filters import Filter, parse_filters

__all__ = ["EventSourceMapping", "MappingRefused", "StartAt", "parse_mapping"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_POSITIONS = ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP")
_FOREVER = -1
_DESTINATIONS = ("sqs", "sns", "s3")
_AGE_S_MIN = 60


class MappingRefused(StreamgaugeError):
    """AWS would not take the mapping, or the local poller does not know what it asks for."""


@dataclass(frozen=True, slots=True)
class StartAt:
    """Where a shard of which nothing was read yet begins: GetShardIterator's type, and its timestamp."""

    type: str
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class EventSourceMapping:
    """A mapping of a Kinesis stream to a function. None as a limit: there is none."""

    uuid: str
    function_arn: str
    stream_arn: str
    start: StartAt
    invoke_identity_arn: str = ""
    batch_size: int = 100
    window_ms: int = 0
    parallelization_factor: int = 1
    retries_max: int | None = None
    record_age_ms_max: int | None = None
    is_bisecting: bool = False
    is_partial_allowed: bool = False
    destination: str | None = None
    filters: tuple[Filter, ...] = ()
    is_enabled: bool = True

    @property
    def region(self) -> str:
        """The stream's region."""
        return self.stream_arn.split(":")[3]

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self.stream_arn.rpartition("/")[2]

    @property
    def function(self) -> str:
        """The function's name, for messages."""
        return self.function_arn.split(":function:")[-1]


def parse_mapping(
    description: Mapping[str, object], *, role_arn: str = "", timestamp_ms: int | None = None
) -> EventSourceMapping:
    """The mapping of an answer of ListEventSourceMappings (or of the request that made it).

    Parameters
    ----------
    role_arn
        The function's role, which records name as ``invokeIdentityArn``.
    timestamp_ms
        Milliseconds since the epoch: the ``StartingPositionTimestamp`` where the description has lost it, as
        MiniStack's does.

    Raises
    ------
    MappingRefused
        With the property's name.
    """
    where = f"event source mapping {description.get('UUID', '?')}"
    values = _Values(description, where)
    _refuse_what_is_lacking(values)
    batch_size = values.integer("BatchSize", 100, 1, 10_000)
    window_s = values.integer("MaximumBatchingWindowInSeconds", 0, 0, 300)
    age_s = values.integer("MaximumRecordAgeInSeconds", _FOREVER, -1, 604_800)
    if 0 <= age_s < _AGE_S_MIN:
        raise MappingRefused(f"{age_s} is below 60, the least", where=f"{where}, MaximumRecordAgeInSeconds")
    retries = values.integer("MaximumRetryAttempts", _FOREVER, -1, 10_000)
    return EventSourceMapping(
        uuid=values.text("UUID"),
        function_arn=values.text("FunctionArn"),
        stream_arn=values.text("EventSourceArn"),
        start=_start(values, timestamp_ms),
        invoke_identity_arn=role_arn,
        batch_size=batch_size,
        window_ms=window_s * 1000,
        parallelization_factor=values.integer("ParallelizationFactor", 1, 1, 10),
        retries_max=None if retries == _FOREVER else retries,
        record_age_ms_max=None if age_s == _FOREVER else age_s * 1000,
        is_bisecting=description.get("BisectBatchOnFunctionError") is True,
        is_partial_allowed=_is_partial_allowed(description, where),
        destination=_destination(description, where),
        filters=parse_filters(description.get("FilterCriteria"), where=where),
        is_enabled=str(description.get("State", "Enabled")) not in {"Disabled", "Disabling"},
    )


class _Values:
    """Properties by name, checked."""

    def __init__(self, description: Mapping[str, object], where: str) -> None:
        self._description = description
        self.where = where

    def text(self, name: str) -> str:
        value = self._description.get(name)
        if not isinstance(value, str) or not value:
            raise MappingRefused("it is missing", where=f"{self.where}, {name}")
        return value

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        value = self._description.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise MappingRefused(f"{value!r} is no integer from {least} to {most}", where=f"{self.where}, {name}")
        return value

    def time_ms(self, name: str) -> int | None:
        value = self._description.get(name)
        if isinstance(value, datetime):
            return (value.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
        if isinstance(value, int | float):
            return int(value * 1000)
        return None


def _refuse_what_is_lacking(values: _Values) -> None:
    if "/consumer/" in values.text("EventSourceArn"):
        raise MappingRefused("the local poller has no enhanced fan-out", where=f"{values.where}, EventSourceArn")
    if values.integer("TumblingWindowInSeconds", 0, 0, 900):
        raise MappingRefused(
            "the local poller has no tumbling windows of its own",
            where=f"{values.where}, TumblingWindowInSeconds",
            remedy="Leave it out: the pipeline's windows are not AWS's",
        )


def _start(values: _Values, timestamp_ms: int | None) -> StartAt:
    kind = values.text("StartingPosition")
    if kind not in _POSITIONS:
        raise MappingRefused(f"{kind!r} is none of {', '.join(_POSITIONS)}", where=f"{values.where}, StartingPosition")
    if kind != "AT_TIMESTAMP":
        return StartAt(kind)
    timestamp = values.time_ms("StartingPositionTimestamp")
    timestamp = timestamp_ms if timestamp is None else timestamp
    if timestamp is None:
        raise MappingRefused(
            "AT_TIMESTAMP needs it, and MiniStack does not keep it",
            where=f"{values.where}, StartingPositionTimestamp",
            remedy="Give it to the poller as --starting-timestamp",
        )
    return StartAt(kind, timestamp)


def _is_partial_allowed(description: Mapping[str, object], where: str) -> bool:
    types = description.get("FunctionResponseTypes") or []
    if not isinstance(types, list) or not set(types) <= {"ReportBatchItemFailures"}:
        raise MappingRefused(f"{types!r} is not known", where=f"{where}, FunctionResponseTypes")
    return bool(types)


def _destination(description: Mapping[str, object], where: str) -> str | None:
    config = description.get("DestinationConfig") or {}
    on_failure = config.get("OnFailure") if isinstance(config, dict) else None
    arn = on_failure.get("Destination") if isinstance(on_failure, dict) else None
    if not arn:
        return None
    parts = str(arn).split(":", 5)
    if len(parts) != 6 or parts[0] != "arn" or parts[2] not in _DESTINATIONS:
        raise MappingRefused(
            f"{arn!r} is no queue, topic or bucket", where=f"{where}, DestinationConfig.OnFailure.Destination"
        )
    return str(arn)
