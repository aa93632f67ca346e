"""The event source poller as a whole: its start and end, outages, what it takes over from MiniStack."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from time import sleep, time

import pytest
from event_source_place import ROLE, Place, Source, a_place, running, wait_until

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.local.event_source import RunSettings, disable_own
from streamgauge.infra.local.event_source.deployed import read_mappings, read_rules
from streamgauge.infra.local.faulty_proxy import FaultyProxy, Treatment
from streamgauge.settings import Endpoints


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("event-source")) as servers:
        yield servers


@pytest.fixture(autouse=True)
def _nothing_deployed_stays(place: Place) -> Iterator[None]:
    yield
    place.remove_mappings()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[-60:].strip("-")


def test_a_timestamp_is_given_to_the_poller_since_ministack_loses_it(place: Place, name: str) -> None:
    source = place.source(name, texts=["old"], StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=1)
    sleep(0.02)
    since_ms = int(time() * 1000)
    source.put("new")
    with pytest.raises(StreamgaugeError, match="--starting-timestamp"):
        read_mappings(place.clients)
    with running(place.endpoints, RunSettings(has_schedules=False, starting_timestamp_ms=since_ms)):
        source.wait_for([["new"]])


def test_outages_of_both_servers_are_outlasted_and_nothing_is_skipped(place: Place, name: str) -> None:
    aws_is_down, kinesis_is_down = threading.Event(), threading.Event()
    assert place.endpoints.aws is not None and place.endpoints.kinesis is not None
    with (
        FaultyProxy(place.endpoints.aws, lambda _: Treatment(refuse=aws_is_down.is_set())) as aws,
        FaultyProxy(place.endpoints.kinesis, lambda _: Treatment(refuse=kinesis_is_down.is_set())) as kinesis,
    ):
        source = place.source(name, texts=["a"])
        with running(Endpoints(aws=aws.url, kinesis=kinesis.url)) as counters:
            source.wait_for([["a"]])
            for text, down in (("b", [aws_is_down]), ("c", [kinesis_is_down]), ("d", [aws_is_down, kinesis_is_down])):
                for one in down:
                    one.set()
                source.put(text)
                sleep(1)
                for one in down:
                    one.clear()
                source.wait_for_last(text)
    assert source.texts == [["a"], ["b"], ["c"], ["d"]]
    assert counters[0].records_done == 4
    assert counters[0].not_invoked >= 1


def test_an_answer_that_is_lost_brings_the_batch_again(place: Place, name: str) -> None:
    lost = iter([True])

    def treat(call: str) -> Treatment:
        return Treatment(lose=call == "POST" and next(lost, False))

    assert place.endpoints.aws is not None
    with FaultyProxy(place.endpoints.aws, treat) as aws:
        source = place.source(name, texts=["a"])
        with running(Endpoints(aws=aws.url, kinesis=place.endpoints.kinesis)):
            source.wait_for([["a"], ["a"]])


def test_what_ministack_would_poll_is_taken_over_and_marked(place: Place, name: str) -> None:
    source = place.source(name)
    off = place.source(f"{name}-off"[-60:])
    place.clients.functions.update_event_source_mapping(UUID=off.uuid, Enabled=False)
    rule = place.clients.events.put_rule(Name=name, ScheduleExpression="rate(1 minute)")["RuleArn"]
    target = {"Id": "1", "Arn": f"arn:aws:lambda:us-east-1:000000000000:function:{name}"}
    place.clients.events.put_targets(Rule=name, Targets=[target])

    disable_own(place.clients)
    assert disable_own(place.clients) == 0
    states = {
        one["UUID"]: one["State"] for one in place.clients.functions.list_event_source_mappings()["EventSourceMappings"]
    }
    assert set(states.values()) == {"Disabled"}
    assert place.clients.events.describe_rule(Name=name)["State"] == "DISABLED"
    taken = {one.uuid: one for one in read_mappings(place.clients)}
    assert taken[source.uuid].is_enabled
    assert taken[source.uuid].invoke_identity_arn == ROLE
    assert not taken[off.uuid].is_enabled
    (found,) = [one for one in read_rules(place.clients) if one.arn == rule]
    assert (found.is_enabled, found.function_arn, found.expression) == (True, target["Arn"], "rate(1 minute)")
    place.clients.events.remove_targets(Rule=name, Ids=["1"])
    place.clients.events.delete_rule(Name=name)


def test_the_command_polls_fires_schedules_and_ends_after_the_call_under_way(place: Place, name: str) -> None:
    source = place.source(name)
    ticks = Source(place.clients, f"{name}-t"[-60:], place.folder / f"{name}-ticks")
    ticks.calls_file.touch()
    rule = place.clients.events.put_rule(Name=name, ScheduleExpression="rate(1 minute)")["RuleArn"]
    place.clients.events.put_targets(
        Rule=name, Targets=[{"Id": "1", "Arn": place.function(ticks.name, ticks.calls_file)}]
    )
    disable_own(place.clients)
    assert place.endpoints.aws is not None and place.endpoints.kinesis is not None
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "streamgauge.infra.local.event_source", "--schedule-interval", "300ms"],
        env={
            **kept,
            "AWS_ENDPOINT_URL": place.endpoints.aws,
            "AWS_ENDPOINT_URL_KINESIS": place.endpoints.kinesis,
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: len(ticks.calls) >= 3, "the schedule was to be fired")
        source.put("slow")
        source.put("late")
        wait_until(lambda: is_busy(place, name), "the function was to be busy")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert f"{name} from {name}" in said
    assert "ended" in source.calls[-1]
    # What it says last counts the call that was under way.
    assert re.search(r"^[12] records in [12] calls", said.splitlines()[-1]), said
    event = ticks.calls[0]["event"]
    assert event["detail-type"] == "Scheduled Event"  # type: ignore[call-overload]
    assert event["resources"] == [rule]  # type: ignore[call-overload]


def is_busy(place: Place, function: str) -> bool:
    """Whether the function has begun with a slow record."""
    return any(place.folder.glob(f"{function}.*"))


def test_a_deployed_setting_that_the_poller_lacks_ends_the_command_with_its_name(place: Place, name: str) -> None:
    pattern = json.dumps({"data": {"type": [{"like": "b"}]}})
    place.source(name, FilterCriteria={"Filters": [{"Pattern": pattern}]})
    with pytest.raises(StreamgaugeError, match="like"), running(place.endpoints):
        sleep(0.1)
