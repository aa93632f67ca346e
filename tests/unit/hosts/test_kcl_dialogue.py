"""The MultiLang protocol: the same dialogue as the KCL's own child holds, but for what that one passes over."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from amazon_kclpy.kcl import CheckpointError, KCLProcess
from amazon_kclpy.v3 import processor as v3
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.events.position import Position
from streamgauge.processors.hosts.kcl.child import CheckpointRequests, run_child
from streamgauge.processors.hosts.kcl.dialogue import Dialogue, ProtocolViolation
from streamgauge.processors.hosts.kcl.messages import (
    Action,
    Initialize,
    LeaseLost,
    ProcessRecords,
    ShardEnded,
    ShutdownRequested,
    user_records,
)

INITIALIZE = {"action": "initialize", "shardId": "shardId-0", "sequenceNumber": "TRIM_HORIZON", "subSequenceNumber": 0}


def record(number: int, sub: int = 0, data: bytes = b'{"n": 1}') -> dict[str, object]:
    return {
        "action": "record",
        "data": base64.b64encode(data).decode(),
        "partitionKey": "k",
        "sequenceNumber": str(number),
        "approximateArrivalTimestamp": 1_700_000_000_000 + sub,
        "subSequenceNumber": sub,
    }


def records(*numbers: tuple[int, int]) -> dict[str, object]:
    return {"action": "processRecords", "millisBehindLatest": 7, "records": [record(*place) for place in numbers]}


def checkpointed(error: str | None = None) -> dict[str, object]:
    return {"action": "checkpoint", "sequenceNumber": None, "subSequenceNumber": None, "error": error}


class Recorder:
    """What a processor saw, and which checkpoints it asks for: after each batch with records, and at the end."""

    def __init__(self) -> None:
        self.seen: list[object] = []


class Ours(Recorder):
    def handle(self, action: Action) -> CheckpointRequests:
        match action:
            case Initialize():
                self.seen.append(("initialize", action.shard_id, action.sequence_number, action.sub_sequence_number))
            case ProcessRecords():
                taken = user_records(action)
                self.seen.append([(r.sequence_number, r.sub_sequence_number, r.arrival_ms, r.data) for r in taken])
                if taken:
                    last = taken[-1]
                    self.seen.append((yield Position(int(last.sequence_number), last.sub_sequence_number or 0)))
            case LeaseLost():
                self.seen.append("lease lost")
            case ShardEnded():
                self.seen += ["ended", (yield None)]
            case ShutdownRequested():
                self.seen += ["stop", (yield None)]

    def abandoned(self) -> None:
        self.seen.append("abandoned")


class Theirs(Recorder, v3.RecordProcessorBase):
    version = 3

    def initialize(self, given) -> None:
        self.seen.append(("initialize", given.shard_id, given.sequence_number, given.sub_sequence_number))

    def process_records(self, given) -> None:
        self.seen.append(
            [(r.sequence_number, r.sub_sequence_number, r.timestamp_millis, r.binary_data) for r in given.records]
        )
        if given.records:
            last = given.records[-1]
            self._checkpoint(given.checkpointer, last.sequence_number, last.sub_sequence_number)

    def lease_lost(self, given) -> None:
        self.seen.append("lease lost")

    def shard_ended(self, given) -> None:
        self.seen.append("ended")
        self._checkpoint(given.checkpointer)

    def shutdown_requested(self, given) -> None:
        self.seen.append("stop")
        self._checkpoint(given.checkpointer)

    def _checkpoint(self, checkpointer, *at) -> None:
        try:
            checkpointer.checkpoint(*at)
        except CheckpointError as error:
            self.seen.append(error.value)
        else:
            self.seen.append(None)


def lines_of(messages: list[dict[str, object]]) -> list[bytes]:
    return [json.dumps(message).encode() + b"\n" for message in messages]


def said(written: bytes) -> list[object]:
    return [json.loads(line) for line in written.splitlines() if line.strip()]


def ours(messages: list[dict[str, object]]) -> tuple[list[object], list[object]]:
    handler, written = Ours(), bytearray()
    run_child(lines_of(messages), written.extend, handler)
    return handler.seen, said(bytes(written))


def theirs(messages: list[dict[str, object]]) -> tuple[list[object], list[object]]:
    processor, written = Theirs(), io.StringIO()
    text = b"".join(lines_of(messages)).decode()
    KCLProcess(processor, io.StringIO(text), written, io.StringIO()).run()
    return processor.seen, said(written.getvalue().encode())


errors = st.sampled_from([None, None, "ThrottlingException", "ShutdownException"])
places = st.lists(st.tuples(st.integers(1, 10**56), st.integers(0, 300)), max_size=3)


@st.composite
def dialogues(draw: st.DrawFn) -> list[dict[str, object]]:
    messages: list[dict[str, object]] = [INITIALIZE]
    for batch in draw(st.lists(places, max_size=4)):
        messages.append(records(*batch))
        if batch:
            messages.append(checkpointed(draw(errors)))
    end = draw(st.sampled_from(["lease", "end", "stop"]))
    if end == "end":
        return [*messages, {"action": "shardEnded"}, checkpointed(draw(errors))]
    if end == "stop":
        messages += [{"action": "shutdownRequested"}, checkpointed(draw(errors))]
    return [*messages, {"action": "leaseLost"}]


@settings(max_examples=100, deadline=None)
@given(dialogues())
def test_the_dialogue_is_that_of_the_kcls_own_child(messages: list[dict[str, object]]) -> None:
    assert ours(messages) == theirs(messages)


class Broken(Ours):
    def handle(self, action: Action) -> CheckpointRequests:
        yield from super().handle(action) if isinstance(action, Initialize) else 1 // 0


class TheirsBroken(Theirs):
    def process_records(self, given) -> None:
        raise RuntimeError("a bug")


def test_a_batch_that_our_code_fails_at_is_never_reported_as_done() -> None:
    messages = [INITIALIZE, records((1, 0))]
    written = bytearray()
    with pytest.raises(ZeroDivisionError):
        run_child(lines_of(messages), written.extend, Broken())
    assert said(bytes(written)) == [{"action": "status", "responseFor": "initialize"}]
    # What the KCL's own child does in the same place: it prints the error, says "done", and the batch is skipped.
    answered = io.StringIO()
    KCLProcess(TheirsBroken(), io.StringIO(b"".join(lines_of(messages)).decode()), answered, io.StringIO()).run()
    assert said(answered.getvalue().encode())[-1] == {"action": "status", "responseFor": "processRecords"}


def test_an_error_after_a_checkpoint_leaves_the_batch_unreported_too() -> None:
    class Late(Ours):
        def handle(self, action: Action) -> CheckpointRequests:
            yield from super().handle(action)
            self.seen.append(1 // (0 if isinstance(action, ProcessRecords) else 1))

    written = bytearray()
    with pytest.raises(ZeroDivisionError):
        run_child(lines_of([INITIALIZE, records((1, 0)), checkpointed()]), written.extend, Late())
    assert [message["action"] for message in said(bytes(written))] == ["status", "checkpoint"]


@pytest.mark.parametrize(
    "messages",
    [
        [records((1, 0))],
        [INITIALIZE, INITIALIZE],
        [checkpointed()],
        [INITIALIZE, checkpointed()],
        [INITIALIZE, records((1, 0)), records((2, 0))],
        [INITIALIZE, records((1, 0))],
        [INITIALIZE, {"action": "leaseLost"}, records()],
        [INITIALIZE, {"action": "shardEnded"}, checkpointed(), {"action": "leaseLost"}],
        [{"action": "shutdown", "reason": "ZOMBIE"}],
        [{"action": "processRecords"}],
        [INITIALIZE, {"action": "processRecords", "records": [{"action": "record", "data": "%%"}]}],
    ],
)
def test_what_cannot_come_ends_the_child(messages: list[dict[str, object]]) -> None:
    with pytest.raises(ProtocolViolation):
        ours(messages)


def test_a_line_that_is_no_json_ends_the_child() -> None:
    with pytest.raises(ProtocolViolation, match="not a message"):
        run_child([b"\xff\xfe\n"], lambda line: None, Ours())


def test_a_daemon_that_goes_away_without_a_word_is_noticed() -> None:
    assert ours([INITIALIZE, records()])[0][-1] == "abandoned"
    assert ours([INITIALIZE, {"action": "leaseLost"}])[0][-1] == "lease lost"


def test_new_fields_of_a_later_daemon_are_passed_over() -> None:
    message = {**records((1, 2)), "cacheEntryTime": None, "childShards": []}
    seen, _ = ours([{**INITIALIZE, "pendingCheckpoint": None}, message, checkpointed()])
    assert seen[1] == [("1", 2, 1_700_000_000_002, b'{"n": 1}')]


def test_the_core_writes_and_reads_nothing_by_itself() -> None:
    dialogue = Dialogue()
    messages: Iterator[bytes] = iter(lines_of([INITIALIZE, records((1, 0)), checkpointed("ThrottlingException")]))
    assert isinstance(dialogue.receive(next(messages)), Initialize)
    assert json.loads(dialogue.done()) == {"action": "status", "responseFor": "initialize"}
    assert isinstance(dialogue.receive(next(messages)), ProcessRecords)
    asked = {"action": "checkpoint", "sequenceNumber": "1", "subSequenceNumber": 0}
    assert json.loads(dialogue.checkpoint(Position(1, 0))) == asked
    answer = dialogue.receive(next(messages))
    assert getattr(answer, "error", None) == "ThrottlingException"
    assert json.loads(dialogue.done()) == {"action": "status", "responseFor": "processRecords"}


_PRINTS = """
import os
from streamgauge.processors.hosts.kcl.child import take_standard_output
protocol = take_standard_output()
print("a library's line")
os.write(1, b"one from below Python")
os.system("echo one of a process")
protocol.write(b"the protocol's")
"""


def test_nothing_but_the_protocol_comes_to_standard_output() -> None:
    done = subprocess.run([sys.executable, "-c", _PRINTS], capture_output=True, check=True)
    assert done.stdout == b"the protocol's"
    for line in (b"a library's line", b"one from below Python", b"one of a process"):
        assert line in done.stderr


def test_a_child_that_no_daemon_started_says_what_does() -> None:
    command = [sys.executable, "-m", "streamgauge.cli.kcl_child"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")
    assert "streamgauge process --host kcl" in done.stderr
