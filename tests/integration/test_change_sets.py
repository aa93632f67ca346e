"""Deploying by change sets: what would change is said before, what went wrong after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ministack_server import ministack_server

from streamgauge.infra.change_sets import carry_out, delete_stack, discard, kept_resources, plan_changes
from streamgauge.infra.clients import Clients
from streamgauge.infra.local.processes import LOOPBACK, free_port
from streamgauge.infra.stack_state import DeploymentFailed, find_stack
from streamgauge.settings import Endpoints

TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Seconds: {Type: Number, Default: 60}
Resources:
  Data:
    Type: AWS::S3::Bucket
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
  Queue:
    Type: AWS::SQS::Queue
    Properties: {MessageRetentionPeriod: !Ref Seconds}
Outputs:
  Bucket: {Value: !Ref Data}
"""


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    with ministack_server(tmp_path_factory.mktemp("ministack")) as clients:
        yield clients


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("_", "-")[:60]


def deployed(clients: Clients, name: str, **parameters: str) -> tuple[list[str], dict[str, str]]:
    plan = plan_changes(
        clients.cloudformation,
        {"TemplateBody": TEMPLATE},
        name=name,
        parameters=parameters,
        tags={"team": "one"},
        deadline_s=30,
    )
    outputs = carry_out(clients.cloudformation, plan, deadline_s=30) if plan.changes else {}
    return [str(change) for change in plan.changes], outputs


def test_a_new_stack_is_planned_in_words_and_then_made(clients: Clients, name: str) -> None:
    words, outputs = deployed(clients, name)
    assert words == ["create Data (AWS::S3::Bucket)", "create Queue (AWS::SQS::Queue)"]
    assert outputs["Bucket"] in [each["Name"] for each in clients.s3.list_buckets()["Buckets"]]
    stack = find_stack(clients.cloudformation, name)
    assert stack is not None
    assert {tag["Key"]: tag["Value"] for tag in stack["Tags"]} == {"team": "one"}


def test_an_update_names_the_properties_that_change_and_no_other_resource(clients: Clients, name: str) -> None:
    _, before = deployed(clients, name)
    words, after = deployed(clients, name, Seconds="120")
    assert words == ["change Queue (AWS::SQS::Queue): MessageRetentionPeriod"]
    assert after == before


def test_a_stack_that_is_as_it_should_be_has_an_empty_plan(clients: Clients, name: str) -> None:
    deployed(clients, name)
    assert deployed(clients, name) == ([], {})


def test_an_update_keeps_the_parameters_that_it_is_not_given(clients: Clients, name: str) -> None:
    deployed(clients, name, Seconds="120")
    assert deployed(clients, name) == ([], {})


def test_a_plan_that_is_not_carried_out_leaves_nothing_behind(clients: Clients, name: str) -> None:
    client = clients.cloudformation
    plan = plan_changes(client, {"TemplateBody": TEMPLATE}, name=name, parameters={}, tags={}, deadline_s=30)
    discard(client, plan)
    assert find_stack(client, name) is None


def test_progress_is_told_resource_by_resource(clients: Clients, name: str) -> None:
    client, lines = clients.cloudformation, []
    plan = plan_changes(client, {"TemplateBody": TEMPLATE}, name=name, parameters={}, tags={}, deadline_s=30)
    carry_out(client, plan, deadline_s=30, on_event=lines.append)
    assert {"Data: create complete", "Queue: create complete", f"{name}: create complete"} <= set(lines)


def test_a_refused_parameter_is_one_clear_error(clients: Clients, name: str) -> None:
    with pytest.raises(DeploymentFailed, match="Seconds") as caught:
        deployed(clients, name, Seconds="soon")
    assert name in str(caught.value)
    assert find_stack(clients.cloudformation, name) is None


def test_a_deleted_stack_keeps_what_is_to_be_retained_and_says_so(clients: Clients, name: str) -> None:
    _, outputs = deployed(clients, name)
    kept = kept_resources(clients.cloudformation, name)
    delete_stack(clients.cloudformation, name, deadline_s=30)
    assert kept == [f"Data (AWS::S3::Bucket): {outputs['Bucket']}"]
    assert outputs["Bucket"] in [each["Name"] for each in clients.s3.list_buckets()["Buckets"]]
    assert find_stack(clients.cloudformation, name) is None


def test_deleting_a_stack_that_is_not_there_says_so(clients: Clients) -> None:
    with pytest.raises(DeploymentFailed, match="there is no such stack"):
        delete_stack(clients.cloudformation, "nowhere", deadline_s=30)


def test_a_service_that_does_not_answer_is_one_clear_error(tmp_path: Path) -> None:
    url = f"http://{LOOPBACK}:{free_port()}"
    client = Clients(Endpoints(aws=url, kinesis=url), region="us-east-1", attempts=1).cloudformation
    with pytest.raises(DeploymentFailed, match="Could not connect"):
        find_stack(client, "any")
