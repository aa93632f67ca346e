"""``streamgauge down``: stop the local stack."""

from __future__ import annotations

import click

from streamgauge.cli.context import home
from streamgauge.cli.output import say
from streamgauge.infra.local.stack import read_stack, stop_stack

__all__ = ["command"]


@click.command("down")
def command() -> int:
    """Stop the local stack of this folder; its data is gone then."""
    info = read_stack(home())
    if info is None:
        say("no stack runs here")
        return 0
    killed = stop_stack(info)
    say("stopped" + (f"; had to be killed: {', '.join(killed)}" if killed else ""))
    return 0
