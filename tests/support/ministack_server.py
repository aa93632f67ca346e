"""A MiniStack for the length of a test, with clients of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamgauge.infra.clients import Clients
from streamgauge.infra.local.processes import LOOPBACK, free_port, stop
from streamgauge.infra.local.servers import launch_ministack, wait_for_server
from streamgauge.settings import Endpoints


@contextmanager
def ministack_server(folder: Path) -> Iterator[Clients]:
    """Keep it running, with its log in `folder`."""
    port = free_port()
    process = launch_ministack(port, folder=folder, environment=os.environ, endpoints={})
    url = f"http://{LOOPBACK}:{port}"
    try:
        wait_for_server(process, url, deadline_s=30)
        yield Clients(Endpoints(aws=url, kinesis=url), region="us-east-1")
    finally:
        stop([process], grace_s=5)
