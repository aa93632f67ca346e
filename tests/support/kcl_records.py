"""What the KCL makes of records before a processor sees them, after ``AggregatorUtil`` of amazon-kinesis-client."""

from __future__ import annotations

from collections.abc import Sequence

from streamgauge.events.hash_key import hash_key
from streamgauge.events.kpl import CorruptAggregate, decode_aggregate, is_aggregate
from streamgauge.events.records import Shard, StreamRecord


def user_records(records: Sequence[StreamRecord], shard: Shard) -> list[StreamRecord]:
    """Aggregates taken apart; misrouted ones left out, corrupt ones handed over whole."""
    found: list[StreamRecord] = []
    for record in records:
        try:
            aggregate = decode_aggregate(record.data) if is_aggregate(record.data) else None
        except CorruptAggregate:
            aggregate = None
        if aggregate is None:
            found.append(record._replace(sub_sequence_number=0))
            continue
        keys = [aggregate.partition_keys[index] for index in aggregate.key_index]
        hashes = [
            hash_key(key) if index < 0 else aggregate.hash_keys[index]
            for key, index in zip(keys, aggregate.hash_index, strict=True)
        ]
        if all(value in shard.hash_range for value in hashes):
            found += [
                StreamRecord(record.sequence_number, key, record.arrival_ms, payload, place)
                for place, (key, payload) in enumerate(zip(keys, aggregate.payloads, strict=True))
            ]
    return found
