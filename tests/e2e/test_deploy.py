"""``streamgauge deploy`` on the local stack: a changed pipeline and more shards, while it runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from cli_runner import Cli

from streamgauge.cli.context import DEMO_PIPELINE

pytestmark = pytest.mark.e2e

DEADLINE_S = 90.0
RULE = """
[[threshold]]
name = "any_wind"
aggregate = "wind"
raise_when = "gust_max > 0"
"""
RAISED = "SELECT count(*) AS n FROM streamgauge_threshold_events WHERE rule = 'any_wind'"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    shutil.copytree(DEMO_PIPELINE.parent, tmp_path / "pipeline")
    cli = Cli(tmp_path)
    cli.ok("up", "--detach", "--pipeline", "pipeline/pipeline.toml")
    yield cli
    cli.ok("down")


def test_a_changed_pipeline_and_more_shards_are_deployed_while_the_stack_runs(cli: Cli) -> None:
    assert "is as it should be: nothing changes" in cli.ok("deploy").err
    cli.ok("produce", "--rate", "100", "--duration", "1s")

    with (cli.folder / "pipeline" / "pipeline.toml").open("a") as file:
        file.write(RULE)
    planned = cli.ok("deploy", "--shards", "2", "--dry-run", "--json").json
    assert isinstance(planned, dict)
    assert any(change.startswith("change ProcessorFunction (") and "Code" in change for change in planned["changes"])
    assert any(change.startswith("change Stream (") and "ShardCount" in change for change in planned["changes"])
    assert len(shards(cli)) == 1

    cli.ok("deploy", "--shards", "2")
    assert [shard["state"] for shard in shards(cli)].count("open") == 2
    cli.ok("produce", "--rate", "100", "--duration", "2s")
    until = monotonic() + DEADLINE_S
    while raised(cli) == 0:
        assert monotonic() < until, f"the new rule has raised nothing\n{cli.logs()}"
        sleep(1)
    audited = cli("audit", "--wait", "60s")
    assert audited.status == 0, audited.out + audited.err


def shards(cli: Cli) -> list[dict[str, object]]:
    found = cli.ok("lag", "--json").json
    assert isinstance(found, dict)
    return list(found["shards"])


def raised(cli: Cli) -> int:
    done = cli("query", RAISED, "--json")
    # There is no such table before the first of them.
    return 0 if done.status else int(done.json[0]["n"])  # type: ignore[index]
