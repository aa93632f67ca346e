"""The panes of an aggregate, by the kind of its window."""

from __future__ import annotations

from streamgauge.processors.core.definition import Aggregate, HoppingWindow, SessionWindow
from streamgauge.processors.core.hopping import HoppingPanes
from streamgauge.processors.core.keys import KeyTable
from streamgauge.processors.core.panes import Panes
from streamgauge.processors.core.sessions import SessionPanes
from streamgauge.processors.core.slots import Slots
from streamgauge.processors.core.windows import FixedPanes

__all__ = ["new_panes"]


def new_panes(aggregate: Aggregate, keys: KeyTable, slots: Slots) -> Panes:
    """No panes yet."""
    window = aggregate.window
    if isinstance(window, HoppingWindow):
        return HoppingPanes(aggregate, keys, slots, window)
    if isinstance(window, SessionWindow):
        return SessionPanes(aggregate, keys, slots, window)
    return FixedPanes(aggregate, keys, slots, window)
