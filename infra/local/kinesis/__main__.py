"""``python -m streamgauge.infra.local.kinesis --port N [--no-limits] [--calls FILE]``."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from pathlib import Path

import click

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.local.kinesis.calls import CallLog
from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.infra.local.kinesis.model import KinesisModel
from streamgauge.infra.local.kinesis.server import bind, endpoint_url, serve


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=4567, show_default=True, help="0 takes a free one.")
@click.option("--limits/--no-limits", default=True, show_default=True, help="Rates per shard and quotas, as on AWS.")
@click.option("--account", default="000000000000", show_default=True, help="Account id in ARNs.")
@click.option("--region", default="us-east-1", show_default=True, help="Region in ARNs.")
@click.option("--calls", type=click.Path(path_type=Path, dir_okay=False), help="Append to it who called what.")
def main(host: str, port: int, *, limits: bool, account: str, region: str, calls: Path | None) -> None:
    """Run the local Kinesis: records are kept in memory only, and are gone when it stops."""
    with contextlib.ExitStack() as opened:
        try:
            log = None if calls is None else opened.enter_context(CallLog(calls))
            listener = bind(host, port)
        except StreamgaugeError as error:
            click.echo(f"local Kinesis: {error}", err=True)
            sys.exit(1)
        model = KinesisModel(limits=Limits(enforced=limits), account=account, region=region)
        asyncio.run(_run(model, listener, log))


async def _run(model: KinesisModel, listener: socket.socket, calls: CallLog | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    click.echo(f"listening on {endpoint_url(listener)}", err=True)
    await serve(model, listener, stop=stop, calls=calls)


if __name__ == "__main__":
    main()
