"""The state machine of incidents over MiniStack: every way through it, failures and races included.

A race is begun in its middle: the machine starts at the state in which an execution would be that had lost it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
from incident_world import DEFINITION, World, event, incident_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with incident_world(tmp_path_factory.mktemp("incidents")) as made:
        yield made


@pytest.fixture
def alert() -> str:
    return uuid4().hex


@pytest.fixture
def notices(world: World) -> Iterator[str]:
    with world.notices() as queue:
        yield queue


def test_an_incident_is_opened_told_waited_for_and_closed_by_what_clears_it(
    world: World, alert: str, notices: str
) -> None:
    opened = world.start(event(alert, 1, "raised"))
    waiting = world.until(alert, lambda row: "task_token" in row)
    assert (waiting["incident_status"], waiting["incident_id"], waiting["raises"]) == ("open", f"{alert[:6]}-1", "1")
    assert (waiting["severity"], waiting["pipeline"], waiting["rule_name"]) == ("warning", "weather", "gale")
    cleared = world.run(event(alert, 2, "cleared"))
    assert cleared.ways == ["Read", "What came", "Clear", "Does it wait", "Wake it", "Cleared"]
    ended = world.ended(opened)
    assert ended.status == "SUCCEEDED"
    assert ended.ways == [
        *("Read", "What came", "Open", "Tell that it is open", "Wait for the clear event"),
        *("Close", "Tell that it is closed", "Closed"),
    ]
    row = world.row(alert)
    assert (row["incident_status"], row["closed_for"], row["cleared_by"]) == ("closed", "cleared", f"{alert[:6]}-2")
    assert "task_token" not in row
    told = world.drained(notices)
    assert [(each["about"], each["status"], each["message"]) for each in told] == [
        ("incident", "opened", "Gale raised for EWR (1)"),
        ("incident", "closed", "Closed (cleared): Gale cleared for EWR (2)"),
    ]
    assert {each["severity"] for each in told} == {"warning"} and {each["alert_id"] for each in told} == {alert}


def test_what_is_raised_again_updates_the_one_incident(world: World, alert: str) -> None:
    first = world.start(event(alert, 1, "raised"))
    world.until(alert, lambda row: "task_token" in row)
    again = world.run(event(alert, 2, "raised"))
    assert again.ways[-4:] == ["Why not opened", "Whose is it", "Update", "Updated"]
    row = world.row(alert)
    assert (row["incident_id"], row["raises"], row["summary"]) == (f"{alert[:6]}-1", "2", "Gale raised for EWR (2)")
    world.run(event(alert, 3, "cleared"))
    assert world.ended(first).status == "SUCCEEDED"


def test_a_new_incident_is_opened_after_the_last_was_closed(world: World, alert: str) -> None:
    for number in (1, 3):
        opened = world.start(event(alert, number, "raised"))
        world.until(alert, lambda row: "task_token" in row)
        world.run(event(alert, number + 1, "cleared"))
        world.ended(opened)
    row = world.row(alert)
    assert (row["incident_id"], row["incident_status"], row["raises"]) == (f"{alert[:6]}-3", "closed", "1")


def test_an_incident_that_nothing_clears_is_closed_after_its_time(world: World, alert: str, notices: str) -> None:
    ended = world.run(event(alert, 1, "raised"), TimeoutSeconds="1")
    assert ended.status == "SUCCEEDED" and ended.ways[-3:] == ["Close", "Tell that it is closed", "Closed"]
    row = world.row(alert)
    assert (row["incident_status"], row["closed_for"]) == ("closed", "time-out")
    assert [each["message"] for each in world.drained(notices)][-1] == "Closed (time-out): Gale raised for EWR (1)"
    # What clears it afterwards finds nothing to do, and a raise of before does not open it.
    assert world.run(event(alert, 3, "cleared")).ways[-1] == "Nothing to clear"
    assert world.run(event(alert, 2, "raised")).ways[-1] == "Late or repeated"
    assert world.row(alert)["incident_status"] == "closed"


def test_a_repeated_event_does_nothing(world: World, alert: str) -> None:
    opened = world.start(event(alert, 1, "raised"))
    before = world.until(alert, lambda row: "task_token" in row)
    assert world.run(event(alert, 1, "raised")).ways[-1] == "Late or repeated"
    assert world.row(alert) == before
    world.run(event(alert, 2, "cleared"))
    world.ended(opened)
    after = world.row(alert)
    assert world.run(event(alert, 2, "cleared")).ways[-1] == "Late or repeated"
    assert world.row(alert) == after


def test_a_raise_that_comes_after_its_clear_opens_nothing(world: World, alert: str) -> None:
    assert world.run(event(alert, 2, "cleared")).ways[-2:] == ["Nothing is open", "Nothing to clear"]
    assert world.run(event(alert, 1, "raised")).ways[-1] == "Late or repeated"
    assert world.row(alert)["incident_status"] == "closed"


def test_one_that_was_cleared_before_it_waits_is_closed_all_the_same(world: World, alert: str) -> None:
    world.put(alert, incident_status="open", incident_id=f"{alert[:6]}-1", rule_sequence="001")
    assert world.run(event(alert, 2, "cleared")).ways[-2:] == ["Does it wait", "Cleared"]
    ended = world.run(event(alert, 1, "raised"), begin="Wait for the clear event")
    assert ended.status == "SUCCEEDED" and ended.ways[-3:] == ["Close", "Tell that it is closed", "Closed"]
    assert world.row(alert)["incident_status"] == "closed"


# --- answers that were lost, and races --------------------------------------------------------------------------------


def test_an_open_whose_answer_was_lost_goes_on_as_its_own(world: World, alert: str) -> None:
    name = uuid4().hex
    mine = world.own_name(name, TimeoutSeconds="1")
    world.put(alert, incident_status="open", incident_id=f"{alert[:6]}-1", rule_sequence="001", execution=mine)
    ended = world.run(event(alert, 1, "raised"), name=name, TimeoutSeconds="1")
    assert ended.ways[2:6] == ["Open", "Why not opened", "Whose is it", "Tell that it is open"]
    assert world.row(alert)["incident_status"] == "closed"


def test_an_update_that_finds_the_incident_closed_opens_one(world: World, alert: str) -> None:
    world.put(alert, incident_status="closed", incident_id="another", rule_sequence="001")
    ended = world.run(event(alert, 2, "raised"), begin="Update", TimeoutSeconds="1")
    assert ended.ways[1:6] == ["Update", "Why not opened", "Whose is it", "Open", "Tell that it is open"]
    assert world.row(alert)["incident_id"] == f"{alert[:6]}-2"


def test_a_clear_whose_answer_was_lost_wakes_what_waits(world: World, alert: str) -> None:
    opened = world.start(event(alert, 1, "raised"))
    waiting = world.until(alert, lambda row: "task_token" in row)
    world.put(
        alert, **{**waiting, "incident_status": "cleared", "rule_sequence": "002", "cleared_by": f"{alert[:6]}-2"}
    )
    ended = world.run(event(alert, 2, "cleared"))
    assert ended.ways[-4:] == ["Who cleared it", "Does it wait", "Wake it", "Cleared"]
    assert world.ended(opened).status == "SUCCEEDED"
    assert world.row(alert)["incident_status"] == "closed"


def test_a_clear_that_an_open_overtook_is_tried_again(world: World, alert: str) -> None:
    world.put(alert, incident_status="open", incident_id="another", rule_sequence="001")
    ended = world.run(event(alert, 2, "cleared"), begin="Nothing is open")
    assert ended.ways[1:5] == ["Nothing is open", "Why not cleared", "Who cleared it", "Clear"]
    assert world.row(alert)["incident_status"] == "cleared"


def test_a_close_whose_answer_was_lost_is_told_once_more(world: World, alert: str) -> None:
    world.put(alert, incident_status="closed", incident_id=f"{alert[:6]}-1", rule_sequence="002", closed_for="cleared")
    ended = world.run(event(alert, 1, "raised"), begin="Close")
    assert ended.ways[1:] == ["Close", "Why not closed", "Is it closed", "Tell that it is closed", "Closed"]


def test_an_incident_that_another_has_followed_leaves_that_alone(world: World, alert: str) -> None:
    world.put(alert, incident_status="open", incident_id="a later one", rule_sequence="003")
    ended = world.run(event(alert, 1, "raised"), begin="Close")
    assert ended.ways[-2:] == ["Tell that it is closed", "Closed"]
    assert world.row(alert)["incident_status"] == "open"


def test_one_that_does_not_wait_any_more_is_not_an_error(world: World, alert: str) -> None:
    world.put(alert, incident_status="open", incident_id="gone", rule_sequence="001", task_token=str(uuid4()))
    ended = world.run(event(alert, 2, "cleared"))
    assert (ended.error, ended.ways[-2:]) == (None, ["Wake it", "Cleared"])


# --- failures ---------------------------------------------------------------------------------------------------------

TASKS = {
    "Open": "raised",
    "Why not opened": "raised",
    "Update": "raised",
    "Wait for the clear event": "raised",
    "Close": "raised",
    "Why not closed": "raised",
    "Clear": "cleared",
    "Nothing is open": "cleared",
    "Why not cleared": "cleared",
}


@pytest.mark.parametrize("state", TASKS)
def test_a_table_that_is_gone_leaves_the_event_in_the_dead_letters(world: World, alert: str, state: str) -> None:
    world.dead_letters()
    came = event(alert, 1, TASKS[state])
    ended = world.run(came, begin=state, IncidentsTable="gone")
    assert (ended.status, ended.ways[-2:]) == ("FAILED", ["Report", "Failed"])
    (kept,) = world.dead_letters()
    assert kept["event"] == came and kept["error"] == ended.error and "ResourceNotFound" in kept["error"]
    # Once the table is back, the event that was kept does what it should have done.
    begun = world.start(kept["event"], TimeoutSeconds="1")
    assert world.ended(begun).status == "SUCCEEDED"


def test_a_task_is_tried_again_before_it_fails(world: World, alert: str) -> None:
    execution = world.start(event(alert, 1, "raised"), tries=3, IncidentsTable="gone")
    assert world.ended(execution).status == "FAILED"
    history = world.client("stepfunctions").get_execution_history(executionArn=execution, maxResults=100)["events"]
    assert sum(each["type"] == "TaskFailed" for each in history) == 3


def test_without_the_topic_the_notice_is_kept_and_the_incident_goes_on(world: World, alert: str) -> None:
    world.dead_letters()
    opened = world.start(event(alert, 1, "raised"), Topic="arn:aws:sns:us-east-1:000000000000:gone")
    world.until(alert, lambda row: "task_token" in row)
    world.run(event(alert, 2, "cleared"))
    ended = world.ended(opened)
    assert ended.status == "SUCCEEDED" and ended.ways.count("Keep the notice") == 2
    kept = world.dead_letters()
    assert [each["notice"]["status"] for each in kept] == ["opened", "closed"]
    assert kept[0]["notice"]["message"] == "Gale raised for EWR (1)" and kept[0]["error"] and kept[0]["cause"]
    assert world.row(alert)["incident_status"] == "closed"


def test_without_topic_and_queue_it_fails_and_can_be_begun_again(world: World, alert: str) -> None:
    ended = world.run(event(alert, 1, "raised"), Topic="arn:aws:sns:us-east-1:000000000000:gone", DeadLetters="gone")
    assert ended.status == "FAILED"
    assert ended.ways[-4:] == ["Tell that it is open", "Keep the notice", "Report", "Failed"]
    assert world.row(alert)["incident_status"] == "open"


def test_one_that_cannot_be_woken_is_reported(world: World, alert: str) -> None:
    world.dead_letters()
    ended = world.run(event(alert, 2, "cleared"), begin="Wake it")
    assert (ended.status, ended.error) == ("FAILED", "States.QueryEvaluationError")
    assert ended.ways[-3:] == ["Wake it", "Report", "Failed"]
    assert len(world.dead_letters()) == 1


MALFORMED = {
    "no id": {"id": None},
    "no alert": {"alert_id": None},
    "an alert that is a number": {"alert_id": 5},
    "no sequence": {"rule_sequence": ""},
    "an unknown state": {"state": "raising"},
    "no severity": {"severity": None},
}


@pytest.mark.parametrize("changed", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_threshold_event_is_kept_with_the_reason(
    world: World, alert: str, changed: dict[str, object]
) -> None:
    world.dead_letters()
    came = event(alert, 1, "raised")
    ended = world.run({**came, "detail": {**came["detail"], **changed}})
    assert (ended.status, ended.error) == ("FAILED", "MalformedThresholdEvent")
    (kept,) = world.dead_letters()
    assert "lacks" in kept["cause"] and kept["event"]["source"] == "streamgauge.weather"


@pytest.mark.parametrize("came", [{}, {"detail": "text"}, {"detail": None}, [], "text", {"detail": []}])
def test_nor_is_anything_else_one(world: World, came: object) -> None:
    world.dead_letters()
    ended = world.run(came)
    assert (ended.status, ended.error) == ("FAILED", "MalformedThresholdEvent")
    (kept,) = world.dead_letters()
    assert kept["event"] == came


BY_HAND = {
    "opened": ("What came", "raised", {"incident_status": "open"}),
    "updated": ("Why not opened", "raised", {}),
    "closed": ("Close", "raised", {"incident_status": "done", "rule_sequence": "001"}),
    "cleared": ("Why not cleared", "cleared", {"incident_id": "x"}),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_an_incident_that_was_changed_by_hand_is_named(world: World, alert: str, case: str) -> None:
    begin, state, row = BY_HAND[case]
    world.dead_letters()
    world.put(alert, **row)
    ended = world.run(event(alert, 2, state), begin=begin)
    assert (ended.status, ended.error) == ("FAILED", "IncidentChanged")
    (kept,) = world.dead_letters()
    assert "changed by hand" in kept["cause"] and kept["event"]["detail"]["alert_id"] == alert
    assert world.row(alert) == {"alert_id": alert, **row}


# --- all of it --------------------------------------------------------------------------------------------------------


def test_every_way_was_gone(world: World, request: pytest.FixtureRequest) -> None:
    tests = {item.function.__name__ for item in request.session.items if item.path == request.path}  # type: ignore[attr-defined]
    if tests < {name for name in globals() if name.startswith("test_")}:
        pytest.skip("the other tests of this module go the ways")
    states = json.loads(DEFINITION.replace("${TimeoutSeconds}", "1"))["States"]
    possible = {(name, after) for name, state in states.items() for after in followers(state)}
    assert possible - world.gone == set()
    assert {name for way in possible for name in way} == states.keys()


def followers(state: Mapping[str, Any]) -> set[str]:
    found = {each["Next"] for key in ("Choices", "Catch") for each in state.get(key, [])}
    return found | {state[key] for key in ("Next", "Default") if key in state}
