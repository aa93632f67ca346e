"""Control and ledger records are events like others, from sources of their own."""

from __future__ import annotations

import msgspec

from streamgauge.events.control import (
    END_OF_INPUT,
    LEDGER,
    TICK,
    EndOfInput,
    Ledger,
    Tick,
    control_event,
    ledger_event,
)
from streamgauge.events.envelope import decode_event, encode_event, own_source

OURS = "urn:streamgauge:0191d5e0-7b1c-7c3e-9f00-0123456789ab:w1024"


def test_a_tick_travels_as_an_event_of_a_control_source() -> None:
    event = decode_event(encode_event(control_event("stack", Tick(5_000), id="tick-1", time_ms=5_001)))
    assert (event.source, event.type, event.subject) == ("urn:streamgauge:control:stack", TICK, "stack")
    assert event.time == "1970-01-01T00:00:05.001Z"
    assert own_source(event.source) is None
    assert msgspec.json.decode(event.data, type=Tick) == Tick(5_000)


def test_the_end_of_a_part_names_the_input_and_how_many_parts_it_has() -> None:
    body = EndOfInput(input="nyc", part=1, parts=3)
    event = decode_event(encode_event(control_event("loader", body, id="nyc-1", time_ms=0)))
    assert event.type == END_OF_INPUT
    assert msgspec.json.decode(event.data, type=EndOfInput) == body


def test_a_ledger_statement_comes_from_the_source_that_it_accounts_for() -> None:
    body = Ledger(acknowledged=[(0, 41), (43, 50)], in_doubt=[(42, 42)], given_up=[], final=True)
    event = decode_event(encode_event(ledger_event(OURS, body, number=3, time_ms=0)))
    assert (event.source, event.type, event.id, event.sequence) == (OURS, LEDGER, "ledger-3", None)
    assert event.partition_key == OURS
    assert msgspec.json.decode(event.data, type=Ledger) == body
