"""``streamgauge tick``: let idle time pass."""

from __future__ import annotations

import time

import click

from streamgauge.cli.context import live_options, workplace
from streamgauge.cli.output import say
from streamgauge.cli.stopping import stop_on_signals
from streamgauge.events.times import duration_ms
from streamgauge.infra.local.ticker import run_ticker

__all__ = ["command"]


@click.command("tick")
@click.option("--every", default="5s", show_default=True, metavar="DURATION", help="Time between two ticks.")
@live_options
def command(*, every: str, live: bool, stack: str | None) -> int:
    """Put one tick after another into each open shard, until stopped.

    Ticks let the watermark of a shard without events move on, so that its last windows close.
    """
    try:
        interval_ms = duration_ms(every)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--every") from error
    if interval_ms == 0:
        raise click.BadParameter("must be longer than nothing", param_hint="--every")
    place = workplace(pipeline=None, live=live, stack=stack)
    with stop_on_signals("stopping ...") as stop:
        counts = run_ticker(
            place.clients.kinesis,
            place.output("StreamName"),
            interval_ms / 1000,
            lambda: time.time_ns() // 1_000_000,
            stop,
        )
    say(f"{counts.put} ticks put, {counts.failed} failed")
    return 0
