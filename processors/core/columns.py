"""Typed access to a snapshot's columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.container import Columns, SnapshotError

__all__ = ["integers", "texts"]


def integers(columns: Columns, name: str) -> NDArray[np.int64]:
    """The int64 column called `name`.

    Raises
    ------
    SnapshotError
        There is none, or it is of another kind.
    """
    column = columns.get(name)
    if not isinstance(column, np.ndarray) or column.dtype != np.int64:
        raise SnapshotError(f"the column {name!r} of integers is missing", where="snapshot")
    return column.astype(np.int64, copy=False)


def texts(columns: Columns, name: str) -> list[str]:
    """The column of strings called `name`.

    Raises
    ------
    SnapshotError
        There is none, or it is of another kind.
    """
    column = columns.get(name)
    if not isinstance(column, list):
        raise SnapshotError(f"the column {name!r} of strings is missing", where="snapshot")
    strings = [text for text in column if isinstance(text, str)]
    if len(strings) < len(column):
        raise SnapshotError(f"the column {name!r} holds bytes, not strings", where="snapshot")
    return strings
