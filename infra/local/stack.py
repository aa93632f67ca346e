"""The local stack: two servers on loopback, the template deployed to them, and what runs beside them.

What runs is recorded in ``<home>/.streamgauge/stack.json``; see ``docs/adr/0014-local-stack.md``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from streamgauge.infra.clients import LOCAL_REGION, Clients, NotLocal
from streamgauge.infra.local.deploying import deploy_locally
from streamgauge.infra.local.event_source import disable_own
from streamgauge.infra.local.functions import end_functions, function_endpoints, provide_code, temporary_folder
from streamgauge.infra.local.mirror import mirror_streams, scale_stream
from streamgauge.infra.local.processes import (
    LOOPBACK,
    ProcessInfo,
    free_port,
    is_running,
    launch,
    require_free_port,
    stop,
)
from streamgauge.infra.local.record import (
    FOLDER,
    SERVERS,
    NoStack,
    StackInfo,
    StackRunning,
    exclusive,
    load_stack,
    read_stack,
    remove_stack,
    save_stack,
)
from streamgauge.infra.local.servers import ACCOUNT, launch_kinesis, launch_ministack, wait_for_server
from streamgauge.infra.packaging.archive import Archived
from streamgauge.settings import Endpoints

__all__ = [
    "NoStack",
    "StackInfo",
    "StackRunning",
    "StackSettings",
    "dead_processes",
    "follow_deployment",
    "load_stack",
    "read_stack",
    "restart_process",
    "start_process",
    "start_stack",
    "stop_stack",
]

_START_DEADLINE_S = 30.0
_DEPLOY_DEADLINE_S = 60.0
# What holds buffered events gets the time to deliver them.
_PROCESS_GRACE_S = 20.0
_SERVER_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class StackSettings:
    """What a stack is started with.

    ``stack_name`` and ``parameters`` are for the template; ``pipeline_file`` is recorded for the commands that come
    later. Without a port a free one is taken, unless the environment's endpoints name one. ``limits``: whether the
    local Kinesis enforces each shard's limits. ``package``: the code of the template's functions, which are left out
    of the stack without it.
    """

    stack_name: str
    parameters: Mapping[str, str]
    pipeline_file: Path
    limits: bool = True
    aws_port: int | None = None
    kinesis_port: int | None = None
    package: Archived | None = None


def start_stack(home: Path, settings: StackSettings, *, environment: Mapping[str, str]) -> StackInfo:
    """Start both servers, deploy the template, mirror its streams; if a step fails, stop what was started.

    Nothing invokes the functions yet: the stack's own event source mappings and schedules are off.

    Parameters
    ----------
    home
        The folder under which ``.streamgauge`` keeps the record and the logs.
    environment
        The process's environment. Loopback endpoints in it say where the servers are to listen.

    Raises
    ------
    StackRunning
        A stack of this home runs already.
    PortTaken, ProcessFailed, DeploymentFailed, MirrorFailed
        The step that failed.
    NotLocal
        The environment's endpoints are not on this machine.
    """
    home = home.absolute()
    with exclusive(home):
        previous = read_stack(home)
        if previous is not None and any(map(is_running, previous.processes)):
            raise StackRunning(
                f"a stack for {previous.pipeline_file} runs already",
                where=str(home),
                remedy="Stop it with `streamgauge down`",
            )
        end_functions(home / FOLDER)
        aws_port, kinesis_port = _ports(settings, environment)
        info = StackInfo(
            home=str(home),
            stack_name=settings.stack_name,
            pipeline_file=str(settings.pipeline_file.absolute()),
            region=LOCAL_REGION,
            account=ACCOUNT,
            aws_url=f"http://{LOOPBACK}:{aws_port}",
            kinesis_url=f"http://{LOOPBACK}:{kinesis_port}",
            outputs={},
            processes=(),
        )
        # Each process is recorded at once: even a kill -9 of ours leaves nothing that `down` does not know.
        try:
            endpoints = function_endpoints(info.endpoints, environment)
            info = _added(
                info, launch_ministack(aws_port, folder=info.folder, environment=environment, endpoints=endpoints)
            )
            info = _added(
                info,
                launch_kinesis(kinesis_port, folder=info.folder, environment=environment, limits=settings.limits),
            )
            for process, url in zip(info.processes, (info.aws_url, info.kinesis_url), strict=True):
                wait_for_server(process, url, deadline_s=_START_DEADLINE_S)
            clients = Clients(info.endpoints, region=info.region)
            code = {} if settings.package is None else provide_code(clients, settings.package)
            outputs = deploy_locally(
                clients,
                name=info.stack_name,
                parameters={**settings.parameters, **code},
                deadline_s=_DEPLOY_DEADLINE_S,
            )
            disable_own(clients)
            mirror_streams(info.stack_name, info.endpoints, deadline_s=_DEPLOY_DEADLINE_S)
            info = msgspec.structs.replace(info, outputs=outputs)
            save_stack(info)
        except BaseException:
            _stop(info)
            raise
        return info


def start_process(info: StackInfo, name: str, argv: Sequence[str], *, environment: Mapping[str, str]) -> StackInfo:
    """Start a process beside the servers, such as delivery, led to the stack's endpoints; it ends with the stack.

    Parameters
    ----------
    name
        Its name in the record, and that of its log.
    argv
        The command, such as ``[sys.executable, "-m", "streamgauge.cli", "deliver"]``.
    environment
        The environment of the process that calls.

    Returns
    -------
    The record with the process in it.

    Raises
    ------
    ProcessFailed
        It cannot be started.
    StackRunning
        A process of that name runs already.
    NoStack
        The stack has been stopped meanwhile.
    """
    with exclusive(Path(info.home)):
        current = load_stack(Path(info.home))
        kept = tuple(process for process in current.processes if process.name != name)
        if any(process.name == name and is_running(process) for process in current.processes):
            raise StackRunning(f"{name} runs already", where=info.home, remedy="Stop it with `streamgauge down`")
        log = current.folder / "logs" / f"{name}.log"
        process = launch(name, argv, current.environment(environment), log)
        return _added(msgspec.structs.replace(current, processes=kept), process)


def restart_process(info: StackInfo, name: str, argv: Sequence[str], *, environment: Mapping[str, str]) -> StackInfo:
    """End a process beside the servers, if it runs, and start it anew; arguments and errors as in `start_process`."""
    with exclusive(Path(info.home)):
        current = load_stack(Path(info.home))
        stop([process for process in current.processes if process.name == name], grace_s=_PROCESS_GRACE_S)
    return start_process(info, name, argv, environment=environment)


def follow_deployment(
    info: StackInfo, outputs: Mapping[str, str], pipeline_file: Path, *, shards: int | None
) -> StackInfo:
    """Bring what is ours in line with the stack after it was deployed again, and record it.

    Parameters
    ----------
    shards
        Open shards that the stream was given; None if the deployment left them as they were.

    Raises
    ------
    MirrorFailed
        A stream of the template cannot be brought in line.
    """
    with exclusive(Path(info.home)):
        current = load_stack(Path(info.home))
        disable_own(Clients(current.endpoints, region=current.region))
        mirror_streams(current.stack_name, current.endpoints, deadline_s=_DEPLOY_DEADLINE_S)
        if shards is not None:
            scale_stream(outputs["StreamName"], shards, current.endpoints, deadline_s=_DEPLOY_DEADLINE_S)
        current = msgspec.structs.replace(current, outputs=dict(outputs), pipeline_file=str(pipeline_file.absolute()))
        save_stack(current)
        return current


def stop_stack(info: StackInfo) -> list[str]:
    """End every process of the stack, those beside the servers first, and remove the record.

    Returns
    -------
    The names of the processes that had to be killed.
    """
    with exclusive(Path(info.home)):
        return _stop(read_stack(Path(info.home)) or info)


def dead_processes(info: StackInfo) -> list[ProcessInfo]:
    """Those processes of the stack that have ended, so that whoever waits for their work learns of it."""
    return [process for process in info.processes if not is_running(process)]


def _ports(settings: StackSettings, environment: Mapping[str, str]) -> tuple[int, int]:
    wanted = Endpoints.from_environment(environment)
    aws = settings.aws_port or _port_of(wanted.aws, "AWS_ENDPOINT_URL")
    kinesis = settings.kinesis_port
    if kinesis is None and wanted.kinesis != wanted.aws:
        kinesis = _port_of(wanted.kinesis, "AWS_ENDPOINT_URL_KINESIS")
    for port, purpose in ((aws, "MiniStack"), (kinesis, "the local Kinesis")):
        if port is not None:
            require_free_port(port, purpose=purpose)
    return aws or free_port(), kinesis or free_port()


def _port_of(url: str | None, variable: str) -> int | None:
    if url is None:
        return None
    if not Endpoints(aws=url, kinesis=url).are_local:
        raise NotLocal(
            f"{url} is not on this machine, so the local stack cannot listen there",
            where=variable,
            remedy=f"Unset {variable}, or set it to an address such as http://{LOOPBACK}:4566",
        )
    return urlsplit(url).port


def _added(info: StackInfo, process: ProcessInfo) -> StackInfo:
    info = msgspec.structs.replace(info, processes=(*info.processes, process))
    try:
        save_stack(info)
    except BaseException:
        stop([process], grace_s=_SERVER_GRACE_S)
        raise
    return info


def _stop(info: StackInfo) -> list[str]:
    killed = stop(info.processes[SERVERS:], grace_s=_PROCESS_GRACE_S)
    killed += stop(info.processes[:SERVERS], grace_s=_SERVER_GRACE_S)
    end_functions(info.folder)
    shutil.rmtree(temporary_folder(info.folder), ignore_errors=True)
    remove_stack(info)
    return killed
