"""The state store of production: rows in DynamoDB, snapshots in the row or beside it in S3.

Table: partition key ``pipeline`` = ``<name>#<state_epoch>``, sort key ``shard_id``. A snapshot of up to 8 KB lives in
the row; a larger one under ``<name>/<state_epoch>/<shard_id>/<version, 20 digits>-<owner>.snapshot`` in the state
bucket, never overwritten, and the row holds its name and hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from streamgauge.events.hash_key import HashRange
from streamgauge.events.position import Position
from streamgauge.events.records import Shard
from streamgauge.processors.commit.aws_errors import port_errors
from streamgauge.processors.commit.ports import Fenced, ObjectStore, ShardRow, StoreUnavailable
from streamgauge.processors.commit.state_rows import check_claimed, check_same_write, check_sealed, check_snapshot
from streamgauge.processors.core.container import SnapshotError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, UniversalAttributeValueTypeDef

__all__ = ["MAX_INLINE_BYTES", "DynamoDbStateStore"]

MAX_INLINE_BYTES = 8 * 1024
"""Above it S3 is cheaper: DynamoDB takes a write unit for each KB of the whole row."""

# Everything but the snapshot itself. All of it by alias, since DynamoDB reserves owner, position and start.
_ROW = {
    f"#{name}": name
    for name in (
        *("shard_id", "hash_first", "hash_last", "parents", "owner", "claim_version", "position", "start", "sealed"),
        *("snapshot_bytes", "snapshot_sha256", "snapshot_object", "committed_at_ms", "reduced"),
    )
}


class DynamoDbStateStore:
    """The rows of one (pipeline, state_epoch).

    Parameters
    ----------
    objects
        The state bucket: apart from the archive, without lifecycle expiry and without long versioning.
    max_inline_bytes
        The largest snapshot that is kept in the row.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        objects: ObjectStore,
        *,
        pipeline: str,
        state_epoch: int,
        max_inline_bytes: int = MAX_INLINE_BYTES,
    ) -> None:
        self._client = client
        self._table = table
        self._objects = objects
        self._pipeline = f"{pipeline}#{state_epoch}"
        self._folder = f"{pipeline}/{state_epoch}"
        self._max_inline_bytes = max_inline_bytes
        # Shards whose folder may hold what earlier owners left behind.
        self._unswept: set[str] = set()

    def rows(self) -> list[ShardRow]:
        """All rows, in order of shard id."""
        rows: list[ShardRow] = []
        with self._errors():
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                ConsistentRead=True,
                KeyConditionExpression="pipeline = :pipeline",
                ExpressionAttributeValues={":pipeline": {"S": self._pipeline}},
                ProjectionExpression=", ".join(_ROW),
                ExpressionAttributeNames=_ROW,
            )
            for page in pages:
                rows += [_row(item) for item in page["Items"]]
        return rows

    def row(self, shard_id: str) -> ShardRow | None:
        """One row, read consistently."""
        with self._errors(shard_id):
            answer = self._client.get_item(
                TableName=self._table,
                Key=self._key(shard_id),
                ConsistentRead=True,
                ProjectionExpression=", ".join(_ROW),
                ExpressionAttributeNames=_ROW,
            )
        item = answer.get("Item")
        return None if item is None else _row(item)

    def create(self, shard: Shard, *, start: str) -> ShardRow:
        """Write the row of a shard that has none; where there is one already, return that."""
        with self._errors(shard.shard_id), suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.put_item(
                TableName=self._table,
                Item={
                    **self._key(shard.shard_id),
                    "hash_first": {"S": str(shard.hash_range.first)},
                    "hash_last": {"S": str(shard.hash_range.last)},
                    "parents": {"L": [{"S": parent} for parent in shard.parents]},
                    "claim_version": {"N": "0"},
                    "start": {"S": start},
                    "sealed": {"BOOL": False},
                },
                ConditionExpression="attribute_not_exists(shard_id)",
            )
        row = self.row(shard.shard_id)
        assert row is not None, f"the row of {shard.shard_id} was deleted by a stranger"
        return row

    def claim(self, shard_id: str, *, owner: str, seen_version: int | None = None) -> ShardRow:
        """Make `owner` the shard's owner and raise its claim_version, which fences whoever held it.

        Without `seen_version` the write does not depend on who holds the shard, so a lost answer costs a version and
        nothing else; with it, the row is read back.
        """
        condition = "#sealed = :false"
        values: dict[str, UniversalAttributeValueTypeDef] = {
            ":owner": {"S": owner},
            ":one": {"N": "1"},
            ":false": {"BOOL": False},
        }
        if seen_version is not None:
            condition += " AND #claim_version = :seen"
            values[":seen"] = {"N": str(seen_version)}
        with self._errors(shard_id):
            try:
                answer = self._client.update_item(
                    TableName=self._table,
                    Key=self._key(shard_id),
                    UpdateExpression="SET #owner = :owner ADD #claim_version :one",
                    ConditionExpression=condition,
                    ExpressionAttributeNames=_names("owner", "claim_version", "sealed"),
                    ExpressionAttributeValues=values,
                    ReturnValues="ALL_NEW",
                )
            except self._client.exceptions.ConditionalCheckFailedException:
                return check_claimed(shard_id, self.row(shard_id), owner=owner, seen_version=seen_version)
        self._unswept.add(shard_id)
        return _row(answer["Attributes"])

    def snapshot(self, row: ShardRow) -> bytes | None:
        """The snapshot that `row` points at; None where it has none."""
        if row.snapshot_sha256 is None:
            return None
        if row.snapshot_object is not None:
            blob = self._objects.get(row.snapshot_object)
        else:
            blob = self._inline(row.shard.shard_id, row.snapshot_sha256)
        if blob is not None:
            return check_snapshot(row, blob)
        found = self.row(row.shard.shard_id)
        if found is not None and found.snapshot_sha256 == row.snapshot_sha256:
            raise SnapshotError(
                f"the snapshot {row.snapshot_object or 'in the row'} is missing",
                where=f"shard {row.shard.shard_id}",
                remedy="Restore the object, or start a new state_epoch",
            )
        raise Fenced("the snapshot has been replaced since the row was read", where=f"shard {row.shard.shard_id}")

    def commit(self, row: ShardRow, *, snapshot: bytes, position: Position | None, now_ms: int) -> ShardRow:
        """Replace the snapshot, conditionally on (`row.owner`, `row.claim_version`); return the row as written."""
        written = replace(
            row,
            claim_version=row.claim_version + 1,
            position=position,
            snapshot_bytes=len(snapshot),
            snapshot_sha256=sha256(snapshot).hexdigest(),
            snapshot_object=None,
            committed_at_ms=now_ms,
        )
        written = self._put_large(written, snapshot)
        written = self._write(row, written, snapshot)
        self._clear(row, written)
        return written

    def renew(self, row: ShardRow) -> ShardRow:
        """Raise the claim_version and change nothing else."""
        return self._write(row, replace(row, claim_version=row.claim_version + 1))

    def release(self, row: ShardRow) -> ShardRow:
        """Leave the shard without an owner."""
        return self._write(row, replace(row, claim_version=row.claim_version + 1, owner=None))

    def seal(self, row: ShardRow) -> ShardRow:
        """Seal the shard, whoever owns it, if the row still has `row.claim_version`."""
        shard_id = row.shard.shard_id
        with self._errors(shard_id):
            try:
                answer = self._client.update_item(
                    TableName=self._table,
                    Key=self._key(shard_id),
                    UpdateExpression="SET #sealed = :true ADD #claim_version :one",
                    ConditionExpression="#claim_version = :seen AND #sealed = :false",
                    ExpressionAttributeNames=_names("claim_version", "sealed"),
                    ExpressionAttributeValues={
                        ":true": {"BOOL": True},
                        ":false": {"BOOL": False},
                        ":one": {"N": "1"},
                        ":seen": {"N": str(row.claim_version)},
                    },
                    ReturnValues="ALL_NEW",
                )
            except self._client.exceptions.ConditionalCheckFailedException:
                return check_sealed(row, self.row(shard_id))
        return _row(answer["Attributes"])

    def reduce(self, row: ShardRow, *, snapshot: bytes) -> ShardRow:
        """Replace a sealed row's snapshot by what must be kept for ever."""
        written = replace(
            row,
            claim_version=row.claim_version + 1,
            sealed=True,
            reduced=True,
            snapshot_bytes=len(snapshot),
            snapshot_sha256=sha256(snapshot).hexdigest(),
            snapshot_object=None,
        )
        written = self._put_large(written, snapshot)
        written = self._write(row, written, snapshot)
        self._unswept.add(row.shard.shard_id)
        self._clear(row, written)
        return written

    def _put_large(self, written: ShardRow, snapshot: bytes) -> ShardRow:
        """Put a snapshot that is too large for the row beside it; the row that names it."""
        if len(snapshot) <= self._max_inline_bytes:
            return written
        writer = written.owner or "nobody"
        name = f"{self._folder}/{written.shard.shard_id}/{written.claim_version:020}-{writer}.snapshot"
        self._objects.put(name, snapshot)
        return replace(written, snapshot_object=name)

    def _write(self, row: ShardRow, written: ShardRow, snapshot: bytes | None = None) -> ShardRow:
        """Write `written` if `row` is there as it was read; only what `reduce` writes replaces a sealed row."""
        shard_id = row.shard.shard_id
        values: dict[str, UniversalAttributeValueTypeDef] = {"claim_version": {"N": str(written.claim_version)}}
        removed = ["owner"] if written.owner is None else []
        if snapshot is not None:
            values |= _snapshot_values(written, snapshot)
            removed += [name for name in ("snapshot", "snapshot_object", "position") if name not in values]
        assignments = ", ".join(f"#{name} = :{name}" for name in values)
        removals = f" REMOVE {', '.join(f'#{name}' for name in removed)}" if removed else ""
        held: dict[str, UniversalAttributeValueTypeDef] = {
            ":held_version": {"N": str(row.claim_version)},
            ":sealed": {"BOOL": written.sealed},
        }
        is_held = "attribute_not_exists(#owner)"
        if row.owner is not None:
            is_held = "#owner = :held_owner"
            held[":held_owner"] = {"S": row.owner}
        with self._errors(shard_id):
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key=self._key(shard_id),
                    UpdateExpression=f"SET {assignments}{removals}",
                    ConditionExpression=f"{is_held} AND #claim_version = :held_version AND #sealed = :sealed",
                    ExpressionAttributeNames=_names(*values, *removed, "owner", "sealed"),
                    ExpressionAttributeValues={**{f":{name}": value for name, value in values.items()}, **held},
                )
            except self._client.exceptions.ConditionalCheckFailedException:
                return check_same_write(written, self.row(shard_id))
        return written

    def _clear(self, replaced: ShardRow, written: ShardRow) -> None:
        """Delete the object that this commit replaced, and once after a claim what fenced owners left behind.

        An object may go only when the row names another one of at least its version: nobody can point at it any more.
        """
        shard_id = written.shard.shard_id
        try:
            if replaced.snapshot_object not in (None, written.snapshot_object):
                self._objects.delete(replaced.snapshot_object or "")
            if shard_id in self._unswept and (written.sealed or written.snapshot_object is not None):
                newest = _version(written.snapshot_object) if written.snapshot_object else ""
                for name in self._objects.names(f"{self._folder}/{shard_id}/"):
                    # No row comes to point at anything in the folder of a sealed shard.
                    is_done_with = written.sealed or _version(name) <= newest
                    if name != written.snapshot_object and is_done_with:
                        self._objects.delete(name)
                self._unswept.discard(shard_id)
        except StoreUnavailable:
            # The commit has happened; what is left over goes with the next one.
            self._unswept.add(shard_id)

    def _inline(self, shard_id: str, digest: str) -> bytes | None:
        with self._errors(shard_id):
            answer = self._client.get_item(TableName=self._table, Key=self._key(shard_id), ConsistentRead=True)
        item = answer.get("Item", {})
        if item.get("snapshot_sha256", {}).get("S") != digest:
            return None
        return item.get("snapshot", {}).get("B")

    def _key(self, shard_id: str) -> dict[str, UniversalAttributeValueTypeDef]:
        return {"pipeline": {"S": self._pipeline}, "shard_id": {"S": shard_id}}

    def _errors(self, shard_id: str = "") -> AbstractContextManager[None]:
        row = f", row {self._pipeline} {shard_id}".rstrip()
        return port_errors(f"DynamoDB table {self._table}{row}")


