"""What docs/deploy.md tells to type exists: commands, options, parameters, calls of AWS, and what is kept."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import botocore.session
import click
import pytest
from botocore import xform_name
from template_tree import written

PAGE = (Path(__file__).parents[3] / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [shlex.split(line) for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
OURS = [line for line in LINES if line[0] == "streamgauge"]
OF_AWS = [line for line in LINES if line[0] == "aws" and line[1] != "s3"]


def test_the_commands_are_found() -> None:
    assert len(OURS) >= 7 and len(OF_AWS) >= 5
    assert {line[0] for line in LINES} == {"streamgauge", "aws", "sam"}


@pytest.mark.parametrize("line", OURS, ids=" ".join)
def test_our_commands_take_their_options(line: list[str]) -> None:
    command: click.Command = import_module(f"streamgauge.cli.commands.{line[1]}").command
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in line[2:] if word.startswith("--")} <= options


@pytest.mark.parametrize("line", OF_AWS, ids=" ".join)
def test_calls_of_aws_are_as_botocore_knows_them(line: list[str]) -> None:
    model = botocore.session.get_session().get_service_model(line[1])
    (operation,) = [name for name in model.operation_names if xform_name(name, "-") == line[2]]
    taken = {f"--{xform_name(name, '-')}" for name in model.operation_model(operation).input_shape.members}
    assert {word for word in line[3:] if word.startswith("--")} <= taken


def test_parameters_and_their_values_are_the_templates() -> None:
    parameters = written()["Parameters"]
    assert isinstance(parameters, dict)
    named = re.findall(r"\b([A-Z][A-Za-z]+)=([^\s`;)]+)", PAGE)
    assert len(named) >= 6
    for name, value in named:
        allowed = parameters[name].get("AllowedValues")
        assert allowed is None or value in map(str, allowed), (name, value)


def test_what_deletion_keeps_is_what_the_template_retains() -> None:
    resources = written()["Resources"]
    assert isinstance(resources, dict)
    kept = {name for name, each in resources.items() if each.get("DeletionPolicy") == "RetainExceptOnCreate"}
    sentence = PAGE[PAGE.index("says what is kept") : PAGE.index("Kinesis goes on costing")]
    assert set(re.findall(r"`(\w+)`", sentence)) == kept
