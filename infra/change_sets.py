"""Change sets: what a deployment would change, in words, and carrying it out; deleting a stack.

Source of the calls and states: the CloudFormation API reference, CreateChangeSet, DescribeChangeSet, ExecuteChangeSet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, Literal, TypedDict
from uuid import uuid4

from streamgauge.infra.stack_state import (
    DeploymentFailed,
    deployment_errors,
    find_stack,
    known_events,
    pauses,
    stack_outputs,
    wait_for_stack,
)

if TYPE_CHECKING:
    from types_boto3_cloudformation import CloudFormationClient
    from types_boto3_cloudformation.type_defs import (
        CreateChangeSetInputTypeDef,
        DescribeChangeSetOutputTypeDef,
        ParameterTypeDef,
        ResourceChangeTypeDef,
        StackTypeDef,
    )

__all__ = [
    "TEMPLATE_BODY_BYTES_MAX",
    "Change",
    "Plan",
    "TemplateSource",
    "carry_out",
    "delete_stack",
    "discard",
    "kept_resources",
    "plan_changes",
]

TEMPLATE_BODY_BYTES_MAX = 51_200
"""What CreateChangeSet takes of a template in its request; a longer one is read from S3."""

_CAPABILITIES: list[Literal["CAPABILITY_AUTO_EXPAND", "CAPABILITY_IAM"]] = [
    "CAPABILITY_AUTO_EXPAND",
    "CAPABILITY_IAM",
]
_UNCHANGED = ("didn't contain changes", "No updates are to be performed")
# A new stack whose creation failed, and one whose deletion failed, can only be deleted.
_DEAD = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")


class TemplateSource(TypedDict, total=False):
    """Where a template is: in the request, or in S3 where it is longer than `TEMPLATE_BODY_BYTES_MAX`."""

    TemplateBody: str
    TemplateURL: str


@dataclass(frozen=True, slots=True)
class Change:
    """One resource of a change set.

    ``action`` is CloudFormation's (Add, Modify, Remove, Import, Dynamic); ``replacement`` too (True, False,
    Conditional), empty but for Modify. ``properties`` are those that change.
    """

    action: str
    logical_id: str
    type: str
    replacement: str = ""
    properties: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = f"{self.logical_id} ({self.type})"
        if self.action != "Modify":
            words = {"Add": "create", "Remove": "remove", "Import": "import"}
            return f"{words.get(self.action, self.action.lower())} {what}"
        named = f": {', '.join(self.properties)}" if self.properties else ""
        if self.replacement == "True":
            return f"REPLACE {what}{named}"
        perhaps = ", replaced if AWS cannot change it in place" if self.replacement == "Conditional" else ""
        return f"change {what}{named}{perhaps}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A change set that waits to be carried out. Without ``changes`` there is none: the stack is as it should be."""

    stack: str
    change_set: str
    is_new: bool
    changes: tuple[Change, ...]


