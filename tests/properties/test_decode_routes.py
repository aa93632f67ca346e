"""However the msgspec decoder reads a payload, typed, grouped or one by one, it reads the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
from decode_world import ARN, BASE, MAPPED, OWN, SHARD, TWO_TYPES, WEATHER, aggregate, event, mapped, plain, tell
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.events.position import Position
from streamgauge.processors.core.decode import MsgspecDecoder
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.reading import Fields

NESTED = mapped('id = "meta.id"\ntime = "meta.at"\ntype = "meta.kind"\nkey = "station"\nsource = "meta.from"\n')
EPOCH = mapped('time = "count"\ntime_format = "epoch_ms"\ntype = "\'weather\'"\nkey = "station"\nid = "station"\n')


class NothingIsPlain:
    def read(self, payloads: Sequence[bytes], positions: Callable[[], list[str]]) -> Fields | None:
        return None


def routes(pipeline: Pipeline) -> list[MsgspecDecoder]:
    usual, grouped, exact = (MsgspecDecoder(pipeline, ARN) for _ in range(3))
    grouped._typed = exact._typed = None
    exact._grouped = NothingIsPlain()
    return [usual, grouped, exact]


texts = st.one_of(st.sampled_from(["k", "", "weather", "tide", "noise", OWN, "1", "2024-01-01T00:00:00Z"]), st.text())
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(allow_nan=False), texts, st.just([])
)
names = st.sampled_from(["temp", "count", "wet", "station", "inner", "quality", "n", "at", "meta", "source", "x"])
objects = st.dictionaries(names, st.one_of(scalars, st.dictionaries(names, scalars, max_size=3)), max_size=7)
attributes = st.dictionaries(
    st.sampled_from(
        ["specversion", "id", "source", "type", "time", "subject", "sequence", "partitionkey", "dataschema", "data"]
    ),
    st.one_of(scalars, objects),
    max_size=3,
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    changes = draw(attributes)
    payload = event(draw(st.integers(0, 9)), **{"data": draw(objects) | {"count": 1}, **changes})  # type: ignore[arg-type]
    return json.dumps(json.loads(payload), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def records(draw: st.DrawFn) -> bytes:
    base = {
        "n": 1,
        "at": "2024-01-01T00:00:00.000Z",
        "station": "k",
        "count": 1,
        "meta": {"id": "a", "at": "2024-01-01T00:00:00Z", "kind": "weather", "from": "g"},
    }
    changed = base | draw(st.one_of(st.just({}), objects))
    return json.dumps(changed, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def mangled(draw: st.DrawFn, payloads: st.SearchStrategy[bytes]) -> bytes:
    payload = draw(payloads)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        place = draw(st.integers(0, len(payload)))
        cut = draw(st.integers(0, 3))
        payload = payload[:place] + draw(st.binary(max_size=3)) + payload[place + cut :]
    return payload


@pytest.mark.parametrize(
    "pipeline", [WEATHER, TWO_TYPES, MAPPED, NESTED, EPOCH], ids=["one", "two", "flat", "nested", "epoch"]
)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_all_routes_read_the_same(pipeline: Pipeline, data: st.DataObject) -> None:
    kinds = [mangled(events()), mangled(records()), st.just(event()), events(), records()]
    payloads = data.draw(st.lists(st.one_of(kinds), min_size=1, max_size=8))
    stream = [aggregate(payloads), *plain(payloads, base=BASE + 1)]
    usual, grouped, exact = [tell(decoder.decode(stream, SHARD, None)) for decoder in routes(pipeline)]
    assert usual == exact
    assert grouped == exact


@settings(max_examples=60, deadline=None)
@given(st.lists(mangled(events()), min_size=1, max_size=8), st.integers(0, 9), st.integers(0, 9))
def test_cuts_and_restarts_change_nothing(payloads: list[bytes], cut: int, sub: int) -> None:
    stream = [aggregate(payloads), *plain(payloads, base=BASE + 1)]
    whole = tell(MsgspecDecoder(WEATHER, ARN).decode(stream, SHARD, None))
    after = Position(BASE + min(cut, len(payloads)), 0) if cut else Position(BASE, min(sub, len(payloads) - 1))
    rest = tell(MsgspecDecoder(WEATHER, ARN).decode(stream, SHARD, after))
    assert rest == {place: told for place, told in whole.items() if place > (after.sequence_number - BASE, after[1])}
