"""A stack whose own functions process the stream: what its owner sees, and that nothing of it is left behind."""

from __future__ import annotations

from time import monotonic, sleep

import psutil
import pytest
from cli_runner import Cli

from streamgauge.infra.local.functions import temporary_folder
from streamgauge.infra.local.stack import load_stack


@pytest.fixture(scope="module")
def running(module_cli: Cli) -> Cli:
    said = module_cli.ok("up", "--detach").err
    assert "ProcessorFunction" in said
    return module_cli


def processes_of(cli: Cli) -> list[psutil.Process]:
    """Every process that has the home of the stack in its command line or its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(str(cli.folder) in each for each in told) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_what_is_produced_is_processed_without_further_ado(running: Cli) -> None:
    running.ok("produce", "--count", "1000", "--rate", "1000", "--json")
    until = monotonic() + 120
    while True:
        panes = running.ok("results", "wind", "--open", "--json").json
        assert isinstance(panes, list)
        rows = running.ok("query", "SELECT count(*) AS n FROM streamgauge_late_events", "--json").json
        assert isinstance(rows, list)
        if sum(pane["measures"]["observations"] for pane in panes) + rows[0]["n"] >= 1000:
            break
        assert monotonic() < until, running.logs()
        sleep(0.5)
    assert running.ok("audit", "--json", "--wait", "60s").status == 0


def test_idle_time_passes_so_that_the_last_windows_close(running: Cli) -> None:
    until = monotonic() + 120
    while running.ok("results", "wind", "--open", "--json").json != running.ok("results", "wind", "--json").json:
        assert monotonic() < until, running.logs()
        sleep(0.5)


def test_a_second_host_beside_the_functions_is_refused_and_told_what_to_do(running: Cli) -> None:
    done = running("process")
    assert done.status == 1
    assert "ProcessorFunction" in done.err
    assert "--host local" in done.err
    assert "--beside-functions" in done.err


def test_down_leaves_no_process_behind(running: Cli) -> None:
    info = load_stack(running.folder)
    assert [process.name for process in info.processes] == ["ministack", "kinesis", "deliver", "event_source"]
    root = str(temporary_folder(info.folder))
    assert any(root in each for process in processes_of(running) for each in process.cmdline())
    assert running("down").status == 0
    assert processes_of(running) == []
