"""The whole service as one pure model: every call takes the time, and nothing is read from outside.

The local server runs it behind HTTP; a simulation calls it directly. One instance is one account in one region. It is
not thread-safe: its caller serialises calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from streamgauge.events.hash_key import MAX_HASH_KEY, hash_key
from streamgauge.events.records import StreamRecord
from streamgauge.infra.local.kinesis.administration import Administration
from streamgauge.infra.local.kinesis.errors import (
    ExpiredIteratorException,
    InvalidArgumentException,
    ProvisionedThroughputExceededException,
    ResourceNotFoundException,
    ValidationException,
)
from streamgauge.infra.local.kinesis.faults import Call, Fault, Faults
from streamgauge.infra.local.kinesis.iterators import IteratorToken, decode_token, encode_token
from streamgauge.infra.local.kinesis.limits import (
    GET_RECORDS_MAX_BYTES,
    GET_RECORDS_MAX_RECORDS,
    ITERATOR_LIFETIME_MS,
    PUT_RECORDS_MAX_BYTES,
    PUT_RECORDS_MAX_RECORDS,
)
from streamgauge.infra.local.kinesis.sequence import LAST_INDEX, parse_sequence_number
from streamgauge.infra.local.kinesis.shards import ShardState, key_bytes
from streamgauge.infra.local.kinesis.streams import EncryptionType, Stream

__all__ = ["IteratorType", "KinesisModel", "PutEntry", "PutFailure", "PutResult", "ReadResult"]

IteratorType = Literal["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]

_MAX_KEY_LENGTH = 256


class PutEntry(NamedTuple):
    """A record to put."""

    partition_key: str
    data: bytes
    explicit_hash_key: int | None = None


class PutResult(NamedTuple):
    """Where a record went."""

    shard_id: str
    sequence_number: str


class PutFailure(NamedTuple):
    """Why an entry of PutRecords was not taken: ProvisionedThroughputExceededException or InternalFailure."""

    code: str
    message: str


class ReadResult(NamedTuple):
    """An answer of GetRecords. At a closed shard's end there is no next iterator, and there are child shards.

    ``behind_ms`` is the age of the next record that was not read, 0 at the tip.
    """

    records: list[StreamRecord]
    next_iterator: str | None
    behind_ms: int
    children: list[ShardState]
    encryption: EncryptionType


class KinesisModel(Administration):
    """Kinesis Data Streams: the data plane on top of `Administration`."""

    def put_record(self, stream: str, entry: PutEntry, *, now_ms: int) -> PutResult:
        """Put one record.

        Raises
        ------
        ProvisionedThroughputExceededException
            The shard's rate is exceeded.
        InvalidArgumentException, ValidationException
            The key or the size does not fit.
        """
        self._before("PutRecord", stream, now_ms)
        found = self._find(stream)
        size = self._check_entry(found, entry, 0)
        result = self._put(found, entry, size, Call("PutRecord", found.name, None, None, now_ms))
        if isinstance(result, PutFailure):
            raise ProvisionedThroughputExceededException(result.message)
        self._after("PutRecord", found.name, now_ms, result.shard_id)
        return result

    def put_records(self, stream: str, entries: Sequence[PutEntry], *, now_ms: int) -> list[PutResult | PutFailure]:
        """Put up to 500 records, in their order; each is taken or refused by itself.

        Raises
        ------
        InvalidArgumentException, ValidationException
            The call as a whole is malformed or too large; nothing was put.
        """
        self._before("PutRecords", stream, now_ms)
        found = self._find(stream)
        if not 1 <= len(entries) <= PUT_RECORDS_MAX_RECORDS:
            raise ValidationException(
                f"1 validation error detected: Value of length {len(entries)} at 'records' failed to satisfy "
                f"constraint: Member must have length between 1 and {PUT_RECORDS_MAX_RECORDS}"
            )
        sizes = [self._check_entry(found, entry, index) for index, entry in enumerate(entries)]
        if sum(sizes) > PUT_RECORDS_MAX_BYTES:
            raise InvalidArgumentException(
                f"Records size exceeds {PUT_RECORDS_MAX_BYTES // 1024**2} MB limit: {sum(sizes)} bytes"
            )
        results = [
            self._put(found, entry, size, Call("PutRecords", found.name, None, index, now_ms))
            for index, (entry, size) in enumerate(zip(entries, sizes, strict=True))
        ]
        self._after("PutRecords", found.name, now_ms)
        return results

    def get_shard_iterator(
        self,
        stream: str,
        shard_id: str,
        iterator_type: IteratorType,
        *,
        now_ms: int,
        sequence_number: str | None = None,
        timestamp_ms: int | None = None,
    ) -> str:
        """An iterator for GetRecords, valid for five minutes.

        Raises
        ------
        ResourceNotFoundException
            No such stream or shard.
        InvalidArgumentException
            The sequence number is not of this shard, or the timestamp lies in the future.
        ProvisionedThroughputExceededException
            More than 5 in a second on this shard.
        """
        self._before("GetShardIterator", stream, now_ms, shard_id)
        found = self._find(stream)
        shard = found.shard(shard_id, now_ms)
        match iterator_type:
            case "TRIM_HORIZON":
                position = shard.log.first
            case "LATEST":
                position = shard.log.end
            case "AT_TIMESTAMP":
                position = self._position_at(shard, timestamp_ms, now_ms)
            case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER":
                index = self._index_of(found, shard, sequence_number)
                before = index if iterator_type == "AFTER_SEQUENCE_NUMBER" else max(0, index - 1)
                position = min(before, shard.log.end)
        if self.limits.enforced:
            if not shard.iterators.admits(1, now_ms):
                raise ProvisionedThroughputExceededException(_rate_exceeded(found, shard))
            shard.iterators.take(1)
        return encode_token(IteratorToken(found.name, found.created_ms, shard_id, position, now_ms))

    def get_records(
        self, iterator: str, *, now_ms: int, limit: int = GET_RECORDS_MAX_RECORDS, stream: str | None = None
    ) -> ReadResult:
        """Records from an iterator's position on: up to `limit`, and 10 MiB. A `stream` given must be the iterator's.

        Raises
        ------
        ExpiredIteratorException
            The iterator is older than five minutes.
        ProvisionedThroughputExceededException
            The shard's reads or bytes of this second are used up.
        """
        token = decode_token(iterator, IteratorToken, name="ShardIterator")
        self._before("GetRecords", token.stream, now_ms, token.shard_id)
        call = Call("GetRecords", token.stream, token.shard_id, None, now_ms)
        if not 1 <= limit <= GET_RECORDS_MAX_RECORDS:
            raise ValidationException(
                f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: Member must "
                f"have value between 1 and {GET_RECORDS_MAX_RECORDS}"
            )
        age = now_ms - token.issued_ms
        if age > ITERATOR_LIFETIME_MS or self.faults.strikes(Fault.EXPIRE_ITERATOR, call):
            raise ExpiredIteratorException(
                f"Iterator expired. The iterator was created at time {token.issued_ms} ms while right now it is "
                f"{now_ms} ms which is further in the future than the tolerated delay of {ITERATOR_LIFETIME_MS} "
                "milliseconds."
            )
        found = self._find(token.stream)
        if stream is not None and self._find(stream) is not found:
            raise InvalidArgumentException(f"The ShardIterator is one of stream {found.name}, not of {stream}")
        if found.created_ms != token.stream_created_ms:
            raise ResourceNotFoundException(
                f"Shard {token.shard_id} in stream {found.name} under account {self.account} does not exist"
            )
        shard = found.shard(token.shard_id, now_ms)
        if self.faults.strikes(Fault.THROTTLE, call) or not shard.admits_read(now_ms):
            raise ProvisionedThroughputExceededException(_rate_exceeded(found, shard))
        wanted = 0 if self.faults.strikes(Fault.EMPTY_READ, call) else limit
        result = self._read(found, shard, token.position, wanted, now_ms)
        self._after("GetRecords", found.name, now_ms, shard.shard_id)
        return result

    def encryption_of(self, stream: str) -> EncryptionType:
        """What the answers to puts say of the stream's encryption."""
        return self._find(stream).encryption

    def _read(self, stream: Stream, shard: ShardState, position: int, wanted: int, now_ms: int) -> ReadResult:
        log = shard.log
        # What was trimmed since the iterator was given is skipped in silence, as on AWS.
        position = max(position, log.first)
        records, size = log.read(position, records=wanted, max_bytes=GET_RECORDS_MAX_BYTES)
        shard.took(size)
        position += len(records)
        if position < log.end:
            behind_ms = max(1, now_ms - log.at(position).arrival_ms)
        elif shard.closed_ms is not None:
            return ReadResult(records, None, 0, shard.children, stream.encryption)
        else:
            behind_ms = 0
        following = IteratorToken(stream.name, stream.created_ms, shard.shard_id, position, now_ms)
        return ReadResult(records, encode_token(following), behind_ms, [], stream.encryption)

    def _put(self, stream: Stream, entry: PutEntry, size: int, call: Call) -> PutResult | PutFailure:
        key = entry.explicit_hash_key
        shard = stream.route(hash_key(entry.partition_key) if key is None else key)
        if type(self.faults) is not Faults:
            call = call._replace(shard_id=shard.shard_id)
            if call.operation == "PutRecords" and self.faults.strikes(Fault.INTERNAL_FAILURE, call):
                return PutFailure("InternalFailure", "Internal service failure.")
            if self.faults.strikes(Fault.THROTTLE, call):
                return PutFailure("ProvisionedThroughputExceededException", _rate_exceeded(stream, shard))
        if not shard.admits_write(size, call.now_ms):
            return PutFailure("ProvisionedThroughputExceededException", _rate_exceeded(stream, shard))
        shard.log.trim(call.now_ms - stream.retention_ms)
        return PutResult(shard.shard_id, shard.append(entry.partition_key, entry.data, size, call.now_ms))

    def _check_entry(self, stream: Stream, entry: PutEntry, index: int) -> int:
        if not 1 <= len(entry.partition_key) <= _MAX_KEY_LENGTH:
            raise ValidationException(
                f"1 validation error detected: Value at 'records.{index + 1}.member.partitionKey' failed to satisfy "
                f"constraint: Member must have length between 1 and {_MAX_KEY_LENGTH}"
            )
        key = entry.explicit_hash_key
        if key is not None and not 0 <= key <= MAX_HASH_KEY:
            raise InvalidArgumentException(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
                f"Specified value was {key}"
            )
        size = len(entry.data) + key_bytes(entry.partition_key)
        if size > stream.max_record_bytes:
            raise InvalidArgumentException(
                f"Record {index + 1} of {size} bytes (data and partition key) exceeds the maximum record size of "
                f"{stream.max_record_bytes // 1024} KiB of stream {stream.name} under account {self.account}"
            )
        return size

    def _position_at(self, shard: ShardState, timestamp_ms: int | None, now_ms: int) -> int:
        if timestamp_ms is None:
            raise InvalidArgumentException("Must specify timestamp parameter for iterator type AT_TIMESTAMP.")
        if timestamp_ms > now_ms:
            raise InvalidArgumentException(
                f"The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                f"timestampInMillis: {timestamp_ms}, currentTimestampInMillis: {now_ms}"
            )
        return shard.log.position_at(timestamp_ms)

    def _index_of(self, stream: Stream, shard: ShardState, sequence_number: str | None) -> int:
        if sequence_number is None:
            raise InvalidArgumentException(
                "Must specify StartingSequenceNumber for iterator types AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER."
            )
        stranger = InvalidArgumentException(
            f"StartingSequenceNumber {sequence_number} used in GetShardIterator on shard {shard.shard_id} in stream "
            f"{stream.name} under account {self.account} is invalid because it did not come from this stream."
        )
        try:
            parts = parse_sequence_number(int(sequence_number))
        except ValueError as cause:
            raise stranger from cause
        if parts.shard_index != shard.index:
            raise InvalidArgumentException(
                f"Invalid StartingSequenceNumber. It encodes shardId-{parts.shard_index:012}, while it was used in a "
                f"call to a shard with {shard.shard_id}"
            )
        if parts.created_s != shard.numbers.created_s or LAST_INDEX > parts.record_index > shard.log.end:
            raise stranger
        return parts.record_index


def _rate_exceeded(stream: Stream, shard: ShardState) -> str:
    return f"Rate exceeded for shard {shard.shard_id} in stream {stream.name} under account {stream.account}."
