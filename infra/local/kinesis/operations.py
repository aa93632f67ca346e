"""Each operation of the API: its request, the calls on the model, its answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from streamgauge.infra.local.kinesis import wire
from streamgauge.infra.local.kinesis.errors import (
    InvalidArgumentException,
    SerializationException,
    UnknownOperationException,
    UnsupportedOperation,
    ValidationException,
)
from streamgauge.infra.local.kinesis.model import KinesisModel, PutEntry, PutFailure
from streamgauge.infra.local.kinesis.shards import ShardState
from streamgauge.infra.local.kinesis.streams import ShardFilter, Stream

__all__ = ["OPERATIONS", "answer"]

Answer = Mapping[str, object]
Request = TypeVar("Request", bound=msgspec.Struct)

_HASH_KEY = re.compile(r"0|[1-9][0-9]{0,38}")
_POLLING = "the local Kinesis has no enhanced fan-out: read with GetShardIterator and GetRecords (KCL: POLLING)"
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


_ENCODER = msgspec.json.Encoder()


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


def _stream(request: wire.Named) -> str:
    name, arn = request.stream_name, request.stream_arn
    if arn is not None:
        if name is not None and arn.rpartition("/")[2] != name:
            raise InvalidArgumentException(f"StreamName {name} and StreamARN {arn} name two streams")
        return arn
    if name is None:
        raise InvalidArgumentException("Either StreamName or StreamARN must be specified.")
    return name


def _seconds(milliseconds: int) -> float:
    return milliseconds / 1000


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _hash_key(text: str, name: str) -> int:
    if _HASH_KEY.fullmatch(text) is None:
        raise ValidationException(
            f"1 validation error detected: Value '{text}' at '{name}' failed to satisfy constraint: Member must "
            f"satisfy regular expression pattern: {_HASH_KEY.pattern}"
        )
    return int(text)


def _within(value: int, name: str, most: int) -> int:
    if not 1 <= value <= most:
        raise ValidationException(
            f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: Member must have "
            f"value between 1 and {most}"
        )
    return value


def _hash_range(shard: ShardState) -> Answer:
    return {"StartingHashKey": str(shard.hash_range.first), "EndingHashKey": str(shard.hash_range.last)}


def _shard(shard: ShardState) -> Answer:
    sequence = {"StartingSequenceNumber": str(shard.starting_sequence_number)}
    if (ending := shard.ending_sequence_number) is not None:
        sequence["EndingSequenceNumber"] = str(ending)
    return {
        "ShardId": shard.shard_id,
        **dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False)),
        "HashKeyRange": _hash_range(shard),
        "SequenceNumberRange": sequence,
    }


def _described(stream: Stream) -> dict[str, object]:
    described: dict[str, object] = {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": stream.mode},
        "RetentionPeriodHours": stream.retention_ms // 3_600_000,
        "StreamCreationTimestamp": _seconds(stream.created_ms),
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": stream.encryption,
    }
    if stream.key_id is not None:
        described["KeyId"] = stream.key_id
    return described


def _create_stream(model: KinesisModel, request: wire.CreateStream, now_ms: int) -> None:
    model.create_stream(
        request.stream_name,
        request.shard_count,
        now_ms=now_ms,
        mode=request.stream_mode_details.stream_mode,
        tags=request.tags,
        max_record_kib=request.max_record_size_in_kib,
    )


def _delete_stream(model: KinesisModel, request: wire.DeleteStream, now_ms: int) -> None:
    model.delete_stream(_stream(request), now_ms=now_ms)


def _describe_stream(model: KinesisModel, request: wire.DescribeStream, now_ms: int) -> Answer:
    stream = model.describe(_stream(request), now_ms=now_ms)
    limit = _within(request.limit, "limit", 10_000)
    after = request.exclusive_start_shard_id
    shards = [shard for shard in stream.shards.values() if after is None or shard.shard_id > after]
    description = _described(stream) | {
        "Shards": [_shard(shard) for shard in shards[:limit]],
        "HasMoreShards": len(shards) > limit,
    }
    return {"StreamDescription": description}


def _describe_stream_summary(model: KinesisModel, request: wire.Named, now_ms: int) -> Answer:
    stream = model.describe(_stream(request), now_ms=now_ms, operation="DescribeStreamSummary")
    summary = _described(stream) | {
        "OpenShardCount": len(stream.open),
        "ConsumerCount": 0,
        "MaxRecordSizeInKiB": stream.max_record_bytes // 1024,
    }
    return {"StreamDescriptionSummary": summary}


def _describe_limits(model: KinesisModel, _: wire.Nothing, now_ms: int) -> Answer:
    del now_ms
    return {
        "ShardLimit": model.limits.shards,
        "OpenShardCount": model.open_shard_count,
        "OnDemandStreamCount": sum(stream.mode == "ON_DEMAND" for stream in model.streams.values()),
        "OnDemandStreamCountLimit": 50,
    }


def _list_streams(model: KinesisModel, request: wire.ListStreams, now_ms: int) -> Answer:
    streams, token = model.list_streams(
        now_ms=now_ms,
        after_name=request.exclusive_start_stream_name,
        next_token=request.next_token,
        limit=_within(request.limit, "limit", 10_000),
    )
    answered: dict[str, object] = {
        "StreamNames": [stream.name for stream in streams],
        "HasMoreStreams": token is not None,
        "StreamSummaries": [
            {
                key: value
                for key, value in _described(stream).items()
                if key in ("StreamName", "StreamARN", "StreamStatus", "StreamModeDetails", "StreamCreationTimestamp")
            }
            for stream in streams
        ],
    }
    return answered if token is None else answered | {"NextToken": token}


def _list_shards(model: KinesisModel, request: wire.ListShards, now_ms: int) -> Answer:
    most = _within(request.max_results, "maxResults", 10_000)
    if request.next_token is not None:
        # An ARN may accompany the token; everything else is in it.
        if any((request.stream_name, request.exclusive_start_shard_id, request.shard_filter)):
            raise InvalidArgumentException(
                "NextToken and StreamName, ExclusiveStartShardId or ShardFilter cannot be provided together."
            )
        shards, token = model.list_more_shards(request.next_token, now_ms=now_ms, max_results=most)
    else:
        given = request.shard_filter
        shards, token = model.list_shards(
            _stream(request),
            now_ms=now_ms,
            shard_filter=None
            if given is None
            else ShardFilter(given.type, given.shard_id, _milliseconds(given.timestamp)),
            after_shard_id=request.exclusive_start_shard_id,
            max_results=most,
        )
    answered: dict[str, object] = {"Shards": [_shard(shard) for shard in shards]}
    return answered if token is None else answered | {"NextToken": token}


def _entry(record: wire.RecordEntry | wire.PutRecord) -> PutEntry:
    key = record.explicit_hash_key
    return PutEntry(record.partition_key, record.data, None if key is None else _hash_key(key, "explicitHashKey"))


def _put_record(model: KinesisModel, request: wire.PutRecord, now_ms: int) -> Answer:
    stream = _stream(request)
    result = model.put_record(stream, _entry(request), now_ms=now_ms)
    return {
        "ShardId": result.shard_id,
        "SequenceNumber": result.sequence_number,
        "EncryptionType": model.encryption_of(stream),
    }


def _put_records(model: KinesisModel, request: wire.PutRecords, now_ms: int) -> Answer:
    stream = _stream(request)
    results = model.put_records(stream, [_entry(record) for record in request.records], now_ms=now_ms)
    records = [
        {"ErrorCode": result.code, "ErrorMessage": result.message}
        if isinstance(result, PutFailure)
        else {"ShardId": result.shard_id, "SequenceNumber": result.sequence_number}
        for result in results
    ]
    return {
        "FailedRecordCount": sum(isinstance(result, PutFailure) for result in results),
        "Records": records,
        "EncryptionType": model.encryption_of(stream),
    }


def _get_shard_iterator(model: KinesisModel, request: wire.GetShardIterator, now_ms: int) -> Answer:
    iterator = model.get_shard_iterator(
        _stream(request),
        request.shard_id,
        request.shard_iterator_type,
        now_ms=now_ms,
        sequence_number=request.starting_sequence_number,
        timestamp_ms=_milliseconds(request.timestamp),
    )
    return {"ShardIterator": iterator}


def _get_records(model: KinesisModel, request: wire.GetRecords, now_ms: int) -> Answer:
    result = model.get_records(request.shard_iterator, now_ms=now_ms, limit=request.limit, stream=request.stream_arn)
    answered: dict[str, object] = {
        "Records": [
            wire.ReadRecord(
                sequence_number=record.sequence_number,
                approximate_arrival_timestamp=record.arrival_ms / 1000,
                data=record.data,
                partition_key=record.partition_key,
                encryption_type=result.encryption,
            )
            for record in result.records
        ],
        "MillisBehindLatest": result.behind_ms,
    }
    if result.next_iterator is not None:
        answered["NextShardIterator"] = result.next_iterator
    else:
        answered["ChildShards"] = [
            {"ShardId": child.shard_id, "ParentShards": list(child.parents), "HashKeyRange": _hash_range(child)}
            for child in result.children
        ]
    return answered


def _split_shard(model: KinesisModel, request: wire.SplitShard, now_ms: int) -> None:
    key = _hash_key(request.new_starting_hash_key, "newStartingHashKey")
    model.split_shard(_stream(request), request.shard_to_split, key, now_ms=now_ms)


def _merge_shards(model: KinesisModel, request: wire.MergeShards, now_ms: int) -> None:
    model.merge_shards(_stream(request), request.shard_to_merge, request.adjacent_shard_to_merge, now_ms=now_ms)


def _update_shard_count(model: KinesisModel, request: wire.UpdateShardCount, now_ms: int) -> Answer:
    before, stream = model.update_shard_count(_stream(request), request.target_shard_count, now_ms=now_ms)
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "CurrentShardCount": before,
        "TargetShardCount": request.target_shard_count,
    }


def _increase_retention(model: KinesisModel, request: wire.RetentionPeriod, now_ms: int) -> None:
    model.increase_retention(_stream(request), request.retention_period_hours, now_ms=now_ms)


def _decrease_retention(model: KinesisModel, request: wire.RetentionPeriod, now_ms: int) -> None:
    model.decrease_retention(_stream(request), request.retention_period_hours, now_ms=now_ms)


def _add_tags(model: KinesisModel, request: wire.Tags, now_ms: int) -> None:
    model.add_tags(_stream(request), request.tags, now_ms=now_ms)


def _remove_tags(model: KinesisModel, request: wire.TagKeys, now_ms: int) -> None:
    model.remove_tags(_stream(request), request.tag_keys, now_ms=now_ms)


def _list_tags(model: KinesisModel, request: wire.ListTagsForStream, now_ms: int) -> Answer:
    tags = model.describe(_stream(request), now_ms=now_ms, operation="ListTagsForStream").tags
    limit, after = _within(request.limit, "limit", 50), request.exclusive_start_tag_key
    keys = sorted(key for key in tags if after is None or key > after)
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in keys[:limit]], "HasMoreTags": len(keys) > limit}


def _tag_resource(model: KinesisModel, request: wire.TagResource, now_ms: int) -> None:
    model.add_tags(request.resource_arn, request.tags, now_ms=now_ms)


def _untag_resource(model: KinesisModel, request: wire.UntagResource, now_ms: int) -> None:
    model.remove_tags(request.resource_arn, request.tag_keys, now_ms=now_ms)


def _list_resource_tags(model: KinesisModel, request: wire.Resource, now_ms: int) -> Answer:
    tags = model.describe(request.resource_arn, now_ms=now_ms, operation="ListTagsForResource").tags
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in sorted(tags)]}


def _start_encryption(model: KinesisModel, request: wire.Encryption, now_ms: int) -> None:
    model.set_encryption(_stream(request), "KMS", request.key_id, now_ms=now_ms)


def _stop_encryption(model: KinesisModel, request: wire.Encryption, now_ms: int) -> None:
    model.set_encryption(_stream(request), "NONE", None, now_ms=now_ms)


def _update_mode(model: KinesisModel, request: wire.UpdateStreamMode, now_ms: int) -> None:
    model.set_mode(request.stream_arn, request.stream_mode_details.stream_mode, now_ms=now_ms)


def _update_max_record_size(model: KinesisModel, request: wire.MaxRecordSize, now_ms: int) -> None:
    model.set_max_record_size(_stream(request), request.max_record_size_in_kib, now_ms=now_ms)


OPERATIONS: Mapping[str, Callable[[KinesisModel, bytes, int], Answer | None]] = {
    "AddTagsToStream": _operation(wire.Tags, _add_tags),
    "CreateStream": _operation(wire.CreateStream, _create_stream),
    "DecreaseStreamRetentionPeriod": _operation(wire.RetentionPeriod, _decrease_retention),
    "DeleteStream": _operation(wire.DeleteStream, _delete_stream),
    "DescribeLimits": _operation(wire.Nothing, _describe_limits),
    "DescribeStream": _operation(wire.DescribeStream, _describe_stream),
    "DescribeStreamSummary": _operation(wire.Named, _describe_stream_summary),
    "GetRecords": _operation(wire.GetRecords, _get_records),
    "GetShardIterator": _operation(wire.GetShardIterator, _get_shard_iterator),
    "IncreaseStreamRetentionPeriod": _operation(wire.RetentionPeriod, _increase_retention),
    "ListShards": _operation(wire.ListShards, _list_shards),
    "ListStreams": _operation(wire.ListStreams, _list_streams),
    "ListTagsForResource": _operation(wire.Resource, _list_resource_tags),
    "ListTagsForStream": _operation(wire.ListTagsForStream, _list_tags),
    "MergeShards": _operation(wire.MergeShards, _merge_shards),
    "PutRecord": _operation(wire.PutRecord, _put_record),
    "PutRecords": _operation(wire.PutRecords, _put_records),
    "RemoveTagsFromStream": _operation(wire.TagKeys, _remove_tags),
    "SplitShard": _operation(wire.SplitShard, _split_shard),
    "StartStreamEncryption": _operation(wire.Encryption, _start_encryption),
    "StopStreamEncryption": _operation(wire.Encryption, _stop_encryption),
    "TagResource": _operation(wire.TagResource, _tag_resource),
    "UntagResource": _operation(wire.UntagResource, _untag_resource),
    "UpdateMaxRecordSize": _operation(wire.MaxRecordSize, _update_max_record_size),
    "UpdateShardCount": _operation(wire.UpdateShardCount, _update_shard_count),
    "UpdateStreamMode": _operation(wire.UpdateStreamMode, _update_mode),
}
