"""The two servers of the local stack: MiniStack for AWS's services, our own Kinesis for the streams."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from streamgauge.infra.clients import LOCAL_CREDENTIALS, LOCAL_REGION
from streamgauge.infra.local.functions import temporary_folder
from streamgauge.infra.local.processes import LOOPBACK, ProcessFailed, ProcessInfo, launch, wait_until_ready

__all__ = ["ACCOUNT", "launch_kinesis", "launch_ministack", "wait_for_server"]

ACCOUNT = "000000000000"
KINESIS_MODULE = "streamgauge.infra.local.kinesis"

_PROBE_TIMEOUT_S = 1.0
# What a Python process needs of the user's environment; the rest could change what the servers do (PERSIST_STATE,
# SERVICES, AUTH, USE_SSL, proxies, AWS_ENDPOINT_URL).
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "SYSTEMROOT", "VIRTUAL_ENV")


def launch_ministack(
    port: int,
    *,
    folder: Path,
    environment: Mapping[str, str],
    endpoints: Mapping[str, str],
    python: str = sys.executable,
    authorize: bool = False,
) -> ProcessInfo:
    """Start MiniStack on a loopback port. It keeps everything in memory.

    Parameters
    ----------
    folder
        For its log, and for the files that it would otherwise leave in the system's temporary folder.
    environment
        The user's environment, of which little is passed on.
    endpoints
        The endpoint variables for the functions that it runs.
    python
        The interpreter that it, and so the functions, run under.
    authorize
        Whether roles and resource policies are enforced, as IAM does.

    Raises
    ------
    ProcessFailed
        It cannot be started.
    """
    temporary = temporary_folder(folder)
    try:
        temporary.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProcessFailed(f"ministack cannot be started: {error.strerror}", where=str(temporary)) from error
    return launch(
        "ministack",
        [python, "-m", "ministack"],
        _environment(environment)
        | dict(endpoints)
        | {
            "GATEWAY_PORT": str(port),
            "BIND_HOST": LOOPBACK,
            # Queue addresses are made of it; "localhost" may resolve to ::1, where nobody listens.
            "MINISTACK_HOST": LOOPBACK,
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": LOCAL_REGION,
            "LAMBDA_EXECUTOR": "local",
            "AUTH": str(authorize).lower(),
            # These two would listen on all addresses.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            # With a Docker daemon in reach it removes containers, some of which may be another MiniStack's.
            "DOCKER_HOST": f"unix://{temporary}/no-docker.sock",
            "TMPDIR": str(temporary),
            "AWS_ACCESS_KEY_ID": LOCAL_CREDENTIALS.access_key,
            "AWS_SECRET_ACCESS_KEY": LOCAL_CREDENTIALS.secret_key,
        },
        folder / "logs" / "ministack.log",
    )


def launch_kinesis(
    port: int, *, folder: Path, environment: Mapping[str, str], limits: bool, calls: Path | None = None
) -> ProcessInfo:
    """Start our own Kinesis on a loopback port. It keeps its data in memory.

    Parameters
    ----------
    limits
        Whether the limits of each shard are enforced as on AWS.
    calls
        The file to which it appends who called what.
    """
    argv = [sys.executable, "-m", KINESIS_MODULE, "--port", str(port)]
    if not limits:
        argv.append("--no-limits")
    if calls is not None:
        argv += ["--calls", str(calls)]
    return launch("kinesis", argv, _environment(environment), folder / "logs" / "kinesis.log")


def wait_for_server(process: ProcessInfo, url: str, *, deadline_s: float) -> None:
    """Wait until one of the two servers answers.

    Raises
    ------
    ProcessFailed
        It ended, or was not ready within `deadline_s`.
    """
    port = urlsplit(url).port
    assert port is not None
    path = "/_ministack/ready" if process.name == "ministack" else "/"
    wait_until_ready(process, lambda: _answers(port, path), deadline_s=deadline_s)


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: environment[name] for name in _INHERITED if name in environment}
    return kept | {"PYTHONUNBUFFERED": "1"}


def _answers(port: int, path: str) -> bool:
    """Whether an HTTP server on the port answers, and does not say that it is unavailable."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status != http.client.SERVICE_UNAVAILABLE
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
