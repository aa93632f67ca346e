"""Removal of duplicates: the producers' retries, told apart by who an event is, without a look-up in any store.

Events of ours (``source`` and ``sequence``) use the anti-replay window of RFC 4303, 3.4.3: per source the highest
sequence seen, H, and one bit for each of the last W. A producer never has W or more sequences between the oldest that
may still land and the newest that it sent, so a sequence at or below H - W has been here before. That is exact and
bounded; it holds for prefixes of a shard only.

Foreign events (``source`` and ``id``) are remembered by their exact text for a horizon of arrival time.

The verdicts are those of treating the events one by one in stream order, however the stream is cut into batches.
"""

from __future__ import annotations

import itertools
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.anti_replay import AntiReplayWindows
from streamgauge.processors.core.batch import EventBatch
from streamgauge.processors.core.container import Columns

__all__ = ["SILENCE_MARGIN_MS", "Deduper", "Verdict"]

SILENCE_MARGIN_MS = 3_600_000
"""A source is forgotten after the resend horizon plus this much silence.

The margin covers what the producer's deadline cannot see: requests in flight, and clocks that differ.
"""


class Verdict(IntEnum):
    """What an event is, beside those before it."""

    NEW = 0
    DUPLICATE_IN_WINDOW = 1
    """Of ours: its bit in the window was set."""
    DUPLICATE_BELOW_WINDOW = 2
    """Of ours: W or more below the highest sequence, which proves that it was here before."""
    DUPLICATE_FOREIGN = 3
    """Foreign: the same source and id arrived at most the horizon before."""


class Deduper:
    """The memory of one shard.

    Configuration: the largest W accepted, the resend and the foreign horizon. Saved: all the rest.

    Parameters
    ----------
    max_w
        Events of sources with a larger W must not come here: decoding makes them failed events.
    resend_horizon_ms
        R: no producer sends an event again later than this after its first attempt.
    foreign_horizon_ms
        A foreign event is a duplicate if one with its source and id arrived at most this long before it.
    """

    def __init__(self, max_w: int, resend_horizon_ms: int, foreign_horizon_ms: int) -> None:
        self._own = AntiReplayWindows(max_w, resend_horizon_ms + SILENCE_MARGIN_MS)
        self._foreign = _ForeignIds(foreign_horizon_ms)

    def apply(self, batch: EventBatch, arrival_ms: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Judge the batch's events, and remember them.

        Parameters
        ----------
        batch
            In stream order.
        arrival_ms : int64, shape (n,)
            Per event: the running maximum of arrival over the whole shard so far, in milliseconds.

        Returns
        -------
        uint8, shape (n,): a `Verdict` each.
        """
        verdicts = np.zeros(len(batch), dtype=np.uint8)
        if not len(batch):
            return verdicts
        windows = np.array(batch.source_windows, dtype=np.int64)[batch.source]
        own = np.flatnonzero(windows > 0)
        if len(own) == len(batch):
            self._judge_own(batch, slice(None), arrival_ms, verdicts)
        else:
            if len(own):
                self._judge_own(batch, own, arrival_ms, verdicts)
            foreign = np.flatnonzero(windows == 0)
            if len(foreign):
                self._judge_foreign(batch, foreign, arrival_ms, verdicts)
        now = int(arrival_ms[-1])
        self._own.forget(now)
        self._foreign.forget(now)
        return verdicts

    def _judge_own(
        self,
        batch: EventBatch,
        own: NDArray[np.intp] | slice,
        arrival_ms: NDArray[np.int64],
        verdicts: NDArray[np.uint8],
    ) -> None:
        in_window, below = self._own.judge(
            batch.sources, batch.source_windows, batch.source[own], batch.sequence[own], arrival_ms[own]
        )
        verdicts[own] = in_window * np.uint8(Verdict.DUPLICATE_IN_WINDOW) + below * np.uint8(
            Verdict.DUPLICATE_BELOW_WINDOW
        )

    def _judge_foreign(
        self,
        batch: EventBatch,
        foreign: NDArray[np.intp],
        arrival_ms: NDArray[np.int64],
        verdicts: NDArray[np.uint8],
    ) -> None:
        rows = foreign.tolist()
        sources = map(batch.sources.__getitem__, batch.source[foreign].tolist())
        ids = map(batch.ids.__getitem__, rows)
        seen = self._foreign.judge(list(zip(sources, ids, strict=True)), arrival_ms[foreign].tolist())
        verdicts[foreign[seen]] = Verdict.DUPLICATE_FOREIGN

    def join(self, other: Deduper) -> None:
        """Take in what another shard remembers, as the child of a merge does; `other` is used up."""
        self._own.join(other._own)
        self._foreign.join(other._foreign)

    def columns(self) -> Columns:
        """What a snapshot must hold: a function of the events so far, not of how they were cut into batches."""
        return {**self._own.columns(), **self._foreign.columns()}

    def restore(self, columns: Columns) -> None:
        """Replace the memory by what `columns` returned."""
        self._own.restore(columns)
        self._foreign.restore(columns)


class _ForeignIds:
    """(source, id) -> arrival of its last copy. The dict is in order of arrival, so what expires stands in front."""

    def __init__(self, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self._arrivals: dict[tuple[str, str], int] = {}

    def judge(self, identities: list[tuple[str, str]], arrival_ms: list[int]) -> list[int]:
        """Indexes of those seen before within the horizon."""
        arrivals, horizon = self._arrivals, self._horizon_ms
        duplicates: list[int] = []
        for index, (identity, arrival) in enumerate(zip(identities, arrival_ms, strict=True)):
            before = arrivals.pop(identity, None)
            arrivals[identity] = arrival
            if before is not None and arrival - before <= horizon:
                duplicates.append(index)
        return duplicates

    def forget(self, now_ms: int) -> None:
        """Drop what has expired. No verdict depends on it: expiry is decided at look-up."""
        arrivals, oldest = self._arrivals, now_ms - self._horizon_ms
        expired = list(itertools.takewhile(lambda identity: arrivals[identity] < oldest, arrivals))
        for identity in expired:
            del arrivals[identity]

    def join(self, other: _ForeignIds) -> None:
        """Of an identity in both the later arrival counts."""
        for identity, arrival in other._arrivals.items():
            self._arrivals[identity] = max(arrival, self._arrivals.get(identity, arrival))
        self._arrivals = dict(sorted(self._arrivals.items(), key=lambda entry: (entry[1], entry[0])))

    def columns(self) -> Columns:
        table: dict[str, int] = {}
        source = [table.setdefault(identity[0], len(table)) for identity in self._arrivals]
        return {
            "foreign_sources": list(table),
            "foreign_source": np.array(source, dtype=np.int64),
            "foreign_ids": [identity[1] for identity in self._arrivals],
            "foreign_arrival_ms": np.fromiter(self._arrivals.values(), dtype=np.int64, count=len(self._arrivals)),
        }

    def restore(self, columns: Columns) -> None:
        table, ids = columns["foreign_sources"], columns["foreign_ids"]
        source, arrival_ms = columns["foreign_source"], columns["foreign_arrival_ms"]
        assert isinstance(source, np.ndarray) and isinstance(arrival_ms, np.ndarray)
        sources = map([str(text) for text in table].__getitem__, source.tolist())
        self._arrivals = dict(zip(zip(sources, map(str, ids), strict=True), arrival_ms.tolist(), strict=True))
