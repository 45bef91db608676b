"""The one reader and the one writer of the dataset's Parquet files; no other module knows the format.

A file is read whole, with the checksums of its pages, or its footer alone. If something is wrong with it, it is either
damaged (UnreadableError), or this version of the exporter cannot use it (another DestinationError). Never moves or
repairs a file.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import DestinationError, ForeignFileError, SchemaError
from etl.files.interface import MOST_BYTES, Files
from etl.model import schema

_BYTES_PER_VALUE = 16
"""What a value takes in memory at least: once decoded, and once more while it is cast."""


class UnreadableError(DestinationError):
    """A file is damaged, or no Parquet file of ours; ``reason`` says how, in one line."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where} cannot be read: {reason}")
        self.reason = reason


class OpenPart:
    """One file of a table, read whole into memory. Its columns are decoded when they are asked for.

    Raises:
        FileMissingError: there is no such file.
        UnreadableError: the file is damaged.
        DestinationError: the file may not be read.
    """

    def __init__(self, files: Files, table: schema.Table, path: str) -> None:
        self._table = table
        self._where = files.where(path)
        try:
            self._data = files.read(path)
        except ForeignFileError as exc:
            raise UnreadableError(self._where, "it was not written by metrics-etl, or is too large") from exc
        with _readable(self._where):
            self._file = _opened(pa.BufferReader(self._data), self._where, len(self._data))
            self.rows: int = self._file.metadata.num_rows
            self.size_bytes = len(self._data)
            self._stored = {*self._file.schema_arrow.names}
            # Columns that this version does not know: a newer one has written the file.
            self.unknown = sorted(self._stored.difference(table.names))

    @property
    def is_outdated(self) -> bool:
        """Whether the file has other columns or types than this version writes."""
        return not self._file.schema_arrow.equals(self._table.arrow_schema)

    @property
    def sha256(self) -> str:
        """The hash of the file's bytes, hexadecimal."""
        return sha256(self._data).hexdigest()

    def read(self, names: Sequence[str], *, may_be_newer: bool = False) -> pa.Table:
        """These columns with their declared types; a column that an older version of the exporter did not have is null.

        A file of a newer version is refused, since its values may mean something else, unless it ``may_be_newer``.

        Raises:
            UnreadableError: these columns are damaged.
            DestinationError: a newer version wrote the file, or a type cannot be converted.
        """
        if self.unknown and not may_be_newer:
            raise DestinationError(
                f"{self._where} has unknown columns: {', '.join(self.unknown)}. "
                "Upgrade metrics-etl if a newer version wrote the file; otherwise, move the file out of the dataset"
            )
        with _readable(self._where):
            # In this thread: giving a few small columns to others costs more than reading them, and a thread that still
            # holds the file's bytes when the process ends makes it die of SIGABRT.
            rows = self._file.read(columns=[name for name in names if name in self._stored], use_threads=False)
        return self._declared(rows, names)

    def read_thoroughly(self) -> pa.Table:
        """All columns as ``read`` gives them, but also checks that each value is one of its type.

        Errors as for ``read``.
        """
        with _readable(self._where):
            rows = self._file.read(use_threads=False)
            rows.validate(full=True)
        return self._declared(rows, self._table.names)

    def _declared(self, rows: pa.Table, names: Sequence[str]) -> pa.Table:
        """The columns of these names, cast to their declared types; null if the file does not have one."""
        declared = self._table.arrow_schema
        absent = pa.nulls(len(rows))
        columns = {name: rows[name] if name in self._stored else absent for name in names}
        try:
            return pa.table(columns, pa.schema([declared.field(name) for name in names], declared.metadata))
        except pa.ArrowException as exc:
            reason = _first_line(exc)
            raise DestinationError(f"{self._where} has column types that cannot be converted: {reason}") from exc


def read_size(files: Files, path: str) -> tuple[int, int]:
    """How many rows and bytes the file has, by its footer alone. Errors as for ``OpenPart``."""
    where = files.where(path)
    with files.open(path) as file, _readable(where):
        size_bytes = file.seek(0, 2)
        return _opened(file, where, size_bytes).metadata.num_rows, size_bytes


def encode(table: schema.Table, rows: pa.Table, compression: str) -> memoryview:
    """The rows as one Parquet file, opened again to check that it has as many rows and exactly the declared schema.

    Raises:
        SchemaError: the rows do not have the declared schema, or a key is null.
        DestinationError: the file is so large that this version would refuse to read it.
    """
    try:
        data = pack(rows, compression)
    except pa.ArrowInvalid as exc:
        raise SchemaError(f"{table.name}: {_first_line(exc)}") from exc
    file = pq.ParquetFile(pa.BufferReader(data))
    if file.metadata.num_rows != len(rows) or not file.schema_arrow.equals(table.arrow_schema, check_metadata=True):
        raise SchemaError(
            f"the new file of {table.name} does not match its rows or schema. This is a bug. Please report it"
        )
    if fault := _excess(file.metadata, len(data)):
        raise DestinationError(f"the new file of {table.name} {fault}. Please report this")
    return data


def pack(rows: pa.Table, compression: str) -> memoryview:
    """Rows of any schema as one Parquet file, with checksums of its pages."""
    sink = pa.BufferOutputStream()
    # A page ends after 128 rows: one with 1,024 long texts takes 20 MB, and as much again while it is compressed.
    pq.write_table(rows, sink, compression=compression, write_page_checksum=True, write_batch_size=128)
    return memoryview(sink.getvalue())


def unpack(where: str, data: bytes) -> pa.Table:
    """All rows of a file that ``pack`` made; UnreadableError if it is damaged. ``where`` names it in the message."""
    with _readable(where):
        return _opened(pa.BufferReader(data), where, len(data)).read(use_threads=False)


def _opened(source: pa.BufferReader | BinaryIO, where: str, size_bytes: int) -> pq.ParquetFile:
    """The opened file; UnreadableError if its footer, which has no checksum, promises more than a file may take."""
    file = pq.ParquetFile(source, page_checksum_verification=True)
    if fault := _excess(file.metadata, size_bytes):
        raise UnreadableError(where, f"it {fault}")
    return file


def _excess(footer: pq.FileMetaData, size_bytes: int) -> str | None:
    """Which bound a file exceeds, in words; None if it keeps both.

    Decoded, it takes at most ``MOST_BYTES`` of memory. It has no more rows than bytes, since each row has a key.
    """
    unpacked = sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
    unpacked += footer.num_rows * footer.num_columns * _BYTES_PER_VALUE
    if unpacked > MOST_BYTES:
        return f"takes {unpacked / 2**30:,.1f} GiB of memory, but at most {MOST_BYTES / 2**30:g} GiB are allowed"
    return f"has {footer.num_rows:,} rows in only {size_bytes:,} bytes" if footer.num_rows > size_bytes else None


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Turn what the decoder raises into an UnreadableError that names the file; lack of memory is no damage."""
    try:
        yield
    except MemoryError as exc:
        raise DestinationError(f"there is not enough memory to read {where}. Try again with more memory") from exc
    except (pa.ArrowException, OSError, UnicodeDecodeError) as exc:
        raise UnreadableError(where, _first_line(exc)) from exc


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0].rstrip(".")
