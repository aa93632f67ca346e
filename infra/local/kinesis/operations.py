"""The operations by name: decoding of the request, and what runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from streamgauge.infra.local.kinesis import control_plane as control
from streamgauge.infra.local.kinesis import data_plane as data
from streamgauge.infra.local.kinesis import wire
from streamgauge.infra.local.kinesis.errors import (
    SerializationException,
    UnknownOperationException,
    UnsupportedOperation,
)
from streamgauge.infra.local.kinesis.fields import Answer
from streamgauge.infra.local.kinesis.model import KinesisModel

__all__ = ["OPERATIONS", "answer"]

Request = TypeVar("Request", bound=msgspec.Struct)

_ENCODER = msgspec.json.Encoder()
_POLLING = "the local Kinesis has no enhanced fan-out: read with GetShardIterator and GetRecords (KCL: POLLING)"
_CHANNELS = "the local Kinesis has no channels"
_UNSUPPORTED = {
    "SubscribeToShard": _POLLING,
    "RegisterStreamConsumer": _POLLING,
    "DeregisterStreamConsumer": _POLLING,
    "DescribeStreamConsumer": _POLLING,
    "ListStreamConsumers": _POLLING,
    "EnableEnhancedMonitoring": "the local Kinesis has no metrics",
    "DisableEnhancedMonitoring": "the local Kinesis has no metrics",
    "PutResourcePolicy": "the local Kinesis checks no permissions",
    "GetResourcePolicy": "the local Kinesis checks no permissions",
    "DeleteResourcePolicy": "the local Kinesis checks no permissions",
    "UpdateStreamWarmThroughput": "the local Kinesis does not scale by itself",
    "DescribeAccountSettings": "the local Kinesis has no billing",
    "UpdateAccountSettings": "the local Kinesis has no billing",
    "UpdateStreamRecordDistributionStrategy": "the local Kinesis puts a record where its key says",
    "CreateChannel": _CHANNELS,
    "DeleteChannel": _CHANNELS,
    "DescribeChannel": _CHANNELS,
    "ListChannels": _CHANNELS,
    "UpdateChannel": _CHANNELS,
}


def answer(model: KinesisModel, operation: str, body: bytes, now_ms: int) -> bytes:
    """Run one operation; the answer's body, empty where AWS's is.

    Raises
    ------
    KinesisError
        The request is refused.
    """
    run = OPERATIONS.get(operation)
    if run is None:
        if operation in _UNSUPPORTED:
            raise UnsupportedOperation(f"{operation} is not supported: {_UNSUPPORTED[operation]}")
        raise UnknownOperationException(f"Unknown operation: {operation!r}")
    result = run(model, body, now_ms)
    return b"" if result is None else _ENCODER.encode(result)


def _operation(
    request_type: type[Request], run: Callable[[KinesisModel, Request, int], Answer | None]
) -> Callable[[KinesisModel, bytes, int], Answer | None]:
    decoder = msgspec.json.Decoder(request_type)

    def decode_and_run(model: KinesisModel, body: bytes, now_ms: int) -> Answer | None:
        try:
            request = decoder.decode(body or b"{}")
        except (msgspec.DecodeError, UnicodeError) as cause:
            raise SerializationException(f"{request_type.__name__}: {cause}") from cause
        return run(model, request, now_ms)

    return decode_and_run


OPERATIONS: Mapping[str, Callable[[KinesisModel, bytes, int], Answer | None]] = {
    "AddTagsToStream": _operation(wire.Tags, control.add_tags),
    "CreateStream": _operation(wire.CreateStream, control.create_stream),
    "DecreaseStreamRetentionPeriod": _operation(wire.RetentionPeriod, control.decrease_retention),
    "DeleteStream": _operation(wire.DeleteStream, control.delete_stream),
    "DescribeLimits": _operation(wire.Nothing, control.describe_limits),
    "DescribeStream": _operation(wire.DescribeStream, control.describe_stream),
    "DescribeStreamSummary": _operation(wire.Named, control.describe_stream_summary),
    "GetRecords": _operation(wire.GetRecords, data.get_records),
    "GetShardIterator": _operation(wire.GetShardIterator, data.get_shard_iterator),
    "IncreaseStreamRetentionPeriod": _operation(wire.RetentionPeriod, control.increase_retention),
    "ListShards": _operation(wire.ListShards, control.list_shards),
    "ListStreams": _operation(wire.ListStreams, control.list_streams),
    "ListTagsForResource": _operation(wire.Resource, control.list_resource_tags),
    "ListTagsForStream": _operation(wire.ListTagsForStream, control.list_tags),
    "MergeShards": _operation(wire.MergeShards, control.merge_shards),
    "PutRecord": _operation(wire.PutRecord, data.put_record),
    "PutRecords": _operation(wire.PutRecords, data.put_records),
    "RemoveTagsFromStream": _operation(wire.TagKeys, control.remove_tags),
    "SplitShard": _operation(wire.SplitShard, control.split_shard),
    "StartStreamEncryption": _operation(wire.Encryption, control.start_encryption),
    "StopStreamEncryption": _operation(wire.Encryption, control.stop_encryption),
    "TagResource": _operation(wire.TagResource, control.tag_resource),
    "UntagResource": _operation(wire.UntagResource, control.untag_resource),
    "UpdateMaxRecordSize": _operation(wire.MaxRecordSize, control.update_max_record_size),
    "UpdateShardCount": _operation(wire.UpdateShardCount, control.update_shard_count),
    "UpdateStreamMode": _operation(wire.UpdateStreamMode, control.update_mode),
}
