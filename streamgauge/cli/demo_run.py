"""Running a demo: producer, processor and audit are watched until all is done, and the stores say what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep

import msgspec

from streamgauge.cli.context import Workplace
from streamgauge.cli.demo_children import Children, last_line
from streamgauge.cli.function_watch import FunctionWatch
from streamgauge.cli.local_stack import EVENT_SOURCE
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
_BEHIND = re.compile(r"behind \w+")


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


class Demo:
    """One demo on a running stack. Whoever made it ends its `children` with `Children.close`.

    `functions`: what watches the template's functions, where these process the stream, and not a process of the demo.
    """

    def __init__(
        self, info: StackInfo, pipeline: Pipeline, place: Workplace, *, functions: FunctionWatch | None
    ) -> None:
        self._info = info
        self._pipeline = pipeline
        self._place = place
        self._functions = functions
        self.children = Children(info)

    def wait(self, name: str, show: Callable[[str], None], *, deadline_s: float | None = None) -> bytes:
        """Wait until a process has ended well; return what it printed.

        Raises
        ------
        StreamgaugeError
            It failed, another part of the demo died, or the deadline passed; the message names the log.
        """
        child = self.children[name]
        until = None if deadline_s is None else monotonic() + deadline_s
        while (status := child.process.poll()) is None:
            self._check_others()
            if until is not None and monotonic() > until:
                raise StreamgaugeError(
                    f"{name} has not ended after {deadline_s:.0f} s; its last word: {last_line(child.log) or 'none'}",
                    where=str(child.log),
                )
            show(self.progress())
            sleep(_POLL_S)
        if status != 0:
            raise child.failure()
        return child.printed()

    def progress(self) -> str:
        """The last word of each process, and how far the functions are."""
        logs = {**self.children.logs, **{name: Path(log) for name, log in self._info.logs.items() if name == "deliver"}}
        words = {name: last_line(logs.get(name)) for name in ("producer", "processor", "deliver")}
        if self._functions is not None:
            behind = _BEHIND.search(last_line(self._event_source_log))
            words["processor"] = self._functions.look() + (f", {behind[0]}" if behind else "")
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
                    remedy=f"What invokes them has its log in {self._event_source_log}",
                )
            sleep(_POLL_S)

    def audit(self, show: Callable[[str], None]) -> str:
        """Run the audit as a process; return its word, ``pass`` or ``fail``.

        Raises
        ------
        StreamgaugeError
            It could not be made.
        """
        self.children.start("audit", ["audit", "--json", "--wait", f"{_AUDIT_DEADLINE_S:.0f}s"])
        child = self.children["audit"]
        while child.process.poll() is None:
            self._check_others()
            show("auditing: " + (last_line(child.log) or "..."))
            sleep(_POLL_S)
        if child.process.returncode not in (0, 3):
            raise child.failure()
        return msgspec.json.decode(child.printed(), type=_Report).audit

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

    @property
    def _event_source_log(self) -> Path | None:
        log = self._info.logs.get(EVENT_SOURCE)
        return None if log is None else Path(log)

    def _check_others(self) -> None:
        self.children.check()
        for process in dead_processes(self._info):
            raise StreamgaugeError(f"{process.name} has ended: {last_line(Path(process.log))}", where=process.log)


class _Report(msgspec.Struct):
    audit: str


class _Detail(msgspec.Struct):
    id: str


class _Message(msgspec.Struct):
    detail: _Detail


def _of_aggregate(counters: Sequence[Counters], aggregate: str, what: str) -> int:
    found = [each.aggregates[aggregate] for each in counters if aggregate in each.aggregates]
    return sum(each.applied if what == "applied" else each.late for each in found)


def _count(value: object) -> int:
    assert isinstance(value, int)
    return value
