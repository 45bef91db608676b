"""The dataset: its stored state, commits to it, reads from it.

Owns the order in which things become visible: calls, evals and errors are durable before the execution rows that vouch for
them. A crash between the two only means that those executions are fetched again.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from etl.crawl.plan import Stored
from etl.errors import DestinationError, SchemaError
from etl.store.files import LocalFiles
from etl.store.layout import Partition, parse_partition_path, partition_path, run_path
from etl.store.merge import is_of, merge, row_hashes
from etl.tables import schema
from etl.tables.digest import rows_digest
from etl.tables.flatten import HeldRows, to_arrow

_DICTIONARY = {
    "execution_id", "run_test_name", "status", "scenario_id", "scenario_name", "eval_config_id", "eval_name", "output_type",
    "output_text", "output_json", "export_state", "export_run_id", "exported_at", "execution_started_at", "endpoint",
}  # fmt: skip
_STATE_COLUMNS = {
    "executions": [
        "execution_id", "run_test_name", "export_state", "fingerprint", "calls_digest", "listed_calls", "verified_at",
        "exported_at", "deleted_at",
    ],
    "calls": ["execution_id", "row_hash"],
    "evals": ["execution_id", "row_hash"],
    "errors": ["execution_id"],
}  # fmt: skip


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class StoredState:
    """What the dataset holds, by the key of the run test: executions by id, and the files that could not be read.

    ``stray_dates`` tells where something lies of executions that have no row of their own (a run was killed between the two),
    ``orphans`` the same of their dead letters alone, ``elsewhere`` in which partition each execution lies whose run test was not
    asked for. ``surplus`` are executions of which a partition holds what belongs to another date of the same run test: files
    were restored there.
    """

    executions: dict[str, dict[str, Stored]] = field(default_factory=dict)
    stray_dates: dict[str, dict[str, str]] = field(default_factory=dict)
    orphans: dict[str, dict[str, str]] = field(default_factory=dict)
    elsewhere: dict[str, dict[str, str]] = field(default_factory=dict)
    surplus: dict[Partition, set[str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def dates(self) -> dict[str, dict[str, str]]:
        """The date of the partition of every execution of which something lies in the dataset, by key and execution_id."""
        known = {
            key: self.stray_dates[key] | {execution_id: stored.date for execution_id, stored in executions.items()}
            for key, executions in self.executions.items()
        }
        return self.elsewhere | known


@dataclass(slots=True)
class Written:
    """What a run changed; ``largest_rows`` is how many rows the largest of the files has."""

    rows: dict[str, int] = field(default_factory=dict)
    files: int = 0
    largest_rows: int = 0
    size_bytes: int = 0


class UnreadableError(DestinationError):
    """A Parquet file is damaged."""


class Dataset:
    """The Parquet files of one dataset."""

    def __init__(self, files: LocalFiles, *, compression: str = "zstd") -> None:
        self._files = files
        self._compression = compression
        self._outdated: set[str] = set()

    def load_state(self, run_test_keys: Iterable[str], *, set_aside: bool) -> StoredState:
        """The stored executions of the run tests, with what their partitions of calls and evals really hold.

        A file that cannot be read counts as absent, so that its executions are fetched again; with ``set_aside`` it is
        moved to the quarantine.
        """
        state = StoredState()
        keys = list(run_test_keys)
        state.elsewhere = self._elsewhere(state, except_keys=keys, set_aside=set_aside)
        self.load_run_tests(keys, state, set_aside=set_aside)
        return state

    def load_run_tests(self, run_test_keys: Iterable[str], state: StoredState, *, set_aside: bool) -> None:
        """Add what the dataset holds of these run tests to the state."""
        for key in run_test_keys:
            rows = {
                name: self._columns(schema.TABLES[name], key, state, set_aside=set_aside) for name in _STATE_COLUMNS
            }
            calls = _hashes_by_execution(rows["calls"].values())
            evals = _hashes_by_execution(rows["evals"].values())
            sick = {each for held in rows["errors"].values() for each in held["execution_id"].to_pylist()}
            state.executions[key] = {
                row["execution_id"]: _stored(row, partition, calls, evals, has_letters=row["execution_id"] in sick)
                for partition, row in sorted(
                    (
                        (partition, row)
                        for partition, executions in rows["executions"].items()
                        for row in executions.to_pylist()
                    ),
                    key=lambda found: found[1]["exported_at"] or _LONG_AGO,
                )
            }
            self._note_surplus(key, rows, state)
            strays = {
                name: {
                    execution_id: partition.date
                    for partition, held in rows[name].items()
                    for execution_id in held["execution_id"].unique().to_pylist()
                    if execution_id not in state.executions[key]
                }
                for name in ("errors", "evals", "calls")
            }
            state.orphans[key] = strays["errors"]
            state.stray_dates[key] = strays["errors"] | strays["evals"] | strays["calls"]

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
    ) -> pa.Table:
        """Replace the partition's rows of the executions by those of ``rows``, durably; returns the partition as it now is.

        Old rows of ``kept_calls``, and of all calls of ``kept_executions``, stay where there are no new ones. ``heads`` and
        ``verified``: see ``merge``.

        Raises:
            DestinationError: it could not be written; the old file is untouched, or in the quarantine when it is damaged.
        """
        old = self.rows(table, partition)
        kept = {*kept_calls, *calls_of(old, kept_executions)} if kept_executions else kept_calls
        new = rows.filter(is_of(rows, replaced))
        merged = merge(table, old, new, replaced=replaced, kept_calls=kept, heads=heads, verified=verified)
        if merged.is_changed:
            self.write(table, partition, merged.table, written)
            written.rows[table.name] = written.rows.get(table.name, 0) + merged.arrived
        return merged.table

    def rows(self, table: schema.Table, partition: Partition) -> pa.Table:
        """All rows of the partition, with exactly the declared columns; none when there is no file.

        Raises:
            DestinationError: the file is damaged (it is moved to the quarantine) or was written by a newer version.
        """
        path = partition_path(table.name, partition)
        if not self._files.has(path):
            return table.arrow_schema.empty_table()
        try:
            return self.read(table, path, list(table.names))
        except UnreadableError as exc:
            # Its other executions are not at hand: the next run misses their rows and fetches them again.
            aside = self._files.set_aside(path)
            raise DestinationError(f"{exc}; moved to {aside}: run again to fetch what it held") from exc

    def read(self, table: schema.Table, path: str, names: list[str]) -> pa.Table:
        """The columns of one file, null where an older version of the exporter did not have one yet.

        Raises:
            UnreadableError: the file is damaged.
            DestinationError: it is not there, may not be read, or was written by a newer version.
        """
        where = self._files.root / path
        try:
            file = pq.ParquetFile(pa.BufferReader(self._files.read(path)), page_checksum_verification=True)
            found = set(file.schema_arrow.names)
            if unknown := found - set(table.names):
                raise DestinationError(
                    f"{where}: unknown columns {sorted(unknown)}: written by a newer version; upgrade the exporter"
                )
            # In this thread: handing a few small columns to others costs more than reading them.
            rows = file.read(columns=[name for name in names if name in found], use_threads=False)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as exc:
            raise UnreadableError(f"{where}: not readable as Parquet: {_first_line(exc)}") from exc
        declared = pa.schema([table.arrow_schema.field(name) for name in names], table.arrow_schema.metadata)
        try:
            arrays = [
                rows[field.name].cast(field.type) if field.name in found else pa.nulls(len(rows), field.type)
                for field in declared
            ]
        except pa.ArrowException as exc:
            raise DestinationError(
                f"{where}: its columns have other types than this version's: {_first_line(exc)}"
            ) from exc
        if not file.schema_arrow.equals(table.arrow_schema):
            self._outdated.add(path)
        return pa.Table.from_arrays(arrays, schema=declared)

    def write(self, table: schema.Table, partition: Partition, rows: pa.Table, written: Written) -> None:
        """Make these the rows of the partition, durably.

        Raises:
            DestinationError: it could not be written; the old file is untouched.
        """
        self._publish(table, partition_path(table.name, partition), rows, written)

    def remove(self, table: schema.Table, partition: Partition) -> None:
        """Remove the partition's file, if there is one.

        Raises:
            DestinationError: it could not be removed.
        """
        path = partition_path(table.name, partition)
        if self._files.has(path):
            self._files.remove(path)

    def complete(self, written: Written) -> int:
        """Give the partitions that were found to lack columns, or to have older types, those of this version; returns how many.

        What an older version did not export is null in them, until it is fetched again.

        Raises:
            DestinationError: one could not be written; the next run completes it.
        """
        outdated = sorted(self._outdated)
        for path in outdated:
            if parsed := parse_partition_path(path):
                table, partition = schema.TABLES[parsed[0]], parsed[1]
                self.write(table, partition, self.rows(table, partition), written)
        self._outdated.clear()
        return len(outdated)

    def record_run(self, date: str, export_run_id: str, frame: pd.DataFrame) -> None:
        """Add the row of one export run."""
        self._publish(schema.RUNS_TABLE, run_path(date, export_run_id), to_arrow(frame, schema.RUNS_TABLE), Written())

    def _note_surplus(self, key: str, rows: Mapping[str, Mapping[Partition, pa.Table]], state: StoredState) -> None:
        for tables in rows.values():
            for partition, held in tables.items():
                for execution_id in held["execution_id"].unique().to_pylist():
                    stored = state.executions[key].get(execution_id)
                    if stored and stored.date != partition.date:
                        state.surplus.setdefault(partition, set()).add(execution_id)

    def _elsewhere(
        self, state: StoredState, *, except_keys: Collection[str], set_aside: bool
    ) -> dict[str, dict[str, str]]:
        """Where each execution of the other run tests lies, as far as their files can be read."""
        dates: dict[str, dict[str, str]] = {}
        for name in reversed(_STATE_COLUMNS):
            table = schema.TABLES[name]
            for path in self._files.list(name):
                parsed = parse_partition_path(path)
                if parsed is None or parsed[1].run_test_key in except_keys:
                    continue
                try:
                    found = self.read(table, path, ["execution_id"])["execution_id"].unique().to_pylist()
                except UnreadableError:
                    state.unreadable.append(self._files.set_aside(path) if set_aside else path)
                    continue
                dates.setdefault(parsed[1].run_test_key, {}).update(dict.fromkeys(found, parsed[1].date))
        return dates

    def _columns(
        self, table: schema.Table, run_test_key: str, state: StoredState, *, set_aside: bool
    ) -> dict[Partition, pa.Table]:
        columns = {}
        for path in self._files.list(f"{table.name}/run_test={run_test_key}"):
            parsed = parse_partition_path(path)
            if parsed is None:
                raise DestinationError(f"{self._files.root / path}: not a file of this dataset; move it elsewhere")
            try:
                columns[parsed[1]] = self.read(table, path, _STATE_COLUMNS[table.name])
            except UnreadableError:
                state.unreadable.append(self._files.set_aside(path) if set_aside else path)
        return columns

    def _publish(self, table: schema.Table, path: str, rows: pa.Table, written: Written) -> None:
        data = encode(table, rows, self._compression)
        self._files.publish(path, data)
        written.files += 1
        written.largest_rows = max(written.largest_rows, len(rows))
        written.size_bytes += len(data)


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
        execution_id: _held(count, call_hashes[execution_id], eval_hashes[execution_id])
        for execution_id, count in listed_calls.items()
    }


def calls_of(rows: pa.Table, executions: Collection[str]) -> set[str]:
    """The ids of the executions' calls."""
    ids = zip(rows["execution_id"].to_pylist(), rows["call_execution_id"].to_pylist(), strict=True)
    return {call_execution_id for execution_id, call_execution_id in ids if execution_id in executions}


