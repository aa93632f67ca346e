"""Deploying the template: the same one to AWS and to the local stack."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

from streamgauge.infra.change_sets import TemplateSource, carry_out, plan_changes
from streamgauge.infra.hive_types import hive_type
from streamgauge.infra.stack_state import DeploymentFailed, stack_outputs

if TYPE_CHECKING:
    from types_boto3_cloudformation import CloudFormationClient

    from streamgauge.processors.core.definition import Pipeline

__all__ = ["PIPELINE_TAG", "DeploymentFailed", "deploy", "stack_name", "stack_parameters", "template_text"]

PIPELINE_TAG = "streamgauge:pipeline"
"""The tag of every resource that bears tags; its value is the pipeline's name."""


_DEFINITION = "incident.asl.json"


def template_text() -> str:
    """``infra/template.yaml`` as it was installed, with the definition of the state machine in it.

    The file names the definition's own file, which `sam package` would put into a bucket.
    """
    folder = files("streamgauge.infra")
    definition = "".join(line.strip() for line in folder.joinpath(_DEFINITION).read_text().splitlines())
    named, inline = f"DefinitionS3Location: {_DEFINITION}\n", f"DefinitionString: {json.dumps(definition)}\n"
    return folder.joinpath("template.yaml").read_text().replace(named, inline)


def stack_name(pipeline: str) -> str:
    """The stack's name for a pipeline's: letters, digits and hyphens, at most 100 characters."""
    return "streamgauge-" + re.sub(r"[^a-z0-9]+", "-", pipeline.lower()).strip("-")[:88]


def stack_parameters(pipeline: Pipeline, *, shards: int | None) -> dict[str, str]:
    """The template's parameters for a pipeline; without `shards`, their number stays, or is the template's default.

    The Glue table is that of the first event type.
    """
    event_type = pipeline.event_types[0]
    return {
        "PipelineName": pipeline.name,
        "StreamName": pipeline.stream,
        **({} if shards is None else {"ShardCount": str(shards)}),
        "EventType": event_type,
        "EventTableName": re.sub(r"[^a-z0-9_]", "_", event_type.lower()),
        "EventDataType": hive_type(pipeline.catalogue.newest(event_type).schema),
    }


def deploy(
    client: CloudFormationClient,
    template: TemplateSource,
    *,
    name: str,
    parameters: Mapping[str, str],
    deadline_s: float,
) -> dict[str, str]:
    """Create the stack, or bring it up to date, and wait for it.

    Returns
    -------
    The stack's outputs.

    Raises
    ------
    DeploymentFailed
        With the reason of the first resource that failed.
    """
    plan = plan_changes(
        client,
        template,
        name=name,
        parameters=parameters,
        tags={PIPELINE_TAG: parameters["PipelineName"]},
        deadline_s=deadline_s,
    )
    if plan.changes:
        return carry_out(client, plan, deadline_s=deadline_s)
    return stack_outputs(client, name)
