"""Duplicates are judged as if events came one by one, however the stream is cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.processors.core.batch import EventBatch
from streamgauge.processors.core.container import decode_columns, encode_columns
from streamgauge.processors.core.dedupe import SILENCE_MARGIN_MS, Deduper, Verdict

RESEND_MS = 5_000
FOREIGN_MS = 40
# Rings of few words, so that they wrap often. The zero is a foreign source, the -1 one told apart by position.
WINDOWS = {"a": 64, "b": 128, "c": 64, "d": 1024, "e": 256, "f": 0, "g": 0, "p": -1}
SOURCES = sorted(WINDOWS)


@dataclass(frozen=True)
class Sent:
    source: str
    number: int
    """The sequence of an event of ours, the id of a foreign one."""
    arrival_ms: int


@dataclass
class OneByOne:
    """The rules, word for word, with nothing clever."""

    seen: dict[str, set[int]] = field(default_factory=dict)
    heard_ms: dict[str, int] = field(default_factory=dict)
    foreign: dict[tuple[str, int], int] = field(default_factory=dict)

    def judge(self, event: Sent) -> Verdict:
        window = WINDOWS[event.source]
        if window < 0:
            return Verdict.NEW
        if window == 0:
            before = self.foreign.get((event.source, event.number))
            self.foreign[event.source, event.number] = event.arrival_ms
            known = before is not None and event.arrival_ms - before <= FOREIGN_MS
            return Verdict.DUPLICATE_FOREIGN if known else Verdict.NEW
        heard = self.heard_ms.get(event.source)
        if heard is None or event.arrival_ms - heard > RESEND_MS + SILENCE_MARGIN_MS:
            self.seen[event.source] = set()
        self.heard_ms[event.source] = event.arrival_ms
        seen = self.seen[event.source]
        if seen and event.number <= max(seen) - window:
            return Verdict.DUPLICATE_BELOW_WINDOW
        if event.number in seen:
            return Verdict.DUPLICATE_IN_WINDOW
        seen.add(event.number)
        return Verdict.NEW


def batch_of(events: list[Sent]) -> EventBatch:
    n = len(events)
    sources = list(dict.fromkeys(event.source for event in events))
    return EventBatch(
        record=np.arange(n),
        sub_sequence=np.zeros(n, dtype=np.int64),
        time_ms=np.zeros(n, dtype=np.int64),
        source=np.array([sources.index(event.source) for event in events], dtype=np.int64),
        sources=sources,
        source_windows=[WINDOWS[source] for source in sources],
        sequence=np.array([event.number if WINDOWS[event.source] > 0 else -1 for event in events], dtype=np.int64),
        ids=[str(event.number) for event in events],
        partition_keys=["k"] * n,
        outcome=np.zeros(n, dtype=np.uint8),
        failures={},
        fields={},
        payloads=[b"{}"] * n,
    )


def new_deduper() -> Deduper:
    return Deduper(1 << 20, RESEND_MS, FOREIGN_MS)


def judge(deduper: Deduper, events: list[Sent]) -> list[int]:
    arrival_ms = np.array([event.arrival_ms for event in events], dtype=np.int64)
    return [int(verdict) for verdict in deduper.apply(batch_of(events), arrival_ms)]


def judge_in_parts(deduper: Deduper, events: list[Sent], cuts: list[int]) -> list[int]:
    edges = [0, *sorted(cut for cut in cuts if cut < len(events)), len(events)]
    return [verdict for first, last in pairwise(edges) for verdict in judge(deduper, events[first:last])]


SILENCE_MS = RESEND_MS + SILENCE_MARGIN_MS
numbers = st.one_of(
    st.integers(0, 40),
    st.integers(0, 300),
    st.integers(0, 40).map(lambda number: 64 * number),
    st.integers(2**63 - 200, 2**63 - 1),
    st.integers(0, 2**63 - 1),
)
waits = st.sampled_from([0, 0, 0, 0, 1, 1, 7, FOREIGN_MS, FOREIGN_MS + 1, SILENCE_MS, SILENCE_MS + 1])


@st.composite
def streams(draw: st.DrawFn) -> list[Sent]:
    steps = draw(st.lists(st.tuples(st.sampled_from(SOURCES), numbers, waits), max_size=60))
    arrival, events = 1_000, []
    for source, number, wait in steps:
        arrival += wait
        events.append(Sent(source, number, arrival))
    return events


@settings(max_examples=400, deadline=None)
@given(streams(), st.lists(st.integers(0, 60), max_size=6))
def test_batches_are_judged_as_if_event_by_event(events: list[Sent], cuts: list[int]) -> None:
    model = OneByOne()
    assert judge_in_parts(new_deduper(), events, cuts) == [model.judge(event) for event in events]


# Steps around the sizes of words and rings, and stragglers that meet bits which an earlier lap had set.
jumps = st.sampled_from([0, 1, 1, 2, 31, 33, 63, 64, 65, 127, 128, 129, 191, 192, 255, 256, 257])
backs = st.one_of(st.integers(0, 70), st.integers(0, 300))


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(["a", "b", "e", "ab"]),
    st.lists(st.tuples(jumps, backs), min_size=1, max_size=80),
    st.lists(st.integers(0, 80), max_size=8),
)
def test_windows_that_move_by_any_step_are_judged_as_if_event_by_event(
    names: str, steps: list[tuple[int, int]], cuts: list[int]
) -> None:
    highest, events = 0, []
    for index, (jump, back) in enumerate(steps):
        highest += jump
        source = names[index % len(names)]
        events += [Sent(source, highest, 1_000), Sent(source, max(0, highest - back), 1_000)]
    model = OneByOne()
    assert judge_in_parts(new_deduper(), events, cuts) == [model.judge(event) for event in events]


@settings(max_examples=200, deadline=None)
@given(streams(), st.lists(st.integers(0, 60), max_size=6), st.integers(0, 60))
def test_a_restored_memory_goes_on_as_the_old_one_would(events: list[Sent], cuts: list[int], stop: int) -> None:
    whole = judge(new_deduper(), events)
    first, second = new_deduper(), new_deduper()
    before = judge_in_parts(first, events[:stop], cuts)
    second.restore(decode_columns(encode_columns(first.columns())))
    assert before + judge_in_parts(second, events[stop:], cuts) == whole


@settings(max_examples=150, deadline=None)
@given(streams(), st.lists(st.integers(0, 60), max_size=6))
def test_what_is_saved_depends_on_the_events_and_not_on_the_cuts(events: list[Sent], cuts: list[int]) -> None:
    one, parts = new_deduper(), new_deduper()
    judge(one, events)
    judge_in_parts(parts, events, cuts)
    assert encode_columns(one.columns()) == encode_columns(parts.columns())


def test_a_forged_jump_of_one_source_harms_no_other() -> None:
    events = [Sent("a", 5, 0), Sent("a", 2**63 - 1, 0), Sent("b", 0, 0), Sent("a", 6, 0), Sent("b", 1, 0)]
    assert judge(new_deduper(), events) == [0, 0, 0, Verdict.DUPLICATE_BELOW_WINDOW, 0]


def test_the_window_holds_exactly_w_sequences() -> None:
    deduper = new_deduper()
    assert judge(deduper, [Sent("a", 64, 0), Sent("a", 1, 0), Sent("a", 0, 0)]) == [
        Verdict.NEW,
        Verdict.NEW,
        Verdict.DUPLICATE_BELOW_WINDOW,
    ]


def test_a_silent_source_is_forgotten_after_the_horizon_and_not_before() -> None:
    for silence, verdict in ((SILENCE_MS, Verdict.DUPLICATE_IN_WINDOW), (SILENCE_MS + 1, Verdict.NEW)):
        deduper = new_deduper()
        assert judge(deduper, [Sent("a", 7, 10)]) == [Verdict.NEW]
        assert judge(deduper, [Sent("a", 7, 10 + silence)]) == [verdict]


def test_a_foreign_id_is_remembered_from_its_last_copy_on() -> None:
    events = [Sent("f", 1, 0), Sent("f", 1, FOREIGN_MS), Sent("f", 1, 2 * FOREIGN_MS), Sent("f", 1, 3 * FOREIGN_MS + 1)]
    assert judge(new_deduper(), events) == [0, Verdict.DUPLICATE_FOREIGN, Verdict.DUPLICATE_FOREIGN, 0]


@pytest.mark.parametrize("source", ["a", "b", "e"])
def test_a_jump_clears_exactly_the_bits_that_it_passes_over(source: str) -> None:
    window = WINDOWS[source]
    for highest in (window - 1, window, window + 30, 2 * window + 62, 2 * window + 63):
        for jump in (1, 2, 5, 31, 33, 63, 64, 65, window - 65, window - 64, window - 2, window - 1, window, window + 1):
            if jump < 1:
                continue
            deduper = new_deduper()
            judge(deduper, [Sent(source, number, 0) for number in range(highest + 1)])
            judge(deduper, [Sent(source, highest + jump, 0)])
            inside = range(highest + jump, max(0, highest + jump - window), -1)
            got = judge(deduper, [Sent(source, number, 0) for number in inside])
            seen = [number == highest + jump or number <= highest for number in inside]
            assert got == [Verdict.DUPLICATE_IN_WINDOW if known else Verdict.NEW for known in seen], (highest, jump)


def test_a_source_that_was_forgotten_is_saved_as_if_it_were_new() -> None:
    back, fresh = new_deduper(), new_deduper()
    judge(back, [Sent("b", number, 0) for number in range(100)] + [Sent("a", 0, SILENCE_MS)])
    judge(fresh, [Sent("a", 0, SILENCE_MS)])
    for deduper in (back, fresh):
        judge(deduper, [Sent("a", 1, SILENCE_MS + 1), Sent("b", 3, SILENCE_MS + 1)])
    assert encode_columns(back.columns()) == encode_columns(fresh.columns())


def test_source_and_id_are_not_run_together() -> None:
    deduper = new_deduper()
    first, second = batch_of([Sent("f", 1, 0)]), batch_of([Sent("f", 1, 0)])
    first.sources, first.ids = ["ab"], ["c"]
    second.sources, second.ids = ["a"], ["bc"]
    arrival = np.zeros(1, dtype=np.int64)
    assert deduper.apply(first, arrival).tolist() == [0]
    assert deduper.apply(second, arrival).tolist() == [0]


def test_expired_ids_and_silent_sources_leave_the_snapshot() -> None:
    deduper = new_deduper()
    judge(deduper, [Sent("a", 1, 0), Sent("f", 1, 0), *(Sent(name, 1, 1) for name in "bcde")])
    judge(deduper, [Sent("b", 2, SILENCE_MS + 1)])
    columns = deduper.columns()
    assert columns["own_sources"] == ["b", "c", "d", "e"]
    assert columns["foreign_ids"] == []


def test_many_sources_come_and_go_in_bounded_memory() -> None:
    deduper = new_deduper()
    WINDOWS.update({f"source-{number}": 1024 for number in range(200)})
    for step in range(40):
        names = [f"source-{(5 * step + offset) % 200}" for offset in range(5)]
        judge(deduper, [Sent(name, step, step * SILENCE_MS) for name in names])
        assert len(deduper._own._slots) <= 20
    assert len(deduper.columns()["own_sources"]) == 10


def test_a_hundred_thousand_foreign_ids_are_restored() -> None:
    ids = [f"0190b2c4-0000-7000-8000-{number:012}" for number in range(100_000)]
    deduper = new_deduper()
    batch = batch_of([])
    batch.record = batch.sub_sequence = batch.time_ms = batch.source = np.zeros(len(ids), dtype=np.int64)
    batch.sources, batch.source_windows, batch.ids, batch.payloads = ["f"], [0], ids, [b""] * len(ids)
    batch.sequence = np.full(len(ids), -1)
    arrival = np.zeros(len(ids), dtype=np.int64)
    assert not deduper.apply(batch, arrival).any()
    columns = decode_columns(encode_columns(deduper.columns()))
    restored = new_deduper()
    restored.restore(columns)
    assert (restored.apply(batch, arrival) == Verdict.DUPLICATE_FOREIGN).all()


@pytest.mark.parametrize("window", [1024, 16_384])
def test_a_ring_that_wraps_many_times_forgets_only_what_left_the_window(window: int) -> None:
    WINDOWS["ring"] = window
    deduper = new_deduper()
    for first in range(0, 5 * window, window // 4 + 7):
        run = [Sent("ring", number, 0) for number in range(first, first + window // 4 + 7)]
        assert set(judge(deduper, run)) == {Verdict.NEW}
        assert set(judge(deduper, run)) == {Verdict.DUPLICATE_IN_WINDOW}


def joined_memory(parts: list[OneByOne]) -> OneByOne:
    """What two shards remember, put together: everything that either has seen."""
    joined = OneByOne()
    for part in parts:
        for source, seen in part.seen.items():
            joined.seen[source] = joined.seen.get(source, set()) | seen
            joined.heard_ms[source] = max(joined.heard_ms.get(source, 0), part.heard_ms[source])
        for identity, arrival in part.foreign.items():
            joined.foreign[identity] = max(arrival, joined.foreign.get(identity, 0))
    return joined


@settings(max_examples=150, deadline=None)
@given(streams(), st.lists(st.sampled_from([0, 0, 1, 2]), min_size=60, max_size=60))
def test_the_child_of_a_merge_knows_what_either_parent_has_seen(events: list[Sent], places: list[int]) -> None:
    # Silence forgets; here it would do so in one parent alone.
    short = [event for event in events if event.arrival_ms < SILENCE_MS]
    split = [[event for event, place in zip(short, places, strict=False) if place == part] for part in range(3)]
    parents, models = [new_deduper(), new_deduper()], [OneByOne(), OneByOne()]
    for deduper, model, mine in zip(parents, models, split, strict=False):
        assert judge(deduper, mine) == [int(model.judge(event)) for event in mine]
    child = new_deduper()
    child.restore(parents[0].columns())
    other = new_deduper()
    other.restore(parents[1].columns())
    child.join(other)
    model = joined_memory(models)
    now = max((event.arrival_ms for event in short), default=0)
    later = [Sent(event.source, event.number, now) for event in split[2]]
    assert judge(child, later) == [int(model.judge(event)) for event in later]
    # Everything that a ring has a bit for, and some below it.
    for source, seen in model.seen.items():
        reach = range(max(seen), max(-1, max(seen) - WINDOWS[source] - 3), -1) if seen else range(0)
        probes = [Sent(source, number, now) for number in reach]
        assert judge(child, probes) == [int(model.judge(event)) for event in probes]


def test_a_joined_window_keeps_what_the_lower_one_has_seen() -> None:
    ahead, behind = new_deduper(), new_deduper()
    judge(ahead, [Sent("a", number, 0) for number in (10, 70)])
    judge(behind, [Sent("a", number, 0) for number in (3, 11, 12)])
    for first, second in ((ahead, behind), (behind, ahead)):
        joined, other = new_deduper(), new_deduper()
        joined.restore(first.columns())
        other.restore(second.columns())
        joined.join(other)
        # In the ring 67 stands where 3 stood, and 75 where 11 did.
        numbers = (70, 10, 11, 12, 13, 3, 6, 67, 75)
        assert judge(joined, [Sent("a", number, 0) for number in numbers]) == [1, 1, 1, 1, 0, 2, 2, 0, 0]