def _stored(
    row: Mapping[str, Any],
    partition: Partition,
    calls: Mapping[str, list[str]],
    evals: Mapping[str, list[str]],
    *,
    has_letters: bool,
) -> Stored:
    execution_id = row["execution_id"]
    return Stored(
        date=partition.date,
        export_state=row["export_state"],
        fingerprint=row["fingerprint"],
        calls_digest=row["calls_digest"],
        held=_held(row["listed_calls"], calls.get(execution_id, []), evals.get(execution_id, [])),
        verified_at=row["verified_at"],
        exported_at=row["exported_at"],
        deleted_at=row["deleted_at"],
        run_test_name=row["run_test_name"],
        has_letters=has_letters,
    )


def _hashes_by_execution(tables: Iterable[pa.Table]) -> dict[str, list[str]]:
    hashes: dict[str, list[str]] = {}
    for table in tables:
        for execution_id, row_hash in zip(
            table["execution_id"].to_pylist(), table["row_hash"].to_pylist(), strict=True
        ):
            hashes.setdefault(execution_id, []).append(row_hash)
    return hashes


def _held(listed_calls: int | None, calls: list[str], evals: list[str]) -> HeldRows:
    # A row of a file that was written before there were row hashes has none: its execution counts as damaged.
    digest = rows_digest(row_hash or "" for row_hash in calls + evals)
    return HeldRows(listed_calls=listed_calls, exported_calls=len(calls), calls_digest=digest)


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
