"""The template as tests look at it: as it is written, and as SAM and CloudFormation make resources of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from cfnlint.api import lint_all
from cfnlint.decode import cfn_yaml
from samtranslator.translator.managed_policy_translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform

from streamgauge.infra.deployment import template_text

Tree = dict[str, object]


def written() -> Tree:
    """The template as it is written."""
    # Through JSON: the linter's nodes carry their places in the file.
    decoded: Tree = json.loads(json.dumps(cfn_yaml.loads(template_text())))
    return decoded


def transformed() -> Tree:
    """What SAM makes of the template. It asks boto3 for the region."""
    parameters = {"PipelineName": "demo", "CodeBucket": "a-bucket", "CodeKey": "a-key"}
    made: Tree = transform(written(), parameters, ManagedPolicyLoader(None))
    made.pop("Transform", None)
    return made


def findings(text: str) -> list[str]:
    """Errors and warnings, as ``cfn-lint`` itself reports without being asked for more."""
    return [str(match) for match in lint_all(text) if match.rule.id[0] in "EW"]


def resources(template: Tree, kind: str) -> dict[str, Tree]:
    """The resources of a type, by logical id."""
    found = template["Resources"]
    assert isinstance(found, dict)
    return {name: resource for name, resource in found.items() if resource["Type"] == kind}


def resource_of(template: Tree, name: str) -> Tree:
    """The resource with a logical id."""
    found = template["Resources"]
    assert isinstance(found, dict)
    resource: Tree = found[name]
    return resource


def properties(resource: Tree) -> Tree:
    """The properties of a resource."""
    found = resource["Properties"]
    assert isinstance(found, dict)
    return found


def mappings(value: object) -> Iterator[Mapping[str, object]]:
    """Every mapping in a tree, the outer ones first."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from mappings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from mappings(inner)
