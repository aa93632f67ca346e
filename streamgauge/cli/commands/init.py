"""``streamgauge init``: a pipeline for one's own data."""

from __future__ import annotations

import re
from pathlib import Path

import click

from streamgauge.cli.output import say
from streamgauge.cli.scaffold import plan_scaffold
from streamgauge.producers.load.infer import infer_file

__all__ = ["command"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@click.command("init")
@click.argument("name")
@click.option("--sample", "sample", required=True, metavar="FILE", help="CSV (with a header) or NDJSON.")
@click.option("--type", "event_type", metavar="NAME", help="Name of the event type; made from NAME without.")
@click.option("--key", metavar="COLUMN", help="The key: subject and partition key. Guessed without.")
@click.option("--time", metavar="COLUMN", help="The event time. Guessed without.")
def command(*, name: str, sample: str, event_type: str | None, key: str | None, time: str | None) -> int:
    """Write a pipeline file, the JSON Schema and a load profile into the folder NAME, from a sample of your data.

    They run as they are; what was guessed is said, and easily changed.
    """
    folder = Path(name)
    if not _NAME.fullmatch(folder.name):
        raise click.UsageError("a pipeline's name has letters, digits, - and _, begins with a letter, up to 64 in all")
    inferred = infer_file(Path(sample), key=key, time=time)
    scaffold = plan_scaffold(folder.name, event_type or f"{folder.name.lower()}.event", Path(sample), inferred)
    definition = scaffold.write(folder)
    for guess in scaffold.guesses:
        say(guess)
    for warning in definition.warnings:
        say(f"warning: {warning}")
    file = folder / "pipeline.toml"
    say(f"\nwritten: {file}, {folder / 'load.toml'}, {folder / 'schemas' / scaffold.type / '1.json'}\nnext:")
    say(f"  streamgauge demo --pipeline {file} --from-file {sample}")
    say(f"  streamgauge up --detach --pipeline {file}")
    say("  streamgauge produce --duration 10s")
    return 0
