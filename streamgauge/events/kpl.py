"""The aggregated record format of the Kinesis Producer Library, both ways.

Source: ``aggregation-format.md`` in awslabs/amazon-kinesis-producer. An aggregate is::

    4 bytes   magic F3 89 9A C2
    n bytes   protobuf message, see `kpl_message`
    16 bytes  MD5 of the message

Tags are read over; no producer is known to write them.
"""

from __future__ import annotations

from hashlib import md5
from typing import NamedTuple

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.hash_key import MAX_HASH_KEY, hash_key
from streamgauge.events.kpl_message import ABSENT, AggregatedRecord, parse_message, serialize_message

__all__ = [
    "DIGEST_BYTES",
    "KPL_MAGIC",
    "Aggregate",
    "AggregateBuilder",
    "CorruptAggregate",
    "UserRecord",
    "decode_aggregate",
    "is_aggregate",
]

KPL_MAGIC = b"\xf3\x89\x9a\xc2"
DIGEST_BYTES = 16

_HASH_KEY_DIGITS = len(str(MAX_HASH_KEY))


class CorruptAggregate(StreamgaugeError):
    """A record with the magic whose digest, message or indexes are wrong; the message names which."""


class UserRecord(NamedTuple):
    """One record inside an aggregate. ``explicit_hash_key``: 0 to 2**128 - 1, or None to hash the partition key."""

    partition_key: str
    explicit_hash_key: int | None
    data: bytes


class Aggregate(NamedTuple):
    """A decoded aggregate as parallel columns.

    ``partition_keys`` and ``hash_keys`` are its two tables. The other three have one entry for each user record, in
    their order (the place is the sub-sequence number): the index of its partition key, the index of its explicit hash
    key or -1 for none, and its data.
    """

    partition_keys: list[str]
    hash_keys: list[int]
    key_index: list[int]
    hash_index: list[int]
    payloads: list[bytes]

    def user_records(self) -> list[UserRecord]:
        """The same as one value for each user record: convenient, and several times slower."""
        return [
            UserRecord(self.partition_keys[key], None if hashed < 0 else self.hash_keys[hashed], data)
            for key, hashed, data in zip(self.key_index, self.hash_index, self.payloads, strict=True)
        ]


def is_aggregate(data: bytes) -> bool:
    """Whether a record begins with the magic. No JSON does, so a record with it that does not decode is corrupt."""
    return data.startswith(KPL_MAGIC)


def decode_aggregate(data: bytes) -> Aggregate:
    """Read an aggregate whole, or not at all.

    Parameters
    ----------
    data
        A record for which `is_aggregate` holds.

    Raises
    ------
    CorruptAggregate
        Too short, wrong digest, no such message, no user record, a partition key that is not UTF-8, an explicit hash
        key that is not a decimal below 2**128, an index outside its table.
    """
    if not data.startswith(KPL_MAGIC):
        raise _corrupt("the magic F3 89 9A C2 is missing")
    if len(data) < len(KPL_MAGIC) + DIGEST_BYTES:
        raise _corrupt(f"truncated: {len(data)} bytes cannot hold magic and digest")
    body = data[len(KPL_MAGIC) : -DIGEST_BYTES]
    if md5(body, usedforsecurity=False).digest() != data[-DIGEST_BYTES:]:
        raise _corrupt("its MD5 digest is not that of its message (altered or truncated)")
    try:
        message = parse_message(body)
    except ValueError as error:
        raise _corrupt(str(error)) from error
    partition_keys = _texts(list(message.partition_key_table))
    hash_keys = [_hash_key(key, index) for index, key in enumerate(message.explicit_hash_key_table)]
    return _columns(message, partition_keys, hash_keys)


def _columns(message: AggregatedRecord, partition_keys: list[str], hash_keys: list[int]) -> Aggregate:
    key_index: list[int] = []
    hash_index: list[int] = []
    payloads: list[bytes] = []
    add_key, add_hash, add_payload = key_index.append, hash_index.append, payloads.append
    # One pass that drops each record's wrapper at once: several passes take twice as long.
    for record in message.records:
        add_key(record.partition_key_index)
        add_hash(record.explicit_hash_key_index)
        add_payload(record.data)
    if not key_index:
        raise _corrupt("it holds no user record")
    _check_indexes(key_index, len(partition_keys), "partition key")
    if hash_keys or min(hash_index) != ABSENT:
        hash_index = [-1 if index == ABSENT else index for index in hash_index]
        _check_indexes(hash_index, len(hash_keys), "explicit hash key")
    else:
        hash_index = [-1] * len(key_index)
    return Aggregate(partition_keys, hash_keys, key_index, hash_index, payloads)


