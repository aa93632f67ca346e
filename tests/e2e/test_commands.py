"""The commands one by one against a stack that runs, and what each says when something is wrong."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from cli_runner import DATA, Cli

from streamgauge.infra.local.stack import load_stack


@pytest.fixture(scope="module")
def running(module_cli: Cli) -> Iterator[Cli]:
    """A stack with two thousand events produced and processed."""
    module_cli.ok("up", "--detach", "--host", "local", "--shards", "2")
    produced = module_cli.ok("produce", "--count", "2000", "--rate", "1000", "--end-of-input", "--json").json
    assert isinstance(produced, dict)
    assert produced["produced"] == produced["acknowledged"] == 2000
    assert produced["duplicates_injected"] > 0
    processed = module_cli.ok("process", "--until-end-of-input", "--json").json
    assert isinstance(processed, dict)
    assert [shard["input_ended"] for shard in processed["shards"]] == [True, True]
    assert all(shard["snapshot_bytes"] > 0 and shard["committed_at"].endswith("Z") for shard in processed["shards"])
    yield module_cli
    assert module_cli("down").status == 0


def test_the_audit_passes_and_names_its_checks(running: Cli) -> None:
    found = running.ok("audit", "--json").json
    assert isinstance(found, dict)
    assert found["audit"] == "pass"
    assert {"name", "scope", "expected", "found", "missing", "doubled"} == set(found["checks"][0])
    assert "PASS" in running.ok("audit").out


def test_results_and_query_agree(running: Cli) -> None:
    panes = running.ok("results", "wind", "--json").json
    assert isinstance(panes, list)
    counted = sum(pane["measures"]["observations"] for pane in panes)
    rows = running.ok(
        "query",
        """
        SELECT count(DISTINCT (source, sequence)) - (SELECT count(*) FROM streamgauge_late_events) AS n
        FROM weather_observation
        """,
        "--json",
    ).json
    assert rows == [{"n": counted}]
    assert set(panes[0]) == {"aggregate", "key", "window_start", "window_end", "revision", "measures"}
    assert panes[0]["window_start"].endswith("Z")


def test_open_windows_are_shown_only_when_asked_for(running: Cli) -> None:
    closed = running.ok("results", "wind", "--json").json
    both = running.ok("results", "wind", "--open", "--json").json
    assert isinstance(closed, list)
    assert isinstance(both, list)
    assert len(both) >= len(closed)


def test_failed_events_are_stored_with_their_reasons(running: Cli) -> None:
    rows = running.ok("query", "SELECT reason, count(*) AS n FROM streamgauge_failed_events GROUP BY 1", "--json").json
    assert isinstance(rows, list)
    assert {row["reason"] for row in rows} <= {"malformed_json", "envelope", "data", "unknown_type", "time", "key"}


def test_bad_sql_is_answered_with_its_place(running: Cli) -> None:
    done = running("query", "SELECT\n  nothing FROM weather_observation")
    assert done.status == 1
    assert "line 2" in done.err
    assert "nothing" in done.err


def test_sql_cannot_read_the_machines_files(running: Cli) -> None:
    done = running("query", "SELECT * FROM read_csv('/etc/passwd')")
    assert done.status == 1
    assert "root" not in done.out


def test_an_unknown_aggregate_is_named(running: Cli) -> None:
    done = running("results", "winds")
    assert done.status == 1
    assert "Did you mean wind?" in done.err


def test_a_second_stack_and_a_demo_are_refused_while_one_runs(running: Cli) -> None:
    for command in (["up", "--detach"], ["demo"]):
        done = running(*command)
        assert done.status == 1
        assert "streamgauge down" in done.err


def test_a_file_can_be_put_into_the_running_stream(running: Cli) -> None:
    (running.folder / "rows.csv").write_text(
        "station,at,wind_speed\nA,2026-01-01T00:00:00Z,3.5\nB,2026-01-01T00:00:01Z\nA,never,1\n"
    )
    done = running.ok(
        "produce", "--from-file", "rows.csv", "--key", "station", "--time", "at", "--data", "wind_speed", "--json"
    )
    summary = done.json
    assert isinstance(summary, dict)
    assert (summary["produced"], summary["malformed"]) == (1, {"row": 2})
    assert "line 3: too short" in done.err
    assert "line 4: at" in done.err


def test_ctrl_c_flushes_what_was_produced_and_commits_what_was_processed(running: Cli) -> None:
    produced = running.interrupted("produce", "--duration", "10m", "--json", once="produced")
    assert produced.status == 0
    summary = produced.json
    assert isinstance(summary, dict)
    assert summary["stopped"]
    assert summary["produced"] == summary["acknowledged"] > 0
    processed = running.interrupted("process", "--json", once="processed")
    assert processed.status == 0
    assert isinstance(processed.json, dict)
    assert "committing" in processed.err


def test_the_audit_fails_when_a_parquet_object_is_gone(running: Cli) -> None:
    """Last of its stack: what it takes away is not put back."""
    info = load_stack(running.folder)
    s3 = boto3.client(
        "s3", endpoint_url=info.aws_url, region_name=info.region, aws_access_key_id="test", aws_secret_access_key="test"
    )
    bucket = info.outputs["ArchiveBucketName"]
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="type=weather.observation/")["Contents"]
    s3.delete_object(Bucket=bucket, Key=listed[0]["Key"])
    done = running("audit", "--json", "--wait", "1s")
    assert done.status == 3
    found = done.json
    assert isinstance(found, dict)
    assert found["audit"] == "fail"
    assert any(check["missing"] for check in found["checks"])


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["produce"], 1, "streamgauge up"),
        (["results", "wind"], 1, "streamgauge up"),
        (["produce", "--raw"], 2, "--from-file"),
        (["demo", "--from-file", "missing.csv"], 1, "missing.csv"),
        (["demo", "--from-file", "empty.csv"], 1, "empty"),
        (["demo", "--pipeline", "bad.toml"], 1, "bad.toml"),
        (["demo", "--shards", "0"], 2, "--shards"),
        (["up", "--pipeline", "missing.toml"], 1, "no such file"),
        (["process", "--live"], 2, "--stack"),
        (["process", "--lease", "soon"], 2, "--lease"),
        (["process", "--lease", "10ms"], 2, "less than 1s"),
        (["init", "1bad", "--sample", "rows.csv"], 2, "name"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_wrong_use_is_one_clear_message(cli: Cli, arguments: list[str], status: int, said: str) -> None:
    (cli.folder / "empty.csv").touch()
    (cli.folder / "bad.toml").write_text("[pipeline]\nname = 'x'\nnam = 3\n")
    done = cli(*arguments)
    assert done.status == status
    assert said in done.err
    assert not done.out


def test_a_port_that_is_taken_is_said(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("up", "--detach", "--port", str(port))
    assert done.status == 1
    assert str(port) in done.err
    assert not (cli.folder / ".streamgauge" / "stack.json").exists()


def test_down_without_a_stack_is_no_error(cli: Cli) -> None:
    assert "no stack" in cli.ok("down").err


def test_own_data_in_three_commands(cli: Cli) -> None:
    sample = Path(DATA / "weather-sample.csv")
    done = cli.ok("init", "mine", "--sample", str(sample))
    assert "time_hour" in done.err
    assert "origin" in done.err
    again = cli("init", "mine", "--sample", str(sample))
    assert again.status == 1
    assert "not overwritten" in again.err
    cli.ok("up", "--detach", "--host", "local", "--pipeline", "mine/pipeline.toml")
    cli.ok("produce", "--count", "500", "--end-of-input")
    cli.ok("process", "--until-end-of-input")
    panes = cli.ok("results", "overview", "--json").json
    assert isinstance(panes, list)
    assert sum(pane["measures"]["events"] for pane in panes) == 500
    cli.ok("audit")
