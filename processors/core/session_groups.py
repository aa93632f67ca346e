"""Which events of a batch only let sessions grow: found by sorting them by key and time, and cutting at the gaps.

Growing is the same however the events come: the sessions of a key are then the runs of its times with gaps below the
bound. It is left to `session_steps` where that is not so, or where sums of floats would be added up in another order
than event by event: see `_others`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.definition import SessionWindow
from streamgauge.processors.core.panes import REVISION, WindowEvents
from streamgauge.processors.core.session_rows import END, LAST, SHOWN, SessionRows, Walked
from streamgauge.processors.core.slots import Slots

__all__ = ["Grown", "grown"]

_Numbers = NDArray[np.int64]


class Grown(NamedTuple):
    """The sessions that k groups of events lead to; and what is to be treated one by one.

    distinct : int64
        The codes of all keys of the batch.
    walked
        Their sessions so far.
    which, group_of : int64, shape (n,)
        The events that only let sessions grow, in stream order, and the group of each.
    codes, owners, slots, first_ms, last_ms : int64, shape (k,)
        Of each group the key's code and its index in `distinct`, the session's row (0: a new one), its first and last
        event with those of the group.
    others
        The codes of the other keys, each with its events in stream order.
    """

    distinct: _Numbers
    walked: Walked
    which: _Numbers
    group_of: _Numbers
    codes: _Numbers
    owners: _Numbers
    slots: _Numbers
    first_ms: _Numbers
    last_ms: _Numbers
    others: Sequence[tuple[int, list[int]]]


class _Groups(NamedTuple):
    """Chains of events and sessions; `of_event` by event, the rest by group. ``held``: how many sessions."""

    of_event: _Numbers
    owner: _Numbers
    first_ms: _Numbers
    last_ms: _Numbers
    slot: _Numbers
    held: _Numbers


def grown(events: WindowEvents, rows: SessionRows, slots: Slots, window: SessionWindow) -> Grown:
    """Sort the events of a batch into sessions that grow, and those that must be looked at one by one."""
    distinct, owners = np.unique(events.codes, return_inverse=True)
    owners = owners.astype(np.int64)
    order = np.lexsort((events.times_ms, owners))
    earliest = events.times_ms[order[np.flatnonzero(np.diff(owners[order], prepend=-1))]]
    walked = rows.walk(distinct, earliest)
    groups = _groups(events.times_ms, owners, order, walked, slots, window.gap_ms)
    slow = _others(events, owners, groups, walked, slots, window, len(distinct))
    of_slow = slow[owners]
    which = np.flatnonzero(~of_slow)
    used, group_of = np.unique(groups.of_event[which], return_inverse=True)
    return Grown(
        distinct=distinct,
        walked=walked,
        which=which,
        group_of=group_of.astype(np.int64),
        codes=distinct[groups.owner[used]],
        owners=groups.owner[used],
        slots=groups.slot[used],
        first_ms=groups.first_ms[used],
        last_ms=groups.last_ms[used],
        others=_by_owner(np.flatnonzero(of_slow), owners, distinct),
    )


def _groups(  # noqa: PLR0917
    times_ms: _Numbers, owners: _Numbers, order: _Numbers, walked: Walked, slots: Slots, gap_ms: int
) -> _Groups:
    """Chain the events of each key, and its sessions, where less than a gap lies between."""
    owner, time = owners[order], times_ms[order]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = (owner[1:] != owner[:-1]) | (time[1:] - time[:-1] >= gap_ms)
    ends = np.roll(begins, -1)
    run_of_event = np.empty(len(order), dtype=np.int64)
    run_of_event[order] = np.cumsum(begins) - 1
    # Runs of events, then the sessions that are there, as items with a first and a last instant.
    owner = np.concatenate([owner[begins], walked.owners])
    first = np.concatenate([time[begins], slots.start[walked.rows]])
    last = np.concatenate([time[ends], slots.column(LAST)[walked.rows].astype(np.int64)])
    slot = np.concatenate([np.zeros(len(owner) - len(walked.rows), dtype=np.int64), walked.rows])
    in_time = np.lexsort((first, owner))
    owner, first, last, slot = owner[in_time], first[in_time], last[in_time], slot[in_time]
    reached = _running_max(last, owner)
    begins = np.ones(len(owner), dtype=np.bool_)
    begins[1:] = (owner[1:] != owner[:-1]) | (first[1:] - reached[:-1] >= gap_ms)
    group = np.cumsum(begins) - 1
    group_of_item = np.empty(len(owner), dtype=np.int64)
    group_of_item[in_time] = group
    count = int(group[-1]) + 1 if len(group) else 0
    row = np.zeros(count, dtype=np.int64)
    np.maximum.at(row, group, slot)
    return _Groups(
        of_event=group_of_item[run_of_event],
        owner=owner[begins],
        first_ms=first[begins],
        last_ms=reached[np.roll(begins, -1)],
        slot=row,
        held=np.bincount(group[slot > 0], minlength=count).astype(np.int64),
    )


def _running_max(values: _Numbers, groups: _Numbers) -> _Numbers:
    """The highest value so far within each group; `groups` do not fall."""
    # By rank and not by value: the ranks of a later group are above all earlier ones.
    order = np.lexsort((values, groups))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    highest: _Numbers = values[order[np.maximum.accumulate(rank)]]
    return highest


def _others(  # noqa: PLR0917
    events: WindowEvents,
    owners: _Numbers,
    groups: _Groups,
    walked: Walked,
    slots: Slots,
    window: SessionWindow,
    n: int,
) -> NDArray[np.bool_]:
    """The keys whose events do more than let sessions grow, or might.

    An event behind what has closed may correct or be late. Sessions that become one are merged at the event that
    joins them, and sums of floats with them: also those that begin in this very batch. The maximum length cuts by the
    order of the stream. The pane of a session that has been emitted cannot change its start.
    """
    slow = np.zeros(n, dtype=np.bool_)
    slow[owners[events.times_ms < events.closed_to_ms]] = True
    full = slots.column(LAST)[walked.rows] + window.gap_ms
    seen = slots.column(SHOWN)[walked.rows] != 0
    slow[walked.owners[(slots.column(END)[walked.rows] != full) | seen]] = True
    slow[groups.owner[groups.held > 1]] = True
    slow[groups.owner[groups.last_ms + window.gap_ms - groups.first_ms > window.max_length_ms]] = True
    renamed = (slots.column(REVISION)[groups.slot] > 0) & (groups.first_ms < slots.start[groups.slot])
    slow[groups.owner[renamed]] = True
    slow[groups.owner[_apart(events.times_ms, groups, slots, window.gap_ms)]] = True
    return slow


def _apart(times_ms: _Numbers, groups: _Groups, slots: Slots, gap_ms: int) -> _Numbers:
    """The groups that were, at some event, not yet one session."""
    order = np.argsort(groups.of_event, kind="stable")
    group, time = groups.of_event[order], times_ms[order]
    follows = np.zeros(len(order), dtype=np.bool_)
    follows[1:] = group[1:] == group[:-1]
    slot = groups.slot[group]
    held = slot > 0
    backwards = np.zeros(len(order), dtype=np.bool_)
    backwards[1:] = follows[1:] & (time[1:] < time[:-1])
    backwards |= ~follows & held & (time < slots.start[slot])
    # Events that come in the order of time are never apart from those before them.
    suspect = np.isin(group, group[backwards])
    if not suspect.any():
        return group[:0]
    group, time, follows, slot, held = group[suspect], time[suspect], follows[suspect], slot[suspect], held[suspect]
    high, low = time.copy(), time.copy()
    high[1:] = np.where(follows[1:], _running_max(time, group)[:-1], time[1:])
    low[1:] = np.where(follows[1:], -_running_max(-time, group)[:-1], time[1:])
    last, start = slots.column(LAST)[slot].astype(np.int64), slots.start[slot]
    high = np.where(held, np.where(follows, np.maximum(high, last), last), high)
    low = np.where(held, np.where(follows, np.minimum(low, start), start), low)
    apart: _Numbers = group[(time - high >= gap_ms) | (low - time >= gap_ms)]
    return apart


def _by_owner(which: _Numbers, owners: _Numbers, distinct: _Numbers) -> list[tuple[int, list[int]]]:
    order = which[np.argsort(owners[which], kind="stable")]
    edges = np.flatnonzero(np.diff(owners[order], prepend=-1))
    return [(int(distinct[owners[part[0]]]), part.tolist()) for part in np.split(order, edges[1:]) if len(part)]
