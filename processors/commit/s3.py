"""Objects in S3, and the archive as a receiver of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from streamgauge.processors.commit.aws_errors import port_errors
from streamgauge.processors.commit.ports import Delivery, ObjectStore, StoreRefused, StoreUnavailable
from streamgauge.processors.core.effects import ArchiveObject

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

__all__ = ["ArchiveReceiver", "S3ObjectStore"]


class S3ObjectStore:
    """Objects below ``s3://<bucket>/<prefix>``. S3 shows an object whole or not at all.

    Parameters
    ----------
    prefix
        Empty, or text that ends in a slash; names of objects are relative to it.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str = "") -> None:
        assert not prefix or prefix.endswith("/"), f"a prefix ends in a slash: {prefix!r}"
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def put(self, name: str, body: bytes) -> None:
        """Write the object."""
        with self._errors(name):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=body)

    def get(self, name: str) -> bytes | None:
        """The object, or None."""
        with self._errors(name):
            try:
                return self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None

    def delete(self, name: str) -> None:
        """Remove the object if it is there."""
        with self._errors(name):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def names(self, prefix: str) -> list[str]:
        """All names that begin with `prefix`, sorted."""
        found: list[str] = []
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                found += [item["Key"][len(self._prefix) :] for item in page.get("Contents", [])]
        return sorted(found)

    def _errors(self, name: str) -> AbstractContextManager[None]:
        return port_errors(f"s3://{self._bucket}/{self._prefix}{name}")


class ArchiveReceiver:
    """Writes archive objects under the names that they bear, so that a second delivery overwrites the first."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def deliver(self, entries: Sequence[ArchiveObject]) -> Delivery[ArchiveObject]:
        """Put the objects in their order; the first that fails comes back with all after it."""
        for index, entry in enumerate(entries):
            try:
                self._store.put(entry.name, entry.body)
            except (StoreUnavailable, StoreRefused) as error:
                return Delivery(entries[index:], str(error))
        return Delivery(())
