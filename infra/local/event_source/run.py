"""Running the pollers of everything that is deployed, until it is time to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, time_ns

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import format_duration
from streamgauge.infra.clients import Clients
from streamgauge.infra.local.event_source.actions import Counters, Patience
from streamgauge.infra.local.event_source.deployed import read_mappings, read_rules
from streamgauge.infra.local.event_source.host import MappingHost
from streamgauge.infra.local.event_source.mapping import EventSourceMapping
from streamgauge.infra.local.event_source.schedules import ScheduleHost, ScheduleRule
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, reason_of
from streamgauge.settings import Endpoints

__all__ = ["RunSettings", "run_event_sources"]

# A function may take 900 s.
_CALL_TIMEOUT_S = 910.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How the pollers are run.

    ``schedule_interval_ms`` takes the place of every schedule rule's own rate; ``has_schedules``: whether rules are
    fired at all. ``starting_timestamp_ms``: of mappings that start AT_TIMESTAMP, since MiniStack does not keep it.
    Changes of what is deployed are seen within ``refresh_s``. At the end, calls under way get ``grace_s``.
    """

    patience: Patience = field(default_factory=Patience)
    has_schedules: bool = True
    schedule_interval_ms: int | None = None
    starting_timestamp_ms: int | None = None
    refresh_s: float = 2.0
    report_s: float = 5.0
    grace_s: float = 15.0


def run_event_sources(
    endpoints: Endpoints,
    *,
    region: str | None = None,
    stop: threading.Event,
    settings: RunSettings | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Counters:
    """Poll for every deployed mapping of a Kinesis stream and fire every schedule rule, until `stop` is set.

    Checkpoints are kept in memory, as the local Kinesis keeps its records. Another run begins at the mappings' starting
    positions again, so that records come twice.

    Parameters
    ----------
    endpoints
        Of MiniStack, and of the Kinesis that is read.
    say
        Is told what is polled, and how far it came.

    Raises
    ------
    MappingRefused, FilterRefused, ScheduleRefused
        Something that is deployed when it starts asks for what the poller does not know.
    """
    return _Run(endpoints, region, settings or RunSettings(), say).until(stop)


class _Run:
    """The pollers of one run."""

    def __init__(
        self, endpoints: Endpoints, region: str | None, settings: RunSettings, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._say = say
        self._clients = Clients(endpoints, region=region)
        self._callers = Clients(endpoints, region=region, attempts=1, read_timeout_s=_CALL_TIMEOUT_S)
        # Wall-clock time that never jumps.
        self._offset_ms = time_ns() // 1_000_000 - int(monotonic() * 1000)
        self._mappings: dict[str, MappingHost] = {}
        self._rules: dict[tuple[str, str], ScheduleHost] = {}
        self._leaving: list[MappingHost | ScheduleHost] = []
        self._past = Counters()
        self._reported = Counters()

    def until(self, stop: threading.Event) -> Counters:
        """Run until `stop` is set."""
        is_started = False
        report_at = monotonic() + self._settings.report_s
        try:
            while True:
                is_started = self._refresh(is_start=not is_started) or is_started
                self._raise_failures()
                if monotonic() >= report_at:
                    self._report()
                    report_at = monotonic() + self._settings.report_s
                if stop.wait(self._settings.refresh_s):
                    break
        finally:
            self._end()
        self._report()
        return self._counters()

    def _now_ms(self) -> int:
        return self._offset_ms + int(monotonic() * 1000)

    def _refresh(self, *, is_start: bool) -> bool:
        """Follow what is deployed. Whether it could be seen."""
        settings = self._settings
        try:
            mappings = read_mappings(self._clients, timestamp_ms=settings.starting_timestamp_ms)
            rules = read_rules(self._clients) if settings.has_schedules else []
            intervals = [settings.schedule_interval_ms or rule.interval_ms() for rule in rules]
        except AWS_ERRORS as error:
            _log.warning("what is deployed cannot be seen: %s", reason_of(error))
            return False
        except StreamgaugeError as error:
            if is_start:
                raise
            _log.warning("what is deployed now is not followed: %s", error)
            return False
        self._follow_mappings(mappings)
        self._follow_rules(dict(zip(rules, intervals, strict=True)))
        if is_start:
            names = ", ".join(f"{mapping.function} from {mapping.stream}" for mapping in mappings) or "nothing yet"
            self._say(f"polling for {names}; schedule rules: {len(rules)}")
        return True

    def _follow_mappings(self, mappings: list[EventSourceMapping]) -> None:
        for mapping in mappings:
            host = self._mappings.get(mapping.uuid)
            if host is None:
                host = MappingHost(
                    mapping, self._clients, self._callers, patience=self._settings.patience, now_ms=self._now_ms
                )
                self._mappings[mapping.uuid] = host
                host.start()
            elif host.mapping != mapping:
                host.configure(mapping)
        for gone in self._mappings.keys() - {mapping.uuid for mapping in mappings}:
            host = self._mappings.pop(gone)
            self._past += host.counters
            host.stop()
            self._leaving.append(host)

    def _follow_rules(self, rules: dict[ScheduleRule, int]) -> None:
        for rule, interval_ms in rules.items():
            host = self._rules.get((rule.arn, rule.function_arn))
            if host is not None:
                host.rule = rule
                continue
            host = ScheduleHost(rule, self._callers.functions, interval_ms=interval_ms, now_ms=self._now_ms)
            self._rules[rule.arn, rule.function_arn] = host
            host.start()
        for gone in self._rules.keys() - {(rule.arn, rule.function_arn) for rule in rules}:
            host = self._rules.pop(gone)
            host.stop()
            self._leaving.append(host)

    def _raise_failures(self) -> None:
        for host in self._mappings.values():
            if host.failure is not None:
                raise host.failure

    def _counters(self) -> Counters:
        return sum((host.counters for host in self._mappings.values()), self._past)

    def _report(self) -> None:
        counters = self._counters()
        if counters == self._reported:
            return
        self._reported = counters
        fired = sum(host.fired for host in self._rules.values())
        failed = sum(host.failed for host in self._rules.values())
        self._say(
            f"{counters.records_done:,} records in {counters.invocations:,} calls "
            f"({counters.function_errors:,} failed, {counters.not_invoked:,} not taken), "
            f"{counters.records_filtered:,} filtered, {counters.records_given_up:,} given up, "
            f"behind {format_duration(counters.behind_ms)}; schedules fired {fired:,} times ({failed:,} failed)"
        )

    def _end(self) -> None:
        hosts = [*self._mappings.values(), *self._rules.values(), *self._leaving]
        for host in hosts:
            host.stop()
        deadline = monotonic() + self._settings.grace_s
        late = [host for host in hosts if not host.join(deadline - monotonic())]
        if late:
            _log.warning("calls are still under way after %g s and left to themselves", self._settings.grace_s)
