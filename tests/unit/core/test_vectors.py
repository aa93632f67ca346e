"""Times and sequences read as columns are those read one by one."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from streamgauge.events.envelope import InvalidEvent, parse_sequence
from streamgauge.events.times import instant_ms, rfc3339
from streamgauge.processors.core.vectors import instants, sequences

DAY_MS = 86_400_000
START_MS = 1_709_164_800_000
SIGNS = st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("\u0660\uff10\u00e9\0")


@st.composite
def changed(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """A text, now and then with another character somewhere, or cut."""
    text = draw(texts)
    place = draw(st.none() | st.integers(0, max(0, len(text) - 1)))
    if place is not None:
        text = text[:place] + draw(SIGNS | st.just("")) + text[place + 1 :]
    return text


moments = st.integers(START_MS, START_MS + DAY_MS - 1).map(rfc3339)
any_moments = st.integers(-62_135_596_800_000, 253_402_300_799_999).map(rfc3339)
seconds = moments.map(lambda text: text[:19] + "Z")
sequence_texts = st.integers(0, 2**64).map("{:020}".format)


def one_by_one(read: Callable[[str], int], texts: list[str], missing: int) -> tuple[list[int], list[int]]:
    values, odd = [], []
    for index, text in enumerate(texts):
        try:
            values.append(read(text))
        except (ValueError, InvalidEvent):
            values.append(missing)
            odd.append(index)
    return values, odd


@given(st.one_of(st.lists(kind, min_size=1, max_size=6) for kind in (moments, any_moments, seconds, changed(moments))))
@example(["2024-02-29T23:59:59.999Z", "2024-02-29T24:00:00.000Z"])
@example(["2024-02-29T23:59:60.000Z"])
@example(["2023-02-29T23:59:59.000Z"])
def test_times_read_as_columns_are_those_read_one_by_one(texts: list[str]) -> None:
    times, odd = instants(texts)
    assert (times.tolist(), odd) == one_by_one(instant_ms, texts, 0)


@given(st.one_of(st.lists(kind, min_size=1, max_size=6) for kind in (sequence_texts, changed(sequence_texts))))
@example(["", "0" * 40])
@example(["0" * 19, "0" * 21])
@example(["0" * 19 + "\uff10"])
@example([f"{10**15 - 1:020}", f"{10**15:020}", f"{2**63 - 1:020}", f"{2**63:020}"])
def test_sequences_read_as_columns_are_those_read_one_by_one(texts: list[str]) -> None:
    numbers, odd = sequences(texts)
    assert (numbers.tolist(), odd) == one_by_one(parse_sequence, texts, -1)


def test_an_absent_sequence_is_odd() -> None:
    numbers, odd = sequences(["0" * 20, None, f"{7:020}"])
    assert (numbers.tolist(), odd) == ([0, -1, 7], [1])
