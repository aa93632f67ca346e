"""Writing to the archive so that the first writer of a name wins: over a bucket and over a folder."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from streamgauge.processors.commit.aws_errors import port_errors
from streamgauge.processors.commit.ports import StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

__all__ = ["ArchiveObjects", "FolderObjects", "S3Objects"]


class ArchiveObjects(Protocol):
    """Objects that are created once. Methods may raise `StoreUnavailable` and `StoreRefused` of the commit's ports.

    After `StoreUnavailable` a creation may have happened: calling again answers False then, as for another's object.
    """

    def create(self, name: str, body: bytes) -> bool:
        """Write the object whole, unless there is one of that name; whether it was written."""
        ...

    def get(self, name: str) -> bytes | None:
        """The object, or None."""
        ...

    def names(self, prefix: str) -> list[str]:
        """All names that begin with `prefix`, sorted."""
        ...


class S3Objects:
    """A bucket. S3 decides between two creators (``If-None-Match: *``; PutObject reference, conditional writes)."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def create(self, name: str, body: bytes) -> bool:
        """Write the object whole, unless there is one of that name; whether it was written."""
        with port_errors(f"s3://{self._bucket}/{name}"):
            try:
                self._client.put_object(Bucket=self._bucket, Key=name, Body=body, IfNoneMatch="*")
            except self._client.exceptions.ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code == "ConditionalRequestConflict":
                    # Another writer of the name was faster or has failed: S3 asks to try again.
                    where = f"s3://{self._bucket}/{name}"
                    raise StoreUnavailable("somebody else is writing the object", where=where) from error
                if code != "PreconditionFailed":
                    raise
                return False
        return True

    def get(self, name: str) -> bytes | None:
        """The object, or None."""
        with port_errors(f"s3://{self._bucket}/{name}"):
            try:
                return self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None

    def names(self, prefix: str) -> list[str]:
        """All names that begin with `prefix`, sorted."""
        found: list[str] = []
        with port_errors(f"s3://{self._bucket}/{prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                found += [item["Key"] for item in page.get("Contents", [])]
        return sorted(found)


class FolderObjects:
    """A folder of this machine. A file is made whole under another name first; linking it decides who was first."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, name: str, body: bytes) -> bool:
        """Write the object whole, unless there is one of that name; whether it was written."""
        path = self._root / name
        unfinished = path.with_name(f".{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(body)
            os.link(unfinished, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise StoreRefused(
                f"cannot be written: {error.strerror}", where=str(path), remedy="Check permissions and free space"
            ) from error
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
        return True

    def get(self, name: str) -> bytes | None:
        """The object, or None."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def names(self, prefix: str) -> list[str]:
        """All names that begin with `prefix`, sorted."""
        folder = self._root / prefix.rpartition("/")[0]
        paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        names = (path.relative_to(self._root).as_posix() for path in paths)
        return sorted(name for name in names if name.startswith(prefix))
