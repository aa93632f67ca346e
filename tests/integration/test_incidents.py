"""The state machine of incidents over MiniStack: every way through it, failures and races included.

A race is begun in its middle: the machine starts at the state in which an execution would be that had lost it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import boto3
import pytest
from role_policies import Grant, RoleCall, grants, missing, unused

from streamgauge.infra.clients import LOCAL_CREDENTIALS, Clients
from streamgauge.infra.local.deploying import deploy_locally
from streamgauge.infra.local.processes import LOOPBACK, free_port, stop
from streamgauge.infra.local.servers import launch_ministack, wait_for_server
from streamgauge.settings import Endpoints

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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("incidents")
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    ministack = launch_ministack(port, folder=folder, environment=PLAIN, endpoints={})
    try:
        wait_for_server(ministack, url, deadline_s=60)
        clients = Clients(Endpoints(url, url), region="us-east-1")
        outputs = deploy_locally(clients, name="streamgauge-weather", parameters=PARAMETERS, deadline_s=120)
        arn = outputs["IncidentsArn"]
        made = World(url, outputs, "")
        made.role = made.client("stepfunctions").describe_state_machine(stateMachineArn=arn)["roleArn"]
        yield made
    finally:
        stop([ministack], grace_s=5)


@pytest.fixture
def alert() -> str:
    return uuid4().hex


@pytest.fixture
def notices(world: World) -> Iterator[str]:
    """A queue that gets every notice of the topic."""
    name = f"notices-{uuid4().hex}"
    queue = world.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    subscription = world.client("sns").subscribe(
        TopicArn=world.outputs["NoticesTopicArn"],
        Protocol="sqs",
        Endpoint=f"arn:aws:sqs:us-east-1:000000000000:{name}",
        Attributes={"RawMessageDelivery": "true"},
        ReturnSubscriptionArn=True,
    )
    yield queue
    world.client("sns").unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])


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


def test_an_incident_is_opened_told_waited_for_and_closed_by_what_clears_it(
    world: World, alert: str, notices: str
) -> None:
    opened = world.start(event(alert, 1, "raised"))
    waiting = world.until(alert, lambda row: "task_token" in row)
    assert (waiting["incident_status"], waiting["incident_id"], waiting["raises"]) == ("open", f"{alert[:6]}-1", "1")
    assert (waiting["severity"], waiting["pipeline"], waiting["rule_name"]) == ("warning", "weather", "gale")
    cleared = world.run(event(alert, 2, "cleared"))
    assert cleared.ways == ["Read", "What came", "Clear", "Does it wait", "Wake it", "Cleared"]
    ended = world.ended(opened)
    assert ended.status == "SUCCEEDED"
    assert ended.ways == [
        *("Read", "What came", "Open", "Tell that it is open", "Wait for the clear event"),
        *("Close", "Tell that it is closed", "Closed"),
    ]
    row = world.row(alert)
    assert (row["incident_status"], row["closed_for"], row["cleared_by"]) == ("closed", "cleared", f"{alert[:6]}-2")
    assert "task_token" not in row
    told = world.drained(notices)
    assert [(each["about"], each["status"], each["message"]) for each in told] == [
        ("incident", "opened", "Gale raised for EWR (1)"),
        ("incident", "closed", "Closed (cleared): Gale cleared for EWR (2)"),
    ]
    assert {each["severity"] for each in told} == {"warning"} and {each["alert_id"] for each in told} == {alert}


def test_what_is_raised_again_updates_the_one_incident(world: World, alert: str) -> None:
    first = world.start(event(alert, 1, "raised"))
    world.until(alert, lambda row: "task_token" in row)
    again = world.run(event(alert, 2, "raised"))
    assert again.ways[-4:] == ["Why not opened", "Whose is it", "Update", "Updated"]
    row = world.row(alert)
    assert (row["incident_id"], row["raises"], row["summary"]) == (f"{alert[:6]}-1", "2", "Gale raised for EWR (2)")
    world.run(event(alert, 3, "cleared"))
    assert world.ended(first).status == "SUCCEEDED"


def test_a_new_incident_is_opened_after_the_last_was_closed(world: World, alert: str) -> None:
    for number in (1, 3):
        opened = world.start(event(alert, number, "raised"))
        world.until(alert, lambda row: "task_token" in row)
        world.run(event(alert, number + 1, "cleared"))
        world.ended(opened)
    row = world.row(alert)
    assert (row["incident_id"], row["incident_status"], row["raises"]) == (f"{alert[:6]}-3", "closed", "1")


def test_an_incident_that_nothing_clears_is_closed_after_its_time(world: World, alert: str, notices: str) -> None:
    ended = world.run(event(alert, 1, "raised"), TimeoutSeconds="1")
    assert ended.status == "SUCCEEDED" and ended.ways[-3:] == ["Close", "Tell that it is closed", "Closed"]
    row = world.row(alert)
    assert (row["incident_status"], row["closed_for"]) == ("closed", "time-out")
    assert [each["message"] for each in world.drained(notices)][-1] == "Closed (time-out): Gale raised for EWR (1)"
    # What clears it afterwards finds nothing to do, and a raise of before does not open it.
    assert world.run(event(alert, 3, "cleared")).ways[-1] == "Nothing to clear"
    assert world.run(event(alert, 2, "raised")).ways[-1] == "Late or repeated"
    assert world.row(alert)["incident_status"] == "closed"


def test_a_repeated_event_does_nothing(world: World, alert: str) -> None:
    opened = world.start(event(alert, 1, "raised"))
    before = world.until(alert, lambda row: "task_token" in row)
    assert world.run(event(alert, 1, "raised")).ways[-1] == "Late or repeated"
    assert world.row(alert) == before
    world.run(event(alert, 2, "cleared"))
    world.ended(opened)
    after = world.row(alert)
    assert world.run(event(alert, 2, "cleared")).ways[-1] == "Late or repeated"
    assert world.row(alert) == after


def test_a_raise_that_comes_after_its_clear_opens_nothing(world: World, alert: str) -> None:
    assert world.run(event(alert, 2, "cleared")).ways[-2:] == ["Nothing is open", "Nothing to clear"]
    assert world.run(event(alert, 1, "raised")).ways[-1] == "Late or repeated"
    assert world.row(alert)["incident_status"] == "closed"


def test_one_that_was_cleared_before_it_waits_is_closed_all_the_same(world: World, alert: str) -> None:
    world.put(alert, incident_status="open", incident_id=f"{alert[:6]}-1", rule_sequence="001")
    assert world.run(event(alert, 2, "cleared")).ways[-2:] == ["Does it wait", "Cleared"]
    ended = world.run(event(alert, 1, "raised"), begin="Wait for the clear event")
    assert ended.status == "SUCCEEDED" and ended.ways[-3:] == ["Close", "Tell that it is closed", "Closed"]
    assert world.row(alert)["incident_status"] == "closed"


# --- answers that were lost, and races --------------------------------------------------------------------------------


def test_an_open_whose_answer_was_lost_goes_on_as_its_own(world: World, alert: str) -> None:
    name = uuid4().hex
    mine = world.own_name(name, TimeoutSeconds="1")
    world.put(alert, incident_status="open", incident_id=f"{alert[:6]}-1", rule_sequence="001", execution=mine)
    ended = world.run(event(alert, 1, "raised"), name=name, TimeoutSeconds="1")
    assert ended.ways[2:6] == ["Open", "Why not opened", "Whose is it", "Tell that it is open"]
    assert world.row(alert)["incident_status"] == "closed"


def test_an_update_that_finds_the_incident_closed_opens_one(world: World, alert: str) -> None:
    world.put(alert, incident_status="closed", incident_id="another", rule_sequence="001")
    ended = world.run(event(alert, 2, "raised"), begin="Update", TimeoutSeconds="1")
    assert ended.ways[1:6] == ["Update", "Why not opened", "Whose is it", "Open", "Tell that it is open"]
    assert world.row(alert)["incident_id"] == f"{alert[:6]}-2"


def test_a_clear_whose_answer_was_lost_wakes_what_waits(world: World, alert: str) -> None:
    opened = world.start(event(alert, 1, "raised"))
    waiting = world.until(alert, lambda row: "task_token" in row)
    world.put(
        alert, **{**waiting, "incident_status": "cleared", "rule_sequence": "002", "cleared_by": f"{alert[:6]}-2"}
    )
    ended = world.run(event(alert, 2, "cleared"))
    assert ended.ways[-4:] == ["Who cleared it", "Does it wait", "Wake it", "Cleared"]
    assert world.ended(opened).status == "SUCCEEDED"
    assert world.row(alert)["incident_status"] == "closed"


def test_a_clear_that_an_open_overtook_is_tried_again(world: World, alert: str) -> None:
    world.put(alert, incident_status="open", incident_id="another", rule_sequence="001")
    ended = world.run(event(alert, 2, "cleared"), begin="Nothing is open")
    assert ended.ways[1:5] == ["Nothing is open", "Why not cleared", "Who cleared it", "Clear"]
    assert world.row(alert)["incident_status"] == "cleared"


def test_a_close_whose_answer_was_lost_is_told_once_more(world: World, alert: str) -> None:
    world.put(alert, incident_status="closed", incident_id=f"{alert[:6]}-1", rule_sequence="002", closed_for="cleared")
    ended = world.run(event(alert, 1, "raised"), begin="Close")
    assert ended.ways[1:] == ["Close", "Why not closed", "Is it closed", "Tell that it is closed", "Closed"]


def test_an_incident_that_another_has_followed_leaves_that_alone(world: World, alert: str) -> None:
    world.put(alert, incident_status="open", incident_id="a later one", rule_sequence="003")
    ended = world.run(event(alert, 1, "raised"), begin="Close")
    assert ended.ways[-2:] == ["Tell that it is closed", "Closed"]
    assert world.row(alert)["incident_status"] == "open"


def test_one_that_does_not_wait_any_more_is_not_an_error(world: World, alert: str) -> None:
    world.put(alert, incident_status="open", incident_id="gone", rule_sequence="001", task_token=str(uuid4()))
    ended = world.run(event(alert, 2, "cleared"))
    assert (ended.error, ended.ways[-2:]) == (None, ["Wake it", "Cleared"])


# --- failures ---------------------------------------------------------------------------------------------------------

TASKS = {
    "Open": "raised",
    "Why not opened": "raised",
    "Update": "raised",
    "Wait for the clear event": "raised",
    "Close": "raised",
    "Why not closed": "raised",
    "Clear": "cleared",
    "Nothing is open": "cleared",
    "Why not cleared": "cleared",
}


@pytest.mark.parametrize("state", TASKS)
def test_a_table_that_is_gone_leaves_the_event_in_the_dead_letters(world: World, alert: str, state: str) -> None:
    world.dead_letters()
    came = event(alert, 1, TASKS[state])
    ended = world.run(came, begin=state, IncidentsTable="gone")
    assert (ended.status, ended.ways[-2:]) == ("FAILED", ["Report", "Failed"])
    (kept,) = world.dead_letters()
    assert kept["event"] == came and kept["error"] == ended.error and "ResourceNotFound" in kept["error"]
    # Once the table is back, the event that was kept does what it should have done.
    begun = world.start(kept["event"], TimeoutSeconds="1")
    assert world.ended(begun).status == "SUCCEEDED"


def test_a_task_is_tried_again_before_it_fails(world: World, alert: str) -> None:
    execution = world.start(event(alert, 1, "raised"), tries=3, IncidentsTable="gone")
    assert world.ended(execution).status == "FAILED"
    history = world.client("stepfunctions").get_execution_history(executionArn=execution, maxResults=100)["events"]
    assert sum(each["type"] == "TaskFailed" for each in history) == 3


def test_without_the_topic_the_notice_is_kept_and_the_incident_goes_on(world: World, alert: str) -> None:
    world.dead_letters()
    opened = world.start(event(alert, 1, "raised"), Topic="arn:aws:sns:us-east-1:000000000000:gone")
    world.until(alert, lambda row: "task_token" in row)
    world.run(event(alert, 2, "cleared"))
    ended = world.ended(opened)
    assert ended.status == "SUCCEEDED" and ended.ways.count("Keep the notice") == 2
    kept = world.dead_letters()
    assert [each["notice"]["status"] for each in kept] == ["opened", "closed"]
    assert kept[0]["notice"]["message"] == "Gale raised for EWR (1)" and kept[0]["error"] and kept[0]["cause"]
    assert world.row(alert)["incident_status"] == "closed"


def test_without_topic_and_queue_it_fails_and_can_be_begun_again(world: World, alert: str) -> None:
    ended = world.run(event(alert, 1, "raised"), Topic="arn:aws:sns:us-east-1:000000000000:gone", DeadLetters="gone")
    assert ended.status == "FAILED"
    assert ended.ways[-4:] == ["Tell that it is open", "Keep the notice", "Report", "Failed"]
    assert world.row(alert)["incident_status"] == "open"


def test_one_that_cannot_be_woken_is_reported(world: World, alert: str) -> None:
    world.dead_letters()
    ended = world.run(event(alert, 2, "cleared"), begin="Wake it")
    assert (ended.status, ended.error) == ("FAILED", "States.QueryEvaluationError")
    assert ended.ways[-3:] == ["Wake it", "Report", "Failed"]
    assert len(world.dead_letters()) == 1


MALFORMED = {
    "no id": {"id": None},
    "no alert": {"alert_id": None},
    "an alert that is a number": {"alert_id": 5},
    "no sequence": {"rule_sequence": ""},
    "an unknown state": {"state": "raising"},
    "no severity": {"severity": None},
}


@pytest.mark.parametrize("changed", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_threshold_event_is_kept_with_the_reason(
    world: World, alert: str, changed: dict[str, object]
) -> None:
    world.dead_letters()
    came = event(alert, 1, "raised")
    ended = world.run({**came, "detail": {**came["detail"], **changed}})
    assert (ended.status, ended.error) == ("FAILED", "MalformedThresholdEvent")
    (kept,) = world.dead_letters()
    assert "lacks" in kept["cause"] and kept["event"]["source"] == "streamgauge.weather"


@pytest.mark.parametrize("came", [{}, {"detail": "text"}, {"detail": None}, [], "text", {"detail": []}])
def test_nor_is_anything_else_one(world: World, came: object) -> None:
    world.dead_letters()
    ended = world.run(came)
    assert (ended.status, ended.error) == ("FAILED", "MalformedThresholdEvent")
    (kept,) = world.dead_letters()
    assert kept["event"] == came


BY_HAND = {
    "opened": ("What came", "raised", {"incident_status": "open"}),
    "updated": ("Why not opened", "raised", {}),
    "closed": ("Close", "raised", {"incident_status": "done", "rule_sequence": "001"}),
    "cleared": ("Why not cleared", "cleared", {"incident_id": "x"}),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_an_incident_that_was_changed_by_hand_is_named(world: World, alert: str, case: str) -> None:
    begin, state, row = BY_HAND[case]
    world.dead_letters()
    world.put(alert, **row)
    ended = world.run(event(alert, 2, state), begin=begin)
    assert (ended.status, ended.error) == ("FAILED", "IncidentChanged")
    (kept,) = world.dead_letters()
    assert "changed by hand" in kept["cause"] and kept["event"]["detail"]["alert_id"] == alert
    assert world.row(alert) == {"alert_id": alert, **row}


# --- from the bus -----------------------------------------------------------------------------------------------------


def put_on_bus(world: World, came: Mapping[str, Any], *, source: str | None = None) -> None:
    entry = {
        "EventBusName": world.outputs["EventBusName"],
        "Source": source or came["source"],
        "DetailType": came["detail-type"],
        "Detail": json.dumps(came["detail"]),
    }
    assert world.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0


def test_the_bus_brings_an_event_to_the_incidents_and_to_the_topic(world: World, alert: str, notices: str) -> None:
    put_on_bus(world, event(alert, 1, "raised"))
    world.until(alert, lambda row: "task_token" in row)
    put_on_bus(world, event(alert, 2, "cleared"))
    world.until(alert, lambda row: row.get("incident_status") == "closed")
    told: list[dict[str, Any]] = []
    until = monotonic() + DEADLINE_S
    while len(told) < 4:
        assert monotonic() < until, told
        told += world.drained(notices)
        sleep(0.02)
    assert sorted((each["about"], each["status"]) for each in told) == [
        ("event", "cleared"),
        ("event", "raised"),
        ("incident", "closed"),
        ("incident", "opened"),
    ]
    raised = next(each for each in told if each["status"] == "raised")
    assert list(raised) == ["message", "about", "status", "severity", "pipeline", "rule", "alert_id", "id"]
    assert raised["message"] == "Gale raised for EWR (1)"


def test_what_is_of_another_pipeline_or_too_slight_goes_neither_way(world: World, alert: str, notices: str) -> None:
    put_on_bus(world, event(alert, 1, "raised"), source="streamgauge.another")
    put_on_bus(world, event(alert, 2, "raised", severity="info"))
    # It is put last, so the others would have arrived by now.
    put_on_bus(world, event(alert, 3, "raised", severity="critical"))
    row = world.until(alert, lambda row: "task_token" in row)
    assert (row["incident_id"], row["raises"], row["severity"]) == (f"{alert[:6]}-3", "1", "critical")
    assert {each["severity"] for each in world.drained(notices)} == {"critical"}
    put_on_bus(world, event(alert, 4, "cleared", severity="critical"))
    world.until(alert, lambda row: row.get("incident_status") == "closed")


def test_subscribers_get_what_they_asked_for(world: World) -> None:
    sns = world.client("sns")
    (found,) = [
        each
        for each in sns.list_subscriptions_by_topic(TopicArn=world.outputs["NoticesTopicArn"])["Subscriptions"]
        if each["Protocol"] == "email"
    ]
    assert found["Endpoint"] == "somebody@example.com"
    attributes = sns.get_subscription_attributes(SubscriptionArn=found["SubscriptionArn"])["Attributes"]
    assert attributes["FilterPolicyScope"] == "MessageBody"
    assert json.loads(attributes["FilterPolicy"]) == {
        "about": ["incident", "event"],
        "severity": ["warning", "critical"],
    }


# --- permissions ------------------------------------------------------------------------------------------------------

DOCS = "https://docs.aws.amazon.com/step-functions/latest/dg"
# What Step Functions does in the machine's name, besides its tasks.
ON_THE_ROLES_BEHALF: Mapping[str, str] = {
    "WriteLogs": f"{DOCS}/cw-logs.html",
    "Trace": f"{DOCS}/concepts-xray-tracing.html",
    "UseTheKey": "https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html",
}


def calls_of_the_machine(world: World) -> list[RoleCall]:
    """What its tasks call: Step Functions calls nothing else, whatever the input."""
    sts, outputs = "us-east-1:000000000000", world.outputs
    resources = {
        "dynamodb": f"arn:aws:dynamodb:{sts}:table/{outputs['IncidentsTableName']}",
        "sns": outputs["NoticesTopicArn"],
        "sqs": f"arn:aws:sqs:{sts}:{outputs['IncidentDlqUrl'].rpartition('/')[2]}",
        "sfn": outputs["IncidentsArn"],
    }
    calls: list[RoleCall] = []
    for state in json.loads(DEFINITION.replace("${TimeoutSeconds}", "1"))["States"].values():
        if state["Type"] == "Task":
            service, action = state["Resource"].removesuffix(".waitForTaskToken").rsplit(":", 2)[1:]
            named = {"dynamodb": "TableName", "sns": "TopicArn", "sqs": "QueueUrl", "sfn": "TaskToken"}[service]
            assert named in state["Arguments"]
            prefix = "states" if service == "sfn" else service
            calls.append(RoleCall("IncidentsRole", f"{prefix}:{action[0].upper()}{action[1:]}", resources[service]))
    assert len(calls) >= 12
    return calls


def deployed(world: World, role: str) -> list[Grant]:
    iam = world.client("iam")
    name = world.client("cloudformation").describe_stack_resource(
        StackName="streamgauge-weather", LogicalResourceId=role
    )["StackResourceDetail"]["PhysicalResourceId"]
    policies = iam.list_role_policies(RoleName=name)["PolicyNames"]
    return grants(role, [iam.get_role_policy(RoleName=name, PolicyName=each)["PolicyDocument"] for each in policies])


def test_the_machine_may_do_what_its_tasks_do_and_nothing_else(world: World) -> None:
    held, calls = deployed(world, "IncidentsRole"), calls_of_the_machine(world)
    assert missing(held, calls) == []
    idle = {permission.sid for permission in unused(held, calls)}
    assert idle == ON_THE_ROLES_BEHALF.keys()
    assert not any(grant.permission.sid in idle for grant in held for call in calls if grant.allows(call))


def test_the_rule_may_start_the_machine_and_nothing_else(world: World) -> None:
    (grant,) = deployed(world, "IncidentRuleRole")
    assert grant.allows(RoleCall("IncidentRuleRole", "states:StartExecution", world.outputs["IncidentsArn"]))
    assert grant.resources == (world.outputs["IncidentsArn"],)


# --- the queue that responders read -----------------------------------------------------------------------------------


def test_what_no_reader_could_act_on_is_kept_and_comes_back_when_asked(world: World, alert: str) -> None:
    sqs, queue, kept = world.client("sqs"), world.outputs["ThresholdQueueUrl"], world.outputs["ThresholdDlqUrl"]
    world.drained(queue)
    put_on_bus(world, event(alert, 1, "cleared", severity="info"))

    def received(url: str, visibility_s: int) -> list[dict[str, Any]]:
        answer = sqs.receive_message(QueueUrl=url, VisibilityTimeout=visibility_s, WaitTimeSeconds=1)
        return [json.loads(each["Body"])["detail"] for each in answer.get("Messages", [])]

    # Whoever reads it gives up, again and again.
    times = 0
    while not (found := received(kept, 0)):
        times += len(received(queue, 0))
        assert times <= 5
    assert times == 5 and [each["alert_id"] for each in found] == [alert]
    # As StartMessageMoveTask does, which MiniStack lacks.
    (message,) = sqs.receive_message(QueueUrl=kept, WaitTimeSeconds=1)["Messages"]
    sqs.send_message(QueueUrl=queue, MessageBody=message["Body"])
    sqs.delete_message(QueueUrl=kept, ReceiptHandle=message["ReceiptHandle"])
    assert [each["alert_id"] for each in received(queue, 60)] == [alert]
    assert received(kept, 0) == []


# --- all of it --------------------------------------------------------------------------------------------------------


def test_every_way_was_gone(world: World, request: pytest.FixtureRequest) -> None:
    tests = {item.function.__name__ for item in request.session.items if item.path == request.path}  # type: ignore[attr-defined]
    if tests < {name for name in globals() if name.startswith("test_")}:
        pytest.skip("the other tests of this module go the ways")
    states = json.loads(DEFINITION.replace("${TimeoutSeconds}", "1"))["States"]
    possible = {(name, after) for name, state in states.items() for after in followers(state)}
    assert possible - world.gone == set()
    assert {name for way in possible for name in way} == states.keys()


def followers(state: Mapping[str, Any]) -> set[str]:
    found = {each["Next"] for key in ("Choices", "Catch") for each in state.get(key, [])}
    return found | {state[key] for key in ("Next", "Default") if key in state}
