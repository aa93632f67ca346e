"""The archive's tables, for reading with pyarrow: delivery's Parquet and the processors' JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TypeVar

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds

from streamgauge.events.catalogue import Catalogue
from streamgauge.processors.commit.archive_rows import COMMITS, CommitRow, decode_rows
from streamgauge.sinks.archive.columns import PARTITION_COLUMNS, raw_tables
from streamgauge.sinks.archive.files import ArchiveFiles
from streamgauge.sinks.archive.layout import DELIVERY_PREFIX, parse_name, table_prefix
from streamgauge.sinks.archive.ranges import DeliveredRange, decode_range

__all__ = ["ArchiveTables"]

Row = TypeVar("Row", bound=msgspec.Struct)


class ArchiveTables:
    """Reads the tables of one archive. Names of objects are listed when they are first asked for, once.

    Parameters
    ----------
    catalogue
        The event types, each a table; those without a row are empty.
    """

    def __init__(self, files: ArchiveFiles, catalogue: Catalogue) -> None:
        self.files = files
        self.schemas = raw_tables(catalogue)
        self._names: dict[str, list[str]] = {}

    def names(self, table: str) -> list[str]:
        """The names of a table's objects, sorted."""
        if table not in self._names:
            self._names[table] = self.files.names(table_prefix(table))
        return self._names[table]

    def dataset(self, table: str, *, leaving_out: frozenset[str] = frozenset(), empty: bool = False) -> ds.Dataset:
        """A table of delivered rows with its partition columns; of older objects' missing columns every value is null.

        Parameters
        ----------
        leaving_out
            Names of objects that are not read.
        empty
            Only the columns: nothing is listed.
        """
        schema = pa.schema([*self.schemas[table], *PARTITION_COLUMNS])
        chosen: list[str] = []
        partitions: list[ds.Expression] = []
        for name in [] if empty else self.names(table):
            partition = parse_name(name)
            if partition is None or name in leaving_out:
                continue
            chosen.append(name)
            partitions.append((ds.field("dt") == partition.dt) & (ds.field("hour") == partition.hour))
        return ds.FileSystemDataset.from_paths(
            chosen,
            schema=schema,
            format=ds.ParquetFileFormat(),
            filesystem=self.files.filesystem,
            partitions=partitions,
        )

    def written(self, table: str, row_type: type[Row], names: Sequence[str] | None = None) -> Iterator[tuple[str, Row]]:
        """The rows of a table of JSON Lines, each with its object's name, in order of the names.

        Parameters
        ----------
        names
            Of the objects to read; all by default.
        """
        chosen = self.names(table) if names is None else names

        def read(name: str) -> list[tuple[str, Row]]:
            return [(name, row) for row in decode_rows(self.files.read(name), row_type)]

        for rows in self.files.each(chosen, read):
            yield from rows

    @cached_property
    def commits(self) -> list[CommitRow]:
        """Every commit in the archive."""
        return [row for _, row in self.written(COMMITS, CommitRow)]

    @cached_property
    def ranges(self) -> list[DeliveredRange]:
        """Every range that delivery wrote down, by shard and number."""
        return list(
            self.files.each(self.files.names(DELIVERY_PREFIX), lambda name: decode_range(self.files.read(name)))
        )
