"""What the package is built from: ``requirements/lambda.lock``, which names every distribution with its hashes."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from streamgauge.events.errors import StreamgaugeError

__all__ = ["ARCHITECTURES", "PYTHON_VERSIONS", "LockError", "Locked", "Target", "lock_text", "locked", "running"]

PYTHON_VERSIONS = ("3.12", "3.13")
ARCHITECTURES = ("arm64", "x86_64")

_LOCK = "lambda.lock"
# pip's and Python's name for what Lambda calls arm64.
_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
# The runtimes python3.12 and python3.13 are Amazon Linux 2023, which has glibc 2.34 (AWS Lambda developer guide,
# "Lambda runtimes"). pip takes a platform literally: a wheel for an older glibc has to be named too.
_GLIBC_MINOR_VERSIONS = range(34, 16, -1)


class LockError(StreamgaugeError):
    """The lock file is missing, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Target:
    """The interpreter that a package is for: a runtime of Lambda."""

    python_version: str
    architecture: str

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platform tags of wheels that run there, as pip takes them."""
        machine = _MACHINES[self.architecture]
        return (*(f"manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINOR_VERSIONS), f"manylinux2014_{machine}")

    def environment(self) -> dict[str, str]:
        """What requirements' markers are held against (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python_version}.0",
            "os_name": "posix",
            "platform_machine": _MACHINES[self.architecture],
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python_version}.0",
            "python_version": self.python_version,
            "sys_platform": "linux",
        }

    def __str__(self) -> str:
        return f"Lambda's python{self.python_version} on {self.architecture}"


@dataclass(frozen=True, slots=True)
class Locked:
    """One distribution: what is to be there, and the hashes of the files that it may come from."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def requirement(self) -> str:
        """A line of a requirements file, without the marker: pip would hold that against the interpreter it runs in."""
        return " ".join((f"{self.name}=={self.version}", *(f"--hash={each}" for each in self.hashes)))


def lock_text() -> str:
    """The lock file: of an installed wheel, or of the checkout.

    Raises
    ------
    LockError
        It is in neither place.
    """
    packaged = files("streamgauge.infra.packaging").joinpath(_LOCK)
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    checkout = Path(__file__).resolve().parents[2] / "requirements" / _LOCK
    try:
        return checkout.read_text(encoding="utf-8")
    except OSError as error:
        raise LockError(f"cannot be read: {error.strerror}", where=str(checkout)) from error


def locked(text: str, target: Target | None) -> list[Locked]:
    """The distributions that the lock names for `target`; None is the interpreter that runs this.

    Raises
    ------
    LockError
        A line is no pinned requirement with hashes.
    """
    environment = target.environment() if target else None
    found: dict[str, Locked] = {}
    for line in text.replace("\\\n", " ").splitlines():
        stated = line.partition("#")[0].strip()
        if not stated:
            continue
        requirement, *hashes = (part.strip() for part in stated.split("--hash="))
        try:
            parsed = Requirement(requirement)
        except InvalidRequirement as error:
            raise LockError(f"{requirement}: {error}", where=_LOCK) from error
        pins = [each.version for each in parsed.specifier if each.operator == "=="]
        if len(pins) != 1 or not hashes:
            raise LockError(f"{requirement} is not pinned, or has no hashes", where=_LOCK, remedy="Run `make lock`")
        if parsed.marker is None or parsed.marker.evaluate(environment):
            name = canonicalize_name(parsed.name)
            found[name] = Locked(name, pins[0], tuple(hashes))
    return list(found.values())


def running() -> str:
    """The interpreter that runs this, in words."""
    return f"this Python {sys.version_info.major}.{sys.version_info.minor} on {platform.machine()}"
