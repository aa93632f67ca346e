"""Whatever comes along in a stream, processor and audit reach the same numbers by their own ways."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from archive_world import EVERY_KIND, OURS, T0, PipelineWorld, aggregate, event
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.events.control import EndOfInput, Tick, control_event
from streamgauge.events.envelope import encode_event
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.infra.local.kinesis.model import PutEntry

KEYS = st.sampled_from(["LGA", "JFK", "EWR"])
ODD_SOURCES = [OURS.replace("1024", "1048576"), OURS.replace("1024", "1000"), "urn:streamgauge:x"]
SOURCES = st.sampled_from([OURS] * 12 + ["https://a"] * 6 + ODD_SOURCES)
GOOD_DATA: list[object] = [{"wind": 3}, {"wind": 99.5, "temp": 1}, {"wind": 45}, {"wind": 250}]
DATA = st.sampled_from(GOOD_DATA * 4 + [{"wind": -1}, {"wind": 1, "unit": 4}, {"temp": "x", "wind": 2}, {}])
KINDS = st.sampled_from(
    ["weather.observation"] * 20 + ["sea-level", "unheard.of", "streamgauge.tick", "streamgauge.ledger"]
)
SCHEMAS = st.sampled_from([None] * 5 + [f"urn:streamgauge:schema:weather.observation:{n}" for n in (1, 2, 3)])


@st.composite
def payloads(draw: st.DrawFn) -> tuple[str, bytes]:
    key = draw(KEYS)
    number = draw(st.integers(0, 40))
    source = draw(SOURCES)
    attributes: dict[str, object] = {"dataschema": draw(SCHEMAS)} if draw(st.booleans()) else {}
    if draw(st.integers(0, 19)) == 0:
        attributes["partitionkey"] = draw(KEYS)
    payload = event(
        number if draw(st.integers(0, 19)) else None,
        subject=key,
        at_ms=T0 + draw(st.integers(-5_000, 60_000)),
        type=draw(KINDS),
        source=source,
        data=draw(DATA),
        **{"id": str(number), **attributes},
    )
    match draw(st.integers(0, 30)):
        case 0:
            payload = payload[: draw(st.integers(0, len(payload)))]
        case 1:
            body = json.loads(payload)
            del body[draw(st.sampled_from(sorted(body)))]
            payload = json.dumps(body).encode()
        case 2:
            control = draw(st.sampled_from([Tick(T0 + 50_000), EndOfInput("f", 0, 1), EndOfInput("f", 3, 1)]))
            payload = encode_event(control_event("test", control, id=str(number), time_ms=T0))
    return draw(KEYS) if draw(st.integers(0, 19)) == 0 else key, payload


@st.composite
def records(draw: st.DrawFn) -> PutEntry:
    if draw(st.integers(0, 3)):
        key, payload = draw(payloads())
        return PutEntry(key, payload or b"{")
    entry = aggregate(*draw(st.lists(payloads(), min_size=1, max_size=4)))
    return entry if draw(st.integers(0, 9)) else PutEntry(entry.partition_key, entry.data[:-1])


@settings(max_examples=40, deadline=None)
@given(st.lists(records(), min_size=1, max_size=40), st.integers(1, 3))
def test_processor_and_audit_agree_on_any_stream(entries: list[PutEntry], shards: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = PipelineWorld(Path(folder), shards=shards, text=EVERY_KIND)
        half = len(entries) // 2
        for part in (entries[:half], entries[half:]):
            if part:
                world.put(*part)
            world.pass_time(3_000_000)
            world.process()
        world.deliver()
        assert world.audit().failed == []


@st.composite
def anywhere(draw: st.DrawFn) -> PutEntry:
    """A record that may stand in a shard that is not its key's: misrouted, or a failed event."""
    entry = draw(records())
    if draw(st.integers(0, 9)):
        return entry
    return PutEntry(entry.partition_key, entry.data, draw(st.integers(0, FULL_RANGE.last)))


@st.composite
def phases(draw: st.DrawFn) -> list[tuple[list[PutEntry], list[int], bool]]:
    """Records, then reshards (of which shard, modulo how many there are), then perhaps a run of the processor."""
    phase = st.tuples(st.lists(anywhere(), max_size=12), st.lists(st.integers(0, 7), max_size=2), st.booleans())
    return draw(st.lists(phase, min_size=1, max_size=5))


@settings(max_examples=25, deadline=None)
@given(phases(), st.integers(1, 3), st.booleans())
def test_processor_and_audit_agree_however_the_stream_is_resharded(
    phases: list[tuple[list[PutEntry], list[int], bool]], shards: int, finished: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = PipelineWorld(Path(folder), shards=shards, text=EVERY_KIND)
        for entries, reshards, is_processed in phases:
            if entries:
                world.put(*entries)
            for choice in reshards:
                opened = world.open_shards
                place = choice // 2 % len(opened)
                if choice % 2 and place + 1 < len(opened):
                    world.merge(opened[place], opened[place + 1])
                else:
                    world.split(opened[place])
            world.pass_time(1_500_000)
            if is_processed:
                world.process()
        if finished:
            world.process()
        world.deliver()
        failed = [check for check in world.audit().failed if check.name != "processed"]
        assert failed == []
        for aggregate in ("wind", "hops", "visits"):
            panes = world.results(aggregate, include_open=True)
            assert len({(*pane.key.values(), pane.window_start) for pane in panes}) == len(panes)
