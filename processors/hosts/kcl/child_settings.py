"""What a child is told by whoever starts the daemon; the daemon itself hands nothing on but its environment."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.hosts.shard_run import LocalSettings

__all__ = ["ChildSettings"]

_NAME = "STREAMGAUGE_KCL_CHILD"


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of every child of one daemon.

    ``pipeline_file`` and ``log_file`` are absolute; all children append to the log. ``live``: whether calls may leave
    this machine. ``launcher``: the process that keeps the daemon running; nobody would restart a daemon without it, or
    tell it to stop. ``abandoned_after_s``: a parent whose row has not changed for so long is applied by its child.
    """

    pipeline_file: str
    log_file: str
    live: bool
    launcher: int
    settings: LocalSettings
    abandoned_after_s: float = 60.0

    def environment(self) -> dict[str, str]:
        """The variable that `from_environment` reads."""
        return {_NAME: msgspec.json.encode(self).decode()}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ChildSettings:
        """Read them.

        Raises
        ------
        StreamgaugeError
            They are not there: this process was not started by a daemon of ours.
        """
        try:
            return msgspec.json.decode(environment.get(_NAME, ""), type=cls)
        except msgspec.DecodeError as error:
            raise StreamgaugeError(
                f"no settings of a child: {error}",
                where=f"environment, {_NAME}",
                remedy="The KCL's daemon starts this: run `streamgauge process --host kcl`",
            ) from error
