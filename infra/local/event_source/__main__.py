"""``python -m streamgauge.infra.local.event_source [--schedule-interval 1s]``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from types import FrameType

import click

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import duration_ms, instant_ms
from streamgauge.infra.local.event_source.actions import Patience
from streamgauge.infra.local.event_source.run import RunSettings, run_event_sources
from streamgauge.settings import Endpoints


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Milliseconds of a duration such as 250ms or 1s."""
    try:
        return None if value is None else duration_ms(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from error


def _instant(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Milliseconds since the epoch of an RFC 3339 time."""
    try:
        return None if value is None else instant_ms(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from error


@click.command()
@click.option(
    "--schedule-interval",
    metavar="DURATION",
    callback=_duration,
    help="Fire every schedule rule so often, whatever its own rate.",
)
@click.option("--schedules/--no-schedules", default=True, show_default=True, help="Fire schedule rules.")
@click.option(
    "--read-interval",
    default="350ms",
    show_default=True,
    metavar="DURATION",
    callback=_duration,
    help="Between reads of a shard.",
)
@click.option(
    "--starting-timestamp", metavar="TIME", callback=_instant, help="Of mappings that start AT_TIMESTAMP (RFC 3339)."
)
@click.option(
    "--grace",
    default="15s",
    show_default=True,
    metavar="DURATION",
    callback=_duration,
    help="For calls under way at the end.",
)
def main(
    *,
    schedule_interval: int | None,
    schedules: bool,
    read_interval: int,
    starting_timestamp: int | None,
    grace: int,
) -> None:
    """Invoke the functions that are deployed to the local stack, from its streams and at intervals.

    Addresses come from AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_KINESIS. Checkpoints are kept in memory only.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    settings = RunSettings(
        patience=Patience(read_interval_ms=read_interval),
        has_schedules=schedules,
        schedule_interval_ms=schedule_interval,
        starting_timestamp_ms=starting_timestamp,
        grace_s=grace / 1000,
    )
    try:
        run_event_sources(
            Endpoints.from_environment(os.environ),
            stop=stop,
            settings=settings,
            say=lambda line: click.echo(line, err=True),
        )
    except StreamgaugeError as error:
        click.echo(f"event source poller: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
