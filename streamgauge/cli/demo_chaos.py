"""What ``demo --chaos`` does to a running demo, and what each protection then took care of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from random import Random
from time import monotonic, sleep

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.cli.context import Workplace
from streamgauge.cli.demo_run import Demo
from streamgauge.cli.output import print_table, say
from streamgauge.infra.local.faulty_proxy import FaultyProxy, Treatment
from streamgauge.infra.local.functions import kill_functions
from streamgauge.infra.local.stack import StackInfo
from streamgauge.processors.core.counters import Counters

__all__ = ["PROCESSOR", "Chaos", "ChaosReport", "show_chaos"]

_FUNCTIONS_START_S = 60.0
_POLL_S = 0.2

PROCESSOR = ("process", "--until-end-of-input", "--json", "--lease", "3s")
"""A short lease, so that nobody waits long for the successor of a killed process."""

_PUT = "PutRecords"
_LOST_SHARE = 0.2
_LATE_S_MAX = 0.1
# Seconds after the start. What has not been reached when the producer is done, a kill excepted, stays undone.
_SPLIT, _KILL = "split", "kill"
_SCHEDULE = ((3.0, _SPLIT), (6.0, _KILL), (15.0, _SPLIT), (20.0, _KILL), (30.0, _KILL))


class ChaosReport(msgspec.Struct, kw_only=True):
    """What was done, and what was removed because of it: the object ``chaos`` that ``demo --chaos --json`` prints.

    ``answers_lost`` are PutRecords calls that had their effect and no answer. The rest are events, out of the
    processor's counters: ``duplicates_in_window`` and ``duplicates_below_window`` are further copies, by the part of
    the anti-replay window that told them; ``redelivered_skipped`` were read again at or below the saved position;
    ``misrouted_ignored`` came in aggregates that a reshard had sent to the wrong shard.
    """

    processor_killed: int
    shards_split: int
    answers_lost: int
    duplicates_in_window: int
    duplicates_below_window: int
    redelivered_skipped: int
    misrouted_ignored: int
    positions: int
    accepted: int


class Chaos:
    """Troubles for a demo, from entering to leaving.

    Nothing runs beside the demo but the proxy: `watching` wraps what the demo calls while it waits, and does there what
    is due.

    Parameters
    ----------
    is_lambda
        Whether the template's functions are to be killed, and not a process of the demo.
    seed
        Which answers are lost.
    """

    def __init__(self, demo: Demo, info: StackInfo, place: Workplace, *, is_lambda: bool, seed: int) -> None:
        self._demo = demo
        self._info = info
        self._is_lambda = is_lambda
        self._place = place
        self._random = Random(seed)  # noqa: S311 - decides what goes wrong, guards no secret
        self._drawing = threading.Lock()
        endpoints = info.endpoints
        self._proxy = FaultyProxy(endpoints.kinesis or info.kinesis_url, self._treat)
        self._due = list(_SCHEDULE)
        self._started = monotonic()
        self._killed = 0
        self._split = 0

    def __enter__(self) -> Chaos:
        self._proxy.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._proxy.close()

    @property
    def producer_environment(self) -> dict[str, str]:
        """Leads a producer through the proxy."""
        return {"AWS_ENDPOINT_URL_KINESIS": self._proxy.url}

    def watching(self, show: Callable[[str], None]) -> Callable[[str], None]:
        """What shows progress, and makes trouble when it is time."""
        self._started = monotonic()

        def show_and_trouble(text: str) -> None:
            if self._due and monotonic() - self._started >= self._due[0][0]:
                _, what = self._due.pop(0)
                self._do(what)
            show(text)

        return show_and_trouble

    def put_is_over(self) -> None:
        """Nothing more is put. At least one death there must be: in the midst of the rest."""
        self._due.clear()
        until = monotonic() + _FUNCTIONS_START_S
        while not self._killed:
            self._do(_KILL)
            if not self._is_lambda or monotonic() > until:
                return
            # What has been put a moment ago has not been handed to a function yet.
            sleep(_POLL_S)

    def report(self, counters: Iterable[Counters]) -> ChaosReport:
        """What came of it, by the counters of every shard."""
        every = list(counters)
        return ChaosReport(
            processor_killed=self._killed,
            shards_split=self._split,
            answers_lost=self._proxy.lost[_PUT],
            duplicates_in_window=sum(each.duplicate_in_window for each in every),
            duplicates_below_window=sum(each.duplicate_below_window for each in every),
            redelivered_skipped=sum(each.redelivered for each in every),
            misrouted_ignored=sum(each.misrouted for each in every),
            positions=sum(each.positions for each in every),
            accepted=sum(each.accepted for each in every),
        )

    def _treat(self, operation: str) -> Treatment:
        """In the proxy's thread."""
        if operation != _PUT:
            return Treatment()
        with self._drawing:
            return Treatment(lose=self._random.random() < _LOST_SHARE, delay_s=self._random.random() * _LATE_S_MAX)

    def _do(self, what: str) -> None:
        if what == _KILL and self._is_lambda:
            if kill_functions(self._info.folder):
                self._killed += 1
                say(f"chaos: the functions' processes were killed (kill -9) after {self._elapsed()}")
            return
        if what == _KILL:
            if self._demo.children.kill_and_restart("processor", PROCESSOR):
                self._killed += 1
                say(f"chaos: the processor was killed (kill -9) after {self._elapsed()}, and started again")
            return
        try:
            shard_id = self._split_widest()
        except (ClientError, BotoCoreError) as error:
            say(f"chaos: no shard could be split: {error}")
            return
        self._split += 1
        say(f"chaos: {shard_id} was split under load after {self._elapsed()}")

    def _elapsed(self) -> str:
        return f"{monotonic() - self._started:.0f} s"

    def _split_widest(self) -> str:
        kinesis, stream = self._place.clients.kinesis, self._place.output("StreamName")
        shards = kinesis.list_shards(StreamName=stream, ShardFilter={"Type": "AT_LATEST"})["Shards"]
        ranges = [
            (
                int(shard["HashKeyRange"]["StartingHashKey"]),
                int(shard["HashKeyRange"]["EndingHashKey"]),
                shard["ShardId"],
            )
            for shard in shards
        ]
        first, last, shard_id = max(ranges, key=lambda entry: entry[1] - entry[0])
        kinesis.split_shard(StreamName=stream, ShardToSplit=shard_id, NewStartingHashKey=str((first + last) // 2 + 1))
        return shard_id


def show_chaos(report: ChaosReport) -> None:
    """What was done to the pipeline, and what it did about it."""
    print_table(
        "what was done to it",
        ["", "times"],
        [
            ["the processor killed (kill -9), and another in its place", f"{report.processor_killed:,}"],
            ["a shard split under load", f"{report.shards_split:,}"],
            ["PutRecords answers lost: the producer had to put again", f"{report.answers_lost:,}"],
        ],
    )
    doubled = report.duplicates_in_window + report.duplicates_below_window
    print_table(
        "what each protection took care of",
        ["", "events", "without it"],
        _rows(
            ("copies inside a source's anti-replay window, removed", report.duplicates_in_window, "counted twice"),
            ("copies below that window, removed", report.duplicates_below_window, "counted twice"),
            ("read again after a restart, skipped by position", report.redelivered_skipped, "counted twice"),
            ("in aggregates sent to a wrong shard, ignored whole", report.misrouted_ignored, "keys in two shards"),
        ),
    )
    wrong = doubled + report.redelivered_skipped + report.misrouted_ignored
    share = wrong / max(report.accepted, 1)
    say(f"without them {wrong:,} events too many would have been counted: {share:.1%} of {report.accepted:,}")


def _rows(*rows: tuple[str, int, str]) -> list[Sequence[object]]:
    return [[what, f"{count:,}", cost] for what, count, cost in rows]
