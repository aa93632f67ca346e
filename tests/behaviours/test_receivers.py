"""The receivers: twice is as good as once, an outage is no exception, what was not delivered comes back in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from aws_in_process import InProcessAws, aws_in_process
from botocore.exceptions import ClientError, EndpointConnectionError
from commit_world import make_crossing, make_panes
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.processors.commit.commit_objects import rule_sequence_text
from streamgauge.processors.commit.eventbridge import EventBridgeReceiver
from streamgauge.processors.commit.memory import MemoryObjectStore
from streamgauge.processors.commit.ports import StoreUnavailable
from streamgauge.processors.commit.s3 import ArchiveReceiver
from streamgauge.processors.commit.served_panes import (
    ServedPanesReceiver,
    pane_id,
    read_served_pane,
    read_served_panes,
)
from streamgauge.processors.commit.threshold_detail import ThresholdDetail
from streamgauge.processors.core.effects import ArchiveObject

HERE = {"pipeline": "weather", "state_epoch": 1, "aggregate": "wind"}


class Bus:
    """PutEvents as EventBridge answers it; `refuse` says what becomes of an entry."""

    def __init__(self, refuse: Callable[[int], str | None] = lambda number: None) -> None:
        self.refuse = refuse
        self.calls: list[list[dict[str, str]]] = []
        self.taken: list[str] = []
        self.seen = 0
        self.looks = 0
        self.look_error: Exception | None = None

    def put_events(self, *, Entries: list[dict[str, str]]) -> dict[str, object]:  # noqa: N803 - AWS's name
        self.calls.append(Entries)
        answers = []
        for entry in Entries:
            why = self.refuse(self.seen)
            self.seen += 1
            if why is None:
                self.taken.append(json.loads(entry["Detail"])["id"])
                answers.append({"EventId": "x"})
            else:
                answers.append({"ErrorCode": why, "ErrorMessage": "as scripted"})
        return {"FailedEntryCount": sum("ErrorCode" in answer for answer in answers), "Entries": answers}

    def describe_event_bus(self, *, Name: str) -> dict[str, object]:  # noqa: N803 - AWS's name
        self.looks += 1
        if self.look_error is not None:
            raise self.look_error
        return {"Name": Name}


def ids(events) -> list[str]:
    return [event.id for event in events]


CROSSINGS = [make_crossing(number) for number in range(25)]


def test_threshold_events_go_to_the_bus_ten_a_call() -> None:
    bus = Bus()
    assert EventBridgeReceiver(bus, "thresholds").deliver(CROSSINGS) == ([], None)
    assert [len(call) for call in bus.calls] == [10, 10, 5]
    assert bus.taken == ids(CROSSINGS)


def test_an_entry_says_which_pipeline_and_rule_it_comes_from() -> None:
    bus = Bus()
    EventBridgeReceiver(bus, "thresholds").deliver(CROSSINGS[:1])
    ((entry,),) = bus.calls
    assert (entry["EventBusName"], entry["Source"], entry["DetailType"]) == (
        "thresholds",
        "streamgauge.weather",
        "Gale",
    )
    detail = msgspec.json.decode(entry["Detail"], type=ThresholdDetail)
    assert (detail.id, detail.key, detail.state) == ("crossing-0", {"subject": "lga"}, "raised")
    assert (detail.window_start, detail.window_end) == ("1970-01-01T00:00:00.000Z", "1970-01-01T00:00:01.000Z")
    assert detail.measures == {"n": 0, "mean": 0.5, "gust": None}


def test_entries_that_the_bus_refused_come_back_alone_and_in_order() -> None:
    bus = Bus(lambda number: "ThrottlingException" if number in (3, 7) else None)
    delivery = EventBridgeReceiver(bus, "thresholds").deliver(CROSSINGS)
    # After a refusal the rest is not even tried: the bus asked for less.
    assert ids(delivery.undelivered) == ids([CROSSINGS[3], CROSSINGS[7], *CROSSINGS[10:]])
    assert delivery.reason is not None and "ThrottlingException" in delivery.reason and "thresholds" in delivery.reason
    assert bus.taken == ids(event for number, event in enumerate(CROSSINGS[:10]) if number not in (3, 7))


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="http://127.0.0.1:9"),
        ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not yours"}}, "PutEvents"),
    ],
    ids=["outage", "refusal"],
)
def test_a_bus_that_takes_nothing_gives_everything_back(error: Exception) -> None:
    class Down:
        def put_events(self, **_: object) -> None:
            raise error

    delivery = EventBridgeReceiver(Down(), "thresholds").deliver(CROSSINGS)
    assert list(delivery.undelivered) == CROSSINGS
    assert delivery.reason is not None and "thresholds" in delivery.reason


def look_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "as scripted"}}, "DescribeEventBus")


def test_events_for_a_bus_that_is_gone_come_back_although_it_took_them() -> None:
    bus = Bus()
    bus.look_error = look_error("ResourceNotFoundException")
    delivery = EventBridgeReceiver(bus, "thresholds").deliver(CROSSINGS)
    assert list(delivery.undelivered) == CROSSINGS
    assert delivery.reason == "EventBridge bus thresholds: there is no such bus"
    bus.look_error = None
    assert EventBridgeReceiver(bus, "thresholds").deliver(delivery.undelivered) == ([], None)


@pytest.mark.parametrize(
    "error",
    [look_error("ThrottlingException"), look_error("AccessDeniedException"), EndpointConnectionError(endpoint_url="x")],
    ids=["throttled", "denied", "outage"],
)
def test_a_look_that_fails_leaves_it_at_what_the_bus_has_said(error: Exception) -> None:
    bus = Bus(lambda number: "ThrottlingException" if number == 3 else None)
    bus.look_error = error
    delivery = EventBridgeReceiver(bus, "thresholds").deliver(CROSSINGS[:5])
    assert ids(delivery.undelivered) == ids([CROSSINGS[3]])


def test_the_bus_is_looked_at_once_a_delivery_and_not_for_nothing() -> None:
    bus = Bus()
    receiver = EventBridgeReceiver(bus, "thresholds")
    receiver.deliver([])
    assert bus.looks == 0
    receiver.deliver(CROSSINGS)
    assert bus.looks == 1
    refusing = Bus(lambda number: "ThrottlingException")
    EventBridgeReceiver(refusing, "thresholds").deliver(CROSSINGS)
    assert refusing.looks == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=30))
def test_a_call_stays_within_eventbridges_limits(key_sizes: list[int]) -> None:
    events = [make_crossing(number, key="ä" * size) for number, size in enumerate(key_sizes)]
    bus = Bus()
    assert EventBridgeReceiver(bus, "thresholds").deliver(events) == ([], None)
    assert bus.taken == ids(events)
    for call in bus.calls:
        texts = [entry[name] for entry in call for name in ("Source", "DetailType", "Detail")]
        assert len(call) <= 10 and 14 * len(call) + sum(len(text.encode()) for text in texts) <= 262_144


def test_an_event_too_large_for_eventbridge_is_sent_without_its_key_instead_of_blocking_the_shard() -> None:
    bus = Bus()
    large = make_crossing(1, key="k" * 300_000)
    assert EventBridgeReceiver(bus, "thresholds").deliver([CROSSINGS[0], large, CROSSINGS[2]]) == ([], None)
    assert bus.taken == ["crossing-0", "crossing-1", "crossing-2"]
    details = [msgspec.json.decode(entry["Detail"], type=ThresholdDetail) for call in bus.calls for entry in call]
    assert [(detail.oversize, bool(detail.key)) for detail in details] == [(False, True), (True, False), (False, True)]


@given(*[st.tuples(st.integers(0, 10**129 - 1), st.integers(0, 10**6), st.integers(0, 10**6))] * 2)
def test_rule_sequence_texts_compare_like_the_numbers(left: tuple[int, int, int], right: tuple[int, int, int]) -> None:
    assert (rule_sequence_text(left) < rule_sequence_text(right)) == (left < right)


def test_a_bus_that_checks_its_input_takes_the_entries() -> None:
    with aws_in_process() as aws:
        assert EventBridgeReceiver(aws.events, "thresholds").deliver(CROSSINGS) == ([], None)


# --- the archive -------------------------------------------------------------------------------------------------

OBJECTS = [ArchiveObject(f"type=streamgauge_panes/{number}.jsonl.gz", bytes([number])) for number in range(4)]


def test_archive_objects_are_written_under_their_names_and_twice_is_once() -> None:
    store = MemoryObjectStore()
    receiver = ArchiveReceiver(store)
    for _ in range(2):
        assert receiver.deliver(OBJECTS) == ((), None)
    assert store.objects == {item.name: item.body for item in OBJECTS}


def test_archive_objects_that_could_not_be_written_come_back_in_order() -> None:
    calls = iter([None, None, "down"])

    def hook(step: str, moment: str) -> None:
        if moment == "before" and next(calls, None):
            raise StoreUnavailable("s3 is down")

    store = MemoryObjectStore(hook)
    delivery = ArchiveReceiver(store).deliver(OBJECTS)
    assert list(delivery.undelivered) == OBJECTS[2:]
    assert delivery.reason == "s3 is down"
    assert len(store.objects) == 2


# --- served panes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_process() -> Iterator[InProcessAws]:
    with aws_in_process() as aws:
        yield aws


@pytest.fixture
def dynamodb(in_process: InProcessAws):
    in_process.clear()
    return in_process.dynamodb


def receiver_of(client: object) -> ServedPanesReceiver:
    return ServedPanesReceiver(client, "panes", pipeline="weather", state_epoch=1, workers=2)


def test_a_served_pane_can_be_looked_up(dynamodb) -> None:
    assert receiver_of(dynamodb).deliver([make_panes(("lga", 1_000, 0), ("jfk", 1_000, 2))]) == ([], None)
    (pane,) = read_served_pane(dynamodb, "panes", **HERE, key={"subject": "jfk"})
    assert (pane.key, pane.window_start, pane.window_end) == (
        {"subject": "jfk"},
        "1970-01-01T00:00:01.000Z",
        "1970-01-01T00:00:02.000Z",
    )
    assert (pane.revision, pane.event_count, pane.measures) == (2, 3, {"n": 3, "mean": 0.2})
    assert read_served_pane(dynamodb, "panes", **HERE, key={"subject": "ewr"}) == []


def test_all_panes_of_an_aggregate_come_by_window_and_key(dynamodb) -> None:
    receiver_of(dynamodb).deliver([make_panes(("lga", 2_000, 0), ("lga", 1_000, 0), ("jfk", 1_000, 0))])
    receiver_of(dynamodb).deliver([replace(make_panes(("lga", 1_000, 0)), aggregate="wind_by_hour")])
    panes = read_served_panes(dynamodb, "panes", **HERE)
    assert [(pane.window_start[17:19], pane.key["subject"]) for pane in panes] == [
        ("01", "jfk"),
        ("01", "lga"),
        ("02", "lga"),
    ]


def revision(client) -> int | None:
    panes = read_served_pane(client, "panes", **HERE, key={"subject": "lga"})
    return panes[0].revision if panes else None


def test_a_higher_revision_replaces_a_lower_one_and_never_the_other_way(dynamodb) -> None:
    receiver = receiver_of(dynamodb)
    for given_revision, expected in ((1, 1), (3, 3), (2, 3), (3, 3)):
        assert receiver.deliver([make_panes(("lga", 1_000, given_revision))]) == ([], None)
        assert revision(dynamodb) == expected


def test_a_tombstone_hides_its_pane_and_every_earlier_revision(dynamodb) -> None:
    receiver = receiver_of(dynamodb)
    receiver.deliver([make_panes(("lga", 1_000, 0))])
    receiver.deliver([make_panes(("lga", 1_000, 1), tombstone=True)])
    receiver.deliver([make_panes(("lga", 1_000, 0))])
    assert revision(dynamodb) is None
    assert read_served_panes(dynamodb, "panes", **HERE) == []
    receiver.deliver([make_panes(("lga", 1_000, 2))])
    assert revision(dynamodb) == 2


def test_panes_that_could_not_be_written_come_back_and_only_they(dynamodb) -> None:
    class Throttled:
        exceptions = dynamodb.exceptions

        def put_item(self, *, Item, **rest):  # noqa: N803 - AWS's name
            if "jfk" in Item["pane"]["S"]:
                raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "PutItem")
            return dynamodb.put_item(Item=Item, **rest)

    first = make_panes(("lga", 1_000, 0), ("jfk", 1_000, 5), ("ewr", 1_000, 0), ("jfk", 2_000, 6))
    second = make_panes(("lga", 2_000, 0))
    delivery = receiver_of(Throttled()).deliver([first, second])
    left, untried = delivery.undelivered
    assert untried is second
    assert list(left.keys) == [("jfk",), ("jfk",)]
    assert left.window_start_ms.tolist() == [1_000, 2_000] and left.revision.tolist() == [5, 6]
    assert left.measures["n"].values.tolist() == [6, 7]
    assert delivery.reason is not None and "ThrottlingException" in delivery.reason and "panes" in delivery.reason
    assert receiver_of(dynamodb).deliver(delivery.undelivered) == ([], None)
    assert len(read_served_panes(dynamodb, "panes", **HERE)) == 5


def test_measures_keep_every_digit_and_every_size(dynamodb) -> None:
    values = np.array([0.1 + 0.2, 1e300, -5e-324])
    batch = make_panes(("a", 0, 1), ("b", 0, 1), ("c", 0, 1))
    batch.measures["mean"].values[:] = values
    receiver_of(dynamodb).deliver([batch])
    assert [pane.measures["mean"] for pane in read_served_panes(dynamodb, "panes", **HERE)] == values.tolist()


def test_a_key_longer_than_dynamodb_takes_is_served_all_the_same(dynamodb) -> None:
    long, longest = "k" * 3_000, "k" * 500_000
    receiver = receiver_of(dynamodb)
    assert receiver.deliver([make_panes((long, 1_000, 0), (longest, 1_000, 1))]) == ([], None)
    (pane,) = read_served_pane(dynamodb, "panes", **HERE, key={"subject": long})
    assert (pane.key, pane.revision) == ({"subject": long}, 0)
    (pane,) = read_served_pane(dynamodb, "panes", **HERE, key={"subject": longest})
    assert (pane.key, pane.revision) == (None, 1)


def test_pane_ids_are_readable_and_bounded() -> None:
    assert pane_id("weather", 1, "wind", {"subject": "lga"}) == 'weather#1#wind#{"subject":"lga"}'
    assert len(pane_id("weather", 1, "wind", {"subject": "k" * 3_000})) < 200
