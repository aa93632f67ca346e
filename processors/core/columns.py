"""Typed reads of a snapshot's columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamgauge.processors.core.container import Columns, SnapshotError

__all__ = ["integers", "texts"]


def integers(columns: Columns, name: str) -> NDArray[np.int64]:
    """The int64 column of that name. Raises `SnapshotError` where there is none."""
    column = columns.get(name)
    if not isinstance(column, np.ndarray) or column.dtype != np.int64:
        raise SnapshotError(f"lacks the int64 column {name!r}", where="snapshot")
    return column.astype(np.int64, copy=False)


def texts(columns: Columns, name: str) -> list[str]:
    """The column of strings of that name. Raises `SnapshotError` where there is none."""
    column = columns.get(name)
    if not isinstance(column, list):
        raise SnapshotError(f"lacks the column of strings {name!r}", where="snapshot")
    return [text for text in column if isinstance(text, str)]
