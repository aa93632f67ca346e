"""Where a command works: the local stack of this folder, or a stack in an account with ``--live``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.clients import Clients
from streamgauge.infra.local.processes import is_running
from streamgauge.infra.local.stack import StackRunning, load_stack, read_stack
from streamgauge.infra.stack_state import stack_outputs
from streamgauge.settings import Endpoints

__all__ = [
    "DEMO_PIPELINE",
    "Command",
    "Workplace",
    "home",
    "live_clients",
    "live_options",
    "require_no_stack",
    "workplace",
]

DEMO_PIPELINE = Path(__file__).parent / "demo_pipeline" / "pipeline.toml"

Command = TypeVar("Command", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a command works on: clients of the services, the outputs of the deployed template, the pipeline's file."""

    clients: Clients
    outputs: Mapping[str, str]
    pipeline_file: Path

    def output(self, name: str) -> str:
        """One output of the template.

        Raises
        ------
        StreamgaugeError
            The deployed stack does not have it.
        """
        value = self.outputs.get(name)
        if value is None:
            raise StreamgaugeError(
                f"the deployed stack has no output {name}", remedy="Deploy this version's infra/template.yaml"
            )
        return value


def home() -> Path:
    """The folder whose ``.streamgauge`` keeps the local stack: ``STREAMGAUGE_HOME``, or the current one."""
    return Path(os.environ.get("STREAMGAUGE_HOME") or Path.cwd())


def require_no_stack(home: Path) -> None:
    """Make sure that no stack of this folder runs, before anything is prepared for one.

    Raises
    ------
    StackRunning
        One does.
    """
    found = read_stack(home)
    if found is not None and any(map(is_running, found.processes)):
        raise StackRunning(
            f"a stack for {found.pipeline_file} runs here already",
            where=str(home),
            remedy="Stop it with `streamgauge down`",
        )


def live_options(command: Command) -> Command:
    """``--live`` and ``--stack``: work on a stack in an AWS account instead of the local one."""
    command = click.option("--stack", metavar="NAME", help="With --live: the CloudFormation stack to work on.")(command)
    return click.option("--live", is_flag=True, help="Call AWS itself. Without it nothing leaves this machine.")(
        command
    )


def live_clients(*, attempts: int = 5) -> Clients:
    """Clients of AWS itself, or of the endpoints that the environment names."""
    return Clients(Endpoints.from_environment(os.environ), live=True, attempts=attempts)


def workplace(*, pipeline: str | None, live: bool, stack: str | None, attempts: int = 5) -> Workplace:
    """Find the stack and make clients for it.

    Parameters
    ----------
    pipeline
        The pipeline's file, instead of the one that the local stack was started with.
    attempts
        Tries of one call, the first included.

    Raises
    ------
    NoStack
        Without `live`: no local stack runs.
    StreamgaugeError
        With `live`: the stack's name or the pipeline's file is missing, or the stack is not there.
    """
    if live:
        if stack is None or pipeline is None:
            raise click.UsageError("--live needs --stack NAME and --pipeline FILE")
        clients = live_clients(attempts=attempts)
        return Workplace(clients, stack_outputs(clients.cloudformation, stack), Path(pipeline))
    if stack is not None:
        raise click.UsageError("--stack goes with --live: the local stack of a folder needs no name")
    info = load_stack(home())
    endpoints = Endpoints.from_environment(os.environ, stack=info.endpoints)
    clients = Clients(endpoints, region=info.region, attempts=attempts)
    return Workplace(clients, info.outputs, Path(pipeline or info.pipeline_file))
