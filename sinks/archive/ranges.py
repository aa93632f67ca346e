"""Delivered ranges: what delivery writes down before it writes a range's objects, and what says when it is whole.

``delivery/<shard>/<number>.json`` for the ranges 0, 1, 2 … of a shard, each created once and never changed. Together
they are the shard's prefix that is archived: range n + 1 exists only after every object of range n does.
"""

from __future__ import annotations

import msgspec

from streamgauge.sinks.archive.layout import DELIVERY_PREFIX

__all__ = ["DeliveredRange", "RangeObject", "decode_range", "encode_range", "range_name", "range_prefix"]


class RangeObject(msgspec.Struct, frozen=True):
    """One Parquet object of a range, and how many rows it holds."""

    name: str
    rows: int


class DeliveredRange(msgspec.Struct, frozen=True, kw_only=True):
    """The records of one shard after ``after`` (exclusive; None: from the beginning) up to ``last`` (inclusive).

    Attributes
    ----------
    first, last
        Sequence numbers of the first and last record; None in a range without records, which only says `closed`.
    catalogue
        Fingerprint of the schemas that decided which table a record went to.
    gap
        Set where records before `first` are missing because the stream had trimmed them; says which.
    input_parts
        By the input of an end_of_input: the parts seen in the shard so far, where some are still missing.
    ended
        An input has ended in the shard, and no event has come after it.
    closed
        The shard is closed and this range reaches its end.
    """

    stream_arn: str
    shard_id: str
    number: int
    after: str | None
    first: str | None
    last: str | None
    objects: tuple[RangeObject, ...]
    catalogue: str
    gap: str | None = None
    input_parts: dict[str, tuple[int, ...]] = {}
    ended: bool = False
    closed: bool = False


_decoder = msgspec.json.Decoder(DeliveredRange)


def range_prefix(shard_id: str) -> str:
    """The prefix of a shard's ranges; their names sort by number."""
    return f"{DELIVERY_PREFIX}{shard_id}/"


def range_name(shard_id: str, number: int) -> str:
    """The name of one range."""
    return f"{range_prefix(shard_id)}{number:012}.json"


def encode_range(delivered: DeliveredRange) -> bytes:
    """As JSON; equal ranges give equal bytes."""
    return msgspec.json.encode(delivered)


def decode_range(body: bytes) -> DeliveredRange:
    """Read what `encode_range` wrote."""
    return _decoder.decode(body)
