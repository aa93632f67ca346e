"""The state machine of incidents on a MiniStack, and what tests do with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import boto3

from streamgauge.infra.clients import LOCAL_CREDENTIALS, Clients
from streamgauge.infra.local.deploying import deploy_locally
from streamgauge.infra.local.processes import LOOPBACK, free_port, stop
from streamgauge.infra.local.servers import launch_ministack, wait_for_server
from streamgauge.settings import Endpoints

STACK = "streamgauge-weather"
DEFINITION = (Path(__file__).parents[2] / "infra/incident.asl.json").read_text()
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
PARAMETERS = {
    "PipelineName": "weather",
    "StreamName": "observations",
    "EventType": "weather.observation",
    "EventTableName": "weather_observation",
    "EventDataType": "string",
    "NoticeEmail": "somebody@example.com",
    "NoticesAbout": "both",
}
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Ended:
    """An execution that has ended: the states that it was in, and how it went."""

    ways: list[str]
    status: str
    error: str | None


@dataclass
class World:
    """The deployed stack, variants of its state machine, and the ways that executions have gone."""

    url: str
    outputs: Mapping[str, str]
    role: str
    machines: dict[str, str] = field(default_factory=dict)
    gone: set[tuple[str, str]] = field(default_factory=set)
    clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        if service not in self.clients:
            self.clients[service] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name="us-east-1",
                aws_access_key_id=LOCAL_CREDENTIALS.access_key,
                aws_secret_access_key=LOCAL_CREDENTIALS.secret_key,
            )
        return self.clients[service]

    def machine(self, *, begin: str, tries: int, **broken: str) -> str:
        """A machine that begins at a state, with other resources than the stack's; the same twice is made once."""
        substitutions = {
            "Partition": "aws",
            "IncidentsTable": self.outputs["IncidentsTableName"],
            "Topic": self.outputs["NoticesTopicArn"],
            "DeadLetters": self.outputs["IncidentDlqUrl"],
            "TimeoutSeconds": "3600",
            **broken,
        }
        text = DEFINITION
        for name, value in substitutions.items():
            text = text.replace(f"${{{name}}}", value)
        definition = json.loads(text)
        definition["States"]["Read"]["Next"] = begin
        for state in definition["States"].values():
            for retrier in state.get("Retry", []):
                if retrier["ErrorEquals"] == ["States.TaskFailed"]:
                    retrier |= {"MaxAttempts": tries - 1, "IntervalSeconds": 1, "BackoffRate": 1.0}
        text = json.dumps(definition)
        if text not in self.machines:
            made = self.client("stepfunctions").create_state_machine(
                name=f"variant-{len(self.machines)}", definition=text, roleArn=self.role
            )
            self.machines[text] = made["stateMachineArn"]
        return self.machines[text]

    def start(
        self, event: object, *, begin: str = "What came", tries: int = 1, name: str | None = None, **broken: str
    ) -> str:
        machine = self.machine(begin=begin, tries=tries, **broken)
        started = self.client("stepfunctions").start_execution(
            stateMachineArn=machine, input=json.dumps(event), name=name or str(uuid4())
        )
        return started["executionArn"]

    def own_name(self, name: str, **variant: Any) -> str:
        """The ARN that an execution of a name will have."""
        machine = self.machine(**{"begin": "What came", "tries": 1, **variant})
        return f"{machine.replace(':stateMachine:', ':execution:')}:{name}"

    def ended(self, execution: str) -> Ended:
        sfn = self.client("stepfunctions")
        until = monotonic() + DEADLINE_S
        while (found := sfn.describe_execution(executionArn=execution))["status"] == "RUNNING":
            assert monotonic() < until, self._ways(execution)
            sleep(0.02)
        ways = self._ways(execution)
        self.gone |= set(pairwise(ways))
        return Ended(ways, found["status"], found.get("error"))

    def run(self, event: object, **variant: Any) -> Ended:
        return self.ended(self.start(event, **variant))

    def _ways(self, execution: str) -> list[str]:
        pages = self.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=execution)
        entered = [each.get("stateEnteredEventDetails", {}).get("name") for page in pages for each in page["events"]]
        return [name for name in entered if name]

    def put(self, alert: str, **values: str) -> None:
        """Write the row of an alert as somebody else would."""
        item = {"alert_id": {"S": alert}} | {name: {"S": value} for name, value in values.items()}
        self.client("dynamodb").put_item(TableName=self.outputs["IncidentsTableName"], Item=item)

    def row(self, alert: str) -> dict[str, str]:
        table = self.outputs["IncidentsTableName"]
        found = self.client("dynamodb").get_item(TableName=table, Key={"alert_id": {"S": alert}}, ConsistentRead=True)
        return {name: next(iter(value.values())) for name, value in found.get("Item", {}).items()}

    def until(self, alert: str, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        until = monotonic() + DEADLINE_S
        while not holds(row := self.row(alert)):
            assert monotonic() < until, row
            sleep(0.02)
        return row

    @contextmanager
    def notices(self) -> Iterator[str]:
        """A queue that gets every notice of the topic while it lasts."""
        name = f"notices-{uuid4().hex}"
        queue = self.client("sqs").create_queue(QueueName=name)["QueueUrl"]
        subscription = self.client("sns").subscribe(
            TopicArn=self.outputs["NoticesTopicArn"],
            Protocol="sqs",
            Endpoint=f"arn:aws:sqs:us-east-1:000000000000:{name}",
            Attributes={"RawMessageDelivery": "true"},
            ReturnSubscriptionArn=True,
        )
        yield queue
        self.client("sns").unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])

    def put_on_bus(self, came: Mapping[str, Any], *, source: str | None = None) -> None:
        entry = {
            "EventBusName": self.outputs["EventBusName"],
            "Source": source or came["source"],
            "DetailType": came["detail-type"],
            "Detail": json.dumps(came["detail"]),
        }
        assert self.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0

    def dead_letters(self) -> list[dict[str, Any]]:
        return self.drained(self.outputs["IncidentDlqUrl"])

    def drained(self, queue: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        sqs = self.client("sqs")
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                found.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return found


@contextmanager
def incident_world(folder: Path) -> Iterator[World]:
    """The template deployed to a MiniStack of its own."""
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    ministack = launch_ministack(port, folder=folder, environment=PLAIN, endpoints={})
    try:
        wait_for_server(ministack, url, deadline_s=60)
        clients = Clients(Endpoints(url, url), region="us-east-1")
        outputs = deploy_locally(clients, name=STACK, parameters=PARAMETERS, deadline_s=120)
        arn = outputs["IncidentsArn"]
        made = World(url, outputs, "")
        made.role = made.client("stepfunctions").describe_state_machine(stateMachineArn=arn)["roleArn"]
        yield made
    finally:
        stop([ministack], grace_s=5)


def event(alert: str, number: int, state: str, *, severity: str = "warning") -> dict[str, Any]:
    detail = {
        "schema_version": 1,
        "id": f"{alert[:6]}-{number}",
        "alert_id": alert,
        "rule_sequence": f"{number:03}",
        "state": state,
        "severity": severity,
        "pipeline": "weather",
        "rule": "gale",
        "summary": f"Gale {state} for EWR ({number})",
    }
    return {"source": "streamgauge.weather", "detail-type": "Gale", "detail": detail}
