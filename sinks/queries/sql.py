"""SQL over the archive, with DuckDB. The statement sees the archive's tables and nothing else of the machine."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import NamedTuple

import duckdb
import pyarrow as pa

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.core.definition import Pipeline
from streamgauge.sinks.archive.layout import sql_names
from streamgauge.sinks.archive.tables import ArchiveTables
from streamgauge.sinks.queries.written import WRITTEN_TABLES, written_table

__all__ = ["QueryError", "QueryResult", "query"]

_LINE = re.compile(r"^LINE (\d+): (.*)\n( *)\^", re.MULTILINE)


class QueryError(StreamgaugeError):
    """SQL that DuckDB refuses: its message, with line and column where it names a place."""


class QueryResult(NamedTuple):
    """Columns by name, and rows of values: JSON's own, with times as RFC 3339 UTC text and bytes as base64."""

    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]

    def objects(self) -> list[dict[str, object]]:
        """The rows as objects."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def query(sql: str, tables: ArchiveTables, pipeline: Pipeline) -> QueryResult:
    """Run one statement.

    Each event type is a table named after it, with an underscore for every other character; beside them stand
    ``streamgauge_control``, ``_ledger``, ``_unarchivable``, ``_misrouted``, ``_panes``, ``_threshold_events``,
    ``_failed_events``, ``_late_events`` and ``_commits``. Tables without a row are there, and empty.

    Raises
    ------
    QueryError
        The statement is wrong, is more than one, or asks for what lies outside the archive.
    ArchiveUnavailable
        The archive cannot be read.
    """
    connection = _connect()
    try:
        _register(connection, sql, tables, pipeline)
        _check_reads(connection, sql)
        result = connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        raise _query_error(_with_place(connection, sql, error)) from error
    finally:
        connection.close()
    columns = [[_plain(value, column.type) for value in column.to_pylist()] for column in result.columns]
    return QueryResult(tuple(result.column_names), list(zip(*columns, strict=True)))


def _connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        config={
            "enable_external_access": "false",
            "python_enable_replacements": "false",
            "autoload_known_extensions": "false",
        }
    )
    # Days are days of UTC, wherever the machine stands.
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET lock_configuration = true")
    return connection


def _register(connection: duckdb.DuckDBPyConnection, sql: str, tables: ArchiveTables, pipeline: Pipeline) -> None:
    text = sql.lower()
    for name, table in sql_names([*tables.schemas, *WRITTEN_TABLES]).items():
        # A table that the text does not name cannot be asked for: it is there, and nothing of it is read.
        is_named = name in text
        if table in WRITTEN_TABLES:
            connection.register(name, written_table(tables, table, pipeline, empty=not is_named))
        else:
            connection.register(name, tables.dataset(table, empty=not is_named))


def _check_reads(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        what = f"the SQL holds {len(statements)} statements" if statements else "the SQL holds no statement"
        raise QueryError(what, remedy="Give one statement")
    if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise QueryError("the archive is only read", remedy="Give a SELECT, WITH, DESCRIBE, SHOW or EXPLAIN")


def _with_place(connection: duckdb.DuckDBPyConnection, sql: str, error: duckdb.Error) -> str:
    """The error's message with the line it is about, which DuckDB gives to a plain execution only."""
    if isinstance(error, duckdb.BinderException | duckdb.CatalogException):
        try:
            connection.execute(sql)
        except duckdb.Error as plain:
            return str(plain)
    return str(error)


def _query_error(message: str) -> QueryError:
    place = _LINE.search(message)
    if place is None:
        return QueryError(message)
    column = len(place[3]) - len(f"LINE {place[1]}: ") + 1
    return QueryError(message, where=f"line {place[1]}, column {column}")


def _plain(value: object, kind: pa.DataType) -> object:
    """A value of Arrow's as JSON has it."""
    if value is None:
        return None
    if isinstance(kind, pa.MapType):
        assert isinstance(value, list)
        return {str(_plain(key, kind.key_type)): _plain(item, kind.item_type) for key, item in value}
    if isinstance(kind, pa.StructType):
        assert isinstance(value, Mapping)
        return {field.name: _plain(value[field.name], field.type) for field in kind}
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        assert isinstance(value, list)
        return [_plain(item, kind.value_type) for item in value]
    return _scalar(value)


def _scalar(value: object) -> object:
    if isinstance(value, datetime):
        text = value.replace(tzinfo=None).isoformat(
            timespec="microseconds" if value.microsecond % 1000 else "milliseconds"
        )
        return f"{text}Z"
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        # A sum of integers is a decimal without places.
        return int(value) if value == value.to_integral_value() and value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if isinstance(value, str | int) else str(value)
