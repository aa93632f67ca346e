"""Decoded events as columns: what decoding hands to everything after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EventBatch", "FieldColumn"]


@dataclass(frozen=True, slots=True)
class FieldColumn:
    """One field of n events. ``present`` is bool, shape (n,); where it is False the field is null or absent.

    ``values`` has shape (n,): int64 for integers, float64 for numbers, bool for booleans (0 where not present), or a
    list of n strings ("" where not present).
    """

    values: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_] | list[str]
    present: NDArray[np.bool_]


@dataclass(slots=True)
class EventBatch:
    """n events of types that the pipeline reads, in stream order; every array and list has length n.

    record : int64
        Index into ``record_sequence_numbers`` of the record that held the event.
    sub_sequence : int64
        Place in that record: 0 in a plain one.
    arrival_ms, time_ms : int64
        Milliseconds since the epoch.
    source : int64
        Index into ``sources`` (distinct within the batch) and ``source_windows`` (W, or 0 for a foreign source).
    sequence : int64
        Of events of ours; -1 for foreign ones.
    ids
        The CloudEvents id; for mapped records without one, the position as text.
    fields
        By path: ``subject``, ``partitionkey``, ``type``, ``source`` (strings) and ``data.<name>[.<name>…]``; only what
        the pipeline names.
    """

    record_sequence_numbers: list[int]
    record: NDArray[np.int64]
    sub_sequence: NDArray[np.int64]
    arrival_ms: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    source: NDArray[np.int64]
    sources: list[str]
    source_windows: list[int]
    sequence: NDArray[np.int64]
    ids: list[str]
    partition_keys: list[str]
    fields: Mapping[str, FieldColumn]
    payloads: list[bytes]

    def __len__(self) -> int:
        return len(self.payloads)
