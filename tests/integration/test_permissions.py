"""Every call of the template's functions against their roles: none is missing, and none is there for nothing.

MiniStack enforces the roles and the resource policies; our own Kinesis, which enforces nothing, logs who called what,
and the log is held against the roles here. See ``docs/adr/0022-permissions.md``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from call_witness import CallWitness, Trouble
from kinesis_events import event_record
from role_policies import Grant, Permission, RoleCall, grants, missing, unused

from streamgauge.infra.clients import LOCAL_CREDENTIALS, Clients
from streamgauge.infra.deployment import stack_parameters
from streamgauge.infra.local.deploying import deploy_locally
from streamgauge.infra.local.functions import end_functions, function_endpoints, kill_functions, provide_code
from streamgauge.infra.local.kinesis.calls import read_calls
from streamgauge.infra.local.mirror import mirror_streams
from streamgauge.infra.local.processes import LOOPBACK, free_port, stop
from streamgauge.infra.local.servers import launch_kinesis, launch_ministack, wait_for_server
from streamgauge.infra.packaging.build import build_package
from streamgauge.processors.commit.dynamodb import MAX_INLINE_BYTES
from streamgauge.processors.commit.threshold_detail import ThresholdDetail
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.settings import Endpoints

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "streamgauge/cli/demo_pipeline/pipeline.toml"
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
STACK = "streamgauge-permissions"

DOCS = "https://docs.aws.amazon.com"
# What a role is given and its function does not call: AWS calls it in the role's name, where no emulator does.
ON_THE_ROLES_BEHALF: Mapping[tuple[str, str], str] = {
    # Lambda writes what the function prints.
    ("WriteItsLog", "logs:CreateLogStream"): f"{DOCS}/lambda/latest/dg/monitoring-cloudwatchlogs.html",
    ("WriteItsLog", "logs:PutLogEvents"): f"{DOCS}/lambda/latest/dg/monitoring-cloudwatchlogs.html",
    # The daemon beside the function sends what the tracer hands it.
    ("Trace", "xray:PutTelemetryRecords"): f"{DOCS}/lambda/latest/dg/services-xray.html",
    ("Trace", "xray:PutTraceSegments"): f"{DOCS}/lambda/latest/dg/services-xray.html",
    # The event source reads the stream as the role.
    ("ReadTheStream", "kinesis:DescribeStream"): f"{DOCS}/lambda/latest/dg/services-kinesis-create.html",
    ("ReadTheStream", "kinesis:DescribeStreamSummary"): f"{DOCS}/lambda/latest/dg/services-kinesis-create.html",
    # The destinations for failures of the event source and of asynchronous invocations.
    ("ReportFailures", "sqs:SendMessage"): f"{DOCS}/lambda/latest/dg/kinesis-on-failure-destination.html",
    # Kinesis, S3, SQS and Lambda itself use the stack's key for whoever calls them.
    ("UseTheKey", "kms:Decrypt"): f"{DOCS}/streams/latest/dev/permissions-user-key-KMS.html",
    ("UseTheKey", "kms:GenerateDataKey"): f"{DOCS}/AmazonS3/latest/userguide/UsingKMSEncryption.html",
}


@dataclass
class Stack:
    """The deployed functions, invoked as by an event source and a schedule, and what they called."""

    clients: Clients
    secure: Clients
    outputs: dict[str, str]
    witness: CallWitness
    call_log: Path
    held: list[Grant]
    roles: dict[str, str]
    folder: Path
    read: dict[str, str] = field(default_factory=dict)

    @property
    def stream(self) -> str:
        return self.outputs["StreamName"]

    def calls(self) -> list[RoleCall]:
        """The calls of the roles to both servers."""
        found = [
            RoleCall(self.roles[call.access_key], call.action, call.resource, call.context, call.was_denied)
            for call in self.witness.seen
            if call.access_key in self.roles
        ]
        return found + [
            RoleCall(self.roles[call.access_key], f"kinesis:{call.operation}", self._arn(call.stream))
            for call in read_calls(self.call_log)
            if call.access_key in self.roles
        ]

    def _arn(self, stream: str) -> str:
        return self.outputs["StreamArn"].rpartition("/")[0] + "/" + stream

    def put(self, seconds: Sequence[int], *, prefix: str, gust: float) -> None:
        """An event for each of 40 stations at each time."""
        records = [
            {"PartitionKey": f"station-{station}", "Data": json.dumps(event(f"station-{station}", at, prefix, gust))}
            for at in seconds
            for station in range(40)
        ]
        for first in range(0, len(records), 500):
            answer = self.clients.kinesis.put_records(StreamName=self.stream, Records=records[first : first + 500])
            assert answer["FailedRecordCount"] == 0

    def new_records(self, shard_id: str) -> list[dict[str, object]]:
        """What came since the last look, as the event source sends it."""
        kinesis = self.clients.kinesis
        after = self.read.get(shard_id)
        place: dict[str, str] = (
            {"ShardIteratorType": "TRIM_HORIZON"}
            if after is None
            else {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after}
        )
        iterator = kinesis.get_shard_iterator(StreamName=self.stream, ShardId=shard_id, **place)  # type: ignore[arg-type]
        records = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
        assert records, f"nothing came to {shard_id}"
        self.read[shard_id] = records[-1]["SequenceNumber"]
        arn = self.outputs["StreamArn"]
        return [event_record(record, stream_arn=arn, shard_id=shard_id) for record in records]

    def process(self, records: Sequence[dict[str, object]]) -> None:
        assert self._invoke("ProcessorFunctionName", {"Records": records}) == {"batchItemFailures": []}

    def tick(self) -> dict[str, int]:
        return self._invoke("TickFunctionName", {})

    def respond(self, number: int, *, state: str = "raised") -> str:
        """How the responder says that an event of one alert stands."""
        detail = threshold_event(number, state)
        payload = {"id": "x", "source": "streamgauge.demo", "time": "2026-01-01T00:00:00Z", "detail-type": "Gale"}
        answer = self._invoke("ResponderFunctionName", {**payload, "detail": detail})
        return str(answer["standing"])

    def _invoke(self, output: str, payload: object) -> Any:
        answer = self.clients.functions.invoke(FunctionName=self.outputs[output], Payload=json.dumps(payload))
        body = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, f"{body}\nmissing: {missing(self.held, self.calls())}"
        return body

    def steal(self, shard_id: str) -> None:
        """Somebody else claims the shard."""
        self.secure.dynamodb.update_item(
            TableName=self.outputs["StateTableName"],
            Key={"pipeline": {"S": "demo#1"}, "shard_id": {"S": shard_id}},
            UpdateExpression="SET #owner = :owner ADD claim_version :one",
            ExpressionAttributeNames={"#owner": "owner"},
            ExpressionAttributeValues={":owner": {"S": "a stranger"}, ":one": {"N": "1"}},
        )

    def split(self, shard_id: str) -> list[str]:
        """The children, in the order of their ranges."""
        kinesis = self.clients.kinesis
        hashes = next(
            shard["HashKeyRange"]
            for shard in kinesis.list_shards(StreamName=self.stream)["Shards"]
            if shard["ShardId"] == shard_id
        )
        middle = (int(hashes["StartingHashKey"]) + int(hashes["EndingHashKey"])) // 2
        kinesis.split_shard(StreamName=self.stream, ShardToSplit=shard_id, NewStartingHashKey=str(middle))
        kinesis.get_waiter("stream_exists").wait(StreamName=self.stream, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        return [
            shard["ShardId"]
            for shard in kinesis.list_shards(StreamName=self.stream)["Shards"]
            if shard.get("ParentShardId") == shard_id
        ]

    def logged(self, output: str) -> list[dict[str, Any]]:
        """The lines that a function logged as JSON."""
        names = {"ProcessorFunctionName": "ProcessorLog", "TickFunctionName": "TickLog"}
        resource = self.clients.cloudformation.describe_stack_resource(
            StackName=STACK, LogicalResourceId=names[output]
        )["StackResourceDetail"]
        events = self.clients.logs.filter_log_events(logGroupName=resource["PhysicalResourceId"])["events"]
        lines = [json.loads(each["message"]) for each in events if each["message"].startswith("{")]
        return [line for line in lines if "message" in line]


def event(station: str, at: int, prefix: str, gust: float) -> dict[str, object]:
    return {
        "specversion": "1.0",
        # A hash, so that a snapshot of many of them does not shrink to nothing.
        "id": sha256(f"{prefix}/{at}/{station}".encode()).hexdigest(),
        "source": f"test/{station}",
        "type": "weather.observation",
        "subject": station,
        "time": f"2026-01-01T00:{at // 60:02}:{at % 60:02}Z",
        "data": {"wind_speed": 3.5, "temp": 1.0, "wind_gust": gust},
    }


def threshold_event(number: int, state: str) -> dict[str, object]:
    """The detail of an event of one alert."""
    detail = ThresholdDetail(
        id=f"permissions-{number}",
        pipeline="demo",
        state_epoch=1,
        rule="permissions",
        aggregate="wind",
        key={"subject": "EWR"},
        window_start="2026-01-01T00:00:00Z",
        window_end="2026-01-01T00:01:00Z",
        revision=0,
        kind="raise" if state == "raised" else "clear",
        state=state,
        reason="crossed",
        takes_back=None,
        crossing_ordinal=0,
        rule_sequence=f"{number:03}",
        measures={},
        raise_when="gust_max > 40",
        clear_when=None,
    )
    built: dict[str, object] = msgspec.to_builtins(detail)
    return built


def signed_by(service: str, url: str | None, access_key: str, secret_key: str, token: str | None = None) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        aws_session_token=token,
        config=Config(s3={"addressing_style": "path"}),
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("permissions")
    pipeline = load_pipeline(PIPELINE)
    package = build_package(PIPELINE, folder, target=None, say=print)
    urls = [f"http://{LOOPBACK}:{free_port()}" for _ in range(2)]
    ports = [int(url.rpartition(":")[2]) for url in urls]
    endpoints = Endpoints(*urls)
    log = folder / "kinesis-calls.jsonl"
    with CallWitness(urls[0]) as witness:
        seen_by_functions = function_endpoints(Endpoints(witness.url, urls[1]), PLAIN)
        ministack = launch_ministack(
            ports[0], folder=folder, environment=PLAIN, endpoints=seen_by_functions, authorize=True
        )
        kinesis = launch_kinesis(ports[1], folder=folder, environment=PLAIN, limits=False, calls=log)
        try:
            for process, url in zip((ministack, kinesis), urls, strict=True):
                wait_for_server(process, url, deadline_s=60)
            clients = Clients(endpoints, region="us-east-1")
            outputs = deploy_locally(
                clients,
                name=STACK,
                parameters={**stack_parameters(pipeline, shards=2), **provide_code(clients, package)},
                deadline_s=120,
            )
            mirror_streams(STACK, endpoints, deadline_s=30)
            names = ("Processor", "Tick", "Responder")
            roles = {role_session(clients, outputs[f"{name}FunctionName"])[0]: f"{name}Role" for name in names}
            held = [grant for name in roles.values() for grant in deployed_grants(clients, urls[0], name)]
            secure = Clients(Endpoints(witness.url, urls[1]), region="us-east-1")
            yield Stack(clients, secure, outputs, witness, log, held, roles, folder)
        finally:
            stop([ministack, kinesis], grace_s=5)
            end_functions(folder)


def role_session(clients: Clients, function: str) -> tuple[str, str, str]:
    """With what MiniStack lets a function act as its role: keys and token (its ``core/lambda_runtime.py``)."""
    found = clients.functions.get_function_configuration(FunctionName=function)
    digest = sha256(f"{found['FunctionArn']}:{found['Role']}".encode()).hexdigest()
    secret, token = (sha256(f"{kind}:{digest}".encode()).hexdigest() for kind in ("secret", "token"))
    return f"ASIA{digest[:16].upper()}", secret, token


def deployed_grants(clients: Clients, url: str, role: str) -> list[Grant]:
    """What the role's policies allow, as they were deployed."""
    name = clients.cloudformation.describe_stack_resource(StackName=STACK, LogicalResourceId=role)
    physical = name["StackResourceDetail"]["PhysicalResourceId"]
    iam = signed_by("iam", url, LOCAL_CREDENTIALS.access_key, LOCAL_CREDENTIALS.secret_key)
    policies = iam.list_role_policies(RoleName=physical)["PolicyNames"]
    return grants(
        role, [iam.get_role_policy(RoleName=physical, PolicyName=each)["PolicyDocument"] for each in policies]
    )


