"""``streamgauge process``: the local host, and the KCL's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic, time

import click

from streamgauge.cli.context import Workplace, live_options, workplace
from streamgauge.cli.kcl_host import run_kcl_host
from streamgauge.cli.kcl_options import KclOptions, kcl_options
from streamgauge.cli.output import LiveLine, print_json, print_table, say
from streamgauge.cli.pipeline_state import resources, state_store
from streamgauge.cli.stopping import stop_on_signals
from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import duration_ms, format_duration, rfc3339
from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.local import LocalProgress, LocalSettings, run_local
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.processors.hosts.wiring import session_opener

__all__ = ["command"]

_LEASE_MS_MIN = 1_000


@click.command("process")
@click.option(
    "--host",
    type=click.Choice(["local", "kcl"]),
    default="local",
    show_default=True,
    help="local: in this process; kcl: the Amazon KCL's daemon, with a child of ours for each shard.",
)
@click.option("--pipeline", metavar="FILE", help="The pipeline file; that of the local stack without.")
@click.option("--until-end-of-input", is_flag=True, help="End once every shard has seen the end of the input.")
@click.option("--accept-gap", is_flag=True, help="Go on although records are gone from the stream; counted and named.")
@click.option(
    "--lease",
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="How long a shard's process may be silent before another takes over; the same for all.",
)
@click.option(
    "--outage",
    default="1m",
    show_default=True,
    metavar="DURATION",
    help="How long Kinesis or the state store may be down before this ends; what is not saved is read again.",
)
@click.option("--beside-functions", is_flag=True, help="Go on although the stack's functions process the stream.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@kcl_options
@live_options
def command(
    *,
    host: str,
    kcl: KclOptions,
    pipeline: str | None,
    until_end_of_input: bool,
    accept_gap: bool,
    lease: str,
    outage: str,
    beside_functions: bool,
    as_json: bool,
    live: bool,
    stack: str | None,
) -> int:
    """Process the stream until Ctrl-C; the state is saved on the way, and at the end.

    Start it as often as you like, here or elsewhere: the processes share the shards, follow every reshard, and take
    over from one that dies.
    """
    settings = LocalSettings(accept_gap=accept_gap, lease_s=_lease_s(lease), outage_s=_duration_s(outage, "--outage"))
    place = workplace(pipeline=pipeline, live=live, stack=stack)
    if not beside_functions:
        _require_no_functions(place)
    definition = load_pipeline(place.pipeline_file)
    for warning in definition.warnings:
        say(f"warning: {place.pipeline_file}: {warning}")
    started = monotonic()
    with LiveLine() as line, stop_on_signals("stopping: committing what was applied ...") as stop:
        run = partial(run_kcl_host, options=kcl) if host == "kcl" else _run_local
        progress = run(
            place,
            definition,
            settings=settings,
            stop=stop,
            until_input_ended=until_end_of_input,
            on_progress=lambda progress: line.update(_line(progress, monotonic() - started)),
        )
    for shard_id, message in progress.fenced.items():
        say(f"{shard_id}: {message}")
    if as_json:
        print_json(_summary(progress))
    else:
        print_table(
            f"{definition.name}: what this run processed",
            ["shard", "records", "events", "watermark", "behind", "state", "saved", "waiting for"],
            [
                [
                    shard.shard_id,
                    shard.records,
                    shard.events,
                    None if shard.watermark_ms is None else rfc3339(shard.watermark_ms),
                    None if shard.behind_ms is None else format_duration(shard.behind_ms),
                    f"{shard.snapshot_bytes:,} bytes",
                    None if shard.committed_at_ms is None else rfc3339(shard.committed_at_ms),
                    shard.waiting_for,
                ]
                for shard in progress.shards
            ],
        )
    return 0


def _run_local(
    place: Workplace,
    pipeline: Pipeline,
    *,
    settings: LocalSettings,
    stop: threading.Event,
    until_input_ended: bool,
    on_progress: Callable[[LocalProgress], None],
) -> LocalProgress:
    return run_local(
        pipeline,
        place.clients.kinesis,
        session_opener(place.clients, resources(place), pipeline, parents=Parents(accept_gap=settings.accept_gap)),
        store=state_store(place, pipeline),
        stop=stop,
        settings=settings,
        until_input_ended=until_input_ended,
        on_progress=on_progress,
    )


def _require_no_functions(place: Workplace) -> None:
    function = place.outputs.get("ProcessorFunctionName")
    if function is not None:
        raise StreamgaugeError(
            "the stack's own function processes the stream; both would take its shards from each other, batch by batch",
            where=f"function {function}",
            remedy="Start the local stack with `streamgauge up --host local`, or say --beside-functions if you mean it",
        )


def _lease_s(text: str) -> float:
    lease_s = _duration_s(text, "--lease")
    # Its owner writes a row three times a lease, beside everything else that it does.
    if lease_s * 1000 < _LEASE_MS_MIN:
        raise click.BadParameter(f"{text} is less than {format_duration(_LEASE_MS_MIN)}", param_hint="--lease")
    return lease_s


def _duration_s(text: str, option: str) -> float:
    try:
        return duration_ms(text) / 1000
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def _line(progress: LocalProgress, elapsed_s: float) -> str:
    behind = "?" if progress.behind_ms is None else format_duration(progress.behind_ms)
    waiting = next((shard.waiting_for for shard in progress.shards if shard.waiting_for), None)
    return (
        f"processed {progress.events:,} events in {progress.records:,} records of {len(progress.shards)} shards, "
        f"{elapsed_s:.0f} s, behind {behind}, state {progress.snapshot_bytes / 1e6:.1f} MB{_age(progress)}"
        + (f", waiting: {waiting}" if waiting else "")
    )


def _age(progress: LocalProgress) -> str:
    if progress.committed_at_ms is None:
        return ""
    return f", saved {max(0.0, time() - progress.committed_at_ms / 1000):.0f} s ago"


def _summary(progress: LocalProgress) -> dict[str, object]:
    return {
        "records": progress.records,
        "events": progress.events,
        "shards": [
            {
                "shard_id": shard.shard_id,
                "records": shard.records,
                "events": shard.events,
                "watermark": None if shard.watermark_ms is None else rfc3339(shard.watermark_ms),
                "behind_ms": shard.behind_ms,
                "position": None if shard.committed is None else str(shard.committed),
                "snapshot_bytes": shard.snapshot_bytes,
                "committed_at": None if shard.committed_at_ms is None else rfc3339(shard.committed_at_ms),
                "outbox_entries": shard.outbox_entries,
                "input_ended": shard.input_ended,
                "gaps": list(shard.gaps),
                "sealed": shard.sealed,
                "ended_by": shard.ended_by,
            }
            for shard in progress.shards
        ],
    }
