from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from cfnlint.api import lint_all
from cfnlint.decode import cfn_yaml
from samtranslator.translator.managed_policy_translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.infra.deployment import stack_name, template_text
from streamgauge.infra.hive_types import hive_type
from streamgauge.sinks.archive.columns import event_columns

Tree = dict[str, object]
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
}  # fmt: skip


@pytest.fixture(scope="module")
def template() -> Tree:
    # Through JSON: the linter's nodes carry their places in the file.
    decoded: Tree = json.loads(json.dumps(cfn_yaml.loads(template_text())))
    return decoded


def resources(template: Tree, kind: str) -> dict[str, Tree]:
    found = template["Resources"]
    assert isinstance(found, dict)
    return {name: resource for name, resource in found.items() if resource["Type"] == kind}


def findings(text: str) -> list[str]:
    """Errors and warnings, as ``cfn-lint`` itself reports without being asked for more."""
    return [str(match) for match in lint_all(text) if match.rule.id[0] in "EW"]


def test_the_linter_has_nothing_to_say() -> None:
    assert findings(template_text()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nor_has_it_of_what_sam_makes_of_the_template(template: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    parameters = {"PipelineName": "demo"}
    made = transform(json.loads(json.dumps(template)), parameters, ManagedPolicyLoader(None))
    made.pop("Transform", None)
    assert made["Resources"].keys() == template["Resources"].keys()  # type: ignore[attr-defined]
    assert findings(json.dumps(made)) == []


def test_the_linter_would_find_a_mistake() -> None:
    assert findings(template_text().replace("PAY_PER_REQUEST", "PAY_PER_REQUESTS"))


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
    assert kept == {"Stream", "ArchiveBucket", "StateBucket", "StateTable"}


def test_no_bucket_is_public_unencrypted_or_reached_without_tls(template: Tree) -> None:
    buckets = resources(template, "AWS::S3::Bucket")
    assert len(buckets) == 2
    for bucket in buckets.values():
        properties = bucket["Properties"]
        assert isinstance(properties, dict)
        assert properties["PublicAccessBlockConfiguration"] == dict.fromkeys(
            ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"], True
        )
        assert "BucketEncryption" in properties
    text = {name: json.dumps(policy) for name, policy in resources(template, "AWS::S3::BucketPolicy").items()}
    text |= {name: json.dumps(policy) for name, policy in resources(template, "AWS::SQS::QueuePolicy").items()}
    assert len(text) == 4
    for policy in text.values():
        assert '"Effect": "Deny"' in policy and '"aws:SecureTransport": "false"' in policy


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
