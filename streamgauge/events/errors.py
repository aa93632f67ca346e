"""The root of every error that a user meets."""

from __future__ import annotations

__all__ = ["StreamgaugeError"]


class StreamgaugeError(Exception):
    """Something is wrong that the user can mend.

    Parameters
    ----------
    what
        What was wrong, in one sentence.
    where
        The place: file and line, field, shard, position, address.
    remedy
        What to do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.remedy}" if self.remedy else text
