"""A stack whose own functions process the stream: what its owner sees, and that nothing of it is left behind."""

from __future__ import annotations

from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest
from cli_runner import Cli

from streamgauge.cli.context import DEMO_PIPELINE, Workplace
from streamgauge.cli.demo_run import Demo
from streamgauge.cli.function_watch import FunctionWatch
from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.clients import Clients
from streamgauge.infra.local.functions import temporary_folder
from streamgauge.infra.local.stack import load_stack
from streamgauge.processors.hosts.pipeline_file import load_pipeline


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


def test_a_demo_whose_functions_fail_says_what_they_said(running: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    info = load_stack(running.folder)
    place = Workplace(Clients(info.endpoints, region=info.region), info.outputs, DEMO_PIPELINE)
    function = place.output("ProcessorFunctionName")
    configured = place.clients.functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
    broken = {name: value for name, value in configured.items() if name != "STREAMGAUGE_STATE_TABLE"}
    pipeline = load_pipeline(DEMO_PIPELINE)
    watch = FunctionWatch(place, pipeline)
    place.clients.functions.update_function_configuration(FunctionName=function, Environment={"Variables": broken})
    try:
        running.ok("produce", "--count", "100", "--rate", "1000")
        until = monotonic() + 60
        while watch.error() is None:
            assert monotonic() < until, running.logs()
            sleep(0.5)
        monkeypatch.setattr("streamgauge.cli.demo_run._PROCESS_DEADLINE_S", 0.5)
        monkeypatch.setattr("streamgauge.cli.function_watch._TROUBLE_AFTER_S", 0.0)
        shown: list[str] = []
        with pytest.raises(StreamgaugeError, match=r"not set: STREAMGAUGE_STATE_TABLE\. Deploy") as failed:
            Demo(info, pipeline, place, functions=watch).wait_for_processor(shown.append)
        assert "event_source.log" in str(failed.value)
        assert "trouble: " + function in shown[0]
    finally:
        place.clients.functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": configured}
        )


def test_down_leaves_no_process_behind(running: Cli) -> None:
    info = load_stack(running.folder)
    assert [process.name for process in info.processes] == ["ministack", "kinesis", "deliver", "event_source"]
    root = str(temporary_folder(info.folder))
    assert any(root in each for process in processes_of(running) for each in process.cmdline())
    assert running("down").status == 0
    assert processes_of(running) == []


def test_ctrl_c_leaves_no_process_behind(cli: Cli) -> None:
    done = cli.interrupted("up", "--no-ticks", once="stop it with Ctrl-C")
    assert done.status == 0
    assert "stopped" in done.err
    assert processes_of(cli) == []


def test_the_package_can_be_built_by_itself(cli: Cli) -> None:
    built = cli.ok("package", "--pipeline", str(DEMO_PIPELINE), "--output", "out", "--local", "--json").json
    assert isinstance(built, dict)
    assert Path(built["path"]).stat().st_size == built["packed_bytes"]
    assert cli.ok("package", "--pipeline", str(DEMO_PIPELINE), "--output", "out", "--local").out.startswith("out/")
    assert [path.name for path in (cli.folder / "out").iterdir()] == [Path(built["path"]).name]
