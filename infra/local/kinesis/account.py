"""The streams of one account in one region: which there are, and what they look like."""

from __future__ import annotations

import re
from collections.abc import Mapping

from streamgauge.infra.local.kinesis.errors import (
    AnswerLost,
    ExpiredNextTokenException,
    InternalFailure,
    InvalidArgumentException,
    LimitExceededException,
    ResourceInUseException,
    ResourceNotFoundException,
    ServiceUnavailable,
    ValidationException,
)
from streamgauge.infra.local.kinesis.faults import Call, Fault, Faults
from streamgauge.infra.local.kinesis.iterators import ShardsToken, StreamsToken, decode_token, encode_token
from streamgauge.infra.local.kinesis.limits import MAX_RECORD_KIB, MIN_RECORD_KIB, NEXT_TOKEN_LIFETIME_MS, Limits
from streamgauge.infra.local.kinesis.shards import ShardState
from streamgauge.infra.local.kinesis.streams import ShardFilter, Stream, StreamMode

__all__ = ["Account"]

_MAX_TAGS = 50
_ON_DEMAND_SHARDS = 4
# Without limits too, a mistyped count must not fill the memory.
_MOST_SHARDS = 100_000
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


class Account:
    """Streams of one account in one region. ``faults`` may be replaced at any time.

    A stream is named by its name or its ARN everywhere.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        faults: Faults | None = None,
        account: str = "000000000000",
        region: str = "us-east-1",
    ) -> None:
        self.limits = limits or Limits()
        self.faults = faults or Faults()
        self.account = account
        self.region = region
        self.streams: dict[str, Stream] = {}
        # A stream created anew under an old name continues its sequence numbers above the old ones.
        self._last_created_s: dict[str, int] = {}

    @property
    def open_shard_count(self) -> int:
        """Open shards of all streams."""
        return sum(len(stream.open) for stream in self.streams.values())

    def create_stream(
        self,
        name: str,
        shard_count: int | None = None,
        *,
        now_ms: int,
        mode: StreamMode = "PROVISIONED",
        tags: Mapping[str, str] | None = None,
        max_record_kib: int = MIN_RECORD_KIB,
    ) -> Stream:
        """Create a stream with even ranges. On demand it has 4 shards and never scales by itself.

        Raises
        ------
        ResourceInUseException
            There is one of that name.
        ValidationException, LimitExceededException
            The parameters do not fit.
        """
        self._before("CreateStream", name, now_ms)
        if _NAME.fullmatch(name) is None:
            raise ValidationException(
                f"1 validation error detected: Value '{name}' at 'streamName' failed to satisfy constraint: "
                f"Member must satisfy regular expression pattern: {_NAME.pattern}"
            )
        if mode == "ON_DEMAND":
            if shard_count is not None:
                raise ValidationException("ShardCount must not be given for a stream in ON_DEMAND mode")
            shard_count = _ON_DEMAND_SHARDS
        if shard_count is None or shard_count < 1:
            raise ValidationException(
                f"1 validation error detected: Value '{shard_count}' at 'shardCount' failed to satisfy constraint: "
                "Member must have value greater than or equal to 1"
            )
        if name in self.streams:
            raise ResourceInUseException(f"Stream {name} under account {self.account} already exists.")
        self._check_shards(shard_count)
        stream = Stream(
            name,
            arn=f"arn:aws:kinesis:{self.region}:{self.account}:stream/{name}",
            account=self.account,
            created_ms=now_ms,
            created_s=max(now_ms // 1000, self._last_created_s.get(name, -1) + 1),
            shard_count=shard_count,
            limits=self.limits,
        )
        stream.mode = mode
        self._tag(stream, tags or {})
        self._set_max_record(stream, max_record_kib)
        self.streams[name] = stream
        self._after("CreateStream", name, now_ms)
        return stream

    def delete_stream(self, stream: str, *, now_ms: int) -> None:
        """Delete a stream with its records."""
        found = self._named("DeleteStream", stream, now_ms)
        self._last_created_s[found.name] = found.newest_created_s
        del self.streams[found.name]
        self._after("DeleteStream", found.name, now_ms)

    def describe(self, stream: str, *, now_ms: int, operation: str = "DescribeStream") -> Stream:
        """The stream, without shards that have expired.

        Raises
        ------
        ResourceNotFoundException
            There is no such stream.
        """
        found = self._named(operation, stream, now_ms)
        found.expire(now_ms)
        return found

    def list_streams(
        self, *, now_ms: int, after_name: str | None = None, next_token: str | None = None, limit: int = 100
    ) -> tuple[list[Stream], str | None]:
        """Streams in order of their names, and the token for the next page (None at the end)."""
        self._before("ListStreams", None, now_ms)
        if next_token is not None:
            token = decode_token(next_token, StreamsToken, name="NextToken")
            self._check_age(token.issued_ms, now_ms)
            after_name = token.after_name
        names = sorted(name for name in self.streams if after_name is None or name > after_name)
        page = [self.streams[name] for name in names[:limit]]
        more = encode_token(StreamsToken(page[-1].name, now_ms)) if len(names) > limit else None
        return page, more

    def list_shards(
        self,
        stream: str,
        *,
        now_ms: int,
        shard_filter: ShardFilter | None = None,
        after_shard_id: str | None = None,
        max_results: int = 1_000,
        created_ms: int | None = None,
    ) -> tuple[list[ShardState], str | None]:
        """Unexpired shards in order of their ids, and the token for the next page (None at the end).

        Raises
        ------
        ResourceNotFoundException
            There is no such stream, or none that was created at `created_ms`.
        InvalidArgumentException
            The filter lacks what its type needs, or asks for the future.
        """
        found = self._named("ListShards", stream, now_ms)
        if created_ms is not None and created_ms != found.created_ms:
            raise ResourceNotFoundException(
                f"Stream {found.name} under account {self.account} not found: it was created at {found.created_ms} ms, "
                f"not at {created_ms} ms."
            )
        shard_filter = shard_filter or ShardFilter()
        if shard_filter.type == "AFTER_SHARD_ID" and shard_filter.shard_id is None:
            raise InvalidArgumentException("ShardId must be specified in the ShardFilter of type AFTER_SHARD_ID")
        if shard_filter.type in ("AT_TIMESTAMP", "FROM_TIMESTAMP"):
            if shard_filter.timestamp_ms is None:
                raise InvalidArgumentException(
                    f"Timestamp must be specified in the ShardFilter of type {shard_filter.type}"
                )
            if shard_filter.timestamp_ms > now_ms:
                raise InvalidArgumentException("The Timestamp of the ShardFilter lies in the future")
        shards = [
            shard
            for shard in found.listed(shard_filter, now_ms)
            if after_shard_id is None or shard.shard_id > after_shard_id
        ]
        if len(shards) <= max_results:
            return shards, None
        page = shards[:max_results]
        token = ShardsToken(
            stream=found.name,
            stream_created_ms=found.created_ms,
            after_shard_id=page[-1].shard_id,
            filter_type=shard_filter.type,
            filter_shard_id=shard_filter.shard_id,
            filter_timestamp_ms=shard_filter.timestamp_ms,
            issued_ms=now_ms,
        )
        return page, encode_token(token)

    def list_more_shards(
        self, next_token: str, *, now_ms: int, max_results: int = 1_000
    ) -> tuple[list[ShardState], str | None]:
        """The page after `next_token`.

        Raises
        ------
        ExpiredNextTokenException
            The token is older than five minutes.
        """
        token = decode_token(next_token, ShardsToken, name="NextToken")
        self._check_age(token.issued_ms, now_ms)
        if self._find(token.stream).created_ms != token.stream_created_ms:
            raise InvalidArgumentException("NextToken comes from an earlier stream of the same name.")
        return self.list_shards(
            token.stream,
            now_ms=now_ms,
            shard_filter=ShardFilter(token.filter_type, token.filter_shard_id, token.filter_timestamp_ms),
            after_shard_id=token.after_shard_id,
            max_results=max_results,
        )

    def _find(self, stream: str) -> Stream:
        name = stream.rpartition("/")[2] if stream.startswith("arn:") else stream
        found = self.streams.get(name)
        if found is None or stream not in (found.name, found.arn):
            raise ResourceNotFoundException(f"Stream {name} under account {self.account} not found.")
        return found

    def _before(self, operation: str, stream: str | None, now_ms: int, shard_id: str | None = None) -> None:
        # Asked before anything is done, so that a failed call has no effect. A stream is its name here, not its ARN.
        call = Call(operation, stream and stream.rpartition("/")[2], shard_id, None, now_ms)
        if self.faults.strikes(Fault.UNAVAILABLE, call):
            raise ServiceUnavailable(f"{operation} is unavailable: injected fault")
        # PutRecords fails entry by entry.
        if operation != "PutRecords" and self.faults.strikes(Fault.INTERNAL_FAILURE, call):
            raise InternalFailure(f"{operation} failed: injected fault")

    def _after(self, operation: str, stream: str, now_ms: int, shard_id: str | None = None) -> None:
        if self.faults.strikes(Fault.LOSE_ANSWER, Call(operation, stream, shard_id, None, now_ms)):
            raise AnswerLost(f"The answer to {operation} was lost: injected fault")

    def _named(self, operation: str, stream: str, now_ms: int) -> Stream:
        self._before(operation, stream, now_ms)
        return self._find(stream)

    def _check_shards(self, more: int) -> None:
        most = self.limits.shards if self.limits.enforced else _MOST_SHARDS
        if self.open_shard_count + more > most:
            raise LimitExceededException(
                f"This request would exceed the shard limit for the account {self.account} in {self.region}. Current "
                f"shard count for the account: {self.open_shard_count}. Limit: {most}. "
                f"Number of additional shards that would have resulted from this request: {more}."
            )

    def _check_age(self, issued_ms: int, now_ms: int) -> None:
        if now_ms - issued_ms > NEXT_TOKEN_LIFETIME_MS:
            raise ExpiredNextTokenException(
                f"NextToken was given at {issued_ms} ms and expired {NEXT_TOKEN_LIFETIME_MS} ms later; "
                f"it is {now_ms} ms"
            )

    def _tag(self, stream: Stream, tags: Mapping[str, str]) -> None:
        if len(stream.tags.keys() | tags.keys()) > _MAX_TAGS:
            raise LimitExceededException(
                f"Failed to add tags to stream {stream.name} under account {self.account} because a given stream "
                f"cannot have more than {_MAX_TAGS} tags associated with it."
            )
        stream.tags.update(tags)

    def _set_max_record(self, stream: Stream, kib: int) -> None:
        if not MIN_RECORD_KIB <= kib <= MAX_RECORD_KIB:
            raise ValidationException(
                f"MaxRecordSizeInKiB must lie between {MIN_RECORD_KIB} and {MAX_RECORD_KIB}: {kib}"
            )
        stream.max_record_bytes = kib * 1024
