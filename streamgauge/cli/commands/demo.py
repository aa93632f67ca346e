"""``streamgauge demo``: the whole pipeline once, on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from time import monotonic

import click
import msgspec

from streamgauge.cli.context import DEMO_PIPELINE, home, require_no_stack, workplace
from streamgauge.cli.demo_chaos import PROCESSOR, Chaos, ChaosReport, show_chaos
from streamgauge.cli.demo_job import DemoJob, FileOptions, prepare
from streamgauge.cli.demo_run import Demo, DemoResult, Produced
from streamgauge.cli.function_watch import FunctionWatch
from streamgauge.cli.inputs import file_options, refuse, say_bad_rows
from streamgauge.cli.local_stack import LAMBDA, host_option, start_local_stack
from streamgauge.cli.output import LiveLine, print_json, print_table, say
from streamgauge.events.times import format_duration
from streamgauge.infra.local.record import FOLDER
from streamgauge.infra.local.stack import start_process, stop_stack
from streamgauge.producers.load.files import BadRow
from streamgauge.sinks.archive.layout import sql_name

__all__ = ["command"]


@click.command("demo")
@click.option("--pipeline", metavar="FILE", help="The pipeline file; the demo's own, or one inferred from the file.")
@click.option("--shards", type=click.IntRange(1, 100), default=2, show_default=True, help="Shards of the stream.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Events a second; a file goes as fast as it can.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the load, and of --order shuffled.")
@host_option()
@click.option("--chaos", is_flag=True, help="Kill the processor, split shards, lose answers meanwhile; and prove it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--keep", is_flag=True, help="Leave the stack running until `streamgauge down`.")
@file_options
def command(
    *,
    pipeline: str | None,
    shards: int,
    rate: float | None,
    seed: int,
    host: str,
    chaos: bool,
    as_json: bool,
    keep: bool,
    from_file: str | None,
    event_type: str | None,
    key: str | None,
    time: str | None,
    data: str | None,
    order: str,
    copies: int,
    raw: bool,
) -> int:
    """Run the pipeline end to end on this machine, show what came of it, and prove it by the audit.

    Without --from-file, events are generated: with producer duplicates, late and malformed ones among them.
    """
    here = home()
    require_no_stack(here)
    if from_file is None:
        refuse({"--type": event_type, "--key": key, "--time": time, "--data": data, "--raw": raw}, "with --from-file")
    file = None if from_file is None else FileOptions(Path(from_file), event_type, key, time, data, raw)
    job = prepare(here / FOLDER / "demo", pipeline=None if pipeline is None else Path(pipeline), file=file)
    for note in job.notes:
        say(note)
    _say_what_to_expect(job, file, order=order, copies=copies)
    produce = ["produce", "--json", "--end-of-input", "--seed", str(seed), "--copies", str(copies)]
    produce += [] if rate is None else ["--rate", str(rate)]
    if file is not None:
        produce += ["--from-file", str(file.path.absolute()), "--type", job.type, "--order", order]
        for option, value in (("--key", key), ("--time", time), ("--data", data)):
            produce += [] if value is None else [option, value]
        produce += ["--raw"] if raw else []
    # Ticks let real time pass, which a file's events from another year do not follow.
    result, seconds, troubles = _run(
        here, job, produce, shards=shards, host=host, ticks=file is None, keep=keep, chaos_seed=seed if chaos else None
    )
    if as_json:
        print_json(result if troubles is None else {**msgspec.structs.asdict(result), "chaos": troubles})
    else:
        _show(result, job, order=order, seconds=seconds)
        if troubles is not None:
            show_chaos(troubles)
    _say_what_next(job, keep=keep)
    expected = result.threshold_events_raised + result.threshold_events_cleared
    if result.threshold_events_received != expected:
        say(f"error: {result.threshold_events_received} of {expected} threshold events arrived on the queue")
        return 3
    return 0 if result.audit == "pass" else 3


def _run(
    here: Path,
    job: DemoJob,
    produce: Sequence[str],
    *,
    shards: int,
    host: str,
    ticks: bool,
    keep: bool,
    chaos_seed: int | None,
) -> tuple[DemoResult, float, ChaosReport | None]:
    """Run everything; with the result, the seconds from the first event to the last window, and what was done to it."""
    say(f"starting the stack: MiniStack, and a local Kinesis with {shards} shards ...")
    info = start_local_stack(here, job.pipeline, job.pipeline_file, shards=shards, host=host, ticks=ticks)
    finished = False
    place = workplace(pipeline=str(job.pipeline_file), live=False, stack=None)
    functions = FunctionWatch(place, job.pipeline) if host == LAMBDA else None
    demo = Demo(info, job.pipeline, place, functions=functions)
    troubles: ChaosReport | None = None
    try:
        with (
            LiveLine() as line,
            nullcontext()
            if chaos_seed is None
            else Chaos(demo, info, place, is_lambda=host == LAMBDA, seed=chaos_seed) as chaos,
        ):
            if functions is None:
                demo.children.start("processor", PROCESSOR if chaos else ["process", "--until-end-of-input", "--json"])
            started = monotonic()
            demo.children.start("producer", produce, chaos.producer_environment if chaos else None)
            show = chaos.watching(line.update) if chaos else line.update
            produced = msgspec.json.decode(demo.wait("producer", show), type=Produced)
            if chaos:
                chaos.put_is_over()
            demo.wait_for_processor(line.update)
            seconds = monotonic() - started
            audit = demo.audit(line.update)
            received = demo.received(line.update)
            result = demo.result(produced, received=received, audit=audit, seconds=seconds)
            troubles = chaos.report(demo.counters()) if chaos else None
        finished = True
        if keep and functions is None:
            argv = [sys.executable, "-m", "streamgauge.cli", "process"]
            start_process(info, "process", argv, environment={**os.environ, "STREAMGAUGE_HOME": info.home})
    finally:
        demo.children.close()
        if not finished:
            say(f"the demo did not finish: the stack is stopped, its logs are in {info.folder / 'logs'}")
        if not (keep and finished):
            stop_stack(info)
    say_bad_rows([BadRow(row.line, row.reason) for row in produced.bad_rows], produced.malformed.get("row", 0))
    return result, seconds, troubles


def _say_what_to_expect(job: DemoJob, file: FileOptions | None, *, order: str, copies: int) -> None:
    for warning in job.pipeline.warnings if file is not None and file.raw else ():
        say(f"warning: {warning}")
    if (
        file is not None
        and file.raw
        and copies > 1
        and (job.pipeline.mapping is None or job.pipeline.mapping.id is None)
    ):
        say(f"warning: without an id each of the {copies} copies of a row is an event of its own, and is counted")
    if file is not None and order == "file":
        say(
            "note: in the file's order events older than the watermark minus "
            f"{format_duration(job.pipeline.out_of_orderness_ms)} will rightly be late"
        )


def _show(result: DemoResult, job: DemoJob, *, order: str, seconds: float) -> None:
    late = f"{result.late:,}" + (" (rightly: the file is not in the order of time)" if order == "file" else "")
    print_table(
        f"{job.pipeline.name}: {result.produced:,} events in {seconds:.0f} s",
        ["", "count"],
        [
            ["events produced", f"{result.produced:,}"],
            ["further copies of them, sent as a producer's retries would", f"{result.duplicates_injected:,}"],
            ["malformed events and rows", f"{result.malformed:,}"],
            ["rows in the archive (Parquet)", f"{result.archived:,}"],
            ["  distinct events among them", f"{result.archived_unique:,}"],
            [f"events counted in {job.pipeline.aggregates[0].name!r}", f"{result.aggregated:,}"],
            ["  too late for their window, kept apart", late],
            ["failed events, each stored with its reason", f"{result.failed:,}"],
            ["windows (panes) closed", f"{result.panes:,}"],
            ["threshold events raised", f"{result.threshold_events_raised:,}"],
            ["threshold events cleared", f"{result.threshold_events_cleared:,}"],
            ["  of both, received from the queue", f"{result.threshold_events_received:,}"],
            ["events a second, end to end", f"{result.events_per_second:,.0f}"],
            ["audit", result.audit.upper()],
        ],
    )


def _say_what_next(job: DemoJob, *, keep: bool) -> None:
    table = sql_name(job.type)
    say("try next:")
    if keep:
        say("  streamgauge produce --duration 10s")
    else:
        start = (
            "streamgauge up --detach"
            if job.pipeline_file == DEMO_PIPELINE
            else f"streamgauge up --detach --pipeline {job.pipeline_file}"
        )
        say(f"  {start}")
    sql = f"SELECT subject, count(*) AS events FROM {table} GROUP BY subject ORDER BY events DESC"  # noqa: S608 - shown
    say(f'  streamgauge query "{sql}"')
    say(f"  streamgauge results {job.pipeline.aggregates[0].name}")
    say("  streamgauge down")
