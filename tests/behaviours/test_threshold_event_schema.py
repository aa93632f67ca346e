"""What the receiver puts is what docs/threshold-event.schema.json describes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commit_world import make_crossing
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from streamgauge.processors.commit.eventbridge import EventBridgeReceiver
from streamgauge.processors.commit.threshold_detail import SCHEMA_VERSION, ThresholdDetail
from streamgauge.processors.core.definition import Severity
from streamgauge.processors.core.effects import ThresholdEvent

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "docs" / "threshold-event.schema.json").read_text(encoding="utf-8")
)
DETAIL = SCHEMA["properties"]["detail"]


def put(event: ThresholdEvent, **severities: Severity) -> dict[str, Any]:
    """The event as EventBridge would hand it to a target."""
    entries: list[dict[str, str]] = []

    class Bus:
        def put_events(self, *, Entries: list[dict[str, str]]) -> dict[str, object]:  # noqa: N803 - AWS's name
            entries.extend(Entries)
            return {"FailedEntryCount": 0, "Entries": [{"EventId": "x"} for _ in Entries]}

        def describe_event_bus(self, *, Name: str) -> dict[str, object]:  # noqa: N803 - AWS's name
            return {"Name": Name}

    EventBridgeReceiver(Bus(), "thresholds", severities=severities).deliver([event])  # type: ignore[arg-type]
    (entry,) = entries
    return {"source": entry["Source"], "detail-type": entry["DetailType"], "detail": json.loads(entry["Detail"])}


def problems(event: dict[str, Any]) -> list[str]:
    checked = Draft202012Validator(SCHEMA, format_checker=FormatChecker()).iter_errors(event)
    return [f"{'.'.join(map(str, each.path))}: {each.message}" for each in checked]


crossings = st.builds(
    lambda number, key, state, reason, measure, clear_when, takes_back: replace(
        make_crossing(number, key=key),
        kind="raise" if state == "raised" else "clear",
        state=state,
        reason=reason,
        measures=(("gust_max", measure), ("n", number)),
        clear_when=clear_when,
        takes_back=takes_back,
    ),
    st.integers(0, 10**6),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(["raised", "cleared"]),
    st.sampled_from(["crossed", "corrected"]),
    st.none() | st.floats() | st.integers(-(2**53), 2**53),
    st.none() | st.just("gust_max < 40"),
    st.none() | st.just("another id"),
)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"].endswith(f":{SCHEMA_VERSION}")
    assert DETAIL["properties"]["schema_version"] == {
        "const": SCHEMA_VERSION,
        "description": DETAIL["properties"]["schema_version"]["description"],
    }


@given(crossings)
def test_every_threshold_event_fits_the_schema(event: ThresholdEvent) -> None:
    assert problems(put(event)) == []


def test_one_that_is_too_large_fits_it_too() -> None:
    large = put(make_crossing(1, key="k" * 300_000))
    assert large["detail"]["oversize"] is True
    assert problems(large) == []


def test_every_field_is_described_and_none_that_is_not_there() -> None:
    assert put(make_crossing(1))["detail"].keys() == DETAIL["properties"].keys() == set(DETAIL["required"])
    assert all(each["description"] for each in DETAIL["properties"].values())


@pytest.mark.parametrize("name", sorted(ThresholdDetail.__struct_fields__))
def test_without_a_field_an_event_does_not_fit(name: str) -> None:
    event = put(make_crossing(1))
    del event["detail"][name]
    assert problems(event) == [f"detail: '{name}' is a required property"]


def test_an_event_has_its_rules_severity() -> None:
    assert put(make_crossing(1), gale="critical")["detail"]["severity"] == "critical"
    assert put(make_crossing(1), another="critical")["detail"]["severity"] == "warning"


def test_raise_and_clear_of_one_rule_and_key_share_their_alert_and_no_others() -> None:
    raised = make_crossing(1)
    alert = put(raised)["detail"]["alert_id"]
    same = [replace(raised, id="x", state="cleared", kind="clear"), make_crossing(7), replace(raised, detail_type="x")]
    assert {put(event)["detail"]["alert_id"] for event in same} == {alert}
    others = [
        replace(raised, key=(("subject", "jfk"),)),
        replace(raised, key=(("type", "lga"),)),
        replace(raised, rule="calm"),
        replace(raised, pipeline="another"),
        replace(raised, state_epoch=2),
    ]
    found = {put(event)["detail"]["alert_id"] for event in others}
    assert len(found) == len(others) and alert not in found


def test_a_summary_says_what_happened_to_whom_and_when() -> None:
    assert put(make_crossing(1))["detail"]["summary"] == (
        "Gale raised for lga: n = 1, mean = 0.5, gust = none in the window "
        "1970-01-01T00:00:01.000Z to 1970-01-01T00:00:02.000Z"
    )
    two = replace(make_crossing(1), key=(("subject", "lga"), ("type", "wind")), state="cleared", reason="corrected")
    assert put(two)["detail"]["summary"].startswith("Gale cleared for subject lga, type wind, by a correction: n = 1")


@given(st.text())
def test_a_summary_can_stand_in_quotes(key: str) -> None:
    summary = put(make_crossing(1, key=key.encode(errors="replace").decode()))["detail"]["summary"]
    assert json.loads(f'"{summary}"') == summary
