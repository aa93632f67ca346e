"""The operations on streams and shards: request, call on the model, answer. Names are the API's, in snake case."""

from __future__ import annotations

from streamgauge.infra.local.kinesis import wire
from streamgauge.infra.local.kinesis.errors import InvalidArgumentException
from streamgauge.infra.local.kinesis.fields import (
    Answer,
    milliseconds,
    parse_hash_key,
    shard_fields,
    stream_fields,
    stream_named,
    within,
)
from streamgauge.infra.local.kinesis.model import KinesisModel
from streamgauge.infra.local.kinesis.streams import ShardFilter

__all__ = [
    "add_tags",
    "create_stream",
    "decrease_retention",
    "delete_stream",
    "describe_limits",
    "describe_stream",
    "describe_stream_summary",
    "increase_retention",
    "list_resource_tags",
    "list_shards",
    "list_streams",
    "list_tags",
    "merge_shards",
    "remove_tags",
    "split_shard",
    "start_encryption",
    "stop_encryption",
    "tag_resource",
    "untag_resource",
    "update_max_record_size",
    "update_mode",
    "update_shard_count",
]


def create_stream(model: KinesisModel, request: wire.CreateStream, now_ms: int) -> None:
    """CreateStream."""
    model.create_stream(
        request.stream_name,
        request.shard_count,
        now_ms=now_ms,
        mode=request.stream_mode_details.stream_mode,
        tags=request.tags,
        max_record_kib=request.max_record_size_in_kib,
    )


def delete_stream(model: KinesisModel, request: wire.DeleteStream, now_ms: int) -> None:
    """DeleteStream."""
    model.delete_stream(stream_named(request), now_ms=now_ms)


def describe_stream(model: KinesisModel, request: wire.DescribeStream, now_ms: int) -> Answer:
    """DescribeStream."""
    stream = model.describe(stream_named(request), now_ms=now_ms)
    limit = within(request.limit, "limit", 10_000)
    after = request.exclusive_start_shard_id
    shards = [shard for shard in stream.shards.values() if after is None or shard.shard_id > after]
    description = stream_fields(stream) | {
        "Shards": [shard_fields(shard) for shard in shards[:limit]],
        "HasMoreShards": len(shards) > limit,
    }
    return {"StreamDescription": description}


def describe_stream_summary(model: KinesisModel, request: wire.Named, now_ms: int) -> Answer:
    """DescribeStreamSummary."""
    stream = model.describe(stream_named(request), now_ms=now_ms, operation="DescribeStreamSummary")
    summary = stream_fields(stream) | {
        "OpenShardCount": len(stream.open),
        "ConsumerCount": 0,
        "MaxRecordSizeInKiB": stream.max_record_bytes // 1024,
    }
    return {"StreamDescriptionSummary": summary}


def describe_limits(model: KinesisModel, _: wire.Nothing, now_ms: int) -> Answer:
    """DescribeLimits."""
    del now_ms
    return {
        "ShardLimit": model.limits.shards,
        "OpenShardCount": model.open_shard_count,
        "OnDemandStreamCount": sum(stream.mode == "ON_DEMAND" for stream in model.streams.values()),
        "OnDemandStreamCountLimit": 50,
    }


def list_streams(model: KinesisModel, request: wire.ListStreams, now_ms: int) -> Answer:
    """ListStreams."""
    streams, token = model.list_streams(
        now_ms=now_ms,
        after_name=request.exclusive_start_stream_name,
        next_token=request.next_token,
        limit=within(request.limit, "limit", 10_000),
    )
    answered: dict[str, object] = {
        "StreamNames": [stream.name for stream in streams],
        "HasMoreStreams": token is not None,
        "StreamSummaries": [
            {
                key: value
                for key, value in stream_fields(stream).items()
                if key in ("StreamName", "StreamARN", "StreamStatus", "StreamModeDetails", "StreamCreationTimestamp")
            }
            for stream in streams
        ],
    }
    return answered if token is None else answered | {"NextToken": token}