def _check_indexes(indexes: list[int], table_size: int, table: str) -> None:
    if max(indexes) >= table_size:
        place = next(place for place, index in enumerate(indexes) if index >= table_size)
        raise _corrupt(
            f"user record {place} has {table} index {indexes[place]}, but the table holds {table_size} entries"
        )


def _texts(keys: list[bytes]) -> list[str]:
    texts: list[str] = []
    try:
        texts.extend(map(bytes.decode, keys))
    except UnicodeDecodeError as error:
        # The list holds what was decoded before it.
        index = len(texts)
        raise _corrupt(f"partition key {index} is not UTF-8: {keys[index][:64]!r}") from error
    return texts


def _hash_key(text: bytes, index: int) -> int:
    # int() alone takes signs, spaces and underscores.
    if not text.isdigit() or len(text) > _HASH_KEY_DIGITS or (value := int(text)) > MAX_HASH_KEY:
        raise _corrupt(f"explicit hash key {index} is no decimal from 0 to 2**128 - 1: {text[:64]!r}")
    return value


def _corrupt(what: str) -> CorruptAggregate:
    return CorruptAggregate(what, where="aggregated record")


def _varint_bytes(value: int) -> int:
    return (value.bit_length() + 6) // 7 or 1


def _field_bytes(length: int) -> int:
    """Tag (one byte: the field numbers are small), length and content of a length-delimited field."""
    return 1 + _varint_bytes(length) + length


class AggregateBuilder:
    """Gathers user records into one aggregate. Their hash keys should all lie in one shard: nobody checks that here.

    ``partition_key`` and ``hash_key`` are what to put the record under: those of its first user record.
    """

    __slots__ = ("_hash_index", "_key_index", "_message_bytes", "_records")

    def __init__(self) -> None:
        self._key_index: dict[str, int] = {}
        self._hash_index: dict[int, int] = {}
        self._records: list[dict[str, int | bytes]] = []
        self._message_bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def count(self) -> int:
        """How many user records it holds."""
        return len(self._records)

    @property
    def size_bytes(self) -> int:
        """Exactly ``len(self.encode())``. (Kinesis limits count the partition key on top.)"""
        return len(KPL_MAGIC) + self._message_bytes + DIGEST_BYTES

    def size_after(self, record: UserRecord) -> int:
        """What `size_bytes` would be with `record` added."""
        return self.size_bytes + self._growth(record)

    def add(self, record: UserRecord) -> None:
        """Add a user record.

        Raises
        ------
        ValueError
            The explicit hash key is outside 0 to 2**128 - 1.
        """
        explicit = record.explicit_hash_key
        if explicit is not None and not 0 <= explicit <= MAX_HASH_KEY:
            raise ValueError(f"explicit hash key outside 0 to 2**128 - 1: {explicit}")
        self._message_bytes += self._growth(record)
        entry: dict[str, int | bytes] = {
            "partition_key_index": self._key_index.setdefault(record.partition_key, len(self._key_index)),
            "data": record.data,
        }
        if explicit is not None:
            entry["explicit_hash_key_index"] = self._hash_index.setdefault(explicit, len(self._hash_index))
        self._records.append(entry)

    @property
    def partition_key(self) -> str:
        """The first user record's partition key."""
        assert self._records, "an empty aggregate has no partition key"
        return next(iter(self._key_index))

    @property
    def hash_key(self) -> int:
        """The first user record's hash key: its explicit one, or the MD5 of its partition key."""
        assert self._records, "an empty aggregate has no hash key"
        if "explicit_hash_key_index" in self._records[0]:
            return next(iter(self._hash_index))
        return hash_key(self.partition_key)

    def encode(self) -> bytes:
        """The aggregate: magic, message, digest. Equal contents in equal order give equal bytes."""
        assert self._records, "an empty aggregate is no record"
        body = serialize_message(
            [key.encode() for key in self._key_index], [b"%d" % key for key in self._hash_index], self._records
        )
        return KPL_MAGIC + body + md5(body, usedforsecurity=False).digest()

    def _growth(self, record: UserRecord) -> int:
        growth = 0
        key_index = self._key_index.get(record.partition_key)
        if key_index is None:
            key_index = len(self._key_index)
            growth += _field_bytes(len(record.partition_key.encode()))
        entry = 1 + _varint_bytes(key_index) + _field_bytes(len(record.data))
        if record.explicit_hash_key is not None:
            hash_index = self._hash_index.get(record.explicit_hash_key)
            if hash_index is None:
                hash_index = len(self._hash_index)
                growth += _field_bytes(len(str(record.explicit_hash_key)))
            entry += 1 + _varint_bytes(hash_index)
        return growth + _field_bytes(entry)