@pytest.fixture(scope="module")
def after_the_run(stack: Stack) -> Stack:
    """The stack after a run in which the functions have done all that they ever do."""
    first, second = "shardId-000000000000", "shardId-000000000001"
    # A cold start, and snapshots that are too large for their row.
    stack.put(range(60), prefix="a", gust=50.0)
    stack.process(stack.new_records(first))
    stack.process(stack.new_records(second))
    # Windows close: panes, threshold events; the first snapshot is deleted.
    stack.put([60, 61], prefix="b", gust=20.0)
    stack.process(stack.new_records(first))
    # Somebody else has claimed the shard, and the sandbox is a new one: the state is read back, and what was not
    # delivered to it is read from the stream.
    stack.steal(first)
    assert kill_functions(stack.folder) > 0
    stack.put(range(62, 80), prefix="c", gust=20.0)
    stack.process(stack.new_records(first)[-3:])
    # The answer to a write of the row is lost.
    lost: list[str] = []

    def lose_one(action: str, _resource: str) -> Trouble | None:
        if action == "dynamodb:UpdateItem" and not lost:
            lost.append(action)
            return Trouble(is_lost=True)
        return None

    stack.witness.trouble = lose_one
    stack.put([81], prefix="d", gust=50.0)
    stack.process(stack.new_records(first))
    assert lost
    # Nothing can be delivered, so that a child inherits it; the shard is split, and nothing comes to its children.
    undeliverable = ("events:PutEvents", "dynamodb:PutItem", "s3:PutObject")
    state = (stack.outputs["StateBucketName"], stack.outputs["StateTableName"])

    def refuse_results(action: str, resource: str) -> Trouble | None:
        is_state = any(name in resource for name in state)
        return Trouble(status=503) if action in undeliverable and not is_state else None

    stack.witness.trouble = refuse_results
    stack.put([120, 121], prefix="e", gust=20.0)
    stack.process(stack.new_records(first))
    stack.witness.trouble = lambda _action, _resource: None
    children = stack.split(first)
    assert stack.tick()["started"] == len(children) == 2
    # Another shard is split, and its child is begun by the processor.
    children = stack.split(second)
    stack.process(stack.new_records(second))
    stack.put([122], prefix="f", gust=20.0)
    for child in children:
        stack.process(stack.new_records(child))
    # The responder acts, once for each event; on none that comes late; and again on one on which it has failed.
    assert [stack.respond(2), stack.respond(2), stack.respond(1)] == ["newest", "repeated", "late"]
    stack.witness.trouble = lambda action, resource: (
        Trouble(status=400) if stack.outputs["AlertsTableName"] in resource else None
    )
    with pytest.raises(AssertionError, match="no usable answer"):
        stack.respond(3, state="cleared")
    stack.witness.trouble = lambda _action, _resource: None
    assert stack.respond(3, state="cleared") == "newest"
    return stack


