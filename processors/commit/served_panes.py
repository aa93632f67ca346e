"""The latest panes of served aggregates in DynamoDB, for look-ups.

Table: partition key ``pane`` = ``<pipeline>#<state_epoch>#<aggregate>#<key as a JSON object>``, sort key
``window_start`` (RFC 3339). An item is replaced by a higher revision only, so deliveries may repeat and overtake each
other. Measures are one JSON object, since a DynamoDB number holds neither every float nor its exact digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from streamgauge.events.times import rfc3339
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, port_errors, reason_of
from streamgauge.processors.commit.commit_objects import measure_rows
from streamgauge.processors.commit.ports import Delivery
from streamgauge.processors.core.effects import PaneBatch

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, UniversalAttributeValueTypeDef

__all__ = ["ServedPane", "ServedPanesReceiver", "pane_id", "read_served_pane", "read_served_panes"]

# DynamoDB's limit for a partition key is 2,048 bytes.
_MAX_PANE_ID_BYTES = 2_048
# And for an item 400 KB: a key that cannot be kept beside the measures is left to whoever asks by it.
_MAX_KEY_BYTES = 128 * 1024

_measures = msgspec.json.Decoder(dict[str, int | float | None])
_key = msgspec.json.Decoder(dict[str, str])


class ServedPane(msgspec.Struct, frozen=True, kw_only=True):
    """One pane as the table holds it. ``key`` is None where it was too large to be kept."""

    aggregate: str
    key: dict[str, str] | None
    window_start: str
    window_end: str
    revision: int
    event_count: int
    measures: dict[str, int | float | None]


class ServedPanesReceiver:
    """Upserts panes, conditionally on a higher revision; a tombstone too, so that no lower revision comes after it.

    Parameters
    ----------
    workers
        How many writes are on their way at a time: DynamoDB has no conditional batch write.
    """

    def __init__(
        self, client: DynamoDBClient, table: str, *, pipeline: str, state_epoch: int, workers: int = 8
    ) -> None:
        self._client = client
        self._table = table
        self._pipeline = pipeline
        self._state_epoch = state_epoch
        self._workers = workers

    def deliver(self, entries: Sequence[PaneBatch]) -> Delivery[PaneBatch]:
        """Write the panes; those that could not be written come back, batch by batch."""
        undelivered: list[PaneBatch] = []
        reason: str | None = None
        with ThreadPoolExecutor(self._workers) as pool:
            for batch in entries:
                if reason is not None:
                    undelivered.append(batch)
                    continue
                reasons = list(pool.map(self._put, self._items(batch)))
                left = [index for index, why in enumerate(reasons) if why is not None]
                if left:
                    undelivered.append(batch.take(left))
                    reason = f"DynamoDB table {self._table}: {reasons[left[0]]}"
        return Delivery(undelivered, reason)

    def _put(self, item: Mapping[str, UniversalAttributeValueTypeDef]) -> str | None:
        try:
            self._client.put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression="attribute_not_exists(#revision) OR #revision < :revision",
                ExpressionAttributeNames={"#revision": "revision"},
                ExpressionAttributeValues={":revision": item["revision"]},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            # What is there is this revision, written before, or a later one.
            return None
        except AWS_ERRORS as error:
            return reason_of(error)
        return None

    def _items(self, batch: PaneBatch) -> Iterable[Mapping[str, UniversalAttributeValueTypeDef]]:
        rows = zip(
            batch.keys,
            batch.window_start_ms.tolist(),
            batch.window_end_ms.tolist(),
            batch.revision.tolist(),
            batch.event_count.tolist(),
            batch.tombstone.tolist(),
            measure_rows(batch),
            strict=True,
        )
        for parts, start, end, revision, count, tombstone, measures in rows:
            key = dict(zip(batch.key_fields, parts, strict=True))
            key_json = msgspec.json.encode(key).decode()
            item: dict[str, UniversalAttributeValueTypeDef] = {
                "pane": {"S": pane_id(self._pipeline, self._state_epoch, batch.aggregate, key)},
                "window_start": {"S": rfc3339(start)},
                "window_end": {"S": rfc3339(end)},
                "aggregate": {"S": batch.aggregate},
                "revision": {"N": str(revision)},
                "event_count": {"N": str(count)},
                "tombstone": {"BOOL": bool(tombstone)},
                "measures": {"S": msgspec.json.encode(measures).decode()},
            }
            if len(key_json.encode()) <= _MAX_KEY_BYTES:
                item["key"] = {"S": key_json}
            yield item


def pane_id(pipeline: str, state_epoch: int, aggregate: str, key: Mapping[str, str]) -> str:
    """The table's partition key; `key` in the order of the aggregate's key fields.

    A key too long for DynamoDB stands as ``sha256:<hex>`` of its JSON.
    """
    prefix = f"{pipeline}#{state_epoch}#{aggregate}#"
    text = msgspec.json.encode(dict(key)).decode()
    if len((prefix + text).encode()) > _MAX_PANE_ID_BYTES:
        text = f"sha256:{sha256(text.encode()).hexdigest()}"
    return prefix + text


def read_served_pane(
    client: DynamoDBClient, table: str, *, pipeline: str, state_epoch: int, aggregate: str, key: Mapping[str, str]
) -> list[ServedPane]:
    """The panes of one key at their latest revision, oldest window first; none for tombstones.

    Raises
    ------
    StoreUnavailable, StoreRefused
        The table cannot be read.
    """
    panes: list[ServedPane] = []
    with port_errors(f"DynamoDB table {table}"):
        pages = client.get_paginator("query").paginate(
            TableName=table,
            ConsistentRead=True,
            KeyConditionExpression="pane = :pane",
            ExpressionAttributeValues={":pane": {"S": pane_id(pipeline, state_epoch, aggregate, key)}},
        )
        for page in pages:
            panes += [_served(item) for item in page["Items"] if not item["tombstone"]["BOOL"]]
    return panes


def read_served_panes(
    client: DynamoDBClient, table: str, *, pipeline: str, state_epoch: int, aggregate: str
) -> list[ServedPane]:
    """All panes of an aggregate at their latest revision, by window and key; none for tombstones.

    This scans the table. For one key use `read_served_pane`.

    Raises
    ------
    StoreUnavailable, StoreRefused
        The table cannot be read.
    """
    panes: list[ServedPane] = []
    with port_errors(f"DynamoDB table {table}"):
        pages = client.get_paginator("scan").paginate(
            TableName=table,
            ConsistentRead=True,
            FilterExpression="begins_with(pane, :prefix)",
            ExpressionAttributeValues={":prefix": {"S": f"{pipeline}#{state_epoch}#{aggregate}#"}},
        )
        for page in pages:
            panes += [_served(item) for item in page["Items"] if not item["tombstone"]["BOOL"]]
    return sorted(panes, key=lambda pane: (pane.window_start, list((pane.key or {}).values())))


def _served(item: Mapping[str, AttributeValueTypeDef]) -> ServedPane:
    return ServedPane(
        aggregate=item["aggregate"]["S"],
        key=_key.decode(item["key"]["S"]) if "key" in item else None,
        window_start=item["window_start"]["S"],
        window_end=item["window_end"]["S"],
        revision=int(item["revision"]["N"]),
        event_count=int(item["event_count"]["N"]),
        measures=_measures.decode(item["measures"]["S"]),
    )
