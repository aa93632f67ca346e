"""A producer's promises, in virtual time against the model of Kinesis."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.events.control import END_OF_INPUT, EndOfInput, Ledger
from streamgauge.events.hash_key import hash_key
from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.producers.client.closing import Phase
from streamgauge.producers.client.core import EventTooLarge
from streamgauge.producers.client.delivery import Acknowledged, GivenUp, Unknown
from streamgauge.producers.client.encoding import InvalidPut
from streamgauge.producers.client.settings import ProducerSettings


def sequences(world) -> list[int]:
    return [int(read.event.sequence) for read in world.events()]


def ledgers(world) -> list[tuple[str, Ledger]]:
    found = [read for read in world.read() if read.event.type == "streamgauge.ledger"]
    found.sort(key=lambda read: read.sequence_number)
    return [(read.event.source, msgspec.json.decode(read.event.data, type=Ledger)) for read in found]


def a_key_of_each_half() -> tuple[str, str]:
    keys = [f"key-{n}" for n in range(60)]
    lower, upper = (next(key for key in keys if (hash_key(key) < 2**127) is low) for low in (True, False))
    return lower, upper


def test_every_event_is_acknowledged_where_it_lies(world) -> None:
    w = world(shards=3)
    deliveries = [w.put(f"key-{n % 50}") for n in range(2_000)]
    w.close()
    where = {int(read.event.sequence): read for read in w.events()}
    assert len(where) == 2_000
    for delivery in deliveries:
        read = where[delivery.sequence]
        assert delivery.outcome == Acknowledged(read.shard_id, (read.sequence_number, read.place))
        assert read.partition_key == read.event.partition_key == f"key-{delivery.sequence % 50}"


def test_sequences_count_from_0_without_gaps_and_sources_say_w(world) -> None:
    w = world(settings=ProducerSettings(window=2_048))
    for n in range(3_000):
        w.put(f"key-{n}")
    w.close()
    assert sorted(sequences(w)) == list(range(3_000))
    assert {read.event.source for read in w.events()} == {w.core.source}
    assert w.core.source.endswith(":w2048")


def test_aggregates_hold_many_events_and_plain_records_one(world) -> None:
    aggregated, plain = world(), world(settings=ProducerSettings(wire_format="plain"))
    for w in (aggregated, plain):
        for n in range(1_000):
            w.put(f"key-{n % 7}")
        w.close()
    assert all(read.aggregated for read in aggregated.events())
    assert len({read.sequence_number for read in aggregated.events()}) < 20
    assert not any(read.aggregated for read in plain.events())
    assert len(plain.events()) == 1_000


def test_a_single_event_leaves_after_lingering(world) -> None:
    w = world(latency=lambda rng: (1, 1))
    start = w.now_ms
    delivery = w.put("lonely")
    w.run(lambda: delivery.done)
    assert 100 <= w.now_ms - start <= 150


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("wire_format", ["kpl", "plain"])
def test_only_refused_records_are_sent_again(world, wire_format: str, ordered: bool) -> None:
    refused: set[tuple[int, int]] = set()

    def refuse(rng: random.Random, call: int, entry: int) -> str:
        if rng.random() < 0.3:
            refused.add((call, entry))
            return rng.choice(["ProvisionedThroughputExceededException", "InternalFailure"])
        return ""

    w = world(
        shards=2,
        refuse=refuse,
        settings=ProducerSettings(wire_format=wire_format, aggregate_events_max=10, ordered=ordered),
    )
    for n in range(1_000):
        w.put(f"key-{n % 20}")
    w.close()
    assert refused
    assert sorted(sequences(w)) == list(range(1_000))
    sent = sum(len(request.records) for request in w.requests)
    assert sent == len({(read.shard_id, read.sequence_number) for read in w.read()}) + len(refused)


def test_a_request_without_an_answer_is_sent_again_whole_with_the_same_identity(world) -> None:
    w = world(lose=lambda rng, call: "answer" if call == 1 else "")
    for n in range(100):
        w.put(f"key-{n % 5}")
    w.close()
    counts = Counter(sequences(w))
    assert set(counts) == set(range(100))
    assert set(counts.values()) == {2}
    assert w.core.stats.acknowledged == 100


def test_retries_back_off_further_and_further_with_jitter(world) -> None:
    w = world(refuse=lambda rng, call, entry: "InternalFailure" if call < 9 else "", latency=lambda rng: (1, 1))
    w.put("key")
    w.close()
    starts = [request.started_ms for request in w.requests]
    gaps = [after - before for before, after in itertools.pairwise(starts[:9])]
    assert sum(gaps[4:]) > 3 * sum(gaps[:4])
    assert all(gap <= 50 * 2**n + 5 for n, gap in enumerate(gaps[:6]))
    assert len(set(gaps)) > 5


@pytest.mark.parametrize("wire_format", ["kpl", "plain"])
def test_order_within_a_shard_survives_refused_aggregates_and_lost_requests(world, wire_format: str) -> None:
    w = world(
        shards=2,
        settings=ProducerSettings(wire_format=wire_format, aggregate_events_max=5, request_records_max=20),
        refuse=lambda rng, call, entry: (
            "ProvisionedThroughputExceededException" if wire_format == "kpl" and rng.random() < 0.2 else ""
        ),
        lose=lambda rng, call: "request" if rng.random() < 0.2 else "",
    )
    for n in range(600):
        w.put(f"key-{n % 11}", b'{"v":"%s"}' % (b"x" * (60_000 if n % 7 == 0 else 10)))
    w.close()
    for _, reads in itertools.groupby(w.events(), key=lambda read: read.shard_id):
        found = [int(read.event.sequence) for read in reads]
        assert found == sorted(found)


@pytest.mark.parametrize("seed", range(12))
def test_order_of_a_key_survives_splits_and_merges(world, seed: int) -> None:
    w = world(
        seed=seed,
        shards=2,
        settings=ProducerSettings(aggregate_events_max=5, aggregate_linger_ms=10),
        latency=lambda rng: (rng.randint(1, 80), rng.randint(1, 80)),
        lose=lambda rng, call: "request" if rng.random() < 0.05 else "",
        list_lag_ms=30 * (seed % 3),
    )
    for n in range(600):
        if n in (100, 200, 400):
            w.split(w.rng.randint(0, 1))
        if n == 300:
            w.merge()
        if seed % 4 or n % 3 == 0:
            w.pass_ms(seed % 4 * 2 + 1)
        w.put(f"key-{n % 11}", b'{"v":"%s"}' % (b"x" * (60_000 if n % 17 == 0 else 10)))
    w.close()
    assert w.core.stats.shard_lists > 0
    found: dict[str, list[int]] = {}
    for read in sorted(w.events(), key=lambda read: read.sequence_number):
        found.setdefault(read.partition_key, []).append(int(read.event.sequence))
    assert sum(map(len, found.values())) == 600
    for numbers in found.values():
        assert numbers == sorted(numbers)


def test_what_waits_for_a_new_shard_stays_behind_what_is_sent_again_to_it(world) -> None:
    slow_answer_first = itertools.chain([(1, 500)], itertools.repeat((1, 1)))
    w = world(
        shards=2,
        settings=ProducerSettings(aggregate_events_max=5, aggregate_linger_ms=10),
        latency=lambda rng: next(slow_answer_first),
    )
    keys = [f"key-{n}" for n in range(60)]
    lower = [key for key in keys if hash_key(key) < 2**127][:10]
    upper = [key for key in keys if hash_key(key) >= 2**127][:10]
    w.split()
    w.split()
    for key in lower:
        w.put(key)
    w.pass_ms(30)
    for key in upper:
        w.put(key)
    w.pass_ms(30)  # by now both splits are known, and the first record's answer is still on its way
    for _ in range(5):
        for key in lower:
            w.put(key)
        w.pass_ms(30)
    w.close()
    assert any(read.misrouted for read in w.read())
    found: dict[str, list[int]] = {}
    for read in sorted(w.events(), key=lambda read: read.sequence_number):
        found.setdefault(read.partition_key, []).append(int(read.event.sequence))
    for numbers in found.values():
        assert numbers == sorted(numbers)


def test_what_waits_for_two_shards_goes_to_their_child_in_the_order_of_the_puts(world) -> None:
    slow_answer_first = itertools.chain([(1, 500)], itertools.repeat((1, 1)))
    w = world(
        shards=2,
        settings=ProducerSettings(aggregate_events_max=5, aggregate_linger_ms=10),
        latency=lambda rng: next(slow_answer_first),
    )
    lower, upper = a_key_of_each_half()
    w.put(lower)
    w.pass_ms(30)
    w.merge()
    for _ in range(20):
        w.put(lower)
        w.put(upper)
    w.close()
    in_flight = {event.sequence for request in w.requests[:2] for record in request.records for event in record.events}
    reads = sorted(w.events(), key=lambda read: read.sequence_number)
    rest = [number for read in reads if (number := int(read.event.sequence)) not in in_flight]
    assert len(rest) > 30
    assert rest == sorted(rest)


def test_what_was_in_a_record_with_an_overdue_event_stays_before_what_was_put_later(world) -> None:
    def refuse(rng: random.Random, call: int, entry: int) -> str:
        events = w.requests[call - 1].records[entry].events
        return "InternalFailure" if any(event.sequence == 0 for event in events) else ""

    w = world(
        shards=2,
        settings=ProducerSettings(
            aggregate_events_max=4, aggregate_linger_ms=10, resend_horizon_ms=5_000, backoff_max_ms=200
        ),
        refuse=refuse,
    )
    lower, upper = a_key_of_each_half()
    overdue = w.put(lower)
    w.pass_ms(3_000)
    w.merge()  # the overdue event's record is made anew, with events that were never sent
    deliveries = [w.put(upper)]
    for _ in range(30):
        deliveries.append(w.put(lower))
        w.pass_ms(20)
    w.close()
    assert isinstance(overdue.outcome, Unknown)
    assert all(isinstance(delivery.outcome, Acknowledged) for delivery in deliveries)
    assert any(
        len(record.events) > 1 and record.events[0] is overdue for request in w.requests for record in request.records
    )
    reads = sorted(w.events(), key=lambda read: read.sequence_number)
    numbers = [int(read.event.sequence) for read in reads if read.partition_key == lower]
    assert len(numbers) == 30
    assert numbers == sorted(numbers)


def test_a_listing_older_than_the_one_before_lets_nothing_overtake_what_is_on_its_way(world) -> None:
    lost = set()
    w = world(
        settings=ProducerSettings(aggregate_linger_ms=10),
        latency=lambda rng: (1, 1),
        lose=lambda rng, call: "request" if call in lost else "",
    )
    lower, upper = a_key_of_each_half()
    w.split()
    w.put(lower)
    w.put(upper)
    w.pass_ms(100)
    assert w.core.stats.shard_lists == 1
    w.list_lag_ms = 10_000
    w.split(1)
    lost.add(w.calls + 1)
    w.put(lower)
    w.pass_ms(20)
    w.put(
        upper
    )  # lands in a shard that the producer does not know, so that it lists, and reads the shards of the start
    w.pass_ms(100)
    assert w.core.stats.shard_lists > 1
    w.put(lower)
    w.pass_ms(100)
    w.list_lag_ms = 0
    w.close()
    assert any(record.events[0].sequence == 2 for record in w.requests[min(lost) - 1].records)
    reads = sorted(w.events(), key=lambda read: read.sequence_number)
    assert [int(read.event.sequence) for read in reads if read.partition_key == lower] == [0, 2, 4]


def test_listings_that_fail_are_repeated_further_and_further_apart(world) -> None:
    w = world()
    lower, upper = a_key_of_each_half()
    w.split()
    w.lists_fail = True
    deliveries = [w.put(lower), w.put(upper)]
    w.pass_ms(20_000)
    assert 5 < w.core.stats.shard_lists < 40
    w.lists_fail = False
    w.close()
    assert all(isinstance(delivery.outcome, Acknowledged) for delivery in deliveries)


def test_limits_of_a_shard_are_kept_without_being_throttled(world) -> None:
    w = world(limits=Limits(), shards=1)
    for n in range(12_000):
        w.put(f"key-{n % 100}", b'{"v":"%s"}' % (b"x" * 300))
    start = w.now_ms
    w.close()
    assert w.core.stats.records_throttled == 0
    assert sorted(sequences(w)) == list(range(12_000))
    assert w.now_ms - start < 10_000
    plain = world(limits=Limits(), settings=ProducerSettings(wire_format="plain"))
    for n in range(4_000):
        plain.put(f"key-{n % 100}")
    plain.close()
    assert plain.core.stats.records_throttled == 0


def test_a_crowded_shard_throttles_and_nothing_is_lost(world) -> None:
    w = world(limits=Limits(write_records=50), settings=ProducerSettings(wire_format="plain"))
    for n in range(500):
        w.put(f"key-{n}")
    w.close()
    assert w.core.stats.records_throttled > 0
    assert sorted(set(sequences(w))) == list(range(500))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("list_lag_ms", [0, 400])
def test_misrouted_aggregates_are_sent_again_whole(world, list_lag_ms: int, ordered: bool) -> None:
    w = world(list_lag_ms=list_lag_ms, settings=ProducerSettings(aggregate_events_max=40, ordered=ordered))
    deliveries = []
    for n in range(3_000):
        if n in (700, 1_500):
            w.split()
        if n == 2_200:
            w.merge()
        deliveries.append(w.put(f"key-{n % 97}"))
    w.close()
    assert any(read.misrouted for read in w.read())
    assert w.core.stats.misrouted_events == sum(read.misrouted for read in w.read())
    where = {(read.shard_id, read.sequence_number, read.place): read for read in w.events()}
    assert sorted(sequences(w)) == list(range(3_000))
    for delivery in deliveries:
        outcome = delivery.outcome
        assert isinstance(outcome, Acknowledged)
        assert int(where[outcome.shard_id, *outcome.position].event.sequence) == delivery.sequence


def test_a_merge_needs_no_resend(world) -> None:
    w = world(shards=2)
    for n in range(500):
        if n == 250:
            w.merge()
        w.put(f"key-{n}")
    w.close()
    assert sorted(sequences(w)) == list(range(500))
    assert w.core.stats.misrouted_events == 0
    assert w.core.stats.shard_lists > 0


def test_never_more_than_w_sequences_between_the_oldest_unacknowledged_and_the_newest(world) -> None:
    w = world(
        settings=ProducerSettings(window=1_024, aggregate_events_max=20),
        shards=3,
        refuse=lambda rng, call, entry: "InternalFailure" if rng.random() < 0.3 else "",
    )
    deliveries = []
    widest = 0
    for n in range(6_000):
        deliveries.append(w.put(f"key-{n % 30}"))
        oldest = next((d.sequence for d in deliveries if not d.done), n)
        widest = max(widest, n - oldest + 1)
    w.close()
    assert 512 < widest <= 1_024
    assert sorted(set(sequences(w))) == list(range(6_000))


def test_bytes_and_events_in_flight_are_bounded(world) -> None:
    w = world(settings=ProducerSettings(events_in_flight_max=300))
    for n in range(2_000):
        w.put(f"key-{n}")
        assert w.core.events_out <= 300
    w.close()
    b = world(settings=ProducerSettings(bytes_in_flight_max=100_000))
    for n in range(50):
        b.run(lambda: b.core.can_accept(20_000))
        b.core.put("test.event", f"key-{n}", 0, b'"%s"' % (b"x" * 19_000), now_ms=b.now_ms)
        assert b.core._outstanding.bytes <= 100_000
    b.close()
    assert len(set(sequences(b))) == 50


@pytest.mark.parametrize("wire_format", ["kpl", "plain"])
@pytest.mark.parametrize("behind", [0, 37])
def test_copies_are_sent_in_later_records_with_the_same_identity(world, wire_format: str, behind: int) -> None:
    w = world(shards=2, settings=ProducerSettings(wire_format=wire_format, aggregate_events_max=25))
    for n in range(500):
        w.put(f"key-{n % 9}", copies=3, copies_behind=behind)
    w.close()
    reads = w.events()
    assert Counter(sequences(w)) == Counter(dict.fromkeys(range(500), 3))
    assert len({(read.payload, read.shard_id, read.sequence_number) for read in reads}) == 1_500
    assert w.core.stats.copies == w.core.stats.copies_acknowledged == 1_000
    assert w.core.stats.put == w.core.stats.acknowledged == 500
    if behind:
        order = sorted(reads, key=lambda read: (read.sequence_number, read.place))
        first, second = [n for n, read in enumerate(order) if int(read.event.sequence) == 100][:2]
        assert second - first > behind // 2


def test_copies_hold_their_place_in_w(world) -> None:
    w = world(settings=ProducerSettings(window=1_024, aggregate_events_max=25))
    for n in range(4_000):
        w.put(f"key-{n % 9}", copies=2, copies_behind=500)
    w.close()
    highest = -1
    for read in sorted(w.events(), key=lambda read: (read.sequence_number, read.place)):
        sequence = int(read.event.sequence)
        highest = max(highest, sequence)
        assert highest - sequence < 1_024
    with pytest.raises(InvalidPut, match="half the window"):
        world(settings=ProducerSettings(window=1_024)).put("key", copies=3, copies_behind=500)


def test_copies_do_not_wait_for_events_that_there_is_no_room_for(world) -> None:
    w = world(settings=ProducerSettings(events_in_flight_max=20))
    for n in range(200):
        w.put(f"key-{n % 9}", copies=2, copies_behind=100)
    w.close()
    assert Counter(sequences(w)) == Counter(dict.fromkeys(range(200), 2))


def test_an_event_over_1_mib_is_refused_and_nothing_else_is_lost(world) -> None:
    w = world()
    w.put("before")
    overhead = 1_024
    with pytest.raises(EventTooLarge, match="1048576"):
        w.put("large", b'"%s"' % (b"x" * 1_048_576))
    w.put("almost", b'"%s"' % (b"x" * (1_048_576 - overhead)))
    w.put("after")
    w.close()
    assert sorted(sequences(w)) == [0, 1, 2]
    assert w.core.stats.too_large == 1


def test_the_limit_is_exact(world) -> None:
    w = world()
    probe = w.put("k", b'""')
    space = 1_048_576 - probe.size
    w.put("k", b'"%s"' % (b"x" * space))
    with pytest.raises(EventTooLarge):
        w.put("k", b'"%s"' % (b"x" * (space + 1)))
    w.close()
    assert sorted(sequences(w)) == [0, 1]


def test_past_the_resend_horizon_an_unanswered_event_is_unknown_and_a_refused_one_given_up(world) -> None:
    lost = world(lose=lambda rng, call: "request", settings=ProducerSettings(resend_horizon_ms=60_000))
    delivery = lost.put("key")
    start = lost.now_ms
    lost.run(lambda: delivery.done)
    assert isinstance(delivery.outcome, Unknown)
    assert 40_000 < lost.now_ms - start <= 61_200
    assert all(request.started_ms <= start + 60_000 + 200 for request in lost.requests)
    refused = world(
        refuse=lambda rng, call, entry: "ProvisionedThroughputExceededException",
        settings=ProducerSettings(resend_horizon_ms=60_000),
    )
    delivery = refused.put("key")
    refused.run(lambda: delivery.done)
    assert isinstance(delivery.outcome, GivenUp)
    assert "ProvisionedThroughputExceededException" in delivery.outcome.reason


def test_a_permanent_refusal_gives_up_at_once(world) -> None:
    w = world(refuse=lambda rng, call, entry: "AccessDeniedException" if call == 1 else "")
    delivery = w.put("key")
    w.run(lambda: delivery.done)
    assert delivery.outcome == GivenUp("AccessDeniedException: refused")
    w.put("key")
    w.close()
    assert ledgers(w)[-1][1] == Ledger(acknowledged=[(1, 1)], in_doubt=[], given_up=[(0, 0)], final=True)


def test_an_unknown_event_holds_its_place_until_it_can_no_longer_land(world) -> None:
    w = world(
        lose=lambda rng, call: "late" if call == 1 else "",
        refuse=lambda rng, call, entry: "",
        settings=ProducerSettings(window=1_024, resend_horizon_ms=500, landing_bound_ms=60_000),
    )
    first_source = w.core.source
    delivery = w.put("key-0")
    w.run(lambda: delivery.done)
    assert isinstance(delivery.outcome, Unknown)
    for n in range(3_000):
        w.put(f"key-{n}")
    assert w.core.source != first_source, "a source that cannot wait ends"
    w.close()
    w.pass_ms(10_000)
    of_first = sorted((r for r in w.events() if r.event.source == first_source), key=lambda r: r.sequence_number)
    highest = -1
    for read in of_first:
        sequence = int(read.event.sequence)
        highest = max(highest, sequence)
        assert highest - sequence < 1_024, "it landed below the window, and would count as a duplicate"
    assert 0 in {int(read.event.sequence) for read in of_first}, "the late request did land"
    final = {source: ledger for source, ledger in ledgers(w) if ledger.final}
    assert final[first_source] == Ledger(acknowledged=[(1, 1_023)], in_doubt=[(0, 0)], given_up=[], final=True)
    assert final[w.core.source].acknowledged == [(0, 3_000 - 1_023 - 1)]


def test_a_patient_source_goes_on_once_the_place_is_free(world) -> None:
    w = world(
        lose=lambda rng, call: "request" if call == 1 else "",
        settings=ProducerSettings(window=1_024, resend_horizon_ms=500, landing_bound_ms=60_000),
    )
    source = w.core.source
    delivery = w.put("key-0")
    w.run(lambda: delivery.done)
    for n in range(1_023):
        w.put(f"key-{n}")
    w.pass_ms(55_000)
    assert not w.core._sources.log.has_room, "the request may still land"
    w.pass_ms(5_000)
    for n in range(3_000):
        w.put(f"key-{n}")
    w.close()
    assert w.core.source == source


def test_ledgers_are_cumulative_truthful_and_end_with_a_final_one(world) -> None:
    w = world(
        shards=2,
        settings=ProducerSettings(ledger_interval_ms=1_000, aggregate_events_max=20),
        refuse=lambda rng, call, entry: "InternalFailure" if rng.random() < 0.2 else "",
    )
    truth: list[set[int]] = []
    deliveries = []
    for n in range(3_000):
        deliveries.append(w.put(f"key-{n % 40}"))
        if n % 10 == 0:
            w.pass_ms(20)
            truth.append({d.sequence for d in deliveries if d.done})
    w.close()
    stated = [ledger for _, ledger in ledgers(w)]
    assert len(stated) > 4
    assert [ledger.final for ledger in stated] == [False] * (len(stated) - 1) + [True]
    assert stated[-1] == Ledger(acknowledged=[(0, 2_999)], in_doubt=[], given_up=[], final=True)
    for ledger in stated:
        parts = sorted([*ledger.acknowledged, *ledger.in_doubt, *ledger.given_up])
        assert parts[0][0] == 0
        assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(parts))
    archived: set[int] = set()
    for read in sorted(w.read(), key=lambda read: (read.sequence_number, read.place)):
        if read.event.type == "streamgauge.ledger":
            ledger = msgspec.json.decode(read.event.data, type=Ledger)
            assert {n for first, last in ledger.acknowledged for n in range(first, last + 1)} <= {
                d.sequence for d in deliveries if d.done
            }
            assert not read.aggregated
        else:
            archived.add(int(read.event.sequence))


def test_a_source_without_events_states_nothing(world) -> None:
    w = world()
    w.close()
    assert w.read() == []


def test_the_end_of_the_input_comes_after_the_last_acknowledgement_in_every_shard(world) -> None:
    w = world(shards=3, refuse=lambda rng, call, entry: "InternalFailure" if rng.random() < 0.3 else "")
    for n in range(200):
        w.put(f"key-{n}")
    w.close(EndOfInput(input="file", part=0, parts=1))
    assert w.core.failure == ""
    ends = [read for read in w.read() if read.event.type == END_OF_INPUT]
    assert {read.shard_id for read in ends} == {f"shardId-{n:012}" for n in range(3)}
    assert all(not read.aggregated for read in ends)
    for end in ends:
        before = [read.sequence_number for read in w.events() if read.shard_id == end.shard_id]
        assert before and end.sequence_number > max(before)
    assert msgspec.json.decode(ends[0].event.data, type=EndOfInput) == EndOfInput(input="file", part=0, parts=1)


@pytest.mark.parametrize("delay_ms", [0, 5, 10, 15, 20, 25, 30, 40, 60, 80])
@pytest.mark.parametrize("reshard", ["split", "merge"])
def test_the_end_of_the_input_reaches_shards_that_a_reshard_opens_meanwhile(world, reshard: str, delay_ms: int) -> None:
    w = world(shards=2, latency=lambda rng: (10, 10))
    for n in range(50):
        w.put(f"key-{n}")
    w.core.close(EndOfInput(input="file", part=0, parts=1))
    w.at(w.now_ms + delay_ms, getattr(w, reshard))
    w.run(lambda: w.core.phase is Phase.CLOSED)
    holders = {read.shard_id for read in w.read() if read.event.type == END_OF_INPUT}
    shards = {state.shard.shard_id: state for state in w.list_shards()}

    def covered(shard_id: str) -> bool:
        parents = shards[shard_id].shard.parents
        return shard_id in holders or (bool(parents) and all(covered(parent) for parent in parents))

    assert all(covered(shard_id) for shard_id, state in shards.items() if state.is_open)


def test_the_end_of_the_input_is_not_stated_when_an_event_was_given_up(world) -> None:
    w = world(refuse=lambda rng, call, entry: "ValidationException" if call == 1 else "")
    w.put("key")
    w.close(EndOfInput(input="file", part=0, parts=1))
    assert "given up" in w.core.failure
    assert not [read for read in w.read() if read.event.type == END_OF_INPUT]


def test_raw_payloads_go_out_as_they_are_inside_aggregates_and_alone(world) -> None:
    w = world()
    for n in range(20):
        w.put(f"key-{n}")
        w.core.put_raw(b"{broken", f"key-{n}", now_ms=w.now_ms, plain=n % 2 == 0)
    w.close()
    raw = [read for read in w.read() if read.payload == b"{broken"]
    assert Counter(read.aggregated for read in raw) == {True: 10, False: 10}
    assert w.core.stats.acknowledged == 40


def test_abandoning_tells_every_event_what_is_known_of_it(world) -> None:
    w = world(latency=lambda rng: (500, 500), settings=ProducerSettings(aggregate_events_max=10))
    early = [w.put(f"key-{n}", copies=2) for n in range(30)]
    w.core.flush()
    w.pass_ms(100)
    late = [w.put(f"key-{n}") for n in range(5)]
    w.core.abandon()
    assert {type(d.outcome) for d in early} == {Unknown, GivenUp}
    assert {type(d.outcome) for d in late} == {GivenUp}
    assert w.core.events_out == 0
    assert w.core.stats.unknown + w.core.stats.given_up == 35


@pytest.mark.parametrize(
    ("subject", "options", "names"),
    [
        ("", {}, "subject|partition key"),
        ("x" * 257, {}, "partition key"),
        ("k", {"partition_key": ""}, "partition key"),
        ("k", {"copies": 0}, "copies"),
    ],
)
def test_attributes_that_break_the_contract_are_refused_without_using_a_sequence(
    world, subject: str, options: dict[str, object], names: str
) -> None:
    w = world()
    with pytest.raises(InvalidPut, match=names):
        w.put(subject, **options)
    w.put("good")
    w.close()
    assert sequences(w) == [0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_whatever_happens_nothing_acknowledged_is_lost_and_w_holds(world, seed: int, data: st.DataObject) -> None:
    kinds = data.draw(st.sampled_from(["kpl", "plain"]), label="format")
    share = data.draw(st.sampled_from([0.0, 0.1, 0.4]), label="lost")
    reshards = data.draw(st.lists(st.tuples(st.integers(0, 1_199), st.booleans()), max_size=4), label="reshards")
    w = world(
        seed=seed,
        shards=data.draw(st.integers(1, 3), label="shards"),
        settings=ProducerSettings(
            wire_format=kinds,
            window=1_024,
            aggregate_events_max=data.draw(st.integers(1, 50), label="aggregate"),
            request_records_max=data.draw(st.integers(1, 50), label="request"),
            ordered=data.draw(st.booleans(), label="ordered"),
        ),
        lose=lambda rng, call: rng.choice(["request", "answer", "late"]) if rng.random() < share else "",
        refuse=lambda rng, call, entry: (
            rng.choice(["InternalFailure", "ProvisionedThroughputExceededException", "Strange"])
            if rng.random() < share
            else ""
        ),
        list_lag_ms=data.draw(st.sampled_from([0, 300]), label="lag"),
    )
    deliveries = []
    for n in range(1_200):
        for at, is_split in reshards:
            if at == n:
                with contextlib.suppress(ValueError):  # too few shards to merge
                    w.split() if is_split else w.merge()
        deliveries.append(w.put(f"key-{n % 61}", copies=1 + (n % 5 == 0), copies_behind=n % 100))
    w.close(EndOfInput(input="i", part=0, parts=1))
    w.pass_ms(30_000)
    assert set(sequences(w)) == set(range(1_200))
    assert all(isinstance(delivery.outcome, Acknowledged) for delivery in deliveries)
    first_seen: set[int] = set()
    highest: dict[str, int] = {}
    for read in sorted(w.events(), key=lambda read: (read.sequence_number, read.place)):
        sequence = int(read.event.sequence)
        if sequence not in first_seen:
            first_seen.add(sequence)
            assert highest.get(read.shard_id, -1) - sequence < 1_024
        highest[read.shard_id] = max(highest.get(read.shard_id, -1), sequence)
    assert w.core.stats.copies == 240
