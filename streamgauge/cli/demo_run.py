"""Running a demo: producer, processor, delivery and audit as processes of their own, watched until all is done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from time import monotonic, sleep
from typing import IO

import msgspec

from streamgauge.cli.context import Workplace
from streamgauge.cli.function_watch import FunctionWatch
from streamgauge.cli.output import PROGRESS_INTERVAL
from streamgauge.cli.stores import archive_tables, state_store
from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.local.stack import StackInfo, dead_processes
from streamgauge.processors.commit.archive_rows import THRESHOLD_EVENTS, ThresholdRow
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.core.counters import Counters
from streamgauge.processors.core.definition import Pipeline
from streamgauge.sinks.archive.layout import sql_name
from streamgauge.sinks.archive.states import read_states
from streamgauge.sinks.queries.results import results
from streamgauge.sinks.queries.sql import query

__all__ = ["Demo", "DemoResult", "Produced"]

_PROCESS_DEADLINE_S = 120.0
_AUDIT_DEADLINE_S = 90.0
_QUEUE_DEADLINE_S = 30.0
_POLL_S = 0.25
_STOP_GRACE_S = 10.0
_LEAST_FREE_BYTES = 1_000_000


class BadRowSeen(msgspec.Struct):
    """An unreadable row."""

    line: int
    reason: str


class Produced(msgspec.Struct):
    """What the producer's summary says; see `LoadSummary`."""

    produced: int
    duplicates_injected: int
    late: int
    malformed: dict[str, int]
    acknowledged: int
    given_up: int
    unknown: int
    bad_rows: list[BadRowSeen]


class DemoResult(msgspec.Struct, kw_only=True):
    """What a demo came to: the object that ``demo --json`` prints.

    ``aggregated`` and ``late`` are events of the first aggregate, ``panes`` windows of all aggregates at their last
    revision, ``archived`` rows of event types, ``threshold_events_received`` distinct ids off the queue.
    """

    produced: int
    duplicates_injected: int
    malformed: int
    archived: int
    archived_unique: int
    aggregated: int
    late: int
    failed: int
    threshold_events_raised: int
    threshold_events_cleared: int
    threshold_events_received: int
    panes: int
    audit: str
    events_per_second: float


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    log: Path
    out: IO[bytes]