def _names(*names: str) -> dict[str, str]:
    return {f"#{name}": name for name in names}


def _snapshot_values(written: ShardRow, snapshot: bytes) -> dict[str, UniversalAttributeValueTypeDef]:
    values: dict[str, UniversalAttributeValueTypeDef] = {
        "snapshot_bytes": {"N": str(written.snapshot_bytes)},
        "snapshot_sha256": {"S": written.snapshot_sha256 or ""},
    }
    if written.reduced:
        values["reduced"] = {"BOOL": True}
    if written.committed_at_ms is not None:
        values["committed_at_ms"] = {"N": str(written.committed_at_ms)}
    if written.snapshot_object is None:
        values["snapshot"] = {"B": snapshot}
    else:
        values["snapshot_object"] = {"S": written.snapshot_object}
    if written.position is not None:
        values["position"] = {"S": str(written.position)}
    return values


def _version(snapshot_object: str) -> str:
    return snapshot_object.rpartition("/")[2].partition("-")[0]


def _row(item: Mapping[str, AttributeValueTypeDef]) -> ShardRow:
    def text(name: str) -> str | None:
        return item[name]["S"] if name in item else None

    position = text("position")
    return ShardRow(
        shard=Shard(
            item["shard_id"]["S"],
            HashRange(int(item["hash_first"]["S"]), int(item["hash_last"]["S"])),
            tuple(parent["S"] for parent in item["parents"]["L"]),
        ),
        owner=text("owner"),
        claim_version=int(item["claim_version"]["N"]),
        position=None if position is None else Position.parse(position),
        start=item["start"]["S"],
        sealed=item["sealed"]["BOOL"],
        snapshot_bytes=int(item["snapshot_bytes"]["N"]) if "snapshot_bytes" in item else 0,
        snapshot_sha256=text("snapshot_sha256"),
        committed_at_ms=int(item["committed_at_ms"]["N"]) if "committed_at_ms" in item else None,
        snapshot_object=text("snapshot_object"),
        reduced="reduced" in item,
    )
