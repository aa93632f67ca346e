"""``make soak``: schedules for as long as asked, each with a seed of its own, and the stories of those that fail."""

from __future__ import annotations

import argparse
import sys
import time

from simulation.coverage import SCHEDULES
from simulation.faults import CELLS, Tally
from simulation.plan import make_plan
from simulation.run import run_plan
from simulation.story import tell

_REPORT_S = 30
_FAILURES_MAX = 5


def main() -> int:
    """Run until the time is over; 1 if a schedule failed."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--first", type=int, help="the first seed; by default one that no run has had")
    arguments = parser.parse_args()
    seed = int(time.time()) * 1_000 + SCHEDULES if arguments.first is None else arguments.first
    print(f"seeds from {seed} on, for {arguments.minutes:g} minutes", flush=True)
    tally, failures = Tally(), 0
    begun = reported = time.monotonic()
    while time.monotonic() < begun + arguments.minutes * 60 and failures < _FAILURES_MAX:
        plan = make_plan(seed)
        try:
            tally.add(run_plan(plan))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, its seed must be told
            failures += 1
            print(tell(plan, error, shrinks=True), flush=True)
        seed += 1
        if time.monotonic() > reported + _REPORT_S:
            reported = time.monotonic()
            print(f"{tally.schedules} schedules, {tally.schedules / (reported - begun):.1f} a second", flush=True)
    rate = tally.schedules / (time.monotonic() - begun)
    print(tally.table())
    print(
        f"{tally.schedules} schedules of {tally.events} events, {rate:.1f} schedules a second, "
        f"{len(CELLS)} cells, {failures} failed"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
