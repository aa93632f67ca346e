"""``streamgauge query``: SQL over the archive."""

from __future__ import annotations

import click

from streamgauge.cli.context import live_options, workplace
from streamgauge.cli.output import print_json, print_table, say
from streamgauge.cli.stores import archive_tables
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.sinks.queries.sql import query

__all__ = ["command"]

_SHOWN_ROWS = 100


@click.command("query")
@click.argument("sql")
@click.option("--pipeline", metavar="FILE", help="The pipeline file; that of the local stack without.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as a JSON array.")
@live_options
def command(*, sql: str, pipeline: str | None, as_json: bool, live: bool, stack: str | None) -> int:
    """Run one SQL statement (DuckDB's dialect) over the archive.

    Each event type is a table named after it: envelope columns, `data` as a struct, position columns, and the
    partition columns `dt` and `hour`. Beside them stand streamgauge_panes, streamgauge_threshold_events,
    streamgauge_failed_events, streamgauge_late_events, streamgauge_commits, and more: SHOW TABLES lists them.
    """
    place = workplace(pipeline=pipeline, live=live, stack=stack)
    definition = load_pipeline(place.pipeline_file)
    result = query(sql, archive_tables(place, definition), definition)
    if as_json:
        print_json(result.objects())
        return 0
    print_table(None, result.columns, result.rows[:_SHOWN_ROWS])
    if len(result.rows) > _SHOWN_ROWS:
        say(f"{len(result.rows):,} rows, the first {_SHOWN_ROWS} shown; --json prints all")
    elif not result.rows:
        say("no rows")
    return 0
