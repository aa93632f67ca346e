"""The package into the bucket from which CloudFormation takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.packaging.archive import Archived

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

__all__ = ["UploadFailed", "upload_package"]

_ABSENT = {"404", "NoSuchKey", "NotFound"}


class UploadFailed(StreamgaugeError):
    """The package could not be put into its bucket."""


def upload_package(client: S3Client, bucket: str, package: Archived) -> str:
    """Put the package into the bucket under its own name, unless it is there already.

    Returns
    -------
    Its key.

    Raises
    ------
    UploadFailed
        There is no such bucket, or it may not be written.
    """
    key = package.path.name
    try:
        if not _is_there(client, bucket, key):
            with package.path.open("rb") as body:
                client.put_object(Bucket=bucket, Key=key, Body=body)
    except (ClientError, BotoCoreError) as error:
        raise UploadFailed(str(error), where=f"s3://{bucket}/{key}") from error
    return key


def _is_there(client: S3Client, bucket: str, key: str) -> bool:
    try:
        client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in _ABSENT:
            return False
        raise
    return True
