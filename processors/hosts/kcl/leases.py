"""The KCL's lease table: created and filled before the daemon starts, so that it starts soon, and read by who looks on.

Source of the attributes: ``DynamoDBLeaseSerializer`` of amazon-kinesis-client 3.1.3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.hash_key import HashRange
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, error_code, port_errors
from streamgauge.processors.commit.ports import ShardRow

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, TableDescriptionTypeDef

__all__ = ["Lease", "LeaseTable", "OtherApplication"]

STREAM_TAG = "streamgauge:stream"
PIPELINE_TAG = "streamgauge:pipeline"

_KEY = "leaseKey"
# The KCL 3.x makes this index where it is missing, and looks at it every ten seconds until it is there.
_INDEX = "LeaseOwnerToLeaseKeyIndex"
_POLL_S = 0.2
_CREATE_DEADLINE_S = 120.0


class OtherApplication(StreamgaugeError):
    """A table of this name is there, and is none of this pipeline's."""

    def __init__(self, table: str, what: str) -> None:
        super().__init__(
            what, where=f"DynamoDB table {table}", remedy="Name another one with --lease-table; it is created"
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """One shard's lease. ``checkpoint`` is a sequence number as text, or ``TRIM_HORIZON``, ``SHARD_END`` and the like.

    ``counter`` rises with every renewal; ``hash_range`` is None where the KCL has not written it.
    """

    shard_id: str
    owner: str | None
    counter: int
    checkpoint: str
    sub_sequence_number: int
    hash_range: HashRange | None


class LeaseTable:
    """A lease table by its name.

    Every method may raise `StoreUnavailable` or `StoreRefused`.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        name: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self.name = name
        self._where = f"DynamoDB table {name}"
        self._sleep = sleep
        self._clock = clock

    def leases(self) -> list[Lease] | None:
        """All leases in order of their shards; None where there is no such table."""
        found: list[Lease] = []
        try:
            for page in self._client.get_paginator("scan").paginate(TableName=self.name, ConsistentRead=True):
                found += [_lease(item) for item in page["Items"] if _KEY in item and "checkpoint" in item]
        except AWS_ERRORS as error:
            if isinstance(error, ClientError) and error_code(error) == "ResourceNotFoundException":
                return None
            with port_errors(self._where):
                raise
        return sorted(found, key=lambda lease: lease.shard_id)

    def prepare(self, rows: Sequence[ShardRow], *, pipeline: str, stream_arn: str) -> int:
        """Make the table if it is missing, and a lease for each shard that is not sealed and has none.

        A lease begins where the shard's state stands, so that a host that takes over from another is not handed what
        the other has applied.

        Returns
        -------
        How many leases were written.

        Raises
        ------
        OtherApplication
            The table is there, and holds something else.
        """
        with port_errors(self._where):
            description = self._describe()
            if description is None:
                self._create(pipeline, stream_arn)
                description = self._describe()
            else:
                self._check(description, rows, stream_arn)
            self._wait_until_active(description)
            known = {lease.shard_id for lease in self.leases() or []}
            missing = [row for row in rows if not row.sealed and row.shard.shard_id not in known]
            for row in missing:
                self._put(row)
        return len(missing)

    def release(self, worker: str) -> None:
        """Leave the leases of a worker that has ended without an owner: others need not wait until they expire."""
        with port_errors(self._where):
            for lease in self.leases() or []:
                if lease.owner == worker:
                    self._disown(lease.shard_id, worker)

    def _disown(self, shard_id: str, worker: str) -> None:
        try:
            self._client.update_item(
                TableName=self.name,
                Key={_KEY: {"S": shard_id}},
                UpdateExpression="REMOVE leaseOwner ADD leaseCounter :one",
                ConditionExpression="leaseOwner = :worker",
                ExpressionAttributeValues={":one": {"N": "1"}, ":worker": {"S": worker}},
            )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise

    def _describe(self) -> TableDescriptionTypeDef | None:
        try:
            return self._client.describe_table(TableName=self.name)["Table"]
        except ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                return None
            raise

    def _create(self, pipeline: str, stream_arn: str) -> None:
        try:
            self._client.create_table(
                TableName=self.name,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[
                    {"AttributeName": _KEY, "AttributeType": "S"},
                    {"AttributeName": "leaseOwner", "AttributeType": "S"},
                ],
                KeySchema=[{"AttributeName": _KEY, "KeyType": "HASH"}],
                GlobalSecondaryIndexes=[
                    {
                        "IndexName": _INDEX,
                        "KeySchema": [
                            {"AttributeName": "leaseOwner", "KeyType": "HASH"},
                            {"AttributeName": _KEY, "KeyType": "RANGE"},
                        ],
                        "Projection": {"ProjectionType": "KEYS_ONLY"},
                    }
                ],
                Tags=[{"Key": PIPELINE_TAG, "Value": pipeline}, {"Key": STREAM_TAG, "Value": stream_arn}],
            )
        except ClientError as error:
            # Another daemon that starts at this moment.
            if error_code(error) != "ResourceInUseException":
                raise

    def _wait_until_active(self, description: TableDescriptionTypeDef | None) -> None:
        until = self._clock() + _CREATE_DEADLINE_S
        while description is None or not _is_active(description):
            if self._clock() > until:
                raise StreamgaugeError(
                    f"the table was not ready within {_CREATE_DEADLINE_S:g} s", where=self._where, remedy="Try again"
                )
            self._sleep(_POLL_S)
            description = self._describe()

    def _check(self, description: TableDescriptionTypeDef, rows: Iterable[ShardRow], stream_arn: str) -> None:
        schema = [(part["AttributeName"], part["KeyType"]) for part in description.get("KeySchema", [])]
        if schema != [(_KEY, "HASH")]:
            raise OtherApplication(self.name, f"this is no lease table: its key is {schema}, not {_KEY}")
        tags = self._tags(description.get("TableArn", ""))
        stream = tags.get(STREAM_TAG)
        if stream is not None and stream != stream_arn:
            raise OtherApplication(self.name, f"this is the lease table of the stream {stream}, not of {stream_arn}")
        leases = self.leases() or []
        if stream is None and leases:
            raise OtherApplication(
                self.name,
                f"this lease table has {len(leases)} leases and no tag {STREAM_TAG}: it is another application's, and "
                "its shards would be taken from that",
            )
        ranges = {row.shard.shard_id: row.shard.hash_range for row in rows}
        for lease in leases:
            if lease.shard_id in ranges and lease.hash_range not in (None, ranges[lease.shard_id]):
                raise OtherApplication(
                    self.name, f"its lease of {lease.shard_id} has other hash keys than the shard: another stream's"
                )

    def _tags(self, arn: str) -> dict[str, str]:
        tags = self._client.list_tags_of_resource(ResourceArn=arn).get("Tags", [])
        return {tag["Key"]: tag["Value"] for tag in tags}

    def _put(self, row: ShardRow) -> None:
        shard, position = row.shard, row.position
        item: dict[str, AttributeValueTypeDef] = {
            _KEY: {"S": shard.shard_id},
            "leaseCounter": {"N": "0"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"},
            "checkpoint": {"S": "TRIM_HORIZON" if position is None else str(position.sequence_number)},
            "checkpointSubSequenceNumber": {"N": "0" if position is None else str(position.sub_sequence_number)},
            "startingHashKey": {"S": str(shard.hash_range.first)},
            "endingHashKey": {"S": str(shard.hash_range.last)},
        }
        if shard.parents:
            item["parentShardId"] = {"SS": list(shard.parents)}
        try:
            self._client.put_item(TableName=self.name, Item=item, ConditionExpression=f"attribute_not_exists({_KEY})")
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise


def _is_active(description: TableDescriptionTypeDef) -> bool:
    indexes = description.get("GlobalSecondaryIndexes", [])
    return description.get("TableStatus") == "ACTIVE" and all(
        index.get("IndexStatus", "ACTIVE") == "ACTIVE" for index in indexes
    )


def _lease(item: dict[str, AttributeValueTypeDef]) -> Lease:
    first, last = item.get("startingHashKey", {}).get("S"), item.get("endingHashKey", {}).get("S")
    return Lease(
        shard_id=item[_KEY]["S"],
        owner=item.get("leaseOwner", {}).get("S"),
        counter=int(item.get("leaseCounter", {}).get("N", "0")),
        checkpoint=item["checkpoint"]["S"],
        sub_sequence_number=int(item.get("checkpointSubSequenceNumber", {}).get("N", "0")),
        hash_range=None if first is None or last is None else HashRange(int(first), int(last)),
    )
