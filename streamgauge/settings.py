"""Plain frozen values that the edges read once, at their start, never at import.

An explicit argument wins over the environment, the environment over the default. ``AWS_*`` is left to botocore.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["Endpoints"]

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_GENERAL = "AWS_ENDPOINT_URL"
_PREFIX = "AWS_ENDPOINT_URL_"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where AWS's services are reached: the local stack's two addresses, or None for AWS itself.

    ``others`` holds the services that the environment sends elsewhere, by botocore's name: ``{"s3": "http://…"}``.
    """

    aws: str | None
    kinesis: str | None
    others: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, stack: Endpoints | None = None) -> Endpoints:
        """Read ``AWS_ENDPOINT_URL`` and ``AWS_ENDPOINT_URL_<SERVICE>`` as botocore does: the specific one wins.

        Both win over the addresses of the local `stack`; where the environment names the stack's own general address
        and none for Kinesis, the stack's Kinesis holds.
        """
        general = environment.get(_GENERAL) or None
        services = {
            name.removeprefix(_PREFIX).lower(): url
            for name, url in environment.items()
            if name.startswith(_PREFIX) and url
        }
        kinesis = services.pop("kinesis", None)
        if kinesis is None:
            kinesis = stack.kinesis if stack is not None and general in {None, stack.aws} else general
        aws = general if general is not None or stack is None else stack.aws
        return cls(aws=aws, kinesis=kinesis, others=services)

    def url(self, service: str) -> str | None:
        """The address of a service by botocore's name, None for AWS itself."""
        if service == "kinesis":
            return self.kinesis
        return self.others.get(service, self.aws)

    def is_local(self, service: str) -> bool:
        """Whether the service is reached over loopback, so that no call to it can leave this machine."""
        url = self.url(service)
        return url is not None and urlsplit(url).hostname in _LOOPBACK

    @property
    def are_local(self) -> bool:
        """Whether every address is a loopback one, so that no call can reach AWS."""
        return self.aws is not None and all(map(self.is_local, ("", "kinesis", *self.others)))
