"""The real daemon, from its first start to its last stop: a million user records, each counted once.

One story, because a start of Java is what takes time here: workers share shards, are killed, shards are split and
merged under load and while nobody works, and what came out is held against DuckDB.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kcl.load import true_panes
from kcl.rig import KclRig, Worker, started_stack
from streamgauge.events.kpl import AggregateBuilder, UserRecord
from streamgauge.processors.commit.archive_rows import FAILED_EVENTS, FailedRow, decode_rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1_200)]

EVENTS = 1_000_000
PARTS = [300_000, 250_000, 150_000, 100_000, 200_000]


def test_a_million_user_records_are_counted_once_whatever_befalls_the_workers(tmp_path: Path) -> None:
    assert sum(PARTS) == EVENTS
    firsts = [sum(PARTS[:part]) for part in range(len(PARTS))]
    with KclRig(started_stack(tmp_path, shards=4)) as rig:
        first = rig.work("first")
        put = rig.put(firsts[0], PARTS[0])
        started = rig.wait(lambda: bool(first.entries), "the first child", running=[first])
        say(f"the first child came {started:.1f} s after the launch")
        second = rig.work("second")
        put()
        shared = rig.wait(
            lambda: len(set(rig.owners().values())) == 2, "two to share the shards", running=[first, second]
        )
        say(f"both had shards {shared:.1f} s later")

        put = rig.put(firsts[1], PARTS[1])
        rig.split(0)
        rig.merge(2)
        put_poison(rig)
        put()
        rig.wait(rig.is_processed, "what was put at the reshard", running=[first, second])
        assert sum(row.sealed for row in rig.rows().values()) == 3

        follower, leader = sorted([first, second], key=lambda worker: worker.is_leader)
        assert leader.is_leader and not follower.is_leader
        put = rig.put(firsts[2], PARTS[2])
        say(f"a follower's shards were taken over {killed(rig, follower):.1f} s after its kill -9")
        put()
        third = rig.work("third")
        rig.wait(lambda: bool(third.entries), "the third worker's first child", running=[third])
        put = rig.put(firsts[3], PARTS[3])
        say(f"a leader's shards were taken over {killed(rig, leader):.1f} s after its kill -9")
        put()
        rig.wait(rig.is_processed, "what the survivor took over", running=[third])

        stopped = third.stop()
        assert stopped.status == 0, stopped.err
        check_everything_is_checkpointed(rig)
        rig.split(1)
        rig.merge(2)
        rig.put(firsts[4], PARTS[4], end=True)()
        last = rig.work("last", "--until-end-of-input")
        ended = last.wait()
        assert ended.status == 0, last.last_words()
        check_nothing_was_read_twice(last)
        check_lag(rig)
        assert rig.panes() == true_panes(EVENTS)
        check_poison(rig)
        check_that_a_deleted_stream_is_no_end(rig)


def killed(rig: KclRig, worker: Worker) -> float:
    """Kill it as soon as it has a shard; the seconds until others have all its leases."""
    name = worker.id
    rig.wait(lambda: name in rig.owners().values(), f"{worker.name} to have a shard", running=[worker])
    worker.kill()
    return rig.wait(lambda: name not in rig.owners().values(), f"{worker.name}'s shards to be taken over")


def put_poison(rig: KclRig) -> None:
    """A payload that is no event, in an aggregate and by itself, and an aggregate with a wrong digest."""
    builder = AggregateBuilder()
    builder.add(UserRecord("poison", None, b"no event"))
    builder.add(UserRecord("poison", None, b"another"))
    whole = builder.encode()
    for data in (whole, b"poison by itself", whole[:-1] + bytes([whole[-1] ^ 1])):
        rig.clients.kinesis.put_record(StreamName=rig.stream, PartitionKey="poison", Data=data)


def check_poison(rig: KclRig) -> None:
    """Every one is among the failed events, once; none of them held up its shard."""
    bucket = rig.info.outputs["ArchiveBucketName"]
    names = [
        found["Key"]
        for page in rig.clients.s3.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=f"type={FAILED_EVENTS}/"
        )
        for found in page.get("Contents", [])
    ]
    bodies = [rig.clients.s3.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names]
    reasons = sorted(row.reason for body in bodies for row in decode_rows(body, FailedRow))
    assert reasons == ["corrupt_aggregate", *["malformed_json"] * 3], reasons


def check_everything_is_checkpointed(rig: KclRig) -> None:
    """A graceful stop leaves state and checkpoint at the same place, and no lease with an owner."""
    leases = rig.leases()
    for shard_id, row in rig.rows().items():
        if row.sealed:
            continue
        lease = leases[shard_id]
        assert (lease.owner, row.owner) == (None, None)
        assert row.position is not None
        number, place = row.position
        assert (lease.checkpoint, lease.sub_sequence_number) == (str(number), place), shard_id


def check_nothing_was_read_twice(worker: Worker) -> None:
    """What its children were handed over was new to them: nothing between the stop and this start came again."""
    last = {entry.shard: entry.progress for entry in worker.entries if entry.progress is not None}
    assert sum(progress.records for progress in last.values()) == sum(progress.events for progress in last.values())
    begun = [entry.message for entry in worker.entries if entry.event == "started"]
    assert not any("is skipped" in message or "was read from" in message for message in begun), begun


def check_lag(rig: KclRig) -> None:
    lag = rig.lag()
    assert {shard["state"] for shard in lag.values()} == {"sealed", "open"}
    for shard in lag.values():
        if shard["state"] == "open":
            assert shard["iterator_age_ms"] == 0
            assert shard["position"] == shard["checkpoint"]
            assert all(shard["parents"].values())  # type: ignore[attr-defined]


def check_that_a_deleted_stream_is_no_end(rig: KclRig) -> None:
    """It ends the host with one line, although to the KCL its shards look as if they had come to their ends."""
    worker = rig.work("orphan")
    started = [entry for entry in rig.rows().values() if not entry.sealed]
    rig.wait(lambda: len({entry.shard for entry in worker.entries if entry.event == "started"}) == len(started), "all")
    rig.clients.kinesis.delete_stream(StreamName=rig.stream)
    ended = worker.wait()
    assert ended.status == 1
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "there is no such stream" in errors[0], ended.err
    assert [row for row in rig.rows().values() if not row.sealed] != []
    assert {row.shard.shard_id for row in rig.rows().values() if not row.sealed} == {
        row.shard.shard_id for row in started
    }


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
