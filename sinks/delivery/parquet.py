"""Rows as Parquet files: SNAPPY, which Athena, Spark and DuckDB all read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["encode_parquet"]


def encode_parquet(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> bytes:
    """One whole file. Times are integers in milliseconds since the epoch; equal rows give equal bytes.

    Parameters
    ----------
    rows
        By column name; a column that a row lacks is null.
    """
    columns = [pa.array([row.get(field.name) for row in rows], type=field.type) for field in schema]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), sink, compression="snappy", store_schema=True)
    return sink.getvalue().to_pybytes()
