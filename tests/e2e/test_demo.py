"""``streamgauge demo`` as it comes, and with a file that nobody described."""

from __future__ import annotations

import pytest
from cli_runner import DATA, Cli


def test_the_demo_as_it_comes_holds_its_audit_and_stops_its_stack(cli: Cli) -> None:
    done = cli.ok("demo", "--rate", "1500", "--json")
    result = done.json
    assert isinstance(result, dict)
    assert result["audit"] == "pass"
    assert result["duplicates_injected"] > 0
    assert result["malformed"] == result["failed"] > 0
    assert result["late"] > 0
    assert result["aggregated"] + result["late"] == result["produced"] == result["archived_unique"]
    assert result["archived"] == result["produced"] + result["duplicates_injected"]
    assert result["threshold_events_raised"] > 0
    assert result["threshold_events_cleared"] > 0
    assert result["threshold_events_received"] == result["threshold_events_raised"] + result["threshold_events_cleared"]
    assert "streamgauge up --detach" in done.err
    assert 'streamgauge query "' in done.err
    assert "streamgauge results wind" in done.err
    assert "no stack" in cli.ok("down").err


def test_a_file_that_nobody_described_is_inferred_and_shown(cli: Cli) -> None:
    done = cli.ok("demo", "--from-file", str(DATA / "weather-sample.csv"))
    assert "The event time is 'time_hour'" in done.err
    assert "PASS" in done.out


@pytest.mark.parametrize(("order", "host"), [("file", "local"), ("time", "lambda")])
def test_rows_that_are_none_are_counted_and_the_rest_goes_on(cli: Cli, order: str, host: str) -> None:
    (cli.folder / "rows.ndjson").write_text(
        '{"device": "a", "at": "2026-01-01T00:00:00Z", "v": 1}\n'
        '{"device": "a", "at": "2026-01-01T01:00:00Z", "v": 2}\n'
        "{broken\n"
        '{"device": "b", "at": "2026-01-01T00:30:00Z", "v": null}\n'
    )
    done = cli.ok("demo", "--from-file", "rows.ndjson", "--order", order, "--host", host, "--shards", "1", "--json")
    result = done.json
    assert isinstance(result, dict)
    assert (result["produced"], result["malformed"], result["audit"]) == (3, 1, "pass")
    assert result["aggregated"] + result["late"] == 3
    assert "line 3" in done.err
