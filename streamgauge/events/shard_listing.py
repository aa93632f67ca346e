"""What ListShards answers.

Source: Amazon Kinesis Data Streams API reference, ListShards and Shard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from streamgauge.events.hash_key import HashRange
from streamgauge.events.records import Shard

__all__ = ["ListedShard", "all_listed"]


class ListedShard(NamedTuple):
    """One shard of a listing; `is_open` if it still takes records, which has no ending sequence number."""

    shard: Shard
    is_open: bool


class _HashKeyRange(msgspec.Struct, rename="pascal"):
    starting_hash_key: str
    ending_hash_key: str


class _SequenceNumberRange(msgspec.Struct, rename="pascal"):
    ending_sequence_number: str | None = None


class _Shard(msgspec.Struct, rename="pascal"):
    shard_id: str
    hash_key_range: _HashKeyRange
    sequence_number_range: _SequenceNumberRange
    parent_shard_id: str | None = None
    adjacent_parent_shard_id: str | None = None


class _Shards(msgspec.Struct, rename="pascal"):
    shards: list[_Shard]
    next_token: str | None = None


def all_listed(first: object, next_page: Callable[[str], object]) -> list[ListedShard]:
    """Every shard of a listing, in order of shard id.

    Parameters
    ----------
    first
        The first page, as boto3 hands it out.
    next_page
        Asks for the page of a token; whatever it raises passes through.
    """
    page = msgspec.convert(first, _Shards)
    found = page.shards
    while page.next_token:
        page = msgspec.convert(next_page(page.next_token), _Shards)
        found += page.shards
    return sorted(map(_listed, found))


def _listed(shard: _Shard) -> ListedShard:
    hash_keys = shard.hash_key_range
    parents = tuple(parent for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if parent)
    return ListedShard(
        Shard(shard.shard_id, HashRange(int(hash_keys.starting_hash_key), int(hash_keys.ending_hash_key)), parents),
        shard.sequence_number_range.ending_sequence_number is None,
    )