def list_shards(model: KinesisModel, request: wire.ListShards, now_ms: int) -> Answer:
    """ListShards."""
    most = within(request.max_results, "maxResults", 10_000)
    if request.next_token is not None:
        # As on AWS, where botocore's own paginator fails for that reason (boto/botocore#2009).
        beside = {
            "StreamName": request.stream_name,
            "StreamARN": request.stream_arn,
            "ExclusiveStartShardId": request.exclusive_start_shard_id,
            "ShardFilter": request.shard_filter,
            "StreamCreationTimestamp": request.stream_creation_timestamp,
        }
        for name, given in beside.items():
            if given is not None:
                raise InvalidArgumentException(f"NextToken and {name} cannot be provided together.")
        shards, token = model.list_more_shards(request.next_token, now_ms=now_ms, max_results=most)
    else:
        wanted = request.shard_filter
        shard_filter = ShardFilter()
        if wanted is not None:
            shard_filter = ShardFilter(wanted.type, wanted.shard_id, milliseconds(wanted.timestamp))
        shards, token = model.list_shards(
            stream_named(request),
            now_ms=now_ms,
            shard_filter=shard_filter,
            after_shard_id=request.exclusive_start_shard_id,
            max_results=most,
            created_ms=milliseconds(request.stream_creation_timestamp),
        )
    answered: dict[str, object] = {"Shards": [shard_fields(shard) for shard in shards]}
    return answered if token is None else answered | {"NextToken": token}


def split_shard(model: KinesisModel, request: wire.SplitShard, now_ms: int) -> None:
    """SplitShard."""
    key = parse_hash_key(request.new_starting_hash_key, "newStartingHashKey")
    model.split_shard(stream_named(request), request.shard_to_split, key, now_ms=now_ms)


def merge_shards(model: KinesisModel, request: wire.MergeShards, now_ms: int) -> None:
    """MergeShards."""
    model.merge_shards(stream_named(request), request.shard_to_merge, request.adjacent_shard_to_merge, now_ms=now_ms)


def update_shard_count(model: KinesisModel, request: wire.UpdateShardCount, now_ms: int) -> Answer:
    """UpdateShardCount."""
    before, stream = model.update_shard_count(stream_named(request), request.target_shard_count, now_ms=now_ms)
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "CurrentShardCount": before,
        "TargetShardCount": request.target_shard_count,
    }


def increase_retention(model: KinesisModel, request: wire.RetentionPeriod, now_ms: int) -> None:
    """IncreaseRetention."""
    model.increase_retention(stream_named(request), request.retention_period_hours, now_ms=now_ms)


def decrease_retention(model: KinesisModel, request: wire.RetentionPeriod, now_ms: int) -> None:
    """DecreaseRetention."""
    model.decrease_retention(stream_named(request), request.retention_period_hours, now_ms=now_ms)


def add_tags(model: KinesisModel, request: wire.Tags, now_ms: int) -> None:
    """AddTags."""
    model.add_tags(stream_named(request), request.tags, now_ms=now_ms)


def remove_tags(model: KinesisModel, request: wire.TagKeys, now_ms: int) -> None:
    """RemoveTags."""
    model.remove_tags(stream_named(request), request.tag_keys, now_ms=now_ms)


def list_tags(model: KinesisModel, request: wire.ListTagsForStream, now_ms: int) -> Answer:
    """ListTags."""
    tags = model.describe(stream_named(request), now_ms=now_ms, operation="ListTagsForStream").tags
    limit, after = within(request.limit, "limit", 50), request.exclusive_start_tag_key
    keys = sorted(key for key in tags if after is None or key > after)
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in keys[:limit]], "HasMoreTags": len(keys) > limit}


def tag_resource(model: KinesisModel, request: wire.TagResource, now_ms: int) -> None:
    """TagResource."""
    model.add_tags(request.resource_arn, request.tags, now_ms=now_ms)


def untag_resource(model: KinesisModel, request: wire.UntagResource, now_ms: int) -> None:
    """UntagResource."""
    model.remove_tags(request.resource_arn, request.tag_keys, now_ms=now_ms)


def list_resource_tags(model: KinesisModel, request: wire.Resource, now_ms: int) -> Answer:
    """ListResourceTags."""
    tags = model.describe(request.resource_arn, now_ms=now_ms, operation="ListTagsForResource").tags
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in sorted(tags)]}


def start_encryption(model: KinesisModel, request: wire.Encryption, now_ms: int) -> None:
    """StartEncryption."""
    model.set_encryption(stream_named(request), "KMS", request.key_id, now_ms=now_ms)


def stop_encryption(model: KinesisModel, request: wire.Encryption, now_ms: int) -> None:
    """StopEncryption."""
    model.set_encryption(stream_named(request), "NONE", None, now_ms=now_ms)


def update_mode(model: KinesisModel, request: wire.UpdateStreamMode, now_ms: int) -> None:
    """UpdateMode."""
    model.set_mode(request.stream_arn, request.stream_mode_details.stream_mode, now_ms=now_ms)


def update_max_record_size(model: KinesisModel, request: wire.MaxRecordSize, now_ms: int) -> None:
    """UpdateMaxRecordSize."""
    model.set_max_record_size(stream_named(request), request.max_record_size_in_kib, now_ms=now_ms)
