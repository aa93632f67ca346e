"""Which files of a distribution a function needs."""

from __future__ import annotations

from pathlib import PurePosixPath

__all__ = ["SERVICES", "is_needed"]

SERVICES = ("dynamodb", "events", "kinesis", "lambda", "s3", "sts")
"""The services whose models stay in botocore; those of four hundred others are 28 of its 31 MB."""

# What an installer notes; the first holds hashes of files that are left out, the others differ between machines.
_NOTES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"}
# Compiled anew, or for compilers and type checkers.
_SUFFIXES = {".pyc", ".pyo", ".pyi", ".h", ".a", ".pxd", ".c"}


def is_needed(path: PurePosixPath) -> bool:
    """Whether a file, named relative to the folder of distributions, is of use to a function."""
    folders, name = path.parts[:-1], path.name
    if path.is_absolute() or ".." in folders or (not folders and path.suffix == ".pth"):
        return False
    if "__pycache__" in folders or path.suffix in _SUFFIXES:
        return False
    top = folders[0] if folders else ""
    if top.endswith(".dist-info"):
        return name not in _NOTES
    if top == "bin":
        return False
    if top == "numpy" and "tests" in folders:
        return False
    # The other of its two backends: it needs cffi, which is not in the lock, and is not asked for by CPython.
    if top == "zstandard" and name.startswith("_cffi."):
        return False
    if folders[:2] == ("botocore", "data"):
        return len(folders) == 2 or folders[2] in SERVICES
    return True
