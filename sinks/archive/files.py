"""The archive's objects, for reading: the same over a bucket and over a folder."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pyarrow import ArrowException, fs

from streamgauge.events.errors import StreamgaugeError

__all__ = ["ArchiveFiles", "ArchiveUnavailable"]

Result = TypeVar("Result")

_PARALLEL_READS = 8
# Results that wait for their turn: bounds what a large archive keeps in memory.
_READ_AHEAD = 4 * _PARALLEL_READS


class ArchiveUnavailable(StreamgaugeError):
    """The archive could not be read: no such bucket or folder, no permission, or no answer."""


class ArchiveFiles:
    """Objects below one root, read through pyarrow. Names are relative, with slashes.

    Parameters
    ----------
    filesystem
        Where they are.
    place
        The root in words, for errors.
    """

    def __init__(self, filesystem: fs.FileSystem, *, place: str) -> None:
        self.filesystem = filesystem
        self.place = place

    @classmethod
    def folder(cls, path: Path) -> ArchiveFiles:
        """A folder of this machine."""
        return cls(fs.SubTreeFileSystem(str(path), fs.LocalFileSystem()), place=str(path))

    @classmethod
    def bucket(
        cls,
        bucket: str,
        *,
        endpoint: str | None,
        region: str,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
    ) -> ArchiveFiles:
        """An S3 bucket.

        Parameters
        ----------
        endpoint
            URL of the local stack, or None for AWS.
        access_key, secret_key, session_token
            Credentials; without them those of the environment, as the AWS SDK finds them.
        """
        url = urlsplit(endpoint or "")
        s3 = fs.S3FileSystem(
            region=region,
            access_key=access_key,
            secret_key=secret_key,
            session_token=session_token,
            scheme="http" if url.scheme == "http" else "https",
            endpoint_override=url.netloc or None,
        )
        return cls(fs.SubTreeFileSystem(bucket, s3), place=f"s3://{bucket}")

    def names(self, prefix: str) -> list[str]:
        """All names below the folder `prefix` (ends with a slash), sorted; none where there is no such folder.

        Raises
        ------
        ArchiveUnavailable
            The archive does not answer.
        """
        selector = fs.FileSelector(prefix.rstrip("/"), recursive=True, allow_not_found=True)
        try:
            found = self.filesystem.get_file_info(selector)
        except (OSError, ArrowException) as error:
            raise self._unavailable(error) from error
        return sorted(info.path for info in found if info.type == fs.FileType.File and not _is_unfinished(info.path))

    def tables(self) -> list[str]:
        """The top-level folders, sorted: ``type=…`` and ``delivery``."""
        try:
            found = self.filesystem.get_file_info(fs.FileSelector("", recursive=False, allow_not_found=True))
        except (OSError, ArrowException) as error:
            raise self._unavailable(error) from error
        return sorted(info.path for info in found if info.type == fs.FileType.Directory)

    def read(self, name: str) -> bytes:
        """One whole object.

        Raises
        ------
        ArchiveUnavailable
            It is not there, or the archive does not answer.
        """
        try:
            with self.filesystem.open_input_file(name) as file:
                return bytes(file.read())
        except (OSError, ArrowException) as error:
            raise self._unavailable(error, name) from error

    def each(self, names: Sequence[str], read: Callable[[str], Result]) -> Iterator[Result]:
        """``read(name)`` of every name, in their order, several at a time: S3 answers slowly, but many at once."""
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            waiting = deque(pool.submit(read, name) for name in names[:_READ_AHEAD])
            for name in names[_READ_AHEAD:]:
                yield waiting.popleft().result()
                waiting.append(pool.submit(read, name))
            while waiting:
                yield waiting.popleft().result()

    def _unavailable(self, error: Exception, name: str | None = None) -> ArchiveUnavailable:
        return ArchiveUnavailable(
            f"the archive cannot be read: {str(error).splitlines()[0]}",
            where=self.place if name is None else f"{self.place}/{name}",
            remedy="Check that the stack is running and the bucket's name is right",
        )


def _is_unfinished(path: str) -> bool:
    # A writer to a folder makes its file whole under such a name before it gives it the right one.
    return path.rpartition("/")[2].startswith(".")
