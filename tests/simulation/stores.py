"""Where state, results and events end up. Every call passes the board, before and after it has its effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from simulation.board import Board, client_error
from simulation.faults import Kind
from streamgauge.events.position import Position
from streamgauge.processors.commit.memory import MemoryStateStore
from streamgauge.processors.commit.ports import ShardRow

__all__ = ["Archive", "Bus", "ServedTable", "StateRows"]


class StateRows(MemoryStateStore):
    """The product's store in memory, whose snapshot is a step of its own, as it is with S3: ``put_snapshot``."""

    def __init__(self, board: Board) -> None:
        super().__init__(board.hook)
        self._board = board

    def commit(self, row: ShardRow, *, snapshot: bytes, position: Position | None, now_ms: int) -> ShardRow:
        self._board.hook("put_snapshot", "before")
        self._board.hook("put_snapshot", "after")
        return super().commit(row, snapshot=snapshot, position=position, now_ms=now_ms)


class Archive:
    """The bucket of results and raw events: both of the product's ports for it, over one dictionary."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.objects: dict[str, bytes] = {}
        self.overwritten: list[str] = []
        """Names that were written again with other bytes."""

    def put(self, name: str, body: bytes) -> None:
        step = "deliver_archive"
        if name.startswith("type=streamgauge_failed_events/"):
            step = "store_failed"
        elif name.startswith("type=streamgauge_late_events/"):
            step = "store_late"
        self._board.hook(step, "before")
        if self.objects.get(name, body) != body:
            self.overwritten.append(name)
        self.objects[name] = body
        self._board.hook(step, "after")

    def create(self, name: str, body: bytes) -> bool:
        step = "range" if name.startswith("delivery/") else "object"
        self._board.hook(step, "before")
        is_new = self.objects.setdefault(name, body) is body
        self._board.hook(step, "after")
        return is_new

    def get(self, name: str) -> bytes | None:
        return self.objects.get(name)

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)

    def names(self, prefix: str) -> list[str]:
        return sorted(name for name in self.objects if name.startswith(prefix))


class Bus:
    """EventBridge's PutEvents. `entries` are all details that it took, in order."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.entries: list[str] = []

    def put_events(self, *, Entries: Sequence[Mapping[str, str]]) -> dict[str, Any]:  # noqa: N803
        self._board.hook("deliver_events", "before")
        refused = 0
        if self._board.take_note(Kind.PARTIAL):
            refused = self._board.note_sizes[Kind.PARTIAL] or 1
        answers: list[dict[str, str]] = []
        for index, entry in enumerate(Entries):
            if refused >> (index % 8) & 1:
                answers.append({"ErrorCode": "InternalFailure", "ErrorMessage": "injected"})
            else:
                self.entries.append(entry["Detail"])
                answers.append({"EventId": str(len(self.entries))})
        self._board.hook("deliver_events", "after")
        return {"Entries": answers, "FailedEntryCount": sum("ErrorCode" in answer for answer in answers)}

    def describe_event_bus(self, *, Name: str) -> dict[str, object]:  # noqa: N803 - AWS's name
        return {"Name": Name}


class ServedTable:
    """DynamoDB's conditional PutItem, as served panes use it: an item is replaced by a higher revision only."""

    class _ConditionalCheckFailed(ClientError):
        pass

    exceptions = SimpleNamespace(ConditionalCheckFailedException=_ConditionalCheckFailed)

    def __init__(self, board: Board, rng: Random) -> None:
        self._board = board
        self._rng = rng
        self.items: dict[tuple[str, str], dict[str, Any]] = {}

    def put_item(
        self,
        *,
        TableName: str,  # noqa: N803
        Item: dict[str, Any],  # noqa: N803
        ConditionExpression: str = "",  # noqa: N803
        ExpressionAttributeNames: Mapping[str, str] | None = None,  # noqa: N803
        ExpressionAttributeValues: Mapping[str, Mapping[str, str]] | None = None,  # noqa: N803
    ) -> None:
        del TableName, ExpressionAttributeNames
        self._board.hook("deliver_panes", "before")
        key = Item["pane"]["S"], Item["window_start"]["S"]
        if not self._holds(ConditionExpression, self.items.get(key), ExpressionAttributeValues or {}):
            error = client_error("ConditionalCheckFailedException", 400)
            raise self._ConditionalCheckFailed(error.response, "PutItem")
        self.items[key] = Item
        self._board.hook("deliver_panes", "after")

    @staticmethod
    def _holds(condition: str, found: dict[str, Any] | None, values: Mapping[str, Mapping[str, str]]) -> bool:
        """Evaluate the few conditions on ``#revision`` that there may be; none holds always."""
        if not condition:
            return True
        if found is None:
            return "attribute_not_exists(#revision)" in condition.split(" OR ")
        there, new = int(found["revision"]["N"]), int(values[":revision"]["N"])
        truths = {
            "attribute_not_exists(#revision)": False,
            "attribute_exists(#revision)": True,
            "#revision < :revision": there < new,
            "#revision <= :revision": there <= new,
            "#revision <> :revision": there != new,
        }
        return any(truths[part] for part in condition.split(" OR "))
