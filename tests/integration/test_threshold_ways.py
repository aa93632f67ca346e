"""The ways of threshold events: from the bus to the queue, the topic and the incidents; and who may go them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import pytest
from commit_world import make_crossing
from incident_world import DEADLINE_S, DEFINITION, STACK, World, event, incident_world
from role_policies import Grant, RoleCall, grants, missing, unused

from streamgauge.processors.commit.eventbridge import EventBridgeReceiver
from streamgauge.processors.commit.threshold_detail import threshold_detail


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with incident_world(tmp_path_factory.mktemp("incidents")) as made:
        yield made


@pytest.fixture
def alert() -> str:
    return uuid4().hex


@pytest.fixture
def notices(world: World) -> Iterator[str]:
    with world.notices() as queue:
        yield queue


# --- from the bus -----------------------------------------------------------------------------------------------------


def test_the_bus_brings_an_event_to_the_incidents_and_to_the_topic(world: World, alert: str, notices: str) -> None:
    world.put_on_bus(event(alert, 1, "raised"))
    world.until(alert, lambda row: "task_token" in row)
    world.put_on_bus(event(alert, 2, "cleared"))
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
    world.put_on_bus(event(alert, 1, "raised"), source="streamgauge.another")
    world.put_on_bus(event(alert, 2, "raised", severity="info"))
    # It is put last, so the others would have arrived by now.
    world.put_on_bus(event(alert, 3, "raised", severity="critical"))
    row = world.until(alert, lambda row: "task_token" in row)
    assert (row["incident_id"], row["raises"], row["severity"]) == (f"{alert[:6]}-3", "1", "critical")
    assert {each["severity"] for each in world.drained(notices)} == {"critical"}
    world.put_on_bus(event(alert, 4, "cleared", severity="critical"))
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


def test_what_the_processor_puts_is_what_the_ways_take(world: World, notices: str) -> None:
    sqs, queue = world.client("sqs"), world.outputs["ThresholdQueueUrl"]
    world.drained(queue)
    receiver = EventBridgeReceiver(
        world.client("events"), world.outputs["EventBusName"], severities={"gale": "critical"}
    )
    key = f'a "quoted" \\ key {uuid4().hex}'
    raised = make_crossing(1, key=key)
    alert = threshold_detail(raised, severity="critical").alert_id
    assert receiver.deliver([raised]) == ([], None)
    row = world.until(alert, lambda row: "task_token" in row)
    assert (row["incident_id"], row["severity"], row["rule_name"]) == (raised.id, "critical", "gale")
    cleared = replace(make_crossing(2, key=key), kind="clear", state="cleared")
    assert receiver.deliver([cleared]) == ([], None)
    row = world.until(alert, lambda row: row["incident_status"] == "closed")
    assert (row["cleared_by"], row["closed_for"]) == (cleared.id, "cleared")
    until, told, queued = monotonic() + DEADLINE_S, [], []
    while len(told) < 4 or len(queued) < 2:
        assert monotonic() < until, (told, queued)
        told += world.drained(notices)
        queued += world.drained(queue)
        sleep(0.02)
    assert {each["alert_id"] for each in told} == {alert}
    plain = key.replace('"', "'").replace("\\", "/")
    assert any(f"Gale raised for {plain}: " in each["message"] for each in told)
    assert sorted(each["detail"]["state"] for each in queued) == ["cleared", "raised"]
    assert [each["detail"]["key"] for each in queued] == [{"subject": key}] * 2
    sqs.purge_queue(QueueUrl=queue)


def test_events_for_a_bus_that_is_gone_wait_with_the_reason(world: World) -> None:
    events = world.client("events")
    receiver = EventBridgeReceiver(events, f"gone-{uuid4().hex}")
    waiting = [make_crossing(number, key=uuid4().hex) for number in range(3)]
    delivery = receiver.deliver(waiting)
    assert list(delivery.undelivered) == waiting
    assert delivery.reason is not None and "gone-" in delivery.reason
    # With a bus they come home.
    back = EventBridgeReceiver(events, world.outputs["EventBusName"])
    assert back.deliver(delivery.undelivered) == ([], None)
    for crossing in waiting:
        alert = threshold_detail(crossing, severity="warning").alert_id
        assert world.until(alert, lambda row: "task_token" in row)["incident_id"] == crossing.id


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
    name = world.client("cloudformation").describe_stack_resource(StackName=STACK, LogicalResourceId=role)[
        "StackResourceDetail"
    ]["PhysicalResourceId"]
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
    world.put_on_bus(event(alert, 1, "cleared", severity="info"))

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
