"""Starting the local stack with what runs beside its servers: delivery and the ticker."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from streamgauge.infra.deployment import stack_name, stack_parameters
from streamgauge.infra.local.stack import StackInfo, StackSettings, start_process, start_stack, stop_stack
from streamgauge.processors.core.definition import Pipeline

__all__ = ["start_local_stack"]


def start_local_stack(
    home: Path,
    pipeline: Pipeline,
    pipeline_file: Path,
    *,
    shards: int,
    ticks: bool,
    limits: bool = True,
    aws_port: int | None = None,
    kinesis_port: int | None = None,
) -> StackInfo:
    """Start the servers, deploy the template for `pipeline`, and start delivery and, with `ticks`, the ticker.

    If a step fails, everything is stopped again; the errors are those of `start_stack`.
    """
    environment = dict(os.environ)
    info = start_stack(
        home,
        StackSettings(
            stack_name=stack_name(pipeline.name),
            parameters=stack_parameters(pipeline, shards=shards),
            pipeline_file=pipeline_file,
            limits=limits,
            aws_port=aws_port,
            kinesis_port=kinesis_port,
        ),
        environment=environment,
    )
    # A process finds the stack by its folder, wherever the command was called.
    environment["STREAMGAUGE_HOME"] = info.home
    # On a laptop somebody waits for the rows; many small objects do no harm there.
    commands = {"deliver": ["deliver", "--max-age", "2s"]} | ({"tick": ["tick"]} if ticks else {})
    try:
        for name, arguments in commands.items():
            argv = [sys.executable, "-m", "streamgauge.cli", *arguments]
            info = start_process(info, name, argv, environment=environment)
    except BaseException:
        stop_stack(info)
        raise
    return info
