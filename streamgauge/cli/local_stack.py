"""Starting the local stack with what runs beside its servers: delivery, and what invokes the functions, or ticks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from streamgauge.cli.context import Command
from streamgauge.cli.output import say
from streamgauge.infra.deployment import stack_name, stack_parameters
from streamgauge.infra.local.functions import temporary_folder
from streamgauge.infra.local.record import FOLDER
from streamgauge.infra.local.stack import (
    StackInfo,
    StackSettings,
    follow_deployment,
    restart_process,
    start_process,
    start_stack,
    stop_stack,
)
from streamgauge.infra.packaging.build import build_package
from streamgauge.processors.core.definition import Pipeline

__all__ = [
    "DELIVERY",
    "EVENT_SOURCE",
    "HOSTS",
    "LAMBDA",
    "LOCAL",
    "host_option",
    "refresh_local_stack",
    "start_local_stack",
]

LAMBDA, LOCAL = HOSTS = ("lambda", "local")
"""What processes the stream: the template's functions, or `streamgauge process` wherever it is started."""

EVENT_SOURCE = "event_source"
"""The process that invokes the functions; its name in the record."""

DELIVERY = "deliver"
"""The process that archives the stream; its name in the record."""

_CLI = "streamgauge.cli"
# On a laptop somebody waits for the rows; many small objects do no harm there.
_DELIVER = [_CLI, "deliver", "--max-age", "2s"]
_TICK_INTERVAL = "1s"


def host_option() -> Callable[[Command], Command]:
    """``--host``: what processes the stream."""
    return click.option(
        "--host",
        type=click.Choice(HOSTS),
        default=LAMBDA,
        show_default=True,
        help="What processes the stream: the template's Lambda function, or `streamgauge process`.",
    )


def start_local_stack(
    home: Path,
    pipeline: Pipeline,
    pipeline_file: Path,
    *,
    shards: int,
    host: str,
    ticks: bool,
    limits: bool = True,
    aws_port: int | None = None,
    kinesis_port: int | None = None,
) -> StackInfo:
    """Start the servers, deploy the template for `pipeline`, and start delivery and what the host needs.

    If a step fails, everything is stopped again; the errors are those of `build_package` and `start_stack`.
    """
    environment = dict(os.environ)
    package = None
    if host == LAMBDA:
        # Removed with the stack.
        package = build_package(pipeline_file, temporary_folder(home / FOLDER) / "package", target=None, say=say)
    info = start_stack(
        home,
        StackSettings(
            stack_name=stack_name(pipeline.name),
            parameters=stack_parameters(pipeline, shards=shards),
            pipeline_file=pipeline_file,
            limits=limits,
            aws_port=aws_port,
            kinesis_port=kinesis_port,
            package=package,
        ),
        environment=environment,
    )
    # A process finds the stack by its folder, wherever the command was called.
    environment["STREAMGAUGE_HOME"] = info.home
    try:
        for name, argv in _beside(host, ticks=ticks).items():
            info = start_process(info, name, [sys.executable, "-m", *argv], environment=environment)
    except BaseException:
        stop_stack(info)
        raise
    return info


def refresh_local_stack(
    info: StackInfo, outputs: Mapping[str, str], pipeline_file: Path, *, shards: int | None
) -> None:
    """Bring what runs beside the servers in line with a deployment; `shards` as in `follow_deployment`."""
    info = follow_deployment(info, outputs, pipeline_file, shards=shards)
    environment = {**os.environ, "STREAMGAUGE_HOME": info.home}
    # It has read the pipeline's schemas when it began.
    restart_process(info, DELIVERY, [sys.executable, "-m", *_DELIVER], environment=environment)


def _beside(host: str, *, ticks: bool) -> dict[str, list[str]]:
    """What runs beside the servers, by its name in the record."""
    found = {DELIVERY: _DELIVER}
    if host == LAMBDA:
        # The template's schedule ticks once a minute.
        schedule = ["--schedule-interval", _TICK_INTERVAL] if ticks else ["--no-schedules"]
        found[EVENT_SOURCE] = ["streamgauge.infra.local.event_source", *schedule]
    elif ticks:
        found["tick"] = [_CLI, "tick"]
    return found
