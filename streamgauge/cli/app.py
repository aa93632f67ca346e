"""The ``streamgauge`` command: a group whose subcommands are loaded when they are used.

Data goes to stdout, messages and progress to stderr. Exit codes: 0 done, 1 failed, 2 wrong use, 3 an audit not met.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from streamgauge import __version__
from streamgauge.cli.output import say_error
from streamgauge.events.errors import StreamgaugeError

__all__ = ["main"]

# Name -> module under streamgauge.cli.commands, in the order in which help shows them.
_COMMANDS = {
    "demo": "Run the whole pipeline once on this machine, and prove the result.",
    "init": "Write a pipeline for your own data from a sample file.",
    "up": "Start the local stack.",
    "down": "Stop the local stack.",
    "produce": "Put events into the stream: generated ones, or a file's.",
    "process": "Process the stream: remove duplicates, aggregate, raise threshold events.",
    "results": "Show the panes of an aggregate.",
    "query": "Ask the archive in SQL.",
    "lag": "Show how far each shard is processed, whatever host does it.",
    "audit": "Prove that what was acknowledged is archived, and is counted once.",
    "deploy": "Deploy the template and its functions: to AWS with --live, or to the local stack.",
    "deliver": "Deliver the stream to the archive as Parquet (the local stack runs this).",
    "package": "Build the zip that the template's Lambda functions run.",
    "tick": "Put ticks into the stream's open shards (the local stack runs this).",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"streamgauge.cli.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="streamgauge")
def _cli() -> None:
    """Streaming analytics on Amazon Kinesis, effectively once."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    try:
        status = _cli.main(args=arguments, prog_name="streamgauge", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        say_error("interrupted")
        sys.exit(1)
    except StreamgaugeError as error:
        say_error(str(error))
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
