"""What several operations read from requests, and write into answers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from streamgauge.infra.local.kinesis import wire
from streamgauge.infra.local.kinesis.errors import InvalidArgumentException, ValidationException
from streamgauge.infra.local.kinesis.shards import ShardState
from streamgauge.infra.local.kinesis.streams import Stream

__all__ = [
    "Answer",
    "hash_range",
    "milliseconds",
    "parse_hash_key",
    "seconds",
    "shard_fields",
    "stream_fields",
    "stream_named",
    "within",
]

Answer = Mapping[str, object]

_HASH_KEY = re.compile(r"0|[1-9][0-9]{0,38}")


def stream_named(request: wire.Named) -> str:
    """The stream that a request means: its ARN, or else its name; together they must agree."""
    name, arn = request.stream_name, request.stream_arn
    if arn is not None:
        if name is not None and arn.rpartition("/")[2] != name:
            raise InvalidArgumentException(f"StreamName {name} and StreamARN {arn} name two streams")
        return arn
    if name is None:
        raise InvalidArgumentException("Either StreamName or StreamARN must be specified.")
    return name


def seconds(milliseconds: int) -> float:
    """A timestamp as the wire has it."""
    return milliseconds / 1000


def milliseconds(seconds: float | None) -> int | None:
    """A timestamp as the model has it."""
    return None if seconds is None else round(seconds * 1000)


def parse_hash_key(text: str, name: str) -> int:
    """A hash key from its decimal text; `name` is the parameter, for the error."""
    if _HASH_KEY.fullmatch(text) is None:
        raise ValidationException(
            f"1 validation error detected: Value '{text}' at '{name}' failed to satisfy constraint: Member must "
            f"satisfy regular expression pattern: {_HASH_KEY.pattern}"
        )
    return int(text)


def within(value: int, name: str, most: int) -> int:
    """`value`, which must lie between 1 and `most`; `name` is the parameter, for the error."""
    if not 1 <= value <= most:
        raise ValidationException(
            f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: Member must have "
            f"value between 1 and {most}"
        )
    return value


def hash_range(shard: ShardState) -> Answer:
    """HashKeyRange."""
    return {"StartingHashKey": str(shard.hash_range.first), "EndingHashKey": str(shard.hash_range.last)}


def shard_fields(shard: ShardState) -> Answer:
    """Shard, as ListShards and DescribeStream give it."""
    sequence = {"StartingSequenceNumber": str(shard.starting_sequence_number)}
    if (ending := shard.ending_sequence_number) is not None:
        sequence["EndingSequenceNumber"] = str(ending)
    return {
        "ShardId": shard.shard_id,
        **dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False)),
        "HashKeyRange": hash_range(shard),
        "SequenceNumberRange": sequence,
    }


def stream_fields(stream: Stream) -> dict[str, object]:
    """What DescribeStream and DescribeStreamSummary have in common."""
    described: dict[str, object] = {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": stream.mode},
        "RetentionPeriodHours": stream.retention_ms // 3_600_000,
        "StreamCreationTimestamp": seconds(stream.created_ms),
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": stream.encryption,
    }
    if stream.key_id is not None:
        described["KeyId"] = stream.key_id
    return described
