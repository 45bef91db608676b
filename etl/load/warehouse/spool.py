"""Rows on their way to a warehouse that takes files: a Parquet file for each table, on disk, so that memory holds one piece."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import DestinationError


@dataclass(slots=True)
class Spooled:
    """A file with so many rows of a table."""

    table: str
    path: str
    schema: pa.Schema
    writer: pq.ParquetWriter
    rows: int = 0


class Spool:
    """Files in a folder of their own, which ``close`` removes.

    Raises:
        DestinationError: there is no place for one, as in a container whose own disk is read-only.
    """

    def __init__(self) -> None:
        try:
            self._folder = TemporaryDirectory(prefix="metrics-etl-", ignore_cleanup_errors=True)
        except OSError as exc:
            raise DestinationError(
                f"no temporary folder: {exc.strerror}: set TMPDIR to a folder that can be written"
            ) from exc
        self._files: dict[str, Spooled] = {}

    def add(self, table: str, rows: pa.Table) -> None:
        """Add rows to the file of the table.

        Raises:
            DestinationError: the disk takes no more.
        """
        with self._naming():
            file = self._files.get(table)
            if file is None:
                path = f"{self._folder.name}/{uuid4().hex}.parquet"
                file = self._files[table] = Spooled(
                    table, path, rows.schema, pq.ParquetWriter(path, rows.schema, compression="snappy")
                )
            file.writer.write_table(rows)
            file.rows += len(rows)

    def take(self) -> Iterator[Spooled]:
        """The files so far, whole, in the order of their first rows; from then on others are begun. Errors as for ``add``."""
        files, self._files = self._files, {}
        with self._naming():
            for file in files.values():
                file.writer.close()
        yield from files.values()

    def discard(self) -> None:
        """Forget the files so far."""
        with suppress(DestinationError):
            for _ in self.take():
                pass

    def close(self) -> None:
        """Remove what is left."""
        self.discard()
        self._folder.cleanup()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            text = f"{exc.strerror or exc}: a load stores rows there for a while; to use another folder, set TMPDIR"
            raise DestinationError(f"{self._folder.name}: {text}") from exc