def test_no_call_lacks_its_permission(after_the_run: Stack) -> None:
    assert missing(after_the_run.held, after_the_run.calls()) == []


def test_no_permission_is_there_for_nothing(after_the_run: Stack) -> None:
    idle = unused(after_the_run.held, after_the_run.calls())
    assert {each for each in idle if (each.sid, each.action) not in ON_THE_ROLES_BEHALF} == set()


def test_nothing_that_a_function_calls_is_excused(after_the_run: Stack) -> None:
    idle = unused(after_the_run.held, after_the_run.calls())
    called = {grant.permission for grant in after_the_run.held} - idle
    assert {(each.sid, each.action) for each in called}.isdisjoint(ON_THE_ROLES_BEHALF)
    assert ON_THE_ROLES_BEHALF.keys() <= {(each.sid, each.action) for each in idle}


def test_the_run_went_where_permissions_are_needed(after_the_run: Stack) -> None:
    batches = [line for line in after_the_run.logged("ProcessorFunctionName") if line["message"] == "batch"]
    # The shard that was stolen was claimed anew, and what lay before the batch was read.
    assert sum(line["claims"] for line in batches if line["shard"] == "shardId-000000000000") >= 2
    assert sum(line["gap_records"] for line in batches) > 0
    rows = after_the_run.secure.dynamodb.scan(TableName=after_the_run.outputs["StateTableName"])["Items"]
    assert len(rows) == 6
    sizes = [int(row["snapshot_bytes"]["N"]) for row in rows if not row["sealed"]["BOOL"]]
    assert len(sizes) == 4 and min(sizes) > MAX_INLINE_BYTES


