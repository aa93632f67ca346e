"""How much of an invocation's time is left. Lambda kills a function that takes longer, and nobody hears its answer."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["TimeLeft"]

_RESERVE_S = 2.0
# Of the whole time of an invocation, so that one slow commit does not leave the next invocations none to work in.
_RESERVE_SHARE_MAX = 0.4
_ANSWER_SHARE = 0.1


class TimeLeft:
    """The time of the invocation at hand; one for a sandbox, which does one thing at a time.

    Parameters
    ----------
    clock
        Seconds that only rise.
    sleep
        Waits so many seconds.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self.clock = clock
        self._sleep = sleep
        self._until = clock()
        self._total_s = 0.0
        self._slowest_commit_s = 0.0

    def begin(self, left_s: float, *, total_s: float | None = None) -> None:
        """An invocation has begun, and is killed in `left_s` seconds; before its cold start it had `total_s`."""
        self._total_s = left_s if total_s is None else total_s
        self._until = self.clock() + left_s

    @property
    def left_s(self) -> float:
        """Seconds until the invocation is killed."""
        return self._until - self.clock()

    @property
    def is_short(self) -> bool:
        """Whether only enough is left to commit and to answer."""
        return self.left_s <= self._reserve_s

    @property
    def is_over(self) -> bool:
        """Whether only enough is left to answer."""
        return self.left_s <= self._total_s * _ANSWER_SHARE

    def note_commit(self, seconds: float) -> None:
        """A commit took so long: the next one may as well."""
        self._slowest_commit_s = max(seconds, self._slowest_commit_s)

    def wait(self, seconds: float) -> bool:
        """Wait, if time is not short afterwards; whether it was waited."""
        if self.left_s - seconds <= self._reserve_s:
            return False
        self._sleep(seconds)
        return True

    @property
    def _reserve_s(self) -> float:
        return min(max(_RESERVE_S, 2 * self._slowest_commit_s), self._total_s * _RESERVE_SHARE_MAX)
