from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from template_tree import Tree, findings, mappings, properties, resource_of, resources, transformed, written

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.infra.deployment import stack_name, template_text
from streamgauge.infra.hive_types import hive_type
from streamgauge.sinks.archive.columns import event_columns

SCHEMA = {
    "type": "object",
    "properties": {
        "Temp": {"type": ["number", "null"]},
        "count": {"type": "integer"},
        "ok": {"type": "boolean"},
        "where": {"type": "object", "properties": {"site": {"type": "string"}}},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
OUTPUTS = {
    "StreamName", "StreamArn", "ArchiveBucketName", "StateBucketName", "StateTableName", "PanesTableName",
    "EventBusName", "ThresholdQueueUrl", "ThresholdDlqUrl", "GlueDatabaseName",
    "TargetDlqUrl", "NoticesTopicArn", "IncidentsArn", "IncidentsTableName", "IncidentDlqUrl",
    "ProcessorFunctionName", "TickFunctionName", "ResponderFunctionName", "AlertsTableName", "ResponderDlqUrl",
    "LeaseTableName", "CoordinatorTableName", "WorkerMetricsTableName", "KclRoleArn", "KclInstanceProfileName",
}  # fmt: skip


@pytest.fixture(scope="module")
def template() -> Tree:
    return written()


def test_the_linter_has_nothing_to_say() -> None:
    assert findings(template_text()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nor_has_it_of_what_sam_makes_of_the_template(template: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    made = transformed()
    of_sam = made["Resources"].keys() - template["Resources"].keys()  # type: ignore[attr-defined]
    assert of_sam == {"ProcessorFunctionStream", "TickFunctionEventInvokeConfig", "ResponderFunctionEventInvokeConfig"}
    assert findings(json.dumps(made)) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_mistake_in_an_event_source_shows_there_alone(template: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for tree, name in ((template, "ProcessorFunction"), (transformed(), "ProcessorFunctionStream")):
        found = findings(mistaken(tree, name, "TRIM_HORIZON", "TRIM_HORIZONS"))
        assert any("TRIM_HORIZONS" in finding for finding in found) == (tree is not template)


def mistaken(tree: Tree, name: str, right: str, wrong: str) -> str:
    """The template with nothing but one resource, which has a mistake; a whole one takes the linter long."""
    text = json.dumps(resource_of(tree, name))
    assert right in text
    return json.dumps({**tree, "Resources": {name: json.loads(text.replace(right, wrong))}})


def test_the_linter_would_find_a_mistake(template: Tree) -> None:
    found = findings(mistaken(template, "StateTable", "PAY_PER_REQUEST", "PAY_PER_REQUESTS"))
    assert any("PAY_PER_REQUESTS" in finding for finding in found)


def test_the_outputs_are_what_the_commands_read(template: Tree) -> None:
    outputs = template["Outputs"]
    assert isinstance(outputs, dict) and outputs.keys() == OUTPUTS


def test_what_cannot_be_made_again_outlives_the_stack(template: Tree) -> None:
    kept = {
        name
        for kind in ("AWS::Kinesis::Stream", "AWS::S3::Bucket", "AWS::DynamoDB::Table")
        for name, resource in resources(template, kind).items()
        if resource["DeletionPolicy"] == "RetainExceptOnCreate" and resource["UpdateReplacePolicy"] == "Retain"
    }
    assert kept == {"Stream", "ArchiveBucket", "StateBucket", "StateTable", "IncidentsTable"}


def test_no_bucket_is_public(template: Tree) -> None:
    buckets = resources(template, "AWS::S3::Bucket")
    assert len(buckets) == 2
    for bucket in buckets.values():
        assert properties(bucket)["PublicAccessBlockConfiguration"] == dict.fromkeys(
            ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"], True
        )


POLICIES = {  # type -> (the type of what holds its policy, where that names what it is for)
    "AWS::Kinesis::Stream": ("AWS::Kinesis::ResourcePolicy", "ResourceArn"),
    "AWS::S3::Bucket": ("AWS::S3::BucketPolicy", "Bucket"),
    "AWS::SQS::Queue": ("AWS::SQS::QueuePolicy", "Queues"),
    "AWS::SNS::Topic": ("AWS::SNS::TopicPolicy", "Topics"),
    "AWS::DynamoDB::Table": ("AWS::DynamoDB::Table", ""),
}


@pytest.mark.parametrize("kind", POLICIES)
def test_whatever_holds_data_refuses_requests_without_tls(template: Tree, kind: str) -> None:
    of, name_in = POLICIES[kind]
    policies = resources(template, of)
    for name in resources(template, kind):
        policy = policies[name] if of == kind else None
        for candidate in policies.values():
            if of != kind and f'"{name}"' in json.dumps(properties(candidate)[name_in]):
                policy = candidate
        assert policy is not None, name
        denied = [found for found in mappings(policy) if found.get("Sid") == "OnlyOverTls"]
        assert [(found["Effect"], found["Condition"]) for found in denied] == [
            ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
        ], name


ENCRYPTION = {  # type -> the property that names the key
    "AWS::Kinesis::Stream": "KeyId",
    "AWS::S3::Bucket": "KMSMasterKeyID",
    "AWS::SQS::Queue": "KmsMasterKeyId",
    "AWS::SNS::Topic": "KmsMasterKeyId",
    "AWS::DynamoDB::Table": "KMSMasterKeyId",
    "AWS::Logs::LogGroup": "KmsKeyId",
}


@pytest.mark.parametrize("kind", ENCRYPTION)
def test_whatever_holds_data_is_encrypted_with_the_stacks_key(template: Tree, kind: str) -> None:
    found = resources(template, kind)
    assert found
    for name, resource in found.items():
        keys = [each[ENCRYPTION[kind]] for each in mappings(resource) if ENCRYPTION[kind] in each]
        assert [key["Fn::If"][:2] for key in keys] == [["HasOwnKey", {"Fn::GetAtt": ["Key", "Arn"]}]], name  # type: ignore[index]


def test_a_failed_batch_is_never_discarded(template: Tree) -> None:
    functions = resources(template, "AWS::Serverless::Function")
    source = properties(functions["ProcessorFunction"])["Events"]["Stream"]["Properties"]  # type: ignore[index]
    kept = {"MaximumRetryAttempts": -1, "MaximumRecordAgeInSeconds": -1, "ParallelizationFactor": 1}
    kept |= {"StartingPosition": "TRIM_HORIZON", "FunctionResponseTypes": ["ReportBatchItemFailures"]}
    assert kept.items() <= {name: value for name, value in source.items() if name in kept}.items()


def test_functions_have_a_role_and_a_log_of_their_own(template: Tree) -> None:
    for name, function in resources(template, "AWS::Serverless::Function").items():
        part = name.removesuffix("Function")
        assert properties(function)["Role"] == {"Fn::GetAtt": [f"{part}Role", "Arn"]}
        assert properties(function)["LoggingConfig"] == {"LogGroup": {"Ref": f"{part}Log"}}
        conditions = {"Processor": "LambdaProcesses", "Tick": "LambdaTicks", "Responder": "LambdaResponds"}
        assert function["Condition"] == conditions[part]
    assert all("RetentionInDays" in properties(log) for log in resources(template, "AWS::Logs::LogGroup").values())


def test_a_role_names_its_actions_and_the_resources_of_this_stack(template: Tree) -> None:
    unbound = set()
    for name, role in resources(template, "AWS::IAM::Role").items():
        assert "ManagedPolicyArns" not in properties(role)
        for statement in mappings(properties(role)["Policies"]):
            actions = statement.get("Action", [])
            assert "*" not in json.dumps(actions), f"{name}: {actions}"
            if statement.get("Resource") == "*":
                unbound.add(statement["Sid"])
    # CloudWatch is bound by its namespace.
    assert unbound == {"Trace", "CheckTheEventSource", "Measure", "WriteLogs"}


def test_what_a_target_does_not_take_is_tried_again_and_then_kept(template: Tree) -> None:
    rules = resources(template, "AWS::Events::Rule")
    targets = [target for rule in rules.values() for target in properties(rule)["Targets"]]  # type: ignore[attr-defined]
    assert len(targets) == len(rules) >= 5
    for target in targets:
        assert target["RetryPolicy"].keys() == {"MaximumEventAgeInSeconds", "MaximumRetryAttempts"}
        assert target["DeadLetterConfig"]["Arn"]["Fn::GetAtt"][0].endswith("DeadLetters")


@pytest.mark.parametrize("name", ["Key", "NoticesPolicy"])
def test_eventbridge_is_let_in_without_a_condition_where_it_could_meet_none(template: Tree, name: str) -> None:
    """SNS developer guide, key management: source account and ARN are not supported for EventBridge to SNS."""
    found = [
        each for each in mappings(resource_of(template, name)) if "events.amazonaws.com" in str(each.get("Principal"))
    ]
    assert [each["Effect"] for each in found] == ["Allow"]
    assert all("Condition" not in each for each in found)


def test_each_host_has_what_it_needs_and_nothing_of_the_other(template: Tree) -> None:
    found = template["Resources"]
    assert isinstance(found, dict)
    by_condition: dict[str, set[str]] = {}
    for name, resource in found.items():
        by_condition.setdefault(str(resource.get("Condition")), set()).add(name)
    assert by_condition["KclProcesses"] == {
        "LeaseTable", "CoordinatorTable", "WorkerMetricsTable", "KclRole", "KclInstanceProfile"
    }  # fmt: skip
    assert {name.removeprefix("Processor") for name in by_condition["LambdaProcesses"]} == {
        "Function", "Role", "Log", "DeadLetters", "DeadLettersPolicy"
    }  # fmt: skip
    assert all(name.startswith("Tick") for name in by_condition["LambdaTicks"])
    others = {name for name in by_condition["LambdaResponds"] if not name.startswith("Responder")}
    assert others == {"AlertsTable", "IdempotencyTable"}


def test_the_lease_table_is_as_the_host_would_make_it(template: Tree) -> None:
    table = properties(resources(template, "AWS::DynamoDB::Table")["LeaseTable"])
    assert table["KeySchema"] == [{"AttributeName": "leaseKey", "KeyType": "HASH"}]
    assert [index["IndexName"] for index in table["GlobalSecondaryIndexes"]] == ["LeaseOwnerToLeaseKeyIndex"]  # type: ignore[attr-defined]
    assert {"Key": "streamgauge:stream", "Value": {"Fn::GetAtt": ["Stream", "Arn"]}} in table["Tags"]  # type: ignore[operator]


def test_the_state_bucket_keeps_no_versions_and_expires_nothing(template: Tree) -> None:
    state = json.dumps(resources(template, "AWS::S3::Bucket")["StateBucket"])
    assert "Versioning" not in state and "Expiration" not in state


def literals(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from literals(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from literals(inner)


def test_no_account_region_or_bucket_is_written_into_it(template: Tree) -> None:
    for text in literals(template["Resources"]):
        assert not re.search(r"\b\d{12}\b|\b(us|eu|ap)-[a-z]+-\d\b|arn:aws", text), text
    for bucket in resources(template, "AWS::S3::Bucket").values():
        assert "BucketName" not in bucket["Properties"]  # type: ignore[operator]


def test_the_table_has_the_columns_of_the_archive(template: Tree) -> None:
    hive = {"string": "string", "int64": "bigint", "timestamp[ms, tz=UTC]": "timestamp"}
    catalogue = Catalogue([EventSchema("weather.observation", 1, SCHEMA)])
    archive = {
        field.name: "EventDataType" if field.name == "data" else hive[str(field.type)]
        for field in event_columns(catalogue, "weather.observation")
    }
    table = resources(template, "AWS::Glue::Table")["EventTable"]
    columns = table["Properties"]["TableInput"]["StorageDescriptor"]["Columns"]  # type: ignore[index]
    assert {
        column["Name"]: column["Type"] if isinstance(column["Type"], str) else column["Type"]["Ref"]
        for column in columns
    } == archive


def test_a_schema_becomes_the_hive_type_of_its_parquet_column() -> None:
    assert hive_type(SCHEMA) == (
        "struct<temp:double,count:bigint,ok:boolean,where:struct<site:string>,tags:array<string>>"
    )
    arrow = str(event_columns(Catalogue([EventSchema("w", 1, SCHEMA)]), "w").field("data").type)
    spelled = arrow.replace("int64", "bigint").replace("bool", "boolean").replace("list<item: ", "array<")
    assert spelled.replace(": ", ":").replace(", ", ",").lower() == hive_type(SCHEMA)


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "array"}, {"type": ["string", "integer"]}, {}])
def test_what_no_column_can_hold_is_json_text(schema: dict[str, object]) -> None:
    assert hive_type(schema) == "string"


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [("demo", "streamgauge-demo"), ("My_Pipe.Line", "streamgauge-my-pipe-line"), ("x" * 200, None)],
)
def test_a_stacks_name_is_one_that_cloudformation_takes(pipeline: str, name: str | None) -> None:
    made = stack_name(pipeline)
    assert re.fullmatch(r"[a-zA-Z][-a-zA-Z0-9]{0,99}", made)
    assert name in (None, made)
