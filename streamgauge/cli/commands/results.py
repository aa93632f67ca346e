"""``streamgauge results``: the panes of an aggregate."""

from __future__ import annotations

import click

from streamgauge.cli.context import live_options, workplace
from streamgauge.cli.output import print_json, print_table, say
from streamgauge.cli.stores import archive_tables, state_store
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.sinks.queries.results import results

__all__ = ["command"]

_SHOWN_ROWS = 100


@click.command("results")
@click.argument("aggregate")
@click.option("--open", "include_open", is_flag=True, help="Add the windows that are still open, as they stand.")
@click.option("--pipeline", metavar="FILE", help="The pipeline file; that of the local stack without.")
@click.option("--json", "as_json", is_flag=True, help="Print the panes as a JSON array.")
@live_options
def command(
    *, aggregate: str, include_open: bool, pipeline: str | None, as_json: bool, live: bool, stack: str | None
) -> int:
    """Show the closed windows of AGGREGATE, each at its latest revision."""
    place = workplace(pipeline=pipeline, live=live, stack=stack)
    definition = load_pipeline(place.pipeline_file)
    panes = results(
        aggregate,
        pipeline=definition,
        tables=archive_tables(place, definition),
        store=state_store(place, definition),
        engine=core_engine(place.output("StreamArn")),
        include_open=include_open,
    )
    if as_json:
        print_json(panes)
        return 0
    if not panes:
        say("no window has closed yet" + ("" if include_open else "; --open shows the open ones"))
        return 0
    keys, measures = list(panes[0].key), list(panes[0].measures)
    print_table(
        aggregate,
        [*keys, "from", "to", "revision", *measures],
        [
            [*pane.key.values(), pane.window_start, pane.window_end, pane.revision or "open", *pane.measures.values()]
            for pane in panes[:_SHOWN_ROWS]
        ],
    )
    if len(panes) > _SHOWN_ROWS:
        say(f"{len(panes):,} panes, the first {_SHOWN_ROWS} shown; --json prints all")
    return 0
