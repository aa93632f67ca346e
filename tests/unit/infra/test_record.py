from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.local.processes import ProcessInfo, launch, stop
from streamgauge.infra.local.record import (
    NoStack,
    StackInfo,
    StackRunning,
    exclusive,
    load_stack,
    read_stack,
    remove_stack,
    save_stack,
)

GONE = ProcessInfo(name="ministack", pid=2**22 + 1, started=0.0, log="/nowhere/ministack.log")


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[ProcessInfo]:
    code = "import time\ntime.sleep(600)"
    process = launch("kinesis", [sys.executable, "-c", code], os.environ, tmp_path / "kinesis.log")
    yield process
    stop([process], grace_s=5)


def record(home: Path, *processes: ProcessInfo) -> StackInfo:
    (home / ".streamgauge").mkdir(exist_ok=True)
    return StackInfo(
        home=str(home),
        stack_name="streamgauge-demo",
        pipeline_file=str(home / "pipeline.toml"),
        region="us-east-1",
        account="000000000000",
        aws_url="http://127.0.0.1:4566",
        kinesis_url="http://127.0.0.1:4567",
        outputs={"StreamName": "observations"},
        processes=processes,
    )


def test_what_is_saved_is_read_back_and_only_its_owner_may(tmp_path: Path, alive: ProcessInfo) -> None:
    info = record(tmp_path, alive)
    save_stack(info)
    assert read_stack(tmp_path) == load_stack(tmp_path) == info
    assert stat.S_IMODE((tmp_path / ".streamgauge/stack.json").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / ".streamgauge").iterdir()] == ["stack.json"]
    remove_stack(info)
    assert read_stack(tmp_path) is None


def test_without_a_stack_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(NoStack, match=r"no local stack runs here.*streamgauge up"):
        load_stack(tmp_path)


def test_a_record_whose_processes_are_gone_is_no_stack(tmp_path: Path) -> None:
    save_stack(record(tmp_path, GONE))
    with pytest.raises(NoStack, match="no local stack runs here"):
        load_stack(tmp_path)


def test_a_server_that_died_is_named_with_its_log(tmp_path: Path, alive: ProcessInfo) -> None:
    save_stack(record(tmp_path, GONE, alive))
    with pytest.raises(NoStack, match=r"ministack of the local stack has died; its log is /nowhere/ministack\.log"):
        load_stack(tmp_path)


def test_a_stack_that_is_not_deployed_yet_is_not_used(tmp_path: Path, alive: ProcessInfo) -> None:
    save_stack(msgspec.structs.replace(record(tmp_path, alive), outputs={}))
    with pytest.raises(NoStack, match="still being started"):
        load_stack(tmp_path)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"home": 1}', b"\xff"])
def test_a_broken_record_is_named(tmp_path: Path, body: bytes) -> None:
    save_stack(record(tmp_path))
    path = tmp_path / ".streamgauge/stack.json"
    path.write_bytes(body)
    with pytest.raises(StreamgaugeError, match="cannot be read") as caught:
        read_stack(tmp_path)
    assert caught.value.where == str(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".streamgauge").write_text("a file")
    message = r"\.streamgauge: the local stack's files cannot be written"
    with pytest.raises(StreamgaugeError, match=message), exclusive(tmp_path):
        pass


def test_a_record_that_cannot_be_written_leaves_no_rest(tmp_path: Path) -> None:
    info = record(tmp_path)
    (tmp_path / ".streamgauge/stack.json").mkdir()
    with pytest.raises(StreamgaugeError, match="cannot be recorded"):
        save_stack(info)
    assert [path.name for path in (tmp_path / ".streamgauge").iterdir()] == ["stack.json"]


def test_two_commands_do_not_start_or_stop_at_once(tmp_path: Path) -> None:
    refused = pytest.raises(StackRunning, match="another command is starting or stopping")
    with exclusive(tmp_path), refused, exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


def test_processes_are_led_to_the_stack_unless_the_environment_leads_elsewhere(tmp_path: Path) -> None:
    info = record(tmp_path)
    led = info.environment({"PATH": "/bin", "AWS_PROFILE": "mine", "AWS_SESSION_TOKEN": "mine"})
    assert led["PATH"] == "/bin"
    assert (led["AWS_ENDPOINT_URL"], led["AWS_ENDPOINT_URL_KINESIS"]) == (info.aws_url, info.kinesis_url)
    assert (led["AWS_REGION"], led["AWS_DEFAULT_REGION"]) == ("us-east-1", "us-east-1")
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & led.keys()
    elsewhere = info.environment({"AWS_ENDPOINT_URL_KINESIS": "http://127.0.0.1:1"})
    assert (elsewhere["AWS_ENDPOINT_URL"], elsewhere["AWS_ENDPOINT_URL_KINESIS"]) == (
        info.aws_url,
        "http://127.0.0.1:1",
    )
