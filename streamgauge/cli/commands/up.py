"""``streamgauge up``: the local stack."""

from __future__ import annotations

from pathlib import Path

import click

from streamgauge.cli.context import DEMO_PIPELINE, home, require_no_stack
from streamgauge.cli.local_stack import LAMBDA, host_option, start_local_stack
from streamgauge.cli.output import print_json, say
from streamgauge.cli.stopping import stop_on_signals
from streamgauge.infra.local.stack import dead_processes, stop_stack
from streamgauge.processors.hosts.pipeline_file import load_pipeline

__all__ = ["command"]

_WATCH_INTERVAL_S = 1.0


@click.command("up")
@click.option("--pipeline", metavar="FILE", help="The pipeline file to deploy for; the demo's own without.")
@click.option("--shards", type=click.IntRange(1, 500), default=1, show_default=True, help="Open shards of the stream.")
@host_option()
@click.option("--detach", is_flag=True, help="Return once the stack is up, and leave it running until `down`.")
@click.option("--ticks/--no-ticks", default=True, show_default=True, help="Let idle time pass in the stream.")
@click.option("--limits/--no-limits", default=True, show_default=True, help="Enforce each shard's limits, as AWS does.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of MiniStack; a free one without.")
@click.option("--kinesis-port", type=click.IntRange(1, 65535), help="Port of the local Kinesis; a free one without.")
@click.option("--json", "as_json", is_flag=True, help="Print endpoints and resources as JSON.")
def command(
    *,
    pipeline: str | None,
    shards: int,
    host: str,
    detach: bool,
    ticks: bool,
    limits: bool,
    port: int | None,
    kinesis_port: int | None,
    as_json: bool,
) -> int:
    """Start the local stack: MiniStack and our own Kinesis on loopback, the template deployed, delivery running.

    The template's Lambda function processes the stream, invoked as its event source says; with --host local there is
    no function, and the stream waits for `streamgauge process`. All of its data is in memory and gone with it.
    """
    require_no_stack(home())
    path = Path(pipeline) if pipeline else DEMO_PIPELINE
    loaded = load_pipeline(path)
    for warning in loaded.warnings:
        say(f"warning: {path}: {warning}")
    say(f"starting the local stack for {path} ...")
    info = start_local_stack(
        home(),
        loaded,
        path,
        shards=shards,
        host=host,
        ticks=ticks,
        limits=limits,
        aws_port=port,
        kinesis_port=kinesis_port,
    )
    if as_json:
        print_json(
            {
                "aws_url": info.aws_url,
                "kinesis_url": info.kinesis_url,
                "region": info.region,
                "pipeline_file": info.pipeline_file,
                "outputs": info.outputs,
                "logs": info.logs,
            }
        )
    say(f"the stack is up: stream {loaded.stream}, {shards} shard{'s' if shards > 1 else ''}, data in memory only")
    if host == LAMBDA:
        say(f"  the function {info.outputs['ProcessorFunctionName']} processes it")
    else:
        say("  process it with: streamgauge process")
    say(f"  export AWS_ENDPOINT_URL={info.aws_url} AWS_ENDPOINT_URL_KINESIS={info.kinesis_url}")
    say(f"  logs in {info.folder / 'logs'}")
    if detach:
        say("stop it with: streamgauge down")
        return 0
    with stop_on_signals("stopping ...") as stop:
        say("stop it with Ctrl-C")
        while not stop.wait(_WATCH_INTERVAL_S):
            dead = dead_processes(info)
            if dead:
                stop_stack(info)
                raise click.ClickException(
                    "a part of the stack has ended, the rest was stopped: "
                    + ", ".join(f"{process.name} (its log: {process.log})" for process in dead)
                )
    stop_stack(info)
    say("stopped")
    return 0
