"""The operations on records: request, call on the model, answer. Names are the API's, in snake case."""

from __future__ import annotations

from streamgauge.infra.local.kinesis import wire
from streamgauge.infra.local.kinesis.fields import Answer, hash_range, milliseconds, parse_hash_key, stream_named
from streamgauge.infra.local.kinesis.model import KinesisModel, PutEntry, PutFailure

__all__ = ["get_records", "get_shard_iterator", "put_record", "put_records"]


def _entry(record: wire.RecordEntry | wire.PutRecord) -> PutEntry:
    key = record.explicit_hash_key
    return PutEntry(record.partition_key, record.data, None if key is None else parse_hash_key(key, "explicitHashKey"))


def put_record(model: KinesisModel, request: wire.PutRecord, now_ms: int) -> Answer:
    """PutRecord."""
    stream = stream_named(request)
    result = model.put_record(stream, _entry(request), now_ms=now_ms)
    return {
        "ShardId": result.shard_id,
        "SequenceNumber": result.sequence_number,
        "EncryptionType": model.encryption_of(stream),
    }


def put_records(model: KinesisModel, request: wire.PutRecords, now_ms: int) -> Answer:
    """PutRecords."""
    stream = stream_named(request)
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


def get_shard_iterator(model: KinesisModel, request: wire.GetShardIterator, now_ms: int) -> Answer:
    """GetShardIterator."""
    iterator = model.get_shard_iterator(
        stream_named(request),
        request.shard_id,
        request.shard_iterator_type,
        now_ms=now_ms,
        sequence_number=request.starting_sequence_number,
        timestamp_ms=milliseconds(request.timestamp),
    )
    return {"ShardIterator": iterator}


def get_records(model: KinesisModel, request: wire.GetRecords, now_ms: int) -> Answer:
    """GetRecords."""
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
            {"ShardId": child.shard_id, "ParentShards": list(child.parents), "HashKeyRange": hash_range(child)}
            for child in result.children
        ]
    return answered
