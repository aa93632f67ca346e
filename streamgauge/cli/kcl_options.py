"""The options of ``--host kcl``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from streamgauge.events.times import duration_ms
from streamgauge.processors.hosts.kcl.properties import ClientMode

__all__ = ["KclOptions", "kcl_options"]

_FAILOVER_MS_MIN = 1_000


@dataclass(frozen=True, slots=True)
class KclOptions:
    """What the command line says of the KCL. ``logs``: a folder for the daemon's files; a temporary one without."""

    mode: ClientMode = ClientMode.COMPATIBLE_2X
    lease_table: str | None = None
    fan_out: bool = False
    metrics: str = "NONE"
    failover_s: float = 10.0
    grace_s: float = 30.0
    logs: Path | None = None


def kcl_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options, and hand them over as one argument, ``kcl``."""

    @click.option(
        "--kcl-mode",
        type=click.Choice([mode.value for mode in ClientMode]),
        default=ClientMode.COMPATIBLE_2X.value,
        show_default=True,
        help="KCL: share shards by their number, as KCL 2.x does, or by the workers' load, as 3.x does.",
    )
    @click.option("--lease-table", metavar="NAME", help="KCL: the lease table; the stack's own without.")
    @click.option("--fan-out", is_flag=True, help="KCL: subscribe to each shard (enhanced fan-out) instead of polling.")
    @click.option(
        "--metrics",
        type=click.Choice(["NONE", "SUMMARY", "DETAILED"]),
        default="NONE",
        show_default=True,
        help="KCL: what it sends to CloudWatch.",
    )
    @click.option(
        "--failover",
        default="10s",
        show_default=True,
        metavar="DURATION",
        help="KCL: how long a lease may go without renewal before another worker takes it.",
    )
    @click.option(
        "--grace",
        default="30s",
        show_default=True,
        metavar="DURATION",
        help="KCL: how long a stop waits for what was handed over to be committed.",
    )
    @click.option("--logs", metavar="FOLDER", help="KCL: where its daemon and its children write their logs.")
    @functools.wraps(command)
    def with_options(
        *,
        kcl_mode: str,
        lease_table: str | None,
        fan_out: bool,
        metrics: str,
        failover: str,
        grace: str,
        logs: str | None,
        **others: Any,
    ) -> int:
        options = KclOptions(
            mode=ClientMode(kcl_mode),
            lease_table=lease_table,
            fan_out=fan_out,
            metrics=metrics,
            failover_s=_seconds(failover, "--failover", at_least_ms=_FAILOVER_MS_MIN),
            # 0 would mean that its children are never told to stop.
            grace_s=_seconds(grace, "--grace", at_least_ms=1),
            logs=None if logs is None else Path(logs),
        )
        return command(kcl=options, **others)

    return with_options


def _seconds(text: str, option: str, *, at_least_ms: int) -> float:
    try:
        milliseconds = duration_ms(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error
    if milliseconds < at_least_ms:
        raise click.BadParameter(f"{text} is less than {at_least_ms} ms", param_hint=option)
    return milliseconds / 1000
