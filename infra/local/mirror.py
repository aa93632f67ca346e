"""The stack's streams in our own Kinesis: the template creates them in MiniStack, whose Kinesis is not used."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic, sleep

from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.clients import LOCAL_REGION, Clients
from streamgauge.settings import Endpoints

__all__ = ["MirrorFailed", "mirror_streams", "scale_stream"]

_POLL_S = 0.02


class MirrorFailed(StreamgaugeError):
    """A stream of the template could not be created in the local Kinesis."""


def mirror_streams(stack_name: str, endpoints: Endpoints, *, deadline_s: float) -> list[str]:
    """Create those streams of the deployed stack that our Kinesis lacks, with their names, shards and retention.

    Returns
    -------
    The streams' names, all of them active.

    Raises
    ------
    MirrorFailed
        One could not be created, or did not become active within `deadline_s`.
    """
    deployed = Clients(Endpoints(aws=endpoints.aws, kinesis=endpoints.aws), region=LOCAL_REGION)
    ours = Clients(endpoints, region=LOCAL_REGION)
    until = monotonic() + deadline_s
    names: list[str] = []
    try:
        resources = deployed.cloudformation.describe_stack_resources(StackName=stack_name)["StackResources"]
        for resource in resources:
            if resource["ResourceType"] != "AWS::Kinesis::Stream":
                continue
            name = resource.get("PhysicalResourceId", "")
            names.append(name)
            wanted = deployed.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
            with suppress(ours.kinesis.exceptions.ResourceInUseException):
                ours.kinesis.create_stream(StreamName=name, ShardCount=wanted["OpenShardCount"])
            _wait_until_active(ours, name, until)
            held = ours.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
            if wanted["RetentionPeriodHours"] > held["RetentionPeriodHours"]:
                ours.kinesis.increase_stream_retention_period(
                    StreamName=name, RetentionPeriodHours=wanted["RetentionPeriodHours"]
                )
                _wait_until_active(ours, name, until)
    except (ClientError, BotoCoreError) as error:
        raise MirrorFailed(str(error), where=f"stream {names[-1]}" if names else stack_name) from error
    return names


def scale_stream(name: str, shards: int, endpoints: Endpoints, *, deadline_s: float) -> None:
    """Bring a stream to `shards` open shards of even ranges, as CloudFormation does where their number changes.

    Raises
    ------
    MirrorFailed
        It cannot be done, or not within `deadline_s`.
    """
    ours = Clients(endpoints, region=LOCAL_REGION)
    try:
        summary = ours.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        if summary["OpenShardCount"] != shards:
            ours.kinesis.update_shard_count(StreamName=name, TargetShardCount=shards, ScalingType="UNIFORM_SCALING")
            _wait_until_active(ours, name, monotonic() + deadline_s)
    except (ClientError, BotoCoreError) as error:
        raise MirrorFailed(str(error), where=f"stream {name}") from error


def _wait_until_active(ours: Clients, name: str, until: float) -> None:
    while ours.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
        if monotonic() > until:
            raise MirrorFailed("it did not become active in time", where=f"stream {name}")
        sleep(_POLL_S)