def test_every_signed_call_is_one_of_a_role_or_of_the_tests(after_the_run: Stack) -> None:
    known = {*after_the_run.roles, LOCAL_CREDENTIALS.access_key}
    assert {call.access_key for call in after_the_run.witness.seen} <= known
    assert {call.access_key for call in read_calls(after_the_run.call_log)} <= known


def test_without_tls_a_bucket_answers_nobody(stack: Stack) -> None:
    place = {"Bucket": stack.outputs["ArchiveBucketName"], "Key": "type=test/one"}
    as_the_role = role_session(stack.clients, stack.outputs["ProcessorFunctionName"])
    signed_by("s3", stack.secure.endpoints.aws, *as_the_role).put_object(**place, Body=b"x")
    with pytest.raises(ClientError, match=r"s3:PutObject .*explicit deny in a resource-based policy"):
        signed_by("s3", stack.clients.endpoints.aws, *as_the_role).put_object(**place, Body=b"x")


def test_a_missing_and_an_idle_permission_are_found(after_the_run: Stack) -> None:
    """What the two tests above would say of other roles."""
    calls = after_the_run.calls()
    removed = Permission("TickRole", "TickAndReadTheStream", "kinesis:PutRecord")
    less = [grant for grant in after_the_run.held if grant.permission != removed]
    assert len(less) == len(after_the_run.held) - 1
    found = missing(less, calls)
    assert [line.split(" on ")[0] for line in found] == ["TickRole kinesis:PutRecord"]
    more = Permission("ProcessorRole", "KeepState", "dynamodb:DeleteItem")
    assert more in unused([*after_the_run.held, Grant(more, ("*",), {})], calls)
    narrower = [
        Grant(grant.permission, grant.resources, {"StringLike": {"s3:prefix": "another/*"}})
        if grant.permission.action == "s3:ListBucket"
        else grant
        for grant in after_the_run.held
    ]
    assert any("s3:ListBucket" in line for line in missing(narrower, calls))
