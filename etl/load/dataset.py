"""The dataset: reads and writes the rows of one partition, and knows what this run has written.

Never decides which partitions are written, nor in which order: see ``commit`` and ``relocate``.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import DestinationError, SchemaError
from etl.load.files.local import LocalFiles
from etl.load.layout import Partition, parse_partition_path, partition_path, run_path
from etl.load.merge import Replacement, merge, row_hashes
from etl.model import schema
from etl.model.digest import rows_digest
from etl.model.lifecycle import HeldRows
from etl.transform.flatten import to_arrow

_DICTIONARY = {
    "execution_id", "run_test_name", "status", "scenario_id", "scenario_name", "eval_config_id", "eval_name", "output_type",
    "output_text", "output_json", "export_state", "export_run_id", "exported_at", "execution_started_at", "endpoint",
}  # fmt: skip


@dataclass(slots=True)
class Written:
    """What a run has written; ``largest_rows`` is the number of rows of the largest file."""

    rows: dict[str, int] = field(default_factory=dict)
    files: int = 0
    largest_rows: int = 0
    size_bytes: int = 0


class UnreadableError(DestinationError):
    """A Parquet file is damaged."""


class Dataset:
    """The Parquet files of one dataset; ``written`` grows with each file that is written through this object."""

    def __init__(self, files: LocalFiles, *, compression: str = "zstd") -> None:
        self.files = files
        self.written = Written()
        self._compression = compression
        self._outdated: set[str] = set()

    def commit_rows(
        self, table: schema.Table, partition: Partition, rows: pa.Table, replacement: Replacement
    ) -> pa.Table:
        """Merge the rows into the partition, durably (see ``merge``); returns the partition's rows after that.

        Raises:
            DestinationError: the file could not be written, and is unchanged; or it is damaged, and was moved to the quarantine.
        """
        merged = merge(table, self.rows(table, partition), rows, replacement)
        if merged.is_changed:
            self.write(table, partition, merged.table)
            self.written.rows[table.name] = self.written.rows.get(table.name, 0) + merged.arrived
        return merged.table

    def rows(self, table: schema.Table, partition: Partition) -> pa.Table:
        """All rows of the partition, with exactly the declared columns; none when there is no file.

        Raises:
            DestinationError: the file is damaged (it is moved to the quarantine) or was written by a newer version.
        """
        path = partition_path(table.name, partition)
        if not self.files.has(path):
            return table.no_rows
        try:
            return self.read(table, path, table.names)
        except UnreadableError as exc:
            # Its other executions are not at hand: the next run misses their rows and fetches them again.
            aside = self.files.set_aside(path)
            raise DestinationError(f"{exc}; moved to {aside}: run again to fetch what it held") from exc

    def read(self, table: schema.Table, path: str, names: Sequence[str]) -> pa.Table:
        """The columns of one file, null where an older version of the exporter did not have one yet.

        Raises:
            UnreadableError: the file is damaged, as far as these columns tell.
            DestinationError: it is not there, may not be read, or was written by a newer version.
        """
        where = self.files.root / path
        try:
            file = pq.ParquetFile(pa.BufferReader(self.files.read(path)), page_checksum_verification=True)
            its_schema = file.schema_arrow
            found = set(its_schema.names)
            if unknown := found - set(table.names):
                raise DestinationError(
                    f"{where}: unknown columns {sorted(unknown)}: written by a newer version; upgrade the exporter"
                )
            # In this thread: handing a few small columns to others costs more than reading them.
            rows = file.read(columns=[name for name in names if name in found], use_threads=False)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as exc:
            raise UnreadableError(f"{where}: not readable as Parquet: {_first_line(exc)}") from exc
        declared = _declared(table.name, tuple(names))
        try:
            arrays = [_typed(rows, field) for field in declared]
        except pa.ArrowException as exc:
            raise DestinationError(
                f"{where}: its columns have other types than this version's: {_first_line(exc)}"
            ) from exc
        if not its_schema.equals(table.arrow_schema):
            self._outdated.add(path)
        return pa.Table.from_arrays(arrays, schema=declared)

    def write(self, table: schema.Table, partition: Partition, rows: pa.Table) -> None:
        """Make these the rows of the partition, durably.

        Raises:
            DestinationError: the file could not be written; the old one is unchanged.
        """
        data = encode(table, rows, self._compression)
        self.files.publish(partition_path(table.name, partition), data)
        self.written.files += 1
        self.written.largest_rows = max(self.written.largest_rows, len(rows))
        self.written.size_bytes += len(data)

    def remove(self, table: schema.Table, partition: Partition) -> None:
        """Remove the partition's file, if there is one.

        Raises:
            DestinationError: it could not be removed.
        """
        path = partition_path(table.name, partition)
        if self.files.has(path):
            self.files.remove(path)

    def complete(self) -> int:
        """Rewrite the files that an older version wrote, and that were read since, with this version's columns; returns how many.

        Columns that the older version did not export are null until their executions are fetched again. A damaged file stays
        where it is, until its rows are needed.

        Raises:
            DestinationError: one could not be written; the next run completes it.
        """
        completed = 0
        for path in sorted(self._outdated):
            if parsed := parse_partition_path(path):
                table = schema.TABLES[parsed[0]]
                with suppress(UnreadableError):
                    self.write(table, parsed[1], self.read(table, path, table.names))
                    completed += 1
        self._outdated.clear()
        return completed

    def record_run(self, date: str, export_run_id: str, frame: pd.DataFrame) -> None:
        """Add the row of one export run."""
        rows = to_arrow(frame, schema.RUNS_TABLE)
        self.files.publish(run_path(date, export_run_id), encode(schema.RUNS_TABLE, rows, self._compression))


@cache
def _declared(table_name: str, names: tuple[str, ...]) -> pa.Schema:
    table = schema.TABLES[table_name]
    return pa.schema([table.arrow_schema.field(name) for name in names], table.arrow_schema.metadata)


def _typed(rows: pa.Table, declared: pa.Field) -> pa.ChunkedArray | pa.Array:
    if declared.name not in rows.column_names:
        return pa.nulls(len(rows), declared.type)
    column = rows[declared.name]
    return column if column.type == declared.type else column.cast(declared.type)


def encode(table: schema.Table, rows: pa.Table, compression: str) -> memoryview:
    """The rows as one Parquet file, opened again and found to have as many rows and exactly the declared schema.

    Raises:
        SchemaError: it has not, or a key is null.
    """
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(
            rows,
            sink,
            compression=compression,
            compression_level=1 if compression == "zstd" else None,
            use_dictionary=[name for name in table.names if name in _DICTIONARY],
            write_page_checksum=True,
        )
    except pa.ArrowInvalid as exc:
        raise SchemaError(f"{table.name}: {_first_line(exc)}") from exc
    data = sink.getvalue()
    written = pq.ParquetFile(pa.BufferReader(data))
    if written.metadata.num_rows != len(rows) or not written.schema_arrow.equals(
        table.arrow_schema, check_metadata=True
    ):
        raise SchemaError(f"{table.name}: an encoded file does not hold the rows that it was given")
    return memoryview(data)


def held_rows(listed_calls: Mapping[str, int], calls: pa.Table, evals: pa.Table) -> dict[str, HeldRows]:
    """What the two partitions hold of the executions, each given with its number of listed calls."""
    call_hashes, eval_hashes = row_hashes(calls, listed_calls), row_hashes(evals, listed_calls)
    return {
        execution_id: holds(count, call_hashes[execution_id], eval_hashes[execution_id])
        for execution_id, count in listed_calls.items()
    }


def holds(listed_calls: int | None, calls: Sequence[str | None], evals: Sequence[str | None]) -> HeldRows:
    """What the row hashes of its calls and evals say that the dataset holds of an execution."""
    # A row of a file that was written before there were row hashes has none: its execution counts as damaged.
    digest = rows_digest(row_hash or "" for row_hash in chain(calls, evals))
    return HeldRows(listed_calls=listed_calls, exported_calls=len(calls), calls_digest=digest)


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
