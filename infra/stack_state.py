"""What CloudFormation says of a stack: its state, its events, why it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, reason_of

if TYPE_CHECKING:
    from types_boto3_cloudformation import CloudFormationClient
    from types_boto3_cloudformation.type_defs import StackEventTypeDef, StackTypeDef

__all__ = [
    "DeploymentFailed",
    "deployment_errors",
    "find_stack",
    "known_events",
    "pauses",
    "stack_outputs",
    "wait_for_stack",
]

_PAUSE_S = 0.05
_PAUSE_S_MAX = 5.0


class DeploymentFailed(StreamgaugeError):
    """CloudFormation refused the stack, or could not create, change or delete it."""


@contextmanager
def deployment_errors(name: str) -> Iterator[None]:
    """Raise `DeploymentFailed` for what botocore raises inside."""
    try:
        yield
    except AWS_ERRORS as error:
        raise DeploymentFailed(reason_of(error), where=f"stack {name}") from error


def pauses() -> Iterator[float]:
    """Seconds between looks: short where the local stack answers, longer where AWS takes minutes."""
    pause_s = _PAUSE_S
    while True:
        yield pause_s
        pause_s = min(_PAUSE_S_MAX, pause_s * 1.5)


def find_stack(client: CloudFormationClient, name: str) -> StackTypeDef | None:
    """The stack, by name or id; None where there is none.

    Raises
    ------
    DeploymentFailed
        CloudFormation does not answer, or refuses.
    """
    with deployment_errors(name):
        try:
            return client.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in reason_of(error):
                return None
            raise


def stack_outputs(client: CloudFormationClient, name: str) -> dict[str, str]:
    """The outputs of a stack, by name.

    Raises
    ------
    DeploymentFailed
        There is no such stack, or CloudFormation does not answer.
    """
    stack = find_stack(client, name)
    if stack is None:
        raise DeploymentFailed("there is no such stack", where=f"stack {name}")
    return {
        output["OutputKey"]: output["OutputValue"]
        for output in stack.get("Outputs", [])
        if "OutputKey" in output and "OutputValue" in output
    }


def known_events(client: CloudFormationClient, stack_id: str) -> set[str]:
    """The ids of the events that the stack has had so far.

    Raises
    ------
    DeploymentFailed
        There is no such stack, or CloudFormation does not answer.
    """
    return {event["EventId"] for event in _events(client, stack_id)}


def wait_for_stack(
    client: CloudFormationClient,
    stack_id: str,
    *,
    since: set[str],
    deadline_s: float,
    on_event: Callable[[str], None] | None = None,
) -> None:
    """Wait until what was asked of the stack is done.

    Parameters
    ----------
    stack_id
        The id, by which a deleted stack is still found.
    since
        `known_events` before it was asked: the state alone may be that from before.
    on_event
        Called with one line for each resource that was begun, finished or failed.

    Raises
    ------
    DeploymentFailed
        It is not done within `deadline_s`, or the stack did not become what was asked: with the reason of the first
        resource that failed.
    """
    until = monotonic() + deadline_s
    seen = set(since)
    failures: list[str] = []
    for pause_s in pauses():
        for event in _events(client, stack_id):
            if event["EventId"] in seen:
                continue
            seen.add(event["EventId"])
            resource, status = event.get("LogicalResourceId", "?"), event.get("ResourceStatus", "?")
            reason = event.get("ResourceStatusReason")
            if status.endswith("_FAILED"):
                failures.append(f"{resource}: {reason or 'no reason given'}")
            if on_event is not None:
                on_event(f"{resource}: {status.lower().replace('_', ' ')}" + (f", {reason}" if reason else ""))
            if event.get("ResourceType") != "AWS::CloudFormation::Stack" or status.endswith("IN_PROGRESS"):
                continue
            if "ROLLBACK" in status or status.endswith("FAILED"):
                raise DeploymentFailed(
                    f"{status}: {failures[0] if failures else reason}",
                    where=f"stack {event.get('StackName', stack_id)}",
                    remedy="What had been begun was rolled back" if "ROLLBACK" in status else None,
                )
            return
        if monotonic() > until:
            raise DeploymentFailed(f"not done after {deadline_s:g} s", where=f"stack {stack_id}")
        sleep(pause_s)


def _events(client: CloudFormationClient, stack_id: str) -> list[StackEventTypeDef]:
    """Oldest first."""
    events: list[StackEventTypeDef] = []
    with deployment_errors(stack_id):
        for page in client.get_paginator("describe_stack_events").paginate(StackName=stack_id):
            events += page["StackEvents"]
    return events[::-1]
