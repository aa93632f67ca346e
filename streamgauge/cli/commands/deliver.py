"""``streamgauge deliver``: the stream into the archive."""

from __future__ import annotations

import time

import click

from streamgauge.cli.context import live_options, workplace
from streamgauge.cli.output import LiveLine
from streamgauge.cli.stopping import stop_on_signals
from streamgauge.events.times import duration_ms, format_duration
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.sinks.archive.objects import S3Objects
from streamgauge.sinks.delivery.delivery import Delivery, DeliveryProgress, run_delivery
from streamgauge.sinks.delivery.settings import DeliverySettings

__all__ = ["command"]


@click.command("deliver")
@click.option("--pipeline", metavar="FILE", help="The pipeline file; that of the local stack without.")
@click.option("--max-age", default="1m", show_default=True, metavar="DURATION", help="The longest a record waits.")
@click.option("--until-end-of-input", is_flag=True, help="End once every shard has seen the end of the input.")
@click.option("--accept-gap", is_flag=True, help="Go on although records are gone from the stream; noted.")
@live_options
def command(
    *, pipeline: str | None, max_age: str, until_end_of_input: bool, accept_gap: bool, live: bool, stack: str | None
) -> int:
    """Write every record of the stream to the archive as Parquet, until Ctrl-C. The local stack runs this by itself."""
    try:
        settings = DeliverySettings(max_age_ms=duration_ms(max_age))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max-age") from error
    place = workplace(pipeline=pipeline, live=live, stack=stack)
    definition = load_pipeline(place.pipeline_file)
    delivery = Delivery(
        place.clients.kinesis,
        stream=place.output("StreamName"),
        stream_arn=place.output("StreamArn"),
        objects=S3Objects(place.clients.s3, place.output("ArchiveBucketName")),
        catalogue=definition.catalogue,
        mapping=definition.mapping,
        settings=settings,
        accept_gap=accept_gap,
    )
    with LiveLine() as line, stop_on_signals("stopping: writing what was read ...") as stop:
        run_delivery(
            delivery,
            stop=stop,
            now_ms=lambda: time.time_ns() // 1_000_000,
            on_progress=lambda progress: line.update(_line(progress)),
            until_end_of_input=until_end_of_input,
        )
    return 0


def _line(progress: DeliveryProgress) -> str:
    rows = sum(progress.rows.values())
    line = f"delivered {rows:,} rows in {progress.objects:,} objects, {progress.bytes / 1e6:,.1f} MB"
    behind = f", behind {format_duration(progress.behind_ms)}"
    return line + behind + (f", trouble: {progress.trouble}" if progress.trouble else "")
