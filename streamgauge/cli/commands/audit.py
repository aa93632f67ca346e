"""``streamgauge audit``: the proof."""

from __future__ import annotations

from time import monotonic, sleep

import click

from streamgauge.cli.context import live_options, workplace
from streamgauge.cli.output import print_json, print_table, say
from streamgauge.cli.stores import archive_tables, state_store
from streamgauge.events.times import duration_ms
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.sinks.audit.audit import audit

__all__ = ["command"]

_AUDIT_NOT_MET = 3
_LOOK_AGAIN_S = 1.0


@click.command("audit")
@click.option("--pipeline", metavar="FILE", help="The pipeline file; that of the local stack without.")
@click.option("--wait", default="30s", show_default=True, metavar="DURATION", help="How long delivery may lag behind.")
@click.option("--json", "as_json", is_flag=True, help="Print verdict and checks as JSON.")
@live_options
def command(*, pipeline: str | None, wait: str, as_json: bool, live: bool, stack: str | None) -> int:
    """Prove from the stores alone that what was acknowledged is archived, and is counted once. Exit 3 if it is not."""
    try:
        deadline = monotonic() + duration_ms(wait) / 1000
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--wait") from error
    place = workplace(pipeline=pipeline, live=live, stack=stack)
    definition = load_pipeline(place.pipeline_file)

    def look_again() -> bool:
        if monotonic() >= deadline:
            return False
        say("delivery is behind, looking again ...")
        sleep(_LOOK_AGAIN_S)
        return True

    found = audit(
        definition,
        files=archive_tables(place, definition).files,
        store=state_store(place, definition),
        engine=core_engine(place.output("StreamArn")),
        wait=look_again,
    )
    if as_json:
        print_json(found)
    else:
        held = len(found.checks) - len(found.failed)
        print_table(
            f"audit: {found.audit.upper()} ({held} of {len(found.checks)} checks hold)",
            ["check", "of", "expected", "found", "missing", "doubled"],
            [
                [each.name, each.scope, each.expected, each.found, "\n".join(each.missing), "\n".join(each.doubled)]
                for each in found.failed or found.checks
            ],
        )
    return 0 if found.audit == "pass" else _AUDIT_NOT_MET
