"""Load generator, files and raw rows through the local Kinesis over HTTP."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import boto3
import msgspec
import pytest
from botocore.config import Config

from streamgauge.events.catalogue import Catalogue, EventSchema
from streamgauge.events.control import EndOfInput, Ledger
from streamgauge.events.envelope import Event, InvalidEvent, decode_event
from streamgauge.events.kpl import decode_aggregate, is_aggregate
from streamgauge.infra.local.kinesis.faults import Fault, Rule, ScriptedFaults
from streamgauge.infra.local.kinesis.server import LocalKinesis
from streamgauge.producers.client.producer import KinesisProducer, system_clock
from streamgauge.producers.client.settings import ProducerSettings
from streamgauge.producers.load.files import BadRow, FileEvent, FileSpec, read_events
from streamgauge.producers.load.infer import infer_file
from streamgauge.producers.load.ordering import ByTime, ordered
from streamgauge.producers.load.profile import parse_load_profile
from streamgauge.producers.load.raw import RawPutFailed, RawPutter, put_raw_rows
from streamgauge.producers.load.run import LoadProgress, run_file, run_load

SAMPLE = Path(__file__).parents[1] / "data" / "weather-sample.csv"
SCHEMA = {
    "type": "object",
    "properties": {"temp": {"type": "number", "minimum": -20, "maximum": 45}, "wind": {"type": ["integer", "null"]}},
    "required": ["temp"],
}
CATALOGUE = Catalogue([EventSchema("weather.observation", 1, SCHEMA)])
PROFILE = """
type = "weather.observation"
rate = 2000
count = 1000
duplicates = { share = 0.1, copies = 2, behind = 20 }
late = { share = 0.02, by = "1h" }
malformed = { broken_json = 0.01, missing_key = 0.01, wrong_type = 0.01, unknown_type = 0.01, bad_time = 0.01 }
"""


@pytest.fixture
def faults() -> ScriptedFaults:
    return ScriptedFaults()


@pytest.fixture
def client(faults: ScriptedFaults) -> Iterator[object]:
    with LocalKinesis(faults=faults) as server:
        client = boto3.client(
            "kinesis",
            endpoint_url=server.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=5, connect_timeout=2),
        )
        client.create_stream(StreamName="s", ShardCount=2)
        yield client
        client.close()


def records(client) -> list[tuple[str, str, bytes, bool]]:
    """Shard, partition key, payload, whether aggregated."""
    found = []
    for shard in client.list_shards(StreamName="s")["Shards"]:
        arguments = {"StreamName": "s", "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = client.get_shard_iterator(**arguments)["ShardIterator"]
        for record in client.get_records(ShardIterator=iterator)["Records"]:
            if is_aggregate(record["Data"]):
                aggregate = decode_aggregate(record["Data"])
                keys = [aggregate.partition_keys[index] for index in aggregate.key_index]
                pairs = zip(keys, aggregate.payloads, strict=True)
                found += [(shard["ShardId"], key, payload, True) for key, payload in pairs]
            else:
                found.append((shard["ShardId"], record["PartitionKey"], record["Data"], False))
    return found


def own_events(client) -> list[Event]:
    found = []
    for _, _, payload, _ in records(client):
        try:
            event = decode_event(payload)
        except InvalidEvent:
            continue
        if event.sequence is not None:
            found.append(event)
    return found


def test_a_load_is_counted_as_it_lies_in_the_stream(client) -> None:
    seen: list[LoadProgress] = []
    producer = KinesisProducer(client, stream="s")
    profile = parse_load_profile(PROFILE, file="p.toml")
    summary = run_load(producer, profile, CATALOGUE, on_progress=seen.append)
    copies = Counter(int(event.sequence) for event in own_events(client) if event.sequence)
    assert summary.produced == summary.acknowledged == len(copies) == 1_000
    assert summary.duplicates_injected == sum(copies.values()) - 1_000 > 50
    assert summary.late > 5
    assert summary.malformed_count > 20
    assert summary.malformed_lost == summary.given_up == summary.unknown == 0
    everything = records(client)
    ledgers = [payload for _, _, payload, _ in everything if b'"type":"streamgauge.ledger"' in payload]
    assert len(everything) == sum(copies.values()) + summary.malformed_count + len(ledgers)
    final = msgspec.json.decode(decode_event(ledgers[-1]).data, type=Ledger)
    assert final == Ledger(acknowledged=[(0, 999)], in_doubt=[], given_up=[], final=True)
    malformed = [aggregated for _, _, payload, aggregated in everything if b"malformed" in payload]
    assert set(malformed) == {True, False}, "inside aggregates and alone"
    assert seen[-1].produced == 1_000
    assert 0 <= summary.latency_ms.p50 <= summary.latency_ms.p99 <= summary.latency_ms.max
    assert 500 <= summary.duration_ms < 5_000, "an open-model rate"
    assert json.loads(json.dumps(summary.as_json()))["latency_ms"]["p50"] == summary.latency_ms.p50


def test_latency_counts_from_the_due_time_even_when_the_stream_stalls(client, faults: ScriptedFaults) -> None:
    faults.delays_ms["PutRecords"] = 100
    settings = ProducerSettings(events_in_flight_max=50, aggregate_linger_ms=5)
    producer = KinesisProducer(client, stream="s", settings=settings)
    profile = parse_load_profile('type = "weather.observation"\nrate = 2000\ncount = 600', file="p.toml")
    summary = run_load(producer, profile, CATALOGUE)
    assert summary.acknowledged == 600
    # Twelve rounds of 50 events; the last ones were due after 300 ms, and waited for put() to take them.
    assert summary.latency_ms.max > 700


def test_a_stopped_load_flushes_and_states_its_ledger_but_no_end_of_input(client) -> None:
    stop = threading.Event()
    producer = KinesisProducer(client, stream="s")
    profile = parse_load_profile('type = "weather.observation"\nrate = 500', file="p.toml")

    def stop_after_some(progress: LoadProgress) -> None:
        if progress.produced > 100:
            stop.set()

    summary = run_load(
        producer, profile, CATALOGUE, stop=stop, on_progress=stop_after_some, end_of_input=EndOfInput("i", 0, 1)
    )
    assert summary.stopped
    assert summary.acknowledged == summary.produced == len(own_events(client)) > 100
    types = {decode_event(payload).type for _, _, payload, _ in records(client)}
    assert types == {"weather.observation", "streamgauge.ledger"}


def test_a_file_arrives_in_its_order_with_copies_and_bad_rows_are_told(client, faults: ScriptedFaults) -> None:
    faults.rules += [
        Rule(Fault.THROTTLE, operation="PutRecords", skip=1, times=3),
        Rule(Fault.LOSE_ANSWER, operation="PutRecords", skip=2, times=2),
    ]
    inferred = infer_file(SAMPLE)
    rows = [
        *read_events(SAMPLE, FileSpec("origin", "time_hour"), inferred.schema),
        BadRow(200, "too short"),
        FileEvent(201, "EWR", 1357020000000, b'{"temp":"%s"}' % (b"x" * 1_048_576)),
    ]
    settings = ProducerSettings(aggregate_events_max=8, aggregate_linger_ms=5, backoff_base_ms=5)
    producer = KinesisProducer(client, stream="s", settings=settings)
    summary = run_file(
        producer, "weather.observation", ordered(rows, ByTime()), copies=3, end_of_input=EndOfInput("f", 0, 1)
    )
    assert summary.produced == summary.acknowledged == 199
    assert summary.duplicates_injected == 398
    assert summary.malformed == {"row": 1, "too_large": 1}
    assert summary.bad_rows[0] == BadRow(200, "too short")
    assert summary.failure == ""
    first_times: dict[str, list[str]] = {}
    seen: set[str | None] = set()
    for shard_id, _, payload, _ in records(client):
        event = decode_event(payload)
        if event.sequence is not None and event.sequence not in seen:
            seen.add(event.sequence)
            first_times.setdefault(shard_id, []).append(event.time)
    assert sum(map(len, first_times.values())) == 199
    for times in first_times.values():
        assert times == sorted(times), "retries must make nothing late"
    ends = [shard for shard, _, payload, _ in records(client) if decode_event(payload).type.endswith("end_of_input")]
    assert len(set(ends)) == 2


def test_raw_rows_are_plain_json_under_their_key_and_only_refused_ones_are_sent_again(
    client, faults: ScriptedFaults
) -> None:
    faults.rules += [
        Rule(Fault.THROTTLE, operation="PutRecords", entries=(1, 3), times=2),
        Rule(Fault.UNAVAILABLE, operation="PutRecords", skip=1, times=1),
    ]
    schema = infer_file(SAMPLE).schema
    columns = tuple(schema["properties"])
    rows = read_events(SAMPLE, FileSpec("origin", "time_hour", columns=columns), schema)
    putter = RawPutter(client, stream="s", clock=system_clock(), settings=ProducerSettings(backoff_base_ms=5))
    bad: list[BadRow] = []
    assert put_raw_rows(putter, rows, on_bad_row=bad.append) == 199
    assert putter.throttled == 2
    found = records(client)
    assert len(found) == 199
    assert not bad
    for _, key, payload, aggregated in found:
        row = json.loads(payload)
        assert row["origin"] == key
        assert row["time_hour"].startswith("2013-")
        assert not aggregated


def test_raw_rows_that_kinesis_refuses_for_good_are_a_clear_error(client) -> None:
    putter = RawPutter(client, stream="s", clock=system_clock())
    client.delete_stream(StreamName="s")
    putter.add(b"{}", "key")
    with pytest.raises(RawPutFailed, match="stream s: ResourceNotFoundException"):
        putter.flush()


def test_a_stream_that_does_not_answer_holds_no_stop_up(client, faults: ScriptedFaults) -> None:
    faults.rules.append(Rule(Fault.UNAVAILABLE, operation="PutRecords", times=None))
    stop = threading.Event()
    producer = KinesisProducer(client, stream="s", settings=ProducerSettings(events_in_flight_max=20))
    profile = parse_load_profile('type = "weather.observation"\nrate = 500', file="p.toml")
    summary = run_load(producer, profile, CATALOGUE, stop=stop, on_progress=lambda _: stop.set(), close_timeout_s=0.2)
    assert summary.stopped
    assert summary.unknown + summary.given_up == summary.produced == 20
    assert "in time" in summary.failure
