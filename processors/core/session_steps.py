"""Sessions event by event: what an event makes of its key's sessions.

This is what sessions mean; `sessions` computes the same on whole columns where nothing but growth happens. An event
belongs to the session whose window it lies in. Otherwise it is the new first event of the session that begins less than
a gap after it, and otherwise begins one of its own. Sessions that now follow each other by less than a gap are one. No
session takes in an event `max_length` or more after its first one, or before its last one: sessions that would, joined,
be longer stay apart, and the earlier one's window ends where the later one begins.

Sessions whose last event is so old that the watermark has reached it plus gap plus allowed lateness are gone, whether
or not their rows are still there. An event as old as that is late, unless it lies in the window of a session that is
still there: it must not begin a session, or be the first of one, where one that is gone may have been.
"""

from __future__ import annotations

from typing import NamedTuple

from streamgauge.processors.core.definition import SessionWindow

__all__ = ["Joined", "Session", "join"]


class Session(NamedTuple):
    """A session as it stands: its row, its first and last event, and the end of its window."""

    row: int
    start_ms: int
    last_ms: int
    end_ms: int


class Joined(NamedTuple):
    """The session that an event belongs to, as it then stands.

    ``rows`` are the sessions that have become one, first the one that goes on; none for a new session.
    """

    rows: tuple[int, ...]
    start_ms: int
    last_ms: int
    end_ms: int


def join(
    sessions: list[Session], time_ms: int, closed_to_ms: int, window: SessionWindow, lateness_ms: int
) -> Joined | None:
    """What an event at `time_ms` makes of its key's sessions; None if it is late.

    Parameters
    ----------
    sessions
        In the order of time.
    closed_to_ms
        Up to where the key's windows have closed.
    """
    gap_ms, longest_ms = window.gap_ms, window.max_length_ms
    kept = [session for session in sessions if session.last_ms + gap_ms + lateness_ms > closed_to_ms]
    before = [session for session in kept if session.start_ms <= time_ms]
    after = kept[len(before) :]
    if before and time_ms < before[-1].end_ms:
        inside = before[-1]
        rows, start_ms, last_ms = [inside.row], inside.start_ms, max(inside.last_ms, time_ms)
    elif time_ms + gap_ms + lateness_ms <= closed_to_ms:
        return None
    elif after and after[0].start_ms - time_ms < gap_ms and after[0].last_ms - time_ms < longest_ms:
        joined = after.pop(0)
        rows, start_ms, last_ms = [joined.row], time_ms, joined.last_ms
    else:
        rows, start_ms, last_ms = [], time_ms, time_ms
    while after and rows and after[0].start_ms - last_ms < gap_ms and after[0].last_ms - start_ms < longest_ms:
        joined = after.pop(0)
        rows.append(joined.row)
        last_ms = joined.last_ms
    end_ms = min(last_ms + gap_ms, start_ms + longest_ms, *(session.start_ms for session in after[:1]))
    return Joined(tuple(rows), start_ms, last_ms, end_ms)
