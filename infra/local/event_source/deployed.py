"""What is deployed to MiniStack: event source mappings and schedule rules, taken over from its own pollers.

MiniStack's pollers would read its own Kinesis, which is not used, and fire schedules on their own. `disable_own`
disables them, and marks what was enabled with a tag, so that the poller here knows what it is to do instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from streamgauge.infra.clients import Clients
from streamgauge.infra.local.event_source.mapping import EventSourceMapping, parse_mapping
from streamgauge.infra.local.event_source.schedules import ScheduleRefused, ScheduleRule

if TYPE_CHECKING:
    from types_boto3_events.type_defs import RuleTypeDef, TargetOutputTypeDef
    from types_boto3_lambda.type_defs import EventSourceMappingConfigurationTypeDef

__all__ = ["TAKEN_OVER", "disable_own", "read_mappings", "read_rules"]

TAKEN_OVER = "streamgauge:polled"
"""The tag of mappings and rules that MiniStack's own pollers leave alone, because the poller here does their work."""

_DISABLED = {"Disabled", "Disabling"}


def disable_own(clients: Clients) -> int:
    """Keep MiniStack's own pollers from the deployed mappings of Kinesis streams, and from schedule rules of functions.

    Call it after a deployment, before the poller starts. What is disabled in the template stays so.

    Returns
    -------
    How many mappings and rules were taken over.
    """
    functions = clients.functions
    taken = 0
    for description in _kinesis_mappings(clients):
        if description.get("State") not in _DISABLED:
            functions.tag_resource(Resource=description["EventSourceMappingArn"], Tags={TAKEN_OVER: "true"})
            functions.update_event_source_mapping(UUID=description["UUID"], Enabled=False)
            taken += 1
    for rule, targets in _scheduled(clients):
        if targets and rule.get("State") == "ENABLED":
            clients.events.tag_resource(ResourceARN=rule["Arn"], Tags=[{"Key": TAKEN_OVER, "Value": "true"}])
            clients.events.disable_rule(Name=rule["Name"])
            taken += 1
    return taken


def read_mappings(clients: Clients, *, timestamp_ms: int | None = None) -> list[EventSourceMapping]:
    """The mappings of Kinesis streams. Enabled: those that are, and those that `disable_own` has marked.

    Parameters
    ----------
    timestamp_ms
        See `parse_mapping`.

    Raises
    ------
    MappingRefused, FilterRefused
        One asks for what AWS does not take, or the poller does not know.
    """
    found: list[EventSourceMapping] = []
    for listed in _kinesis_mappings(clients):
        description: dict[str, object] = {**listed}
        if listed.get("State") in _DISABLED:
            tags = clients.functions.list_tags(Resource=listed["EventSourceMappingArn"]).get("Tags", {})
            if TAKEN_OVER in tags:
                description["State"] = "Enabled"
        role = clients.functions.get_function_configuration(FunctionName=listed["FunctionArn"])["Role"]
        found.append(parse_mapping(description, role_arn=role, timestamp_ms=timestamp_ms))
    return found


def read_rules(clients: Clients) -> list[ScheduleRule]:
    """The schedule rules with a function as target, one for each target.

    Raises
    ------
    ScheduleRefused
        A target transforms its input.
    """
    found: list[ScheduleRule] = []
    for rule, targets in _scheduled(clients):
        tags = clients.events.list_tags_for_resource(ResourceARN=rule["Arn"])["Tags"] if targets else []
        is_enabled = rule.get("State") == "ENABLED" or any(tag["Key"] == TAKEN_OVER for tag in tags)
        for target in targets:
            if "InputTransformer" in target or "InputPath" in target:
                raise ScheduleRefused(
                    "the local poller does not transform a target's input",
                    where=f"rule {rule['Name']}, target {target['Id']}",
                    remedy="Give it a constant Input, or none",
                )
            found.append(
                ScheduleRule(
                    rule["Name"],
                    rule["Arn"],
                    rule["ScheduleExpression"],
                    target["Arn"],
                    input=target.get("Input"),
                    is_enabled=is_enabled,
                )
            )
    return found


def _kinesis_mappings(clients: Clients) -> Iterator[EventSourceMappingConfigurationTypeDef]:
    for page in clients.functions.get_paginator("list_event_source_mappings").paginate():
        for description in page["EventSourceMappings"]:
            if _service(description.get("EventSourceArn", "")) == "kinesis":
                yield description


def _scheduled(clients: Clients) -> Iterator[tuple[RuleTypeDef, list[TargetOutputTypeDef]]]:
    """Schedule rules, which are those of the default bus, with their targets that are functions."""
    for page in clients.events.get_paginator("list_rules").paginate():
        for rule in page["Rules"]:
            if rule.get("ScheduleExpression"):
                targets = clients.events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
                yield rule, [target for target in targets if _service(target["Arn"]) == "lambda"]


def _service(arn: str) -> str:
    parts = arn.split(":", 3)
    return parts[2] if len(parts) > 3 else ""
