"""Records to user records: de-aggregation, and what is decided about an aggregate as a whole."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamgauge.events.envelope import InvalidEvent, own_source
from streamgauge.events.hash_key import FULL_RANGE, HashRange, hash_key
from streamgauge.events.kpl import KPL_MAGIC, Aggregate, CorruptAggregate, decode_aggregate, is_aggregate
from streamgauge.events.position import Position
from streamgauge.events.records import StreamRecord, UserRecords
from streamgauge.processors.core.effects import FailedEvent, FailureReason

__all__ = ["RangeCheck", "SequenceNumbers", "Unpacked", "unpack"]

_CACHED_KEYS_MAX = 65_536


class _Source(msgspec.Struct, gc=False):
    source: str


_source_decoder = msgspec.json.Decoder(_Source)


class RangeCheck:
    """Whether partition keys hash into one shard. Remembers keys that do, up to a bound."""

    def __init__(self, hash_range: HashRange) -> None:
        self.hash_range = hash_range
        # Every key there is lies in the full range, so nothing need be hashed.
        self._is_full = hash_range == FULL_RANGE
        self._inside: set[str] = set()

    def holds(self, partition_key: str) -> bool:
        """Whether the MD5 of the key lies in the range."""
        if self._is_full or partition_key in self._inside:
            return True
        is_inside = hash_key(partition_key) in self.hash_range
        if is_inside:
            if len(self._inside) >= _CACHED_KEYS_MAX:
                self._inside.clear()
            self._inside.add(partition_key)
        return is_inside

    def outside(self, partition_keys: Sequence[str]) -> list[int]:
        """The indexes of those that do not lie in the range."""
        # The usual answer without a step of Python per key.
        if self._is_full or self._inside.issuperset(partition_keys):
            return []
        return [index for index, key in enumerate(partition_keys) if not self.holds(key)]

    def holds_all(self, aggregate: Aggregate) -> bool:
        """Whether every user record lies in the range, by its explicit hash key or else by its partition key."""
        if self._is_full:
            return True
        if not aggregate.hash_keys:
            # A table may hold keys that no record uses.
            outside = self.outside(aggregate.partition_keys)
            return not outside or set(outside).isdisjoint(aggregate.key_index)
        return all(
            self.holds(aggregate.partition_keys[key]) if hashed < 0 else aggregate.hash_keys[hashed] in self.hash_range
            for key, hashed in set(zip(aggregate.key_index, aggregate.hash_index, strict=True))
        )


class SequenceNumbers(Sequence[int]):
    """The sequence numbers of n records, read from their texts one by one: 56 digits take longer than other columns."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> SequenceNumbers: ...
    def __getitem__(self, index: int | slice) -> int | SequenceNumbers:
        return SequenceNumbers(self._texts[index]) if isinstance(index, slice) else int(self._texts[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(slots=True)
class Unpacked:
    """n user records in stream order, and what of the records is no user record.

    ``record`` and ``sub_sequence``: int64, shape (n,). ``outside``: indexes of those whose partition key does not hash
    into the shard. The rest as in `Decoded`.
    """

    sequence_numbers: SequenceNumbers
    arrival_ms: NDArray[np.int64]
    record: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sub_sequence: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    payloads: list[bytes] = field(default_factory=list)
    partition_keys: list[str] = field(default_factory=list)
    outside: list[int] = field(default_factory=list)
    failed: list[FailedEvent] = field(default_factory=list)
    misrouted: int = 0
    redelivered: int = 0
    last_sub_sequence: int = 0


def unpack(records: Sequence[StreamRecord], check: RangeCheck, after: Position | None) -> Unpacked:
    """Take records apart, leaving out what lies at or below `after`.

    Either all records are as the stream holds them, or all are user records that have been taken apart already.
    """
    if isinstance(records, UserRecords) or (records and records[0].sub_sequence_number is not None):
        apart = records if isinstance(records, UserRecords) else UserRecords.of(records)
        return _take_user_records(apart, check, after)
    numbers, keys, arrivals, payloads, _ = zip(*records, strict=True) if records else ((), (), (), (), ())
    unpacked = Unpacked(SequenceNumbers(numbers), np.array(arrivals, dtype=np.int64))
    if _is_all_plain(unpacked.sequence_numbers, payloads, after):
        _take_plain(unpacked, keys, payloads, check)
        return unpacked
    # Per record: how many user records it gave, and the sub-sequence number of the first of them.
    counts: list[int] = []
    firsts: list[int] = []
    add_payload, add_key = unpacked.payloads.append, unpacked.partition_keys.append
    for number, record in zip(unpacked.sequence_numbers, records, strict=True):
        skip = _skipped(number, after)
        if is_aggregate(record.data):
            count = _unpack_aggregate(unpacked, record, number, check, skip)
            counts.append(count)
            firsts.append(skip if count else 0)
            continue
        unpacked.last_sub_sequence = 0
        firsts.append(0)
        if skip:
            unpacked.redelivered += 1
            counts.append(0)
            continue
        counts.append(1)
        if not check.holds(record.partition_key):
            unpacked.outside.append(len(unpacked.payloads))
        add_payload(record.data)
        add_key(record.partition_key)
    _number(unpacked, np.array(counts, dtype=np.int64), np.array(firsts, dtype=np.int64))
    return unpacked


def _is_all_plain(numbers: SequenceNumbers, payloads: Sequence[bytes], after: Position | None) -> bool:
    if after is not None and numbers and numbers[0] <= after.sequence_number:
        return False
    # What begins with the magic is not below it: the greatest payload answers for all, and JSON's is.
    return max(payloads, default=b"") < KPL_MAGIC or not any(map(is_aggregate, payloads))


def _take_plain(unpacked: Unpacked, keys: Sequence[str], payloads: Sequence[bytes], check: RangeCheck) -> None:
    """The usual case without aggregates: every record is one user record."""
    unpacked.payloads = list(payloads)
    unpacked.partition_keys = list(keys)
    unpacked.record = np.arange(len(payloads), dtype=np.int64)
    unpacked.sub_sequence = np.zeros(len(payloads), dtype=np.int64)
    unpacked.outside = check.outside(keys)


def _take_user_records(records: UserRecords, check: RangeCheck, after: Position | None) -> Unpacked:
    """What the KCL hands over: it has taken aggregates apart, and left out those that are misrouted."""
    numbers = SequenceNumbers(records.sequence_numbers)
    unpacked = Unpacked(numbers, np.array(records.arrivals_ms, dtype=np.int64))
    if not records:
        return unpacked
    unpacked.last_sub_sequence = records.places[-1]
    unpacked.redelivered = _applied(records, numbers, after)
    if not unpacked.redelivered and max(records.payloads) < KPL_MAGIC:
        unpacked.record = np.arange(len(records), dtype=np.int64)
        unpacked.payloads, unpacked.partition_keys = records.payloads, records.partition_keys
    else:
        rows = [row for row in range(unpacked.redelivered, len(records)) if not _is_corrupt(unpacked, records, row)]
        unpacked.record = np.array(rows, dtype=np.int64)
        unpacked.payloads = [records.payloads[row] for row in rows]
        unpacked.partition_keys = [records.partition_keys[row] for row in rows]
    unpacked.sub_sequence = np.array(records.places, dtype=np.int64)[unpacked.record]
    unpacked.outside = check.outside(unpacked.partition_keys)
    return unpacked


def _applied(records: UserRecords, numbers: SequenceNumbers, after: Position | None) -> int:
    """How many of the first lie at or below `after`."""
    if after is None or Position(numbers[0], records.places[0]) > after:
        return 0
    return bisect_right(range(len(records)), after, key=lambda row: Position(numbers[row], records.places[row]))


def _is_corrupt(unpacked: Unpacked, records: UserRecords, row: int) -> bool:
    """Whether it is an aggregate that the KCL could not take apart, and so handed over whole; counted if so."""
    if not is_aggregate(records.payloads[row]):
        return False
    try:
        decode_aggregate(records.payloads[row])
    except CorruptAggregate as error:
        number, partition_key, arrival_ms, payload, place = records[row]
        position = Position(int(number), place or 0)
        reason = FailureReason.CORRUPT_AGGREGATE
        unpacked.failed.append(FailedEvent(position, arrival_ms, partition_key, reason, error.what, payload))
        return True
    # An aggregate inside an aggregate: bytes like any others.
    return False


def _skipped(number: int, after: Position | None) -> int:
    """How many of a record's first events have been applied; a large number if all."""
    if after is None or number > after.sequence_number:
        return 0
    return after.sub_sequence_number + 1 if number == after.sequence_number else 2**62


def _number(unpacked: Unpacked, counts: NDArray[np.int64], firsts: NDArray[np.int64]) -> None:
    unpacked.record = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    starts = np.cumsum(counts) - counts
    unpacked.sub_sequence = np.arange(len(unpacked.payloads), dtype=np.int64) + np.repeat(firsts - starts, counts)


def _unpack_aggregate(unpacked: Unpacked, record: StreamRecord, number: int, check: RangeCheck, skip: int) -> int:
    """Add an aggregate's user records from `skip` on; return how many they are."""

    def whole(reason: FailureReason, detail: str) -> FailedEvent:
        return FailedEvent(Position(number, 0), record.arrival_ms, record.partition_key, reason, detail, record.data)

    try:
        aggregate = decode_aggregate(record.data)
    except CorruptAggregate as error:
        return _fail_whole(unpacked, whole(FailureReason.CORRUPT_AGGREGATE, error.what), skip)
    is_misrouted = not check.holds_all(aggregate)
    if is_misrouted and not _is_ours(aggregate):
        detail = f"an aggregate of {len(aggregate.payloads)} events, not all of which hash into this shard"
        return _fail_whole(unpacked, whole(FailureReason.MISROUTED_AGGREGATE, detail), skip)
    total = len(aggregate.payloads)
    unpacked.last_sub_sequence = total - 1
    unpacked.redelivered += min(skip, total)
    rest = max(0, total - skip)
    if is_misrouted:
        # Its producer was told where it landed, and sends all of it again under the same identity.
        unpacked.misrouted += rest
        return 0
    if rest:
        keys = [aggregate.partition_keys[index] for index in aggregate.key_index[skip:]]
        if aggregate.hash_keys:
            # An explicit hash key says where an event goes, not where its partition key is counted.
            before = len(unpacked.payloads)
            unpacked.outside.extend(before + place for place, key in enumerate(keys) if not check.holds(key))
        unpacked.partition_keys.extend(keys)
        unpacked.payloads.extend(aggregate.payloads[skip:] if skip else aggregate.payloads)
    return rest


def _fail_whole(unpacked: Unpacked, failed: FailedEvent, skip: int) -> int:
    """Count a record as one failed event; return how many user records it gives."""
    unpacked.last_sub_sequence = 0
    if skip:
        unpacked.redelivered += 1
    else:
        unpacked.failed.append(failed)
    return 0


def _is_ours(aggregate: Aggregate) -> bool:
    """Whether every event's source is one of ours."""
    try:
        return all(own_source(_source_decoder.decode(payload).source) is not None for payload in aggregate.payloads)
    except (InvalidEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
