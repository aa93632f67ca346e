"""``streamgauge package``: the zip that Lambda runs."""

from __future__ import annotations

from pathlib import Path

import click

from streamgauge.cli.output import print_json, say
from streamgauge.infra.packaging.build import build_package
from streamgauge.infra.packaging.lock import ARCHITECTURES, PYTHON_VERSIONS, Target

__all__ = ["command"]


@click.command("package")
@click.option("--pipeline", metavar="FILE", required=True, help="The pipeline file that the functions run.")
@click.option("--output", metavar="DIR", required=True, help="Where the zip goes; its name holds its contents' hash.")
@click.option("--local", is_flag=True, help="For this machine's Python, as the local stack runs it, not for Lambda.")
@click.option(
    "--python-version",
    type=click.Choice(PYTHON_VERSIONS),
    default=PYTHON_VERSIONS[-1],
    show_default=True,
    help="Lambda's runtime.",
)
@click.option(
    "--architecture", type=click.Choice(ARCHITECTURES), default=ARCHITECTURES[0], show_default=True, help="Lambda's."
)
@click.option("--json", "as_json", is_flag=True, help="Print path, hash and sizes as JSON.")
def command(*, pipeline: str, output: str, local: bool, python_version: str, architecture: str, as_json: bool) -> int:
    """Build the package of the template's functions: our code, the locked dependencies, and the pipeline."""
    target = None if local else Target(python_version, architecture)
    built = build_package(Path(pipeline), Path(output), target=target, say=say)
    if as_json:
        print_json(
            {
                "path": str(built.path.absolute()),
                "digest": built.digest,
                "unpacked_bytes": built.unpacked_bytes,
                "packed_bytes": built.packed_bytes,
            }
        )
    else:
        click.echo(built.path)
    return 0
