"""The locked distributions' files: out of what is installed here, or fetched by pip for another platform."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.packaging.contents import is_needed
from streamgauge.infra.packaging.lock import Locked, Target

__all__ = ["PackagesMissing", "files_of"]

_PIP = ("pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", "--no-compile", "--no-deps")
_LINES_SHOWN = 8


class PackagesMissing(StreamgaugeError):
    """A distribution of the lock is not to be had."""


def files_of(
    wanted: Sequence[Locked], target: Target | None, *, work: Path, say: Callable[[str], None]
) -> dict[str, Path]:
    """The files that a function needs of the distributions: by name in the package, where they are now.

    Parameters
    ----------
    target
        None: the interpreter that runs this. What is installed here in the lock's version is taken from here, so that
        nothing has to be fetched as a rule.
    work
        An empty folder for what has to be fetched.

    Raises
    ------
    PackagesMissing
        pip could not fetch one, or there is no pip.
    """
    found: dict[str, Path] = {}
    missing = list(wanted)
    if target is None:
        here = {each.name: installed for each in wanted if (installed := _installed(each)) is not None}
        for files in here.values():
            found |= files
        missing = [each for each in wanted if each.name not in here]
    if missing:
        names = ", ".join(f"{each.name} {each.version}" for each in missing)
        say(f"fetching {names if target is None else f'{len(missing)} distributions for {target}'} ...")
        _fetch(missing, target, work)
        found |= _needed(_below(work))
    return found


def _installed(wanted: Locked) -> Mapping[str, Path] | None:
    """What is installed here, if it is what the lock says, and is there in files."""
    try:
        distribution = metadata.distribution(wanted.name)
    except metadata.PackageNotFoundError:
        return None
    if distribution.version != wanted.version or not distribution.files:
        return None
    listed = {file.as_posix(): Path(str(file.locate())) for file in distribution.files}
    needed = _needed(listed)
    return needed if all(path.is_file() for path in needed.values()) else None


def _below(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in _walk(folder)}


def _walk(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _needed(files: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if is_needed(PurePosixPath(name))}


def _fetch(wanted: Sequence[Locked], target: Target | None, folder: Path) -> None:
    requirements = folder.with_suffix(".txt")
    requirements.write_text("".join(f"{each.requirement}\n" for each in wanted), encoding="utf-8")
    options = ["--require-hashes", "--only-binary", ":all:", "--target", str(folder)]
    if target is not None:
        options += [option for platform in target.platforms for option in ("--platform", platform)]
        options += ["--python-version", target.python_version, "--implementation", "cp"]
        # Else pip's install, unlike its download, holds the wheels against the interpreter that it runs in.
        options += ["--ignore-requires-python"]
    done = subprocess.run(  # noqa: S603 - pip with our own arguments
        [sys.executable, "-m", *_PIP, *options, "-r", str(requirements)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-_LINES_SHOWN:]
        raise PackagesMissing(
            "pip could not fetch what is locked:\n" + "\n".join(said),
            where="requirements/lambda.lock",
            remedy="It asks the package index that pip is set up for: look at the network and at `pip config list`"
            if target is not None
            else "Install what is locked (`make demo` does), or look at the network and at `pip config list`",
        )
