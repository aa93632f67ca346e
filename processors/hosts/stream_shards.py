"""The shards of a stream, as Kinesis lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.events.records import Shard
from streamgauge.events.shard_listing import all_listed
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, error_code, is_transient, reason_of, remedy_for
from streamgauge.processors.hosts.shard_reader import ReadFailed

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

__all__ = ["StreamUnreadable", "list_shards", "stream_arn"]


class StreamUnreadable(ReadFailed):
    """The stream cannot be looked at. ``is_transient``: it may be, a little later."""

    def __init__(self, stream: str, error: BotoCoreError | ClientError) -> None:
        is_missing = isinstance(error, ClientError) and error_code(error) == "ResourceNotFoundException"
        super().__init__(
            "there is no such stream" if is_missing else reason_of(error),
            where=f"stream {stream}",
            remedy="Create it, or correct `stream` in the pipeline file"
            if is_missing
            else remedy_for(error, "Is Kinesis reachable?"),
        )
        self.is_transient = is_transient(error)


def stream_arn(kinesis: KinesisClient, stream: str) -> str:
    """The stream's ARN.

    Raises
    ------
    StreamUnreadable
        No such stream, or no answer.
    """
    try:
        return kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamARN"]
    except AWS_ERRORS as error:
        raise StreamUnreadable(stream, error) from error


def list_shards(kinesis: KinesisClient, stream: str) -> list[Shard]:
    """The stream's shards in order of their ids, closed ones too as long as they hold records.

    Raises
    ------
    StreamUnreadable
        No such stream, or no answer.
    """
    try:
        first = kinesis.list_shards(StreamName=stream)
        return [listed.shard for listed in all_listed(first, lambda token: kinesis.list_shards(NextToken=token))]
    except AWS_ERRORS as error:
        raise StreamUnreadable(stream, error) from error
