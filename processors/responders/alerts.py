"""Where each rule stands for each key, as far as responders have heard: the highest ``rule_sequence`` holds.

Table: partition key ``rule`` = ``<pipeline>#<state_epoch>#<rule>``, sort key ``alert_key`` = the key as a JSON object.
Whoever asks what is raised now reads it, too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from streamgauge.processors.commit.aws_errors import port_errors
from streamgauge.processors.commit.threshold_detail import ThresholdDetail

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import UniversalAttributeValueTypeDef

__all__ = ["Alerts", "Standing"]

# DynamoDB's limit for a sort key is 1,024 bytes.
_MAX_KEY_BYTES = 1_024


class Standing(StrEnum):
    """How an event stands to what its rule and key have seen."""

    NEWEST = "newest"
    """It holds now, and nobody has finished acting on it."""
    REPEATED = "repeated"
    """It has been acted on."""
    LATE = "late"
    """A later one was here before."""


class Alerts:
    """The table of alerts.

    Every method raises `StoreUnavailable` or `StoreRefused` where the table does not do what it is asked.
    """

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def note(self, event: ThresholdDetail) -> Standing:
        """Let the event hold, unless a later one does.

        The same event may be noted again until `acted` was called for it, so that an action that failed is tried again.
        """
        key = self._key(event)
        with self._errors():
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key=key,
                    UpdateExpression=(
                        "SET rule_sequence = :rule_sequence, event_id = :event_id, alert_state = :state,"
                        " window_start = :window_start, measures = :measures, acted = :no"
                    ),
                    ConditionExpression=(
                        "attribute_not_exists(rule_sequence) OR rule_sequence < :rule_sequence"
                        " OR (rule_sequence = :rule_sequence AND acted = :no)"
                    ),
                    ExpressionAttributeValues={
                        ":rule_sequence": {"S": event.rule_sequence},
                        ":event_id": {"S": event.id},
                        ":state": {"S": event.state},
                        ":window_start": {"S": event.window_start},
                        ":measures": {"S": msgspec.json.encode(event.measures).decode()},
                        ":no": {"BOOL": False},
                    },
                )
            except self._client.exceptions.ConditionalCheckFailedException:
                held = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
                is_ours = held.get("Item", {}).get("rule_sequence", {}).get("S") == event.rule_sequence
                return Standing.REPEATED if is_ours else Standing.LATE
        return Standing.NEWEST

    def acted(self, event: ThresholdDetail) -> None:
        """Remember that the event has been acted on; of no moment if a later one has come meanwhile."""
        with self._errors(), suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.update_item(
                TableName=self._table,
                Key=self._key(event),
                UpdateExpression="SET acted = :yes",
                ConditionExpression="rule_sequence = :rule_sequence",
                ExpressionAttributeValues={":yes": {"BOOL": True}, ":rule_sequence": {"S": event.rule_sequence}},
            )

    def _errors(self) -> AbstractContextManager[None]:
        return port_errors(f"DynamoDB table {self._table}")

    def _key(self, event: ThresholdDetail) -> dict[str, UniversalAttributeValueTypeDef]:
        key = msgspec.json.encode(event.key, order="sorted").decode()
        if event.oversize or len(key.encode()) > _MAX_KEY_BYTES:
            # Its key did not fit into the event, or does not fit here: it is compared with itself alone.
            key = f"event {event.id}"
        return {
            "rule": {"S": f"{event.pipeline}#{event.state_epoch}#{event.rule}"},
            "alert_key": {"S": key},
        }
