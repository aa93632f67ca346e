"""``streamgauge produce``: the load generator, or a file's rows, through the producer."""

from __future__ import annotations

import dataclasses
import threading
from functools import partial
from pathlib import Path

import click

from streamgauge.cli.context import Workplace, live_options, workplace
from streamgauge.cli.inputs import FileInput, copies_behind, file_options, refuse, say_bad_rows
from streamgauge.cli.output import LiveLine, print_json, print_table
from streamgauge.cli.stopping import stop_on_signals
from streamgauge.events.control import EndOfInput
from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.times import duration_ms
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.producers.client.producer import KinesisProducer, system_clock
from streamgauge.producers.client.settings import ProducerSettings, WireFormat
from streamgauge.producers.load.files import BadRow
from streamgauge.producers.load.profile import Duplicates, LoadProfile, parse_load_profile
from streamgauge.producers.load.raw import RawPutter, put_raw_rows
from streamgauge.producers.load.run import LoadProgress, LoadSummary, run_file, run_load

__all__ = ["command"]

# Long enough for throttling to pass; without a bound a dead stream would hold the command for the resend horizon.
_CLOSE_TIMEOUT_S = 60.0


@click.command("produce")
@click.option("--pipeline", metavar="FILE", help="The pipeline file; that of the local stack without.")
@click.option("--profile", metavar="FILE", help="Load profile; load.toml beside the pipeline file without.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Events a second; of the profile without.")
@click.option("--duration", metavar="DURATION", help="How long to generate, such as 30s.")
@click.option("--count", type=click.IntRange(1), help="How many events to generate.")
@click.option("--seed", type=int, help="Seed of the generated load, and of --order shuffled.")
@click.option(
    "--format",
    "wire_format",
    type=click.Choice(["kpl", "plain"]),
    default="kpl",
    show_default=True,
    help="Wire format.",
)
@click.option("--end-of-input", is_flag=True, help="State the end of the input: the last windows close.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@file_options
@live_options
def command(
    *,
    pipeline: str | None,
    profile: str | None,
    rate: float | None,
    duration: str | None,
    count: int | None,
    seed: int | None,
    wire_format: WireFormat,
    end_of_input: bool,
    as_json: bool,
    from_file: str | None,
    event_type: str | None,
    key: str | None,
    time: str | None,
    data: str | None,
    order: str,
    copies: int,
    raw: bool,
    live: bool,
    stack: str | None,
) -> int:
    """Put events into the stream at a steady rate, until done or Ctrl-C; what was put is flushed in any case."""
    if from_file is None:
        refuse({"--type": event_type, "--key": key, "--time": time, "--data": data, "--raw": raw}, "with --from-file")
    else:
        generated = {"--profile": profile, "--duration": duration, "--count": count}
        refuse(generated, "with generated load, not with --from-file")
    # The producer tells refused from unanswered by itself, and decides what is sent again.
    place = workplace(pipeline=pipeline, live=live, stack=stack, attempts=1)
    definition = load_pipeline(place.pipeline_file)
    if from_file is None:
        load = _profile(place.pipeline_file, definition, profile)
        load = _changed(load, rate=rate, duration=duration, count=count, seed=seed)
        if copies > 1:
            behind = copies_behind(copies)
            load = dataclasses.replace(load, duplicates=Duplicates(share=1.0, copies=copies, behind=behind))
    else:
        chosen = _event_type(definition, event_type)
        source = FileInput.from_options(
            from_file,
            schema=definition.catalogue.newest(chosen).schema,
            key=key,
            time=time,
            data=data,
            order=order,
            copies=copies,
            raw=raw,
        )
    with LiveLine() as line, stop_on_signals("stopping: flushing what was put ...") as stop:
        if from_file is not None and raw:
            summary = _put_raw(place, definition, source, seed=seed or 0, stop=stop, line=line)
            if end_of_input and not summary.stopped:
                with_producer = _producer(place, definition, wire_format)
                with_producer.close(end_of_input=_ending(with_producer))
        else:
            producer = _producer(place, definition, wire_format)
            ending = _ending(producer) if end_of_input else None
            show = partial(_show, line)
            if from_file is None:
                summary = run_load(
                    producer,
                    load,
                    definition.catalogue,
                    stop=stop,
                    on_progress=show,
                    end_of_input=ending,
                    close_timeout_s=_CLOSE_TIMEOUT_S,
                )
            else:
                summary = run_file(
                    producer,
                    chosen,
                    source.rows(bound_ms=definition.out_of_orderness_ms, seed=seed or 0),
                    copies=source.copies,
                    copies_behind=copies_behind(source.copies),
                    rate=rate,
                    stop=stop,
                    on_progress=show,
                    end_of_input=ending,
                    close_timeout_s=_CLOSE_TIMEOUT_S,
                )
    return _report(summary, definition, as_json=as_json)


def _producer(place: Workplace, definition: Pipeline, wire_format: WireFormat) -> KinesisProducer:
    settings = ProducerSettings(
        wire_format=wire_format,
        window=min(ProducerSettings().window, definition.max_w),
        resend_horizon_ms=definition.resend_horizon_ms,
    )
    return KinesisProducer(place.clients.kinesis, stream=place.output("StreamName"), settings=settings)


def _ending(producer: KinesisProducer) -> EndOfInput:
    return EndOfInput(input=producer.source, part=0, parts=1)


def _event_type(definition: Pipeline, chosen: str | None) -> str:
    if chosen is None:
        return definition.event_types[0]
    if chosen not in definition.catalogue.types:
        raise StreamgaugeError(
            f"the catalogue has no event type {chosen!r}",
            where="--type",
            remedy=f"It has {', '.join(definition.catalogue.types)}; `streamgauge init` writes a schema from a sample",
        )
    return chosen


def _profile(pipeline_file: Path, definition: Pipeline, given: str | None) -> LoadProfile:
    path = Path(given) if given else pipeline_file.parent / "load.toml"
    if given is None and not path.exists():
        return LoadProfile(type=definition.event_types[0])
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StreamgaugeError(f"the load profile cannot be read: {error}", where=str(path)) from error
    return parse_load_profile(text, file=str(path))


def _changed(
    load: LoadProfile, *, rate: float | None, duration: str | None, count: int | None, seed: int | None
) -> LoadProfile:
    """The profile with what the command line says otherwise."""
    if duration is not None and count is not None:
        raise click.UsageError("give --duration or --count, not both")
    if rate is not None:
        load = dataclasses.replace(load, rate=rate)
    if seed is not None:
        load = dataclasses.replace(load, seed=seed)
    if count is not None:
        return dataclasses.replace(load, count=count, duration_ms=None)
    if duration is not None:
        try:
            return dataclasses.replace(load, duration_ms=duration_ms(duration), count=None)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--duration") from error
    return load


def _put_raw(
    place: Workplace, definition: Pipeline, source: FileInput, *, seed: int, stop: threading.Event, line: LiveLine
) -> LoadSummary:
    clock = system_clock()
    putter = RawPutter(place.clients.kinesis, stream=place.output("StreamName"), clock=clock, stop=stop)
    summary = LoadSummary(source=place.output("StreamArn"))

    def bad(row: BadRow) -> None:
        summary.malformed["row"] = summary.malformed.get("row", 0) + 1
        summary.bad_rows.append(row)

    started = clock()
    # A program that puts a row twice makes two events of it: there is no identity to tell them by.
    for _ in range(source.copies):
        rows = source.rows(bound_ms=definition.out_of_orderness_ms, seed=seed)
        put_raw_rows(putter, rows, on_bad_row=bad, on_progress=lambda put: line.update(f"put {put:,} rows"), stop=stop)
    summary.produced = summary.acknowledged = putter.put
    summary.stopped = stop.is_set()
    summary.duration_ms = clock() - started
    summary.rate_per_s = putter.put * 1000 / max(summary.duration_ms, 1)
    return summary


def _show(line: LiveLine, progress: LoadProgress) -> None:
    extra = "".join(
        f", {count:,} {what}"
        for count, what in (
            (progress.duplicates_injected, "copies"),
            (progress.late, "late"),
            (progress.malformed, "malformed"),
        )
        if count
    )
    p99 = progress.latency_ms.p99
    line.update(
        f"produced {progress.produced:,} events{extra}; {progress.acknowledged:,} acknowledged, "
        f"{progress.rate_per_s:,.0f}/s" + ("" if p99 is None else f", p99 {p99:,} ms")
    )


def _report(summary: LoadSummary, definition: Pipeline, *, as_json: bool) -> int:
    say_bad_rows(summary.bad_rows, summary.malformed.get("row", 0))
    if as_json:
        print_json(summary.as_json())
    else:
        latency = summary.latency_ms
        print_table(
            f"put into {definition.stream}",
            ["", "events"],
            [
                ["produced", summary.produced],
                ["  acknowledged", summary.acknowledged],
                ["  given up", summary.given_up],
                ["  outcome unknown", summary.unknown],
                ["copies of them", summary.duplicates_injected],
                ["late among them", summary.late],
                ["malformed", summary.malformed_count],
                ["per second", round(summary.rate_per_s)],
                ["latency from due time, ms: p50", latency.p50],
                ["  p95", latency.p95],
                ["  p99", latency.p99],
                ["  max", latency.max],
            ],
        )
    if summary.failure:
        raise StreamgaugeError(summary.failure)
    return 0
