"""``streamgauge deploy --live``, with an account that is MiniStack: what is asked, said, made, changed and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from ministack_server import ministack_server

from streamgauge.cli.app import _cli
from streamgauge.cli.commands import deploy
from streamgauge.cli.context import DEMO_PIPELINE
from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.clients import Clients
from streamgauge.infra.packaging.archive import Archived, write_archive
from streamgauge.infra.packaging.lock import Target
from streamgauge.infra.stack_state import find_stack

CODE_BUCKET = "streamgauge-code-000000000000-us-east-1"
# What MiniStack lacks; the functions themselves are not run here.
LACKING = ("--parameter", "StreamPolicy=disabled", "--parameter", "EventArchive=disabled")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    with ministack_server(tmp_path_factory.mktemp("ministack")) as clients:
        yield clients


@pytest.fixture(autouse=True)
def _small_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that is built has tests of its own, and takes a while."""

    def build(pipeline_file: Path, folder: Path, *, target: Target | None, say: Callable[[str], None]) -> Archived:
        assert target is not None
        return write_archive({"pipeline.toml": pipeline_file.read_bytes()}, folder, stem=f"for-{target}", level=6)

    monkeypatch.setattr(deploy, "build_package", build)


def run(clients: Clients, name: str, *arguments: str, answer: str | None = None) -> Result:
    environment = {
        "AWS_ENDPOINT_URL": clients.endpoints.aws,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    command = ["deploy", "--live", "--pipeline", str(DEMO_PIPELINE), "--stack", name, *LACKING, *arguments]
    return CliRunner(env=environment).invoke(_cli, command, input=answer, standalone_mode=False)


def ok(clients: Clients, name: str, *arguments: str, answer: str | None = None) -> Result:
    done = run(clients, name, *arguments, answer=answer)
    assert done.exception is None, done.stderr
    assert not done.return_value
    return done


def test_a_dry_run_says_what_would_be_made_and_makes_no_stack(clients: Clients) -> None:
    done = ok(clients, "dry", "--dry-run")
    assert "create Stream (AWS::Kinesis::Stream)" in done.stderr
    assert "create ProcessorFunction (AWS::Lambda::Function)" in done.stderr
    assert "a dry run: nothing was changed" in done.stderr
    assert find_stack(clients.cloudformation, "dry") is None


def test_whoever_says_no_gets_no_stack(clients: Clients) -> None:
    done = run(clients, "no", answer="n\n")
    assert type(done.exception).__name__ == "Abort"
    assert "Carry this out?" in done.stderr
    assert find_stack(clients.cloudformation, "no") is None


def test_a_stack_is_made_changed_left_alone_and_deleted_but_for_its_data(clients: Clients) -> None:
    made = json.loads(ok(clients, "whole", "--shards", "2", "--tag", "team=one", "--yes", "--json").stdout)
    assert made["outputs"]["StreamName"] == "observations"
    stack = find_stack(clients.cloudformation, "whole")
    assert stack is not None
    tags = {tag["Key"]: tag["Value"] for tag in stack["Tags"]}
    assert tags == {"team": "one", "streamgauge:pipeline": "demo"}
    function = clients.functions.get_function_configuration(FunctionName=made["outputs"]["ProcessorFunctionName"])
    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])
    assert clients.s3.list_objects_v2(Bucket=CODE_BUCKET)["KeyCount"] >= 1

    again = ok(clients, "whole", "--tag", "team=one", "--yes")
    assert "is as it should be: nothing changes" in again.stderr

    changed = ok(clients, "whole", "--parameter", "RetentionHours=48", "--tag", "team=one", answer="y\n")
    assert "change Stream (AWS::Kinesis::Stream): RetentionPeriodHours" in changed.stderr
    assert "whole: update complete" in changed.stderr
    parameters = (find_stack(clients.cloudformation, "whole") or {}).get("Parameters", [])
    values = {each["ParameterKey"]: each["ParameterValue"] for each in parameters}
    assert (values["ShardCount"], values["RetentionHours"]) == ("2", "48")

    dry = ok(clients, "whole", "--delete", "--dry-run")
    assert f"Stream (AWS::Kinesis::Stream): {made['outputs']['StreamName']}" in dry.stderr
    deleted = json.loads(ok(clients, "whole", "--delete", "--yes", "--json").stdout)
    kept = {line.split(" ")[0] for line in deleted["kept"]}
    assert {"Stream", "ArchiveBucket", "StateBucket", "StateTable"} <= kept
    assert find_stack(clients.cloudformation, "whole") is None
    buckets = [each["Name"] for each in clients.s3.list_buckets()["Buckets"]]
    assert made["outputs"]["ArchiveBucketName"] in buckets


def test_the_bucket_for_packages_is_private_and_reached_over_tls_alone(clients: Clients) -> None:
    ok(clients, "bucket", "--code-bucket", "our-code", "--yes")
    blocked = clients.s3.get_public_access_block(Bucket="our-code")["PublicAccessBlockConfiguration"]
    assert all(blocked.values())
    policy = json.loads(clients.s3.get_bucket_policy(Bucket="our-code")["Policy"])
    assert policy["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--parameter", "ShardCount"], "'ShardCount' is not KEY=VALUE"),
        (["--tag", "=x"], "'=x' is not KEY=VALUE"),
        (["--parameter", "ShardCount=many", "--yes"], "ShardCount"),
        (["--parameter", "FunctionMemory=12", "--yes"], "FunctionMemory"),
    ],
)
def test_wrong_arguments_are_one_clear_error(clients: Clients, arguments: list[str], said: str) -> None:
    done = run(clients, "wrong", *arguments)
    assert done.exception is not None
    assert said in str(done.exception)
    assert find_stack(clients.cloudformation, "wrong") is None


def test_deleting_what_is_not_there_is_one_clear_error(clients: Clients) -> None:
    done = run(clients, "nowhere", "--delete", "--yes")
    assert isinstance(done.exception, StreamgaugeError)
    assert "stack nowhere" in str(done.exception)
