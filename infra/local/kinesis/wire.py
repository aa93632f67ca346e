"""The JSON of requests and answers. Field names are AWS's.

Source: Amazon Kinesis Data Streams API Reference; the wire format is AWS JSON 1.1. A field that is not listed here is
refused by name rather than ignored.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streamgauge.infra.local.kinesis.model import IteratorType
from streamgauge.infra.local.kinesis.streams import ShardFilterType, StreamMode

__all__ = [
    "CreateStream",
    "DeleteStream",
    "DescribeStream",
    "Encryption",
    "GetRecords",
    "GetShardIterator",
    "ListShards",
    "ListStreams",
    "ListTagsForStream",
    "MaxRecordSize",
    "MergeShards",
    "Named",
    "Nothing",
    "PutRecord",
    "PutRecords",
    "ReadRecord",
    "RecordEntry",
    "Resource",
    "RetentionPeriod",
    "ShardFilterFields",
    "SplitShard",
    "StreamModeFields",
    "TagKeys",
    "TagResource",
    "Tags",
    "UntagResource",
    "UpdateShardCount",
    "UpdateStreamMode",
]


class _Fields(msgspec.Struct, frozen=True, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    pass


class Nothing(_Fields, frozen=True, kw_only=True):
    """No parameters."""


class Named(_Fields, frozen=True, kw_only=True):
    """A stream by name or ARN."""

    stream_name: str | None = None
    stream_arn: str | None = msgspec.field(name="StreamARN", default=None)


class StreamModeFields(_Fields, frozen=True, kw_only=True):
    """StreamModeDetails."""

    stream_mode: StreamMode


class CreateStream(_Fields, frozen=True, kw_only=True):
    """CreateStream."""

    stream_name: str
    shard_count: int | None = None
    stream_mode_details: StreamModeFields = StreamModeFields(stream_mode="PROVISIONED")
    tags: dict[str, str] = {}
    max_record_size_in_kib: int = msgspec.field(name="MaxRecordSizeInKiB", default=1024)


class DeleteStream(Named, frozen=True, kw_only=True):
    """DeleteStream. There are no consumers to enforce anything on."""

    enforce_consumer_deletion: bool = False


class DescribeStream(Named, frozen=True, kw_only=True):
    """DescribeStream."""

    limit: int = 100
    exclusive_start_shard_id: str | None = None


class ListStreams(_Fields, frozen=True, kw_only=True):
    """ListStreams."""

    limit: int = 100
    exclusive_start_stream_name: str | None = None
    next_token: str | None = None


class ShardFilterFields(_Fields, frozen=True, kw_only=True):
    """ShardFilter."""

    type: ShardFilterType
    shard_id: str | None = None
    timestamp: float | None = None


class ListShards(Named, frozen=True, kw_only=True):
    """ListShards."""

    next_token: str | None = None
    exclusive_start_shard_id: str | None = None
    max_results: int = 1_000
    stream_creation_timestamp: float | None = None
    shard_filter: ShardFilterFields | None = None


class PutRecord(Named, frozen=True, kw_only=True):
    """PutRecord. The order of puts to a shard is the order of calls, whatever SequenceNumberForOrdering says."""

    data: bytes
    partition_key: str
    explicit_hash_key: str | None = None
    sequence_number_for_ordering: str | None = None


class RecordEntry(_Fields, frozen=True, kw_only=True):
    """One entry of PutRecords."""

    data: bytes
    partition_key: str
    explicit_hash_key: str | None = None


class PutRecords(Named, frozen=True, kw_only=True):
    """PutRecords."""

    records: list[RecordEntry]


class GetShardIterator(Named, frozen=True, kw_only=True):
    """GetShardIterator."""

    shard_id: str
    shard_iterator_type: IteratorType
    starting_sequence_number: str | None = None
    timestamp: float | None = None


class GetRecords(_Fields, frozen=True, kw_only=True):
    """GetRecords. The iterator says which stream; an ARN beside it must agree."""

    shard_iterator: str
    limit: int = 10_000
    stream_arn: str | None = msgspec.field(name="StreamARN", default=None)


class ReadRecord(_Fields, frozen=True, kw_only=True, omit_defaults=True):
    """One record of GetRecords' answer; the timestamp is in seconds."""

    sequence_number: str
    approximate_arrival_timestamp: float
    data: bytes
    partition_key: str
    encryption_type: str | None = None


class SplitShard(Named, frozen=True, kw_only=True):
    """SplitShard."""

    shard_to_split: str
    new_starting_hash_key: str


class MergeShards(Named, frozen=True, kw_only=True):
    """MergeShards."""

    shard_to_merge: str
    adjacent_shard_to_merge: str


class UpdateShardCount(Named, frozen=True, kw_only=True):
    """UpdateShardCount."""

    target_shard_count: int
    scaling_type: Literal["UNIFORM_SCALING"]


class RetentionPeriod(Named, frozen=True, kw_only=True):
    """IncreaseStreamRetentionPeriod and DecreaseStreamRetentionPeriod."""

    retention_period_hours: int


class Tags(Named, frozen=True, kw_only=True):
    """AddTagsToStream."""

    tags: dict[str, str]


class TagKeys(Named, frozen=True, kw_only=True):
    """RemoveTagsFromStream."""

    tag_keys: list[str]


class ListTagsForStream(Named, frozen=True, kw_only=True):
    """ListTagsForStream."""

    exclusive_start_tag_key: str | None = None
    limit: int = 50


class Resource(_Fields, frozen=True, kw_only=True):
    """ListTagsForResource."""

    resource_arn: str = msgspec.field(name="ResourceARN")


class TagResource(Resource, frozen=True, kw_only=True):
    """TagResource."""

    tags: dict[str, str]


class UntagResource(Resource, frozen=True, kw_only=True):
    """UntagResource."""

    tag_keys: list[str]


class Encryption(Named, frozen=True, kw_only=True):
    """StartStreamEncryption and StopStreamEncryption."""

    encryption_type: Literal["KMS"]
    key_id: str


class UpdateStreamMode(_Fields, frozen=True, kw_only=True):
    """UpdateStreamMode."""

    stream_arn: str = msgspec.field(name="StreamARN")
    stream_mode_details: StreamModeFields


class MaxRecordSize(Named, frozen=True, kw_only=True):
    """UpdateMaxRecordSize."""

    max_record_size_in_kib: int = msgspec.field(name="MaxRecordSizeInKiB")
