"""The text of an expression: read into a tree, and shown where something in it is wrong."""

from __future__ import annotations

import ast
import warnings

from streamgauge.events.errors import StreamgaugeError

__all__ = ["ExpressionError", "Source"]

# Bounds the recursion of the parser.
_MAX_CHARACTERS = 4_000
# Characters of an expression that an error shows.
_SHOWN = 100


class ExpressionError(StreamgaugeError):
    """An expression that is not in the grammar, or that names or compares what does not exist or fit.

    Its text ends in two lines: the expression, and marks below what is wrong in it.

    Parameters
    ----------
    what, where, remedy
        As of every error.
    marked
        Those two lines, if there is a place to mark.
    """

    def __init__(self, what: str, *, where: str, remedy: str | None = None, marked: str | None = None) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.marked = marked

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n{self.marked}" if self.marked else text


class Source:
    """An expression as it was written.

    Parameters
    ----------
    text
        The expression.
    where
        File, line and key, for errors.
    """

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        # ast counts columns from the text without its leading blanks, which it would take for an indentation.
        self._source = text.lstrip()
        self._shift = len(text) - len(self._source)

    def parse(self) -> ast.expr:
        """The expression's tree.

        Raises
        ------
        ExpressionError
            It is no expression of Python's grammar, empty, or too long.
        """
        if len(self._text) > _MAX_CHARACTERS:
            raise self.error(None, f"longer than {_MAX_CHARACTERS} characters")
        if not self._source:
            raise self.error(None, "empty")
        try:
            with warnings.catch_warnings():
                # A doubtful escape is a mistake in a pipeline file, not a warning on somebody's screen.
                warnings.simplefilter("error")
                return ast.parse(self._source, mode="eval").body
        except SyntaxError as error:
            raise self._syntax_error(error) from error
        except (ValueError, MemoryError, RecursionError) as error:
            raise self.error(None, f"not an expression: {error}") from error

    def error(self, node: ast.expr | None, what: str, remedy: str | None = None) -> ExpressionError:
        """An error at a part of the expression, or about it as a whole."""
        if node is None:
            return ExpressionError(what, where=self._where, remedy=remedy)
        line = self._source.splitlines()[node.lineno - 1].encode()
        first = len(line[: node.col_offset].decode())
        # What goes on below its first line is marked to that line's end.
        last = len(line[: node.end_col_offset if node.end_lineno == node.lineno else None].decode())
        return self._marked(what, remedy, node.lineno, first, last)

    def _syntax_error(self, error: SyntaxError) -> ExpressionError:
        what = f"not an expression: {error.msg}"
        if not error.lineno or not error.offset:
            return self.error(None, what)
        ends_here = error.end_lineno == error.lineno and error.end_offset
        last = error.end_offset if ends_here and error.end_offset else error.offset
        return self._marked(what, None, error.lineno, error.offset - 1, last - 1)

    def _marked(self, what: str, remedy: str | None, line: int, first: int, last: int) -> ExpressionError:
        """An error at the characters from `first` to before `last` of a line."""
        shift = self._shift if line == 1 else 0
        lines = self._source.splitlines()
        shown = lines[line - 1] if line <= len(lines) else ""
        # Of a long line what is around the place.
        start = max(0, first - _SHOWN // 2)
        part = shown[start : start + _SHOWN]
        marks = "^" * max(1, min(last, start + len(part)) - first)
        return ExpressionError(
            what,
            where=f"{self._where}, column {first + shift + 1}",
            remedy=remedy,
            marked=f"    {part.expandtabs(1)}\n    {' ' * (first - start)}{marks}",
        )
