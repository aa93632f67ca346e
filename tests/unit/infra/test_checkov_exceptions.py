"""What `make lint` makes of checkov's report."""

from __future__ import annotations

import pytest
from checkov_exceptions import EXCEPTIONS, complaints, everything, findings
from template_tree import Tree, resources, written

REPORT = {
    "results": {
        "passed_checks": [{"check_id": "CKV_1"}],
        "failed_checks": [
            {"check_id": "CKV_2", "resource": "AWS::S3::Bucket.StateBucket", "check_name": "Ensure versions"},
        ],
        "parsing_errors": [],
    }
}


def test_a_finding_needs_an_exception_and_an_exception_a_finding() -> None:
    found = findings(REPORT)
    assert found == {("CKV_2", "StateBucket"): "Ensure versions"}
    assert complaints(found, {("CKV_2", "StateBucket"): "because"}) == []
    assert complaints(found, {}) == ["CKV_2 StateBucket: Ensure versions"]
    assert complaints({}, {("CKV_2", "StateBucket"): "because"}) == [
        "CKV_2 StateBucket: nothing is found there any more"
    ]
    assert complaints(found, {("CKV_2", "ArchiveBucket"): "because"}) == [
        "CKV_2 ArchiveBucket: nothing is found there any more",
        "CKV_2 StateBucket: Ensure versions",
    ]


@pytest.mark.parametrize("broken", [{"passed_checks": []}, {"parsing_errors": ["template.json"]}])
def test_a_report_about_nothing_is_none(broken: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        findings({"results": {**REPORT["results"], **broken}})


def test_each_exception_is_of_a_resource_and_has_a_reason() -> None:
    names = written()["Resources"].keys()  # type: ignore[attr-defined]
    assert {name for _, name in EXCEPTIONS} <= names
    assert all(reason.endswith(".") for reason in EXCEPTIONS.values())


def test_every_resource_is_checked_with_its_conditions_met() -> None:
    tree: Tree = {
        "Conditions": {"IsLocal": True},
        "Parameters": {"Name": {}},
        "Resources": {
            "A": {
                "Type": "AWS::S3::Bucket",
                "Condition": "IsLocal",
                "Properties": {
                    "Key": {"Fn::If": ["HasOwnKey", {"Fn::If": ["Is", "x", "y"]}, "z"]},
                    "Gone": {"Fn::If": ["HasNone", {"Ref": "AWS::NoValue"}, "z"]},
                    "List": [{"Ref": "AWS::NoValue"}, {"Ref": "A"}],
                },
            }
        },
    }
    assert everything(tree) == {
        "Parameters": {"Name": {}},
        "Resources": {"A": {"Type": "AWS::S3::Bucket", "Properties": {"Key": "x", "List": [{"Ref": "A"}]}}},
    }
    assert resources(everything(written()), "AWS::Kinesis::Stream")
