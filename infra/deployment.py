"""Deploying the template: the same one to AWS and to the local stack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from time import monotonic, sleep
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.hive_types import hive_type

if TYPE_CHECKING:
    from types_boto3_cloudformation import CloudFormationClient
    from types_boto3_cloudformation.type_defs import StackTypeDef

    from streamgauge.processors.core.definition import Pipeline

__all__ = ["DeploymentFailed", "deploy", "stack_name", "stack_parameters", "template_text"]

_POLL_S = 0.05


class DeploymentFailed(StreamgaugeError):
    """CloudFormation refused the stack, or could not create it."""


def template_text() -> str:
    """``infra/template.yaml`` as it was installed."""
    return files("streamgauge.infra").joinpath("template.yaml").read_text()


def stack_name(pipeline: str) -> str:
    """The stack's name for a pipeline's: letters, digits and hyphens, at most 100 characters."""
    return "streamgauge-" + re.sub(r"[^a-z0-9]+", "-", pipeline.lower()).strip("-")[:88]


def stack_parameters(pipeline: Pipeline, *, shards: int) -> dict[str, str]:
    """The template's parameters for a pipeline. Its Glue table is that of the first event type."""
    event_type = pipeline.event_types[0]
    return {
        "PipelineName": pipeline.name,
        "StreamName": pipeline.stream,
        "ShardCount": str(shards),
        "EventType": event_type,
        "EventTableName": re.sub(r"[^a-z0-9_]", "_", event_type.lower()),
        "EventDataType": hive_type(pipeline.catalogue.newest(event_type).schema),
    }


def deploy(
    client: CloudFormationClient, template: str, *, name: str, parameters: Mapping[str, str], deadline_s: float
) -> dict[str, str]:
    """Create the stack and wait for it.

    Returns
    -------
    The stack's outputs.

    Raises
    ------
    DeploymentFailed
        With the reason of the first resource that failed.
    """
    try:
        client.create_stack(
            StackName=name,
            TemplateBody=template,
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            Capabilities=["CAPABILITY_AUTO_EXPAND", "CAPABILITY_IAM"],
        )
        until = monotonic() + deadline_s
        while (stack := _describe(client, name))["StackStatus"] == "CREATE_IN_PROGRESS":
            if monotonic() > until:
                raise DeploymentFailed(f"the stack was not created within {deadline_s:g} s", where=name)
            sleep(_POLL_S)
        if stack["StackStatus"] != "CREATE_COMPLETE":
            reason = _first_failure(client, name) or stack.get("StackStatusReason", "no reason given")
            raise DeploymentFailed(f"{stack['StackStatus']}: {reason}", where=name)
    except (ClientError, BotoCoreError) as error:
        raise DeploymentFailed(str(error), where=name) from error
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def _describe(client: CloudFormationClient, name: str) -> StackTypeDef:
    return client.describe_stacks(StackName=name)["Stacks"][0]


def _first_failure(client: CloudFormationClient, name: str) -> str | None:
    # Newest first: the earliest failure is the cause, the others are resources that were cancelled for it.
    events = client.describe_stack_events(StackName=name)["StackEvents"]
    failures = [event for event in events if event.get("ResourceStatus", "").endswith("_FAILED")]
    if not failures:
        return None
    return f"{failures[-1].get('LogicalResourceId')}: {failures[-1].get('ResourceStatusReason')}"
