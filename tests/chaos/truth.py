"""What must have come out, by DuckDB over what was put: nothing here uses the project's own reading or counting."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from chaos.load import WINDOW_MS, reading

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

__all__ = ["Pane", "Truth"]

Pane = tuple[str, str, int, int, int]
"""Key, start of the window, and the three measures."""

_PANES = f"""
    SELECT key, strftime(make_timestamp(time_ms // {WINDOW_MS} * {WINDOW_MS} * 1000), '%Y-%m-%dT%H:%M:%S.000Z'),
           count(*), sum(value)::BIGINT, max(value)
    FROM events WHERE n IN (SELECT n FROM acknowledged UNION SELECT n FROM archived)
    GROUP BY ALL ORDER BY ALL
"""


class Truth:
    """The events put so far, which of them were acknowledged, and which the archive's Parquet files hold.

    An event whose producer was killed before it heard of it may have landed or not: if the archive has it, it counts.
    """

    def __init__(self, seed: int, journal: Path, folder: Path) -> None:
        self._seed = seed
        self._journal = journal
        self._folder = folder

    def of_journal(self) -> tuple[set[int], set[int]]:
        """Numbers of the events that were put, and of those that were acknowledged."""
        put: set[int] = set()
        acknowledged: set[int] = set()
        lines = self._journal.read_text().splitlines() if self._journal.exists() else []
        for line in lines:
            what, _, n = line.partition(" ")
            assert what in ("P", "A"), f"an event was given up: {line}"
            (put if what == "P" else acknowledged).add(int(n))
        return put, acknowledged

    def copy_archive(self, s3: S3Client, bucket: str) -> None:
        """Fetch the files that are not here yet."""
        self._folder.mkdir(exist_ok=True)
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="type=reading/"):
            for found in page.get("Contents", []):
                path = self._folder / found["Key"].replace("/", "~")
                if not path.exists():
                    path.write_bytes(s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read())

    def panes(self) -> list[Pane]:
        """Every window of every key, in order.

        Raises
        ------
        AssertionError
            The archive lacks an acknowledged event, or holds one that was never put.
        """
        put, acknowledged = self.of_journal()
        events = [reading(self._seed, n) for n in sorted(put)]
        with duckdb.connect() as base:
            base.register("events", _table(events, ("n", "key", "time_ms", "value")))
            base.register("acknowledged", pa.table({"n": pa.array(sorted(acknowledged), pa.int64())}))
            files = str(self._folder / "*.parquet")
            base.execute("CREATE TABLE archived AS SELECT DISTINCT data.n AS n FROM read_parquet(?)", [files])
            lost = base.execute("SELECT n FROM acknowledged EXCEPT SELECT n FROM archived").fetchall()
            invented = base.execute("SELECT n FROM archived EXCEPT SELECT n FROM events").fetchall()
            assert (lost, invented) == ([], []), "acknowledged and not archived; archived and never put"
            return base.execute(_PANES).fetchall()


def _table(rows: list[object], names: tuple[str, ...]) -> pa.Table:
    return pa.table({name: [getattr(row, name) for row in rows] for name in names})