class Demo:
    """One demo on a running stack. Every process that it starts is ended by `close`.

    `functions`: what watches the template's functions, where these process the stream, and not a process of the demo.
    """

    def __init__(
        self, info: StackInfo, pipeline: Pipeline, place: Workplace, *, functions: FunctionWatch | None
    ) -> None:
        self._info = info
        self._pipeline = pipeline
        self._place = place
        self._functions = functions
        self._children: dict[str, _Child] = {}

    def start(self, name: str, arguments: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
        """Start ``streamgauge <arguments>``; its progress goes to ``<name>.log``, its JSON to a file beside it.

        `extra` is added to its environment.
        """
        logs = self._info.folder / "logs"
        log, out = logs / f"{name}.log", (logs / f"{name}.json").open("w+b")
        environment = self._info.environment(os.environ)
        environment |= {"STREAMGAUGE_HOME": self._info.home, PROGRESS_INTERVAL: "0.5", "NO_COLOR": "1", **(extra or {})}
        with log.open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "streamgauge.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        self._children[name] = _Child(process, log, out)

    def kill_and_restart(self, name: str, arguments: Sequence[str]) -> bool:
        """Kill a process (SIGKILL) and start another in its place; False if it had ended by itself."""
        child = self._children[name]
        if child.process.poll() is not None:
            return False
        child.process.kill()
        child.process.wait()
        child.out.close()
        self.start(name, arguments)
        return True

    def close(self) -> None:
        """End what still runs."""
        for child in self._children.values():
            if child.process.poll() is None:
                child.process.terminate()
        for child in self._children.values():
            try:
                child.process.wait(_STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            child.out.close()

    def wait(self, name: str, show: Callable[[str], None], *, deadline_s: float | None = None) -> bytes:
        """Wait until a process has ended well; return what it printed.

        Raises
        ------
        StreamgaugeError
            It failed, another part of the demo died, or the deadline passed; the message names the log.
        """
        child = self._children[name]
        until = None if deadline_s is None else monotonic() + deadline_s
        while (status := child.process.poll()) is None:
            self._check_others()
            if until is not None and monotonic() > until:
                raise StreamgaugeError(
                    f"{name} has not ended after {deadline_s:.0f} s; its last word: {_last_line(child.log) or 'none'}",
                    where=str(child.log),
                )
            show(self.progress())
            sleep(_POLL_S)
        if status != 0:
            raise _failed(name, child, status)
        child.out.seek(0)
        return child.out.read()

    def progress(self) -> str:
        """The last word of each process, and how far the functions are."""
        logs = {name: child.log for name, child in self._children.items()}
        logs |= {name: Path(log) for name, log in self._info.logs.items() if name == "deliver"}
        words = {name: _last_line(logs.get(name)) for name in ("producer", "processor", "deliver")}
        if self._functions is not None:
            words["processor"] = self._functions.look()
        return "\n".join(word for word in words.values() if word)

    def wait_for_processor(self, show: Callable[[str], None]) -> None:
        """Wait until every shard has been processed to the end of the input.

        Raises
        ------
        StreamgaugeError
            Nothing goes on; with the last error of the functions' log, if they process the stream.
        """
        if self._functions is None:
            self.wait("processor", show, deadline_s=_PROCESS_DEADLINE_S)
            return
        until = monotonic() + _PROCESS_DEADLINE_S
        while not self._functions.input_ended:
            self._check_others()
            show(self.progress())
            if monotonic() > max(until, self._functions.moved_at + _PROCESS_DEADLINE_S):
                raise StreamgaugeError(
                    f"the functions have not come to the end of the input, and processed nothing more for "
                    f"{_PROCESS_DEADLINE_S:.0f} s; {self._functions.error() or 'they logged no error'}",
                    where=f"stream {self._pipeline.stream}",
                    remedy=f"What invokes them: {self._info.logs.get('event_source')}",
                )
            sleep(_POLL_S)

    def audit(self, show: Callable[[str], None]) -> str:
        """Run the audit as a process; return its word, ``pass`` or ``fail``.

        Raises
        ------
        StreamgaugeError
            It could not be made.
        """
        self.start("audit", ["audit", "--json", "--wait", f"{_AUDIT_DEADLINE_S:.0f}s"])
        child = self._children["audit"]
        while child.process.poll() is None:
            self._check_others()
            show("auditing: " + (_last_line(child.log) or "..."))
            sleep(_POLL_S)
        child.out.seek(0)
        report = child.out.read()
        if child.process.returncode not in (0, 3):
            raise StreamgaugeError(f"audit failed: {_last_line(child.log)}", where=str(child.log))
        return msgspec.json.decode(report, type=_Report).audit

    def received(self, show: Callable[[str], None]) -> int:
        """Take the threshold events off their queue, until all that were raised are there or some time has passed."""
        expected = set(self._threshold_ids())
        received: set[str] = set()
        url = self._place.output("ThresholdQueueUrl")
        until = monotonic() + _QUEUE_DEADLINE_S
        while monotonic() < until and not expected <= received:
            show(f"threshold events received: {len(received)} of {len(expected)}")
            answer = self._place.clients.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            messages = answer.get("Messages", [])
            received.update(msgspec.json.decode(message["Body"], type=_Message).detail.id for message in messages)
            if messages:
                self._place.clients.sqs.delete_message_batch(
                    QueueUrl=url,
                    Entries=[
                        {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                        for number, message in enumerate(messages)
                    ],
                )
        show(f"threshold events received: {len(received)} of {len(expected)}")
        return len(received)

    def result(self, produced: Produced, *, received: int, audit: str, seconds: float) -> DemoResult:
        """Read everything else from the stores."""
        tables = archive_tables(self._place, self._pipeline)
        store = state_store(self._place, self._pipeline)
        engine = core_engine(self._place.output("StreamArn"))
        counters = self.counters()
        first = self._pipeline.aggregates[0].name
        rows = " UNION ALL ".join(
            f'SELECT source, coalesce("sequence", id) AS identity FROM "{sql_name(event_type)}"'  # noqa: S608 - our own names
            for event_type in self._pipeline.event_types
        )
        archived = query(
            f"SELECT count(*) AS n, count(DISTINCT (source, identity)) AS m FROM ({rows})",  # noqa: S608 - our own names
            tables,
            self._pipeline,
        ).objects()[0]
        panes = sum(
            len(results(aggregate.name, pipeline=self._pipeline, tables=tables, store=store, engine=engine))
            for aggregate in self._pipeline.aggregates
        )
        return DemoResult(
            produced=produced.produced,
            duplicates_injected=produced.duplicates_injected,
            malformed=sum(produced.malformed.values()),
            archived=_count(archived["n"]),
            archived_unique=_count(archived["m"]),
            aggregated=_of_aggregate(counters, first, "applied"),
            late=_of_aggregate(counters, first, "late"),
            failed=sum(sum(each.failed.values()) for each in counters),
            threshold_events_raised=sum(each.threshold_events_raised for each in counters),
            threshold_events_cleared=sum(each.threshold_events_cleared for each in counters),
            threshold_events_received=received,
            panes=panes,
            audit=audit,
            events_per_second=round(produced.produced / max(seconds, 0.001), 1),
        )

    def counters(self) -> list[Counters]:
        """Those of every shard, sealed ones too."""
        store = state_store(self._place, self._pipeline)
        engine = core_engine(self._place.output("StreamArn"))
        return [state.engine.counters for state in read_states(self._pipeline, store, engine)]

    def _threshold_ids(self) -> list[str]:
        tables = archive_tables(self._place, self._pipeline)
        return [row.id for _, row in tables.written(THRESHOLD_EVENTS, ThresholdRow)]

    def _check_others(self) -> None:
        for name, child in self._children.items():
            status = child.process.poll()
            if status not in (None, 0, 3):
                raise _failed(name, child, status)
        for process in dead_processes(self._info):
            raise StreamgaugeError(f"{process.name} has ended: {_last_line(Path(process.log))}", where=process.log)


class _Report(msgspec.Struct):
    audit: str


class _Detail(msgspec.Struct):
    id: str


class _Message(msgspec.Struct):
    detail: _Detail


def _failed(name: str, child: _Child, status: int) -> StreamgaugeError:
    # Somebody whose disk is full finds nothing in the log.
    is_full = disk_usage(child.log.parent).free < _LEAST_FREE_BYTES
    remedy = "The disk is full: make room, or set STREAMGAUGE_HOME to a folder on another" if is_full else None
    last = _last_line(child.log) or f"exit {status}"
    return StreamgaugeError(f"{name} failed: {last}", where=str(child.log), remedy=remedy)


def _of_aggregate(counters: Sequence[Counters], aggregate: str, what: str) -> int:
    found = [each.aggregates[aggregate] for each in counters if aggregate in each.aggregates]
    return sum(each.applied if what == "applied" else each.late for each in found)


def _count(value: object) -> int:
    assert isinstance(value, int)
    return value


def _last_line(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4_096))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
