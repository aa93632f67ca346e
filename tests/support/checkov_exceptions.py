"""checkov's built-in checks on the template as SAM makes it, and the findings that we live with.

``python tests/support/checkov_exceptions.py CHECKOV``, as ``make lint`` does. checkov pins a boto3 that is not ours, so
it lives in an environment of its own. Exit 1 for a finding that stands in no exception, or an exception that nothing
needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from template_tree import Tree, transformed

_OWN_LOG = "CloudTrail's data events tell who read what, and need no bucket for logs of a bucket."
_POINTS_AT_OBJECTS = "Rows of the past would point at snapshots that are gone."
_COPY = "What it holds is elsewhere too, and is written anew from there."
_DESTINATION = "What fails goes to a destination (SQS), which the check does not know."
_NO_NETWORK = "It calls AWS alone. A VPC would add endpoints to pay for, and protect nothing."

EXCEPTIONS: Mapping[tuple[str, str], str] = {
    ("CKV_AWS_33", "Key"): "As in the key that AWS keeps for DynamoDB: bound to the account, and to DynamoDB.",
    ("CKV_AWS_18", "ArchiveBucket"): _OWN_LOG,
    ("CKV_AWS_18", "StateBucket"): _OWN_LOG,
    ("CKV_AWS_21", "StateBucket"): "A version a commit would cost a copy of the state a second.",
    ("CKV_AWS_28", "StateTable"): _POINTS_AT_OBJECTS,
    ("CKV_AWS_28", "PanesTable"): _COPY,
    ("CKV_AWS_28", "AlertsTable"): _COPY,
    ("CKV_AWS_28", "IdempotencyTable"): "What it held yesterday would keep nobody from acting twice today.",
    ("CKV_AWS_28", "LeaseTable"): _COPY,
    ("CKV_AWS_28", "CoordinatorTable"): _COPY,
    ("CKV_AWS_28", "WorkerMetricsTable"): _COPY,
    ("CKV_AWS_116", "ProcessorFunction"): _DESTINATION,
    ("CKV_AWS_116", "TickFunction"): _DESTINATION,
    ("CKV_AWS_116", "ResponderFunction"): _DESTINATION,
    ("CKV_AWS_117", "ProcessorFunction"): _NO_NETWORK,
    ("CKV_AWS_117", "TickFunction"): _NO_NETWORK,
    ("CKV_AWS_117", "ResponderFunction"): _NO_NETWORK,
    ("CKV_AWS_115", "TickFunction"): "Called once a minute; a new account has no concurrency to reserve.",
    ("CKV_AWS_115", "ResponderFunction"): "Called once a threshold event; a new account has no concurrency to reserve.",
}
"""(check, logical id) -> why the finding stays."""

_SETTINGS = {"LOG_LEVEL": "ERROR", "CHECKOV_RUN_SCA_PACKAGE_SCAN": "false", "ANSI_COLORS_DISABLED": "1"}


def everything(tree: Tree) -> Tree:
    """The template with all of its resources, each condition being met: checkov leaves out what defaults leave out."""
    resources = tree["Resources"]
    assert isinstance(resources, dict)
    kept = {
        name: {key: value for key, value in resource.items() if key != "Condition"}
        for name, resource in resources.items()
    }
    left_out = ("Conditions", "Rules", "Outputs")
    return {**{key: value for key, value in tree.items() if key not in left_out}, "Resources": _met(kept)}


def findings(report: Mapping[str, object]) -> dict[tuple[str, str], str]:
    """(check, logical id) -> what checkov says, of its JSON report."""
    results = report["results"]
    assert isinstance(results, dict)
    assert results["passed_checks"], "checkov has checked nothing"
    assert not results["parsing_errors"], results["parsing_errors"]
    return {
        (failed["check_id"], failed["resource"].rpartition(".")[2]): failed["check_name"]
        for failed in results["failed_checks"]
    }


def complaints(found: Mapping[tuple[str, str], str], exceptions: Mapping[tuple[str, str], str]) -> list[str]:
    """A line for each finding without an exception, and for each exception without a finding."""
    lines = [f"{check} {name}: {said}" for (check, name), said in found.items() if (check, name) not in exceptions]
    lines += [f"{check} {name}: nothing is found there any more" for check, name in exceptions.keys() - found.keys()]
    return sorted(lines)


def main(checkov: str) -> int:
    """Check the template with the program at a path."""
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "template.json"
        file.write_text(json.dumps(everything(transformed()), indent=1))
        command = [checkov, "--file", str(file), "--framework", "cloudformation", "--skip-download", "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **_SETTINGS})
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.stderr.write(f"checkov has no report:\n{done.stdout}{done.stderr}\n")
        return 1
    found = complaints(findings(report), EXCEPTIONS)
    sys.stderr.writelines(f"checkov: {line}\n" for line in found)
    return 1 if found else 0


def _met(value: object) -> object:
    nothing = {"Ref": "AWS::NoValue"}
    if isinstance(value, dict):
        if value.keys() == {"Fn::If"}:
            return _met(value["Fn::If"][1])
        met = {key: _met(inner) for key, inner in value.items()}
        return {key: inner for key, inner in met.items() if inner != nothing}
    if isinstance(value, list):
        return [inner for inner in map(_met, value) if inner != nothing]
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
