"""Rows on their way to a warehouse that takes files: a Parquet file for each table, on disk, so that memory holds one piece."""

from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(slots=True)
class Spooled:
    """A file with so many rows of a table."""

    table: str
    path: str
    schema: pa.Schema
    writer: pq.ParquetWriter
    rows: int = 0


class Spool:
    """Files in a folder of their own, which ``close`` removes."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="metrics-etl-")
        self._files: dict[str, Spooled] = {}

    def add(self, table: str, rows: pa.Table) -> None:
        """Add rows to the file of the table."""
        file = self._files.get(table)
        if file is None:
            path = f"{self._folder.name}/{uuid4().hex}.parquet"
            file = self._files[table] = Spooled(
                table, path, rows.schema, pq.ParquetWriter(path, rows.schema, compression="snappy")
            )
        file.writer.write_table(rows)
        file.rows += len(rows)

    def take(self) -> Iterator[Spooled]:
        """The files so far, whole, in the order of their first rows; from then on others are begun."""
        files, self._files = self._files, {}
        for file in files.values():
            file.writer.close()
        yield from files.values()

    def close(self) -> None:
        """Remove what is left."""
        for _ in self.take():
            pass
        self._folder.cleanup()
