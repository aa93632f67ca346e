"""User records as the KCL hands them over mean what the stream's records mean."""

from __future__ import annotations

import pytest
from decode_world import ARN, BASE, MAPPED, SHARD, WEATHER, aggregate, event, plain, shard_without, tell
from hypothesis import given, settings
from hypothesis import strategies as st
from kcl_records import user_records

from streamgauge.events.control import Tick, control_event
from streamgauge.events.envelope import encode_event
from streamgauge.events.hash_key import hash_key
from streamgauge.events.kpl import KPL_MAGIC
from streamgauge.events.position import Position
from streamgauge.events.records import Shard, StreamRecord
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.definition import Pipeline

TICK = encode_event(control_event("t", Tick(at_ms=1_700_000_000_000), id="1", time_ms=1_700_000_000_000))
KEYS = ["k", "other", "third"]
HALF = shard_without(min(map(hash_key, KEYS)))

payloads = st.one_of(
    st.integers(0, 9).map(event),
    st.just(b"not JSON"),
    st.just(KPL_MAGIC + b"no aggregate"),
    st.just(TICK),
    st.just(b'{"n": 3, "at": "2024-01-01T00:00:00Z", "station": "k", "count": 1}'),
)


@st.composite
def streams(draw: st.DrawFn) -> list[StreamRecord]:
    records: list[StreamRecord] = []
    for index in range(draw(st.integers(1, 6))):
        # A control record alone in an aggregate, or a forged aggregate in one, is what the KCL does not let us see.
        inside = draw(st.lists(st.sampled_from([event(index), b"not JSON"]), min_size=1, max_size=4))
        if draw(st.booleans()):
            names = draw(st.lists(st.sampled_from(KEYS), min_size=len(inside), max_size=len(inside)))
            record = aggregate(inside, keys=names)
            if draw(st.integers(0, 5)) == 0:
                record = record._replace(data=record.data[:-1] + bytes([record.data[-1] ^ 1]))
        else:
            record = plain([draw(payloads)], key=draw(st.sampled_from(KEYS)))[0]
        records.append(record._replace(sequence_number=str(BASE + index)))
    return records


@pytest.mark.parametrize("pipeline", [WEATHER, MAPPED], ids=["cloudevents", "mapped"])
@pytest.mark.parametrize("shard", [SHARD, HALF], ids=["whole", "half"])
@settings(max_examples=100, deadline=None)
@given(stream=streams(), skip=st.integers(-1, 5), sub=st.integers(0, 4))
def test_what_was_taken_apart_means_the_same(
    pipeline: Pipeline, shard: Shard, stream: list[StreamRecord], skip: int, sub: int
) -> None:
    after = None if skip < 0 else Position(BASE + skip, sub)
    apart = user_records(stream, shard)
    whole = MsgspecDecoder(pipeline, ARN).decode(stream, shard, after)
    taken = MsgspecDecoder(pipeline, ARN).decode(apart, shard, after)
    # The KCL drops misrouted aggregates, and does not say so.
    foreign = {place for place, told in tell(whole).items() if told.what == "misrouted_aggregate"}
    assert tell(taken) == {place: told for place, told in tell(whole).items() if place not in foreign}
    assert taken.misrouted == 0
    assert taken.positions == whole.positions - whole.misrouted - len(foreign)
    if apart:
        last = apart[-1]
        assert taken.sequence_numbers[-1] == int(last.sequence_number)
        assert taken.last_sub_sequence == last.sub_sequence_number


def test_a_control_record_among_others_of_an_aggregate_is_refused_in_both_forms() -> None:
    stream = [aggregate([TICK, event(1)])]
    told = tell(MsgspecDecoder(WEATHER, ARN).decode(user_records(stream, SHARD), SHARD, None))
    assert told == tell(MsgspecDecoder(WEATHER, ARN).decode(stream, SHARD, None))
    assert told[0, 0].what == "envelope"


def test_a_control_record_put_by_itself_counts() -> None:
    decoded = MsgspecDecoder(WEATHER, ARN).decode(user_records(plain([TICK]), SHARD), SHARD, None)
    assert [control.event.type for control in decoded.controls] == ["streamgauge.tick"]
