"""What is JSON for us, whoever reads it: UTF-8, and nested no deeper than a fixed limit."""

from __future__ import annotations

import re

__all__ = ["MAX_NESTING", "json_fault"]

MAX_NESTING = 256
"""Deeper JSON is refused. The parser's own limit depends on how deep its caller's stack is: not the same everywhere."""

_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def json_fault(payload: bytes) -> str | None:
    """Why bytes are no JSON text for us whatever their syntax, or None: the syntax is left to the parser."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error.reason} at byte {error.start}"
    # Counting is cheap, and tells for nearly every payload that there is nothing to look at.
    if payload.count(b"{") + payload.count(b"[") > MAX_NESTING and _is_too_deep(payload):
        return f"nested deeper than {MAX_NESTING}"
    return None


def _is_too_deep(payload: bytes) -> bool:
    depth = 0
    for match in _STRUCTURE.finditer(payload):
        if match[0] in (b"{", b"["):
            depth += 1
            if depth > MAX_NESTING:
                return True
        elif match[0] in (b"}", b"]"):
            depth -= 1
    return False
