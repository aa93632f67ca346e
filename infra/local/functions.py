"""What the local stack does about the template's functions: their code, their endpoints, their processes' end.

MiniStack runs each invocation in a process of its own under this interpreter, from its temporary folder, and gives it
its own environment.
"""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from streamgauge.infra.clients import Clients
from streamgauge.infra.packaging.archive import Archived
from streamgauge.infra.packaging.upload import upload_package
from streamgauge.settings import Endpoints

__all__ = [
    "CODE_BUCKET",
    "end_functions",
    "function_endpoints",
    "kill_functions",
    "provide_code",
    "runtime",
    "temporary_folder",
]

CODE_BUCKET = "streamgauge-code"

_ENDPOINT = "AWS_ENDPOINT_URL"
_ARCHITECTURES = {"aarch64": "arm64", "arm64": "arm64"}
_KILL_WAIT_S = 5.0


def temporary_folder(folder: Path) -> Path:
    """Where MiniStack unpacks the functions' code, among other things."""
    return folder / "tmp"


def function_endpoints(stack: Endpoints, environment: Mapping[str, str]) -> dict[str, str]:
    """The endpoint variables that functions see: the stack's own, but for those that the user's environment names."""
    named = {name: value for name, value in environment.items() if name.startswith(_ENDPOINT) and value}
    found = Endpoints.from_environment(environment, stack=stack)
    assert found.aws is not None and found.kinesis is not None, "a stack has both addresses"
    return {**named, _ENDPOINT: found.aws, f"{_ENDPOINT}_KINESIS": found.kinesis}


def provide_code(clients: Clients, package: Archived) -> dict[str, str]:
    """Put the functions' package where CloudFormation finds it; return the template's parameters that say so.

    Raises
    ------
    UploadFailed
        It cannot be put there.
    """
    clients.s3.create_bucket(Bucket=CODE_BUCKET)
    return {
        "CodeBucket": CODE_BUCKET,
        "CodeKey": upload_package(clients.s3, CODE_BUCKET, package),
        **runtime(),
    }


def runtime() -> dict[str, str]:
    """The template's parameters for functions that run under this interpreter."""
    return {
        "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "Architecture": _ARCHITECTURES.get(platform.machine(), "x86_64"),
    }


def end_functions(folder: Path) -> None:
    """Kill the functions' processes that still run after their MiniStack, known by where their code is.

    One in the midst of an invocation outlives a MiniStack that was killed, for as long as the invocation takes.
    """
    kill_functions(folder)


def kill_functions(folder: Path) -> int:
    """Kill the processes in which functions run, or wait for their next invocation; how many there were."""
    root = f"{temporary_folder(folder)}/"
    left = [process for process in psutil.process_iter(["cmdline"]) if _runs_from(process, root)]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_KILL_WAIT_S)
    return len(left)


def _runs_from(process: psutil.Process, root: str) -> bool:
    # Processes of others may not let their command line be read: None, then.
    return any(argument.startswith(root) for argument in process.info["cmdline"] or ())
