"""Every call of the KCL host, Java's and its children's, against the role that the template makes for it.

The calls are signed with the local stack's own keys, so nothing is denied here; each is held against the role instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from call_witness import CallWitness, Seen
from role_policies import Grant, RoleCall, grants, missing, unused
from template_tree import mappings, properties, resources, written

from kcl.rig import KclRig, clean_environment, show_index, template_parameters, write_pipeline
from streamgauge.infra.clients import LOCAL_CREDENTIALS, LOCAL_REGION, Clients
from streamgauge.infra.local.deploying import deploy_locally
from streamgauge.infra.local.kinesis.calls import read_calls
from streamgauge.infra.local.mirror import mirror_streams
from streamgauge.infra.local.processes import LOOPBACK, free_port, stop
from streamgauge.infra.local.record import StackInfo, save_stack
from streamgauge.infra.local.servers import ACCOUNT, launch_kinesis, launch_ministack, wait_for_server
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.settings import Endpoints

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROLE = "KclRole"
STACK = "streamgauge-kcl-permissions"
KCL = "https://docs.aws.amazon.com/streams/latest/dev/kcl-iam-permissions.html"
# What the role is given although no run here calls it.
NOT_HERE: Mapping[tuple[str, str], str] = {
    # With --live alone: the local stack is known by its record.
    ("FindTheStack", "cloudformation:DescribeStacks"): "streamgauge/cli/context.py",
    # Enhanced fan-out, which the local Kinesis refuses by name.
    ("SubscribeToTheStream", "kinesis:DescribeStreamConsumer"): KCL,
    ("SubscribeToTheStream", "kinesis:RegisterStreamConsumer"): KCL,
    ("SubscribeToTheStream", "kinesis:SubscribeToShard"): KCL,
    ("Measure", "cloudwatch:PutMetricData"): KCL,
    # What the KCL does in its 3.x mode, or minutes after a shard's end.
    ("ReadTheStream", "kinesis:DescribeStreamSummary"): KCL,
    ("FindLeases", "dynamodb:Query"): KCL,
    ("KeepLeases", "dynamodb:DeleteItem"): KCL,
    ("Coordinate", "dynamodb:DeleteItem"): KCL,
    ("Coordinate", "dynamodb:Scan"): KCL,
}
# The session's own calls, which are the same in the functions: they are seen there, conflicts and all.
OF_EVERY_HOST = {
    "KeepState", "KeepSnapshots", "FindSnapshots", "Archive", "ServePanes", "RaiseThresholdEvents", "UseTheKey"
}  # fmt: skip


@contextmanager
def watched(folder: Path, log: Path) -> Iterator[tuple[KclRig, CallWitness]]:
    """A local stack whose every call is seen: MiniStack's by a witness, our Kinesis's in its log."""
    file = write_pipeline(folder)
    pipeline = load_pipeline(file)
    environment = clean_environment()
    urls = [f"http://{LOOPBACK}:{free_port()}" for _ in range(2)]
    ports = [int(url.rpartition(":")[2]) for url in urls]
    state = folder / ".streamgauge"
    servers = (
        launch_ministack(ports[0], folder=state, environment=environment, endpoints={}),
        launch_kinesis(ports[1], folder=state, environment=environment, limits=False, calls=log),
    )
    try:
        for process, url in zip(servers, urls, strict=True):
            wait_for_server(process, url, deadline_s=60)
        endpoints = Endpoints(*urls)
        outputs = deploy_locally(
            Clients(endpoints, region=LOCAL_REGION),
            name=STACK,
            parameters=template_parameters(pipeline, shards=2),
            deadline_s=120,
        )
        mirror_streams(STACK, endpoints, deadline_s=30)
        info = StackInfo(
            home=str(folder),
            stack_name=STACK,
            pipeline_file=str(file),
            region=LOCAL_REGION,
            account=ACCOUNT,
            aws_url=urls[0],
            kinesis_url=urls[1],
            outputs=outputs,
            processes=servers,
        )
        save_stack(info)
        show_index(info)
    except BaseException:
        stop(servers, grace_s=5)
        raise
    with CallWitness(urls[0]) as witness, KclRig(info, AWS_ENDPOINT_URL=witness.url) as rig:
        yield rig, witness


def test_the_role_allows_what_the_daemon_and_its_children_call_and_nothing_more(tmp_path: Path) -> None:
    log = tmp_path / "kinesis-calls.jsonl"
    with watched(tmp_path, log) as (rig, witness):
        # What this test itself asks Kinesis is signed by another.
        rig.clients.__dict__["kinesis"] = client(rig.info, "kinesis", rig.info.kinesis_url, access_key="stranger")
        rig.put(0, 6_000)()
        witness.seen.clear()
        before = len(list(read_calls(log)))
        worker = rig.work("worker")
        rig.wait(lambda: len(rig.rows()) == 2 and rig.is_processed(), "the first events", running=[worker])
        rig.split(0)
        rig.wait(lambda: sum(row.sealed for row in rig.rows().values()) == 1, "the parent's end", running=[worker])
        rig.wait(rig.is_processed, "the children", running=[worker])
        assert worker.stop().status == 0
        calls = [
            RoleCall(ROLE, call.action, _resource(rig, call), call.context, call.was_denied) for call in witness.seen
        ]
        calls += [
            RoleCall(ROLE, f"kinesis:{call.operation}", rig.info.outputs["StreamArn"])
            for call in list(read_calls(log))[before:]
            if call.access_key == LOCAL_CREDENTIALS.access_key
        ]
        held = deployed_grants(rig)
    assert missing(held, calls) == []
    idle = {(each.sid, each.action) for each in unused(held, calls) if each.sid not in OF_EVERY_HOST}
    assert idle == set(NOT_HERE), idle ^ set(NOT_HERE)


def test_what_every_host_may_do_is_what_the_functions_test_proves_to_be_needed() -> None:
    kcl, processor = (statements(role) for role in (ROLE, "ProcessorRole"))
    for sid in OF_EVERY_HOST:
        assert kcl[sid] == processor[sid], sid


def statements(role: str) -> dict[str, Mapping[str, object]]:
    found = mappings(properties(resources(written(), "AWS::IAM::Role")[role])["Policies"])
    return {str(statement["Sid"]): statement for statement in found if "Sid" in statement}


def _resource(rig: KclRig, call: Seen) -> str:
    if call.action == "dynamodb:ListTagsOfResource":
        # MiniStack does not look for the table in it.
        return rig.clients.dynamodb.describe_table(TableName=rig.lease_table.name)["Table"]["TableArn"]
    return call.resource


def client(info: StackInfo, service: str, url: str, *, access_key: str = LOCAL_CREDENTIALS.access_key) -> Any:
    return boto3.client(
        service, endpoint_url=url, region_name=info.region, aws_access_key_id=access_key, aws_secret_access_key="secret"
    )


def deployed_grants(rig: KclRig) -> list[Grant]:
    """What the role's policies allow, as they were deployed."""
    found = rig.clients.cloudformation.describe_stack_resource(StackName=STACK, LogicalResourceId=ROLE)
    physical = found["StackResourceDetail"]["PhysicalResourceId"]
    iam = client(rig.info, "iam", rig.info.aws_url)
    names = iam.list_role_policies(RoleName=physical)["PolicyNames"]
    return grants(ROLE, [iam.get_role_policy(RoleName=physical, PolicyName=each)["PolicyDocument"] for each in names])
