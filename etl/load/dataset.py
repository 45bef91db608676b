"""The dataset: commits to it, reads from it; ``state`` says what it holds.

Owns the order in which things become visible: calls, evals and errors are durable before the execution rows that vouch for
them. A crash between the two only means that those executions are fetched again.
"""

from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import pandas as pd
import pyarrow as pa

from etl.errors import DestinationError, FileMissingError
from etl.load.files.open import Files
from etl.load.layout import Partition, parse_partition_path, partition_path, run_path
from etl.load.merge import Merged, is_of, merge
from etl.load.parquet import UnreadableError, encode, open_part
from etl.model import schema
from etl.transform.frames import to_arrow

T = TypeVar("T")
Steps = Generator[Callable[[], None], None, T]
"""Work that yields what takes long: writing, and computing where there is much. To be called, in a thread, before it goes on."""

_LARGE_BYTES = 1 << 20
"""To read, merge and encode a file of this size takes a tenth of a second."""


@dataclass(slots=True)
class Written:
    """What a run changed; ``largest_rows`` is how many rows the largest of the files has."""

    rows: dict[str, int] = field(default_factory=dict)
    files: int = 0
    largest_rows: int = 0
    size_bytes: int = 0


class Dataset:
    """The Parquet files of one dataset."""

    def __init__(self, files: Files, *, compression: str = "zstd") -> None:
        self.files = files
        self._compression = compression
        self._outdated: set[str] = set()

    def commit_rows(
        self,
        table: schema.Table,
        partition: Partition,
        rows: pa.Table,
        *,
        replaced: Collection[str],
        written: Written,
        kept_calls: Collection[str] = (),
        kept_executions: Collection[str] = (),
        heads: Collection[str] = (),
        verified: Collection[str] = (),
    ) -> Steps[pa.Table]:
        """Replace the partition's rows of the executions by those of ``rows``, durably; returns the partition as it then is.

        Old rows of ``kept_calls``, and of all calls of ``kept_executions``, stay where there are no new ones. ``heads`` and
        ``verified``: see ``merge``.

        Raises:
            DestinationError: it could not be written; the old file is untouched, or in the quarantine when it is damaged.
        """
        path = partition_path(table.name, partition)
        results: list[tuple[Merged, memoryview | None]] = []

        def compute() -> None:
            old = self.rows(table, partition)
            kept = {*kept_calls, *calls_of(old, kept_executions)} if kept_executions else kept_calls
            new = rows.filter(is_of(rows, replaced))
            merged = merge(table, old, new, replaced=replaced, kept_calls=kept, heads=heads, verified=verified)
            results.append((merged, encode(table, merged.table, self._compression) if merged.is_changed else None))

        if self.files.size_bytes(path) >= _LARGE_BYTES:
            yield compute
        else:
            compute()
        [(merged, data)] = results
        if data is not None:
            yield partial(self._publish, path, data, len(merged.table), written)
            written.rows[table.name] = written.rows.get(table.name, 0) + merged.arrived
        return merged.table

    def rows(self, table: schema.Table, partition: Partition) -> pa.Table:
        """All rows of the partition, with exactly the declared columns; none when there is no file.

        Raises:
            DestinationError: the file is damaged (it is moved to the quarantine) or was written by a newer version.
        """
        path = partition_path(table.name, partition)
        try:
            return self.read(table, path, table.names)
        except FileMissingError:
            return table.no_rows
        except UnreadableError as exc:
            # Its other executions are not at hand: the next run misses their rows and fetches them again.
            aside = self.files.set_aside(path)
            raise DestinationError(f"{exc}; moved to {aside}: run again to fetch what it held") from exc

    def read(self, table: schema.Table, path: str, names: Sequence[str]) -> pa.Table:
        """Columns of one file, null where an older version of the exporter did not have one yet; ``complete`` then adds them.

        Raises:
            FileMissingError: there is no such file.
            UnreadableError: it is damaged, as far as these columns tell.
            DestinationError: it may not be read, or was written by a newer version.
        """
        part = open_part(self.files, table, path)
        rows = part.read(names)
        if part.is_outdated:
            self._outdated.add(path)
        return rows

    def write(self, table: schema.Table, partition: Partition, rows: pa.Table, written: Written) -> None:
        """Make these the rows of the partition, durably.

        Raises:
            DestinationError: it could not be written; the old file is untouched.
        """
        self._publish(partition_path(table.name, partition), encode(table, rows, self._compression), len(rows), written)

    def remove(self, table: schema.Table, partition: Partition) -> None:
        """Remove the partition's file, if there is one.

        Raises:
            DestinationError: it could not be removed.
        """
        path = partition_path(table.name, partition)
        if self.files.has(path):
            self.files.remove(path)

    def complete(self, written: Written) -> int:
        """Rewrite the partitions that were read with missing columns or older types; returns how many.

        What an older version did not export is null in them until it is fetched again. A damaged file stays as it is: a run that
        needs its rows reports it.

        Raises:
            DestinationError: one could not be written; the next run completes it.
        """
        completed = 0
        for path in sorted(self._outdated):
            if parsed := parse_partition_path(path):
                table = schema.TABLES[parsed[0]]
                with suppress(UnreadableError):
                    self.write(table, parsed[1], self.read(table, path, table.names), written)
                    completed += 1
        self._outdated.clear()
        return completed

    def record_run(self, date: str, export_run_id: str, frame: pd.DataFrame) -> None:
        """Add the row of one export run."""
        rows = to_arrow(frame, schema.RUNS_TABLE)
        self.files.publish(run_path(date, export_run_id), encode(schema.RUNS_TABLE, rows, self._compression))

    def _publish(self, path: str, data: memoryview, rows: int, written: Written) -> None:
        self.files.publish(path, data)
        written.files += 1
        written.largest_rows = max(written.largest_rows, rows)
        written.size_bytes += len(data)


def calls_of(rows: pa.Table, executions: Collection[str]) -> set[str]:
    """The ids of the executions' calls."""
    ids = zip(rows["execution_id"].to_pylist(), rows["call_execution_id"].to_pylist(), strict=True)
    return {call_execution_id for execution_id, call_execution_id in ids if execution_id in executions}
