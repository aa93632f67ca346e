"""Plain frozen values that the edges read once, at their start, never at import.

An explicit argument wins over the environment, the environment over the default. ``AWS_*`` is left to botocore.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Endpoints"]

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where AWS's services are reached: the local stack's two addresses, or None for AWS itself."""

    aws: str | None
    kinesis: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Endpoints:
        """Read ``AWS_ENDPOINT_URL`` and ``AWS_ENDPOINT_URL_KINESIS`` as botocore does: the specific one wins."""
        aws = environment.get("AWS_ENDPOINT_URL") or None
        return cls(aws=aws, kinesis=environment.get("AWS_ENDPOINT_URL_KINESIS") or aws)

    @property
    def are_local(self) -> bool:
        """Whether both addresses are loopback ones, so that no call can reach AWS."""
        return all(url is not None and urlsplit(url).hostname in _LOOPBACK for url in (self.aws, self.kinesis))