def plan_changes(
    client: CloudFormationClient,
    template: TemplateSource,
    *,
    name: str,
    parameters: Mapping[str, str],
    tags: Mapping[str, str],
    deadline_s: float,
) -> Plan:
    """Make a change set that creates or updates the stack.

    Parameters
    ----------
    parameters
        Of those that are not given, an existing stack keeps what it has, a new one gets the template's defaults.

    Raises
    ------
    DeploymentFailed
        With CloudFormation's reason.
    """
    stack = find_stack(client, name)
    is_new = stack is None or stack["StackStatus"] == "REVIEW_IN_PROGRESS"
    if stack is not None and stack["StackStatus"] in _DEAD:
        raise DeploymentFailed(
            f"it is in the state {stack['StackStatus']}",
            where=f"stack {name}",
            remedy="Its creation or deletion failed: look at its events, delete it, and deploy again",
        )
    plan = Plan(name, f"streamgauge-{uuid4()}", is_new, ())
    request: CreateChangeSetInputTypeDef = {
        "StackName": name,
        "ChangeSetName": plan.change_set,
        "ChangeSetType": "CREATE" if is_new else "UPDATE",
        "Parameters": _parameters(client, template, stack, parameters),
        "Capabilities": _CAPABILITIES,
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    if "TemplateURL" in template:
        request["TemplateURL"] = template["TemplateURL"]
    else:
        request["TemplateBody"] = template["TemplateBody"]
    with deployment_errors(name):
        client.create_change_set(**request)
    answer = _made(client, plan, deadline_s)
    if answer["Status"] == "FAILED":
        discard(client, plan)
        reason = answer.get("StatusReason", "no reason given")
        if any(text in reason for text in _UNCHANGED):
            return plan
        raise DeploymentFailed(reason, where=f"stack {name}")
    return Plan(plan.stack, plan.change_set, is_new, _changes(client, plan))


def discard(client: CloudFormationClient, plan: Plan) -> None:
    """Delete a change set that is not to be carried out, and the empty stack that a new one's came with.

    Raises
    ------
    DeploymentFailed
        CloudFormation does not answer, or refuses.
    """
    with deployment_errors(plan.stack):
        client.delete_change_set(StackName=plan.stack, ChangeSetName=plan.change_set)
        if plan.is_new:
            client.delete_stack(StackName=plan.stack)


def carry_out(
    client: CloudFormationClient, plan: Plan, *, deadline_s: float, on_event: Callable[[str], None] | None = None
) -> dict[str, str]:
    """Execute the change set and wait for the stack.

    Parameters
    ----------
    on_event
        As in `wait_for_stack`.

    Returns
    -------
    The stack's outputs.

    Raises
    ------
    DeploymentFailed
        With the reason of the first resource that failed. CloudFormation rolls back what it had begun.
    """
    since = known_events(client, plan.stack)
    with deployment_errors(plan.stack):
        client.execute_change_set(StackName=plan.stack, ChangeSetName=plan.change_set)
    wait_for_stack(client, plan.stack, since=since, deadline_s=deadline_s, on_event=on_event)
    return stack_outputs(client, plan.stack)


def kept_resources(client: CloudFormationClient, name: str) -> list[str]:
    """What stays when the stack is deleted: a line for each, with its logical id, type and physical id.

    Raises
    ------
    DeploymentFailed
        There is no such stack, or CloudFormation does not answer.
    """
    with deployment_errors(name):
        template = client.get_template(StackName=name, TemplateStage="Processed")["TemplateBody"]
        described = client.describe_stack_resources(StackName=name)["StackResources"]
    # A template with a transform is JSON once it is processed, which botocore hands out as an object.
    assert isinstance(template, Mapping), "the processed template is JSON"
    resources = template["Resources"]
    return [
        f"{each['LogicalResourceId']} ({each['ResourceType']}): {each.get('PhysicalResourceId', '?')}"
        for each in described
        if str(resources.get(each["LogicalResourceId"], {}).get("DeletionPolicy", "")).startswith("Retain")
    ]


def delete_stack(
    client: CloudFormationClient, name: str, *, deadline_s: float, on_event: Callable[[str], None] | None = None
) -> None:
    """Delete the stack and wait until it is gone; what `kept_resources` lists stays.

    Raises
    ------
    DeploymentFailed
        There is no such stack, or it cannot be deleted.
    """
    stack = find_stack(client, name)
    if stack is None or "StackId" not in stack:
        raise DeploymentFailed("there is no such stack", where=f"stack {name}")
    since = known_events(client, stack["StackId"])
    with deployment_errors(name):
        client.delete_stack(StackName=stack["StackId"])
    wait_for_stack(client, stack["StackId"], since=since, deadline_s=deadline_s, on_event=on_event)


def _parameters(
    client: CloudFormationClient, template: TemplateSource, stack: StackTypeDef | None, given: Mapping[str, str]
) -> list[ParameterTypeDef]:
    found: list[ParameterTypeDef] = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
    if stack is not None:
        with deployment_errors(stack["StackName"]):
            declared = client.get_template_summary(**template).get("Parameters", [])
        known = {each.get("ParameterKey") for each in declared}
        before = [each.get("ParameterKey", "") for each in stack.get("Parameters", [])]
        found += [
            {"ParameterKey": key, "UsePreviousValue": True} for key in before if key in known and key not in given
        ]
    return found


def _made(client: CloudFormationClient, plan: Plan, deadline_s: float) -> DescribeChangeSetOutputTypeDef:
    until = monotonic() + deadline_s
    for pause_s in pauses():
        with deployment_errors(plan.stack):
            answer = client.describe_change_set(StackName=plan.stack, ChangeSetName=plan.change_set)
        if answer["Status"] not in {"CREATE_PENDING", "CREATE_IN_PROGRESS"}:
            return answer
        if monotonic() > until:
            raise DeploymentFailed(f"the change set was not made within {deadline_s:g} s", where=f"stack {plan.stack}")
        sleep(pause_s)
    raise AssertionError("unreachable")


def _changes(client: CloudFormationClient, plan: Plan) -> tuple[Change, ...]:
    found: list[Change] = []
    with deployment_errors(plan.stack):
        pages = client.get_paginator("describe_change_set").paginate(
            StackName=plan.stack, ChangeSetName=plan.change_set
        )
        for page in pages:
            found += [_change(each["ResourceChange"]) for each in page["Changes"] if "ResourceChange" in each]
    return tuple(sorted(found, key=lambda change: change.logical_id))


def _change(change: ResourceChangeTypeDef) -> Change:
    named = {detail.get("Target", {}).get("Name") for detail in change.get("Details", [])}
    return Change(
        change.get("Action", "?"),
        change.get("LogicalResourceId", "?"),
        change.get("ResourceType", "?"),
        change.get("Replacement", ""),
        tuple(sorted(name for name in named if name)),
    )
