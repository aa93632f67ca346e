"""``streamgauge demo --chaos``: killed, resharded, left without answers, and the audit passes."""

from __future__ import annotations

import shutil

import pytest
from cli_runner import Cli

from streamgauge.cli.context import DEMO_PIPELINE

KILLED = {"lambda": "the functions' processes were", "local": "the processor was"}


@pytest.mark.parametrize("host", ["lambda", "local"])
def test_a_demo_under_chaos_counts_every_event_once_and_says_what_it_withstood(cli: Cli, host: str) -> None:
    shutil.copytree(DEMO_PIPELINE.parent, cli.folder / "demo")
    load = cli.folder / "demo" / "load.toml"
    load.write_text(load.read_text().replace('duration = "45s"', 'duration = "16s"'))
    done = cli.ok("demo", "--chaos", "--host", host, "--pipeline", "demo/pipeline.toml", "--rate", "600", "--json")
    result = done.json
    assert isinstance(result, dict)
    assert result["audit"] == "pass"
    assert result["aggregated"] + result["late"] == result["produced"] == result["archived_unique"]
    assert result["threshold_events_received"] == result["threshold_events_raised"] + result["threshold_events_cleared"]
    chaos = result["chaos"]
    assert chaos["processor_killed"] >= 1
    assert chaos["shards_split"] >= 1
    assert chaos["answers_lost"] > 0
    # Whole aggregates came again for each lost answer, beyond what the load generator doubles by itself.
    assert chaos["duplicates_in_window"] > result["duplicates_injected"]
    assert chaos["accepted"] == result["produced"]
    assert result["archived"] == chaos["accepted"] + chaos["duplicates_in_window"] + chaos["duplicates_below_window"]
    assert f"chaos: {KILLED[host]} killed (kill -9)" in done.err
    assert "was split under load" in done.err


def test_a_short_input_is_killed_at_least_once_and_shown_as_tables(cli: Cli) -> None:
    rows = "".join(f'{{"device": "d{n % 3}", "at": "2026-01-01T00:{n % 60:02}:00Z", "v": {n}}}\n' for n in range(300))
    (cli.folder / "rows.ndjson").write_text(rows)
    done = cli.ok("demo", "--chaos", "--from-file", "rows.ndjson")
    assert "PASS" in done.out
    assert "what each protection took care of" in done.out
    assert f"{KILLED['lambda']} killed (kill -9)" in done.err
    assert "without them" in done.err
