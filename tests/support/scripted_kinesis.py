"""The calls of a Kinesis client that a reader makes, over lists of records, with faults by script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.records import StreamRecord


def client_error(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": "as scripted"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetRecords")


@dataclass
class ScriptedShard:
    """`faults` are raised by the next reads, one each; None lets a read pass."""

    records: list[StreamRecord] = field(default_factory=list)
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    is_closed: bool = False
    faults: list[Exception | None] = field(default_factory=list)
    reads: int = 0
    iterators: list[tuple[str, str | None]] = field(default_factory=list)


class ScriptedKinesis:
    """Iterators are ``<shard>@<index>``; a position that is not there gives the record after it, as AWS does."""

    def __init__(self, shards: dict[str, ScriptedShard], *, page: int = 3, per_page: int = 1) -> None:
        self.shards = shards
        self.page = page
        self.per_page = per_page
        self.refuses_unknown_positions = False

    def list_shards(self, *, StreamName: str = "", NextToken: str = "0") -> dict[str, object]:  # noqa: N803
        first = int(NextToken)
        names = list(self.shards)
        ranges = FULL_RANGE.even_parts(len(names))
        found = []
        for index in range(first, min(first + self.per_page, len(names))):
            keys = {"StartingHashKey": str(ranges[index].first), "EndingHashKey": str(ranges[index].last)}
            parents = zip(("ParentShardId", "AdjacentParentShardId"), self.shards[names[index]].parents, strict=False)
            numbers = {"StartingSequenceNumber": "0"} | (
                {"EndingSequenceNumber": "9"} if self.shards[names[index]].is_closed else {}
            )
            shard: dict[str, object] = {
                "ShardId": names[index],
                "HashKeyRange": keys,
                "SequenceNumberRange": numbers,
                **dict(parents),
            }
            found.append(shard)
        more = first + self.per_page < len(names)
        return {"Shards": found, **({"NextToken": str(first + self.per_page)} if more else {})}

    def get_shard_iterator(
        self,
        *,
        StreamName: str,  # noqa: N803
        ShardId: str,  # noqa: N803
        ShardIteratorType: str,  # noqa: N803
        StartingSequenceNumber: str | None = None,  # noqa: N803
        Timestamp: datetime | None = None,  # noqa: N803
    ) -> dict[str, str]:
        shard = self.shards[ShardId]
        shard.iterators.append((ShardIteratorType, StartingSequenceNumber))
        index = 0
        if StartingSequenceNumber is not None:
            at = int(StartingSequenceNumber) + (ShardIteratorType == "AFTER_SEQUENCE_NUMBER")
            known = {record.sequence_number for record in shard.records}
            if self.refuses_unknown_positions and StartingSequenceNumber not in known:
                raise client_error("InvalidArgumentException")
            index = _first(shard.records, lambda record: int(record.sequence_number) >= at)
        if Timestamp is not None:
            index = _first(shard.records, lambda record: _instant(record.arrival_ms) >= Timestamp)
        return {"ShardIterator": f"{ShardId}@{index}"}

    def get_records(self, *, ShardIterator: str, Limit: int) -> dict[str, object]:  # noqa: N803
        shard_id, _, text = ShardIterator.partition("@")
        shard, index = self.shards[shard_id], int(text)
        shard.reads += 1
        fault = shard.faults.pop(0) if shard.faults else None
        if fault is not None:
            raise fault
        records = shard.records[index : index + min(Limit, self.page)]
        after = index + len(records)
        answer: dict[str, object] = {
            "Records": [
                {
                    "SequenceNumber": record.sequence_number,
                    "PartitionKey": record.partition_key,
                    "ApproximateArrivalTimestamp": _instant(record.arrival_ms),
                    "Data": record.data,
                }
                for record in records
            ],
            "MillisBehindLatest": 0 if after >= len(shard.records) else 1_000,
        }
        if shard.is_closed and after >= len(shard.records):
            answer["ChildShards"] = [{"ShardId": child} for child in shard.children]
        else:
            answer["NextShardIterator"] = f"{shard_id}@{after}"
        return answer


def _instant(arrival_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=arrival_ms)


def _first(records: Sequence[StreamRecord], holds) -> int:
    return next((index for index, record in enumerate(records) if holds(record)), len(records))
