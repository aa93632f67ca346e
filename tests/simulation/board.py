"""Where faults strike: every step of every actor passes the board."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random

from botocore.exceptions import ClientError

from simulation.clock import Clock
from simulation.faults import COMPONENTS, Kind, PlannedFault, Tally
from streamgauge.infra.local.kinesis.faults import Call, Fault, Rule, ScriptedFaults
from streamgauge.processors.commit.ports import StoreUnavailable

__all__ = ["Board", "Crash", "StreamFaults", "client_error"]

_AWS_COMPONENTS = ("bus", "served", "kinesis")


class Crash(BaseException):
    """The process of the current actor dies here. `upgrade`: another version starts in its place."""

    def __init__(self, *, upgrade: bool = False) -> None:
        super().__init__()
        self.upgrade = upgrade


def client_error(code: str, status: int) -> ClientError:
    """What botocore raises for an answer of AWS."""
    answer = {"Error": {"Code": code, "Message": "injected"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Call")  # type: ignore[arg-type]


class StreamFaults(ScriptedFaults):
    """The stream model's faults: scripted ones, and throttling of a share of the calls for a while."""

    def __init__(self, clock: Clock, rng: Random) -> None:
        super().__init__()
        self._clock = clock
        self._rng = rng
        self._throttled: dict[str, tuple[float, int]] = {}

    def throttle(self, operation: str, share: float, until_ms: int) -> None:
        self._throttled[operation] = share, until_ms

    def heal(self) -> None:
        self.rules.clear()
        self._throttled.clear()

    def strikes(self, fault: Fault, call: Call) -> bool:
        if super().strikes(fault, call):
            return True
        share, until_ms = self._throttled.get(call.operation, (0.0, 0))
        return fault is Fault.THROTTLE and self._clock.now_ms < until_ms and self._rng.random() < share


class Board:
    """Counts steps, strikes where the plan says so, and tallies what struck.

    `actions` are what the world does for the kinds of faults that concern more than the call at hand; they say whether
    they could.
    """

    def __init__(self, clock: Clock, faults: tuple[PlannedFault, ...], stream: StreamFaults) -> None:
        self.clock = clock
        self.stream = stream
        self.tally = Tally()
        self.actions: dict[Kind, Callable[[PlannedFault], bool]] = {}
        self.notes: Counter[Kind] = Counter()
        """Faults that have struck and that the caller of the step itself still has to act upon."""
        self.note_sizes: dict[Kind, int] = {}
        self.healed = False
        self.log: list[str] = []
        self._due: dict[tuple[str, int], list[PlannedFault]] = defaultdict(list)
        for fault in faults:
            self._due[fault.step, fault.nth].append(fault)
        self._out_until: dict[str, int] = {}

    def heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self.healed = True
        self.stream.heal()
        self._out_until.clear()
        self.notes.clear()

    def hook(self, step: str, moment: str) -> None:
        """The stores' hook: `step` is about to happen, or has happened."""
        self.reach(f"{step}.{moment}")

    def reach(self, place: str) -> None:
        """Strike what is due at this place; what it raises, the caller of the step sees."""
        steps = self.tally.steps
        steps[place] += 1
        if self.healed:
            return
        step, _, moment = place.partition(".")
        raised: BaseException | None = None
        for fault in self._due.pop((place, steps[place]), ()):
            if fault.kind in self.actions and not self.actions[fault.kind](fault):
                continue
            self.tally.hits[fault.kind, place] += 1
            self.log.append(f"{self.clock.now_ms} {fault.kind} at {place} #{fault.nth}")
            raised = self._strike(fault, step) or raised
        if (
            raised is None
            and moment == "before"
            and self.clock.now_ms < self._out_until.get(COMPONENTS.get(step, ""), 0)
        ):
            raised = self.unavailable(step)
        if raised is not None:
            raise raised

    def take_note(self, kind: Kind) -> bool:
        """Whether such a fault has struck for the caller to act upon; each is taken once."""
        if not self.notes[kind]:
            return False
        self.notes[kind] -= 1
        return True

    def unavailable(self, step: str) -> Exception:
        """The error of a component that does not answer."""
        if COMPONENTS.get(step) in _AWS_COMPONENTS:
            return client_error("ServiceUnavailable", 503)
        return StoreUnavailable("injected", where=step)

    def _strike(self, fault: PlannedFault, step: str) -> BaseException | None:
        kind, now_ms = fault.kind, self.clock.now_ms
        match kind:
            case Kind.CRASH | Kind.UPGRADE:
                return Crash(upgrade=kind is Kind.UPGRADE)
            case Kind.STOPPED:
                return Crash()
            case Kind.UNAVAILABLE | Kind.ANSWER_LOST:
                return self.unavailable(step)
            case Kind.OUTAGE:
                self._out_until[COMPONENTS[step]] = now_ms + 2_000 + fault.size % 20_000
            case Kind.PAUSE:
                self.clock.pause(8_000 + fault.size % 8_000)
            case Kind.THROTTLE_SOME | Kind.THROTTLE_ALL:
                operation = "PutRecords" if step == "put" else "GetRecords"
                share = 0.25 if kind is Kind.THROTTLE_SOME else 1.0
                self.stream.throttle(operation, share, now_ms + 3_000 + fault.size % 10_000)
            case Kind.EXPIRED:
                self.stream.rules.append(Rule(Fault.EXPIRE_ITERATOR, "GetRecords"))
            case Kind.EMPTY:
                self.stream.rules.append(Rule(Fault.EMPTY_READ, "GetRecords", times=1 + fault.size % 4))
            case Kind.PARTIAL if step == "put":
                subset = [index for index in range(4) if fault.size >> index & 1] or [0]
                failure = Fault.THROTTLE if fault.size & 16 else Fault.INTERNAL_FAILURE
                self.stream.rules.append(Rule(failure, "PutRecords", entries=subset, times=len(subset)))
            case _ if kind not in self.actions:
                self.notes[kind] += 1
                self.note_sizes[kind] = fault.size
        return None
