"""Read the dataset into pandas: the tables, by run test, day and column, and what each column means.

Opens the files that are asked for and no other. Never writes, and never takes the lock: an export may be at work meanwhile.
"""

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import NamedTuple, TypeVar

import pandas as pd
import pyarrow as pa

from etl.errors import ConfigurationError, DestinationError
from etl.load.dataset import Dataset
from etl.load.files.open import Files, open_files
from etl.load.layout import STATE, parse_partition_path, parse_run_path
from etl.model import schema
from etl.model.keys import default_key
from etl.transform.flatten import to_pandas

T = TypeVar("T")
_TRIES = 10


class _Place(NamedTuple):
    """The partition of a file: the values of its partition columns."""

    run_test: str
    date: date


@dataclass(frozen=True, slots=True)
class Selection:
    """Which partitions to read: those of the run tests' keys (None: of all) from the first day to the last, both included."""

    keys: frozenset[str] | None = None
    since: date = date.min
    until: date = date.max

    def has(self, place: _Place) -> bool:
        """Whether it is one of them."""
        return (self.keys is None or place.run_test in self.keys) and self.since <= place.date <= self.until


def read_table(
    path: str | os.PathLike[str],
    table: str,
    *,
    run_tests: str | Iterable[str] | None = None,
    since: str | date | None = None,
    until: str | date | None = None,
    columns: str | Iterable[str] | None = None,
) -> pd.DataFrame:
    """The rows of one table, with pyarrow-backed dtypes: a whole number stays whole, and a null is null.

    Columns and types are those of ``describe(table)``, whatever the files hold: a column that a file of an older version lacks is
    null in its rows, and a table without rows has all of them. The partition columns come last: ``run_test`` (the key, text) and
    ``date``; ``runs`` has ``date`` alone.

    Args:
        path: The folder of the dataset, as in ``[destination] path``.
        table: executions, calls, evals, errors or runs.
        run_tests: Names or keys of run tests; all of them by default. Not for ``runs``.
        since: First day of ``date`` (UTC), a date or ``2026-11-01``.
        until: Last day of ``date``, included.
        columns: Only these columns, in this order, partition columns too; all of them by default.

    Raises:
        ConfigurationError: no such table, column or run test, or no day.
        DestinationError: there is no dataset, or a file of it cannot be read.
    """
    declared = declared_table(table)
    names = chosen_columns(columns, [column.name for column in (*declared.columns, *declared.partitions)], table)
    files = open_dataset(path)
    if run_tests is not None and declared is schema.RUNS_TABLE:
        raise ConfigurationError("runs: an export run is not of one run test: leave run_tests out")
    return to_pandas(read_rows(files, declared, select(files, declared, run_tests, since, until), names))


def describe(table: str) -> pd.DataFrame:
    """One row per column of the table: ``column``, ``type``, ``unit``, ``meaning``, ``source`` and ``null``, all of them text.

    ``source`` is the path in the API's payload (alternatives split by ``|``), empty for what the exporter makes; ``null`` says when
    a value is null. Partition columns come last.

    Raises:
        ConfigurationError: no such table.
    """
    declared = declared_table(table)
    rows = [
        (column.name, column.type_name, column.unit, column.meaning, column.source, column.null_rule)
        for column in (*declared.columns, *declared.partitions)
    ]
    names = ["column", "type", "unit", "meaning", "source", "null"]
    return pd.DataFrame(rows, columns=names, dtype=pd.ArrowDtype(schema.STRING))


def declared_table(name: str) -> schema.Table:
    """The table of this name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in schema.TABLES:
        raise ConfigurationError(f"no table {name!r}: there are {', '.join(schema.TABLES)}")
    return schema.TABLES[name]


def chosen_columns(columns: str | Iterable[str] | None, known: Collection[str], of: str) -> list[str]:
    """The columns that were asked for, each once; all that are known when none were.

    Raises:
        ConfigurationError: one of them is unknown, or none is left.
    """
    names = list(dict.fromkeys(known if columns is None else _texts(columns)))
    for name in names:
        if name not in known:
            meant = [each for each in known if each.endswith(f"_{name}")] or get_close_matches(str(name), known, n=1)
            mend = f"did you mean {' or '.join(meant)}?" if meant else f"etl.describe({of!r}) tells those it has"
            raise ConfigurationError(f"{of} has no column {name!r}: {mend}")
    if not names:
        raise ConfigurationError("columns names none: name some, or leave it out")
    return names


def open_dataset(path: str | os.PathLike[str]) -> Files:
    """The files of the dataset in this folder.

    Raises:
        ConfigurationError: it is no folder's path.
        DestinationError: it holds no dataset.
    """
    files = open_files(os.fspath(path))
    if not files.has(""):
        raise DestinationError(f"{files.where()}: no such folder: give the one that [destination] path names")
    if not any(files.has(name) for name in (STATE, *schema.TABLES)):
        raise DestinationError(f"{files.where()} holds no dataset: give the folder that [destination] path names")
    return files


def select(
    files: Files,
    table: schema.Table,
    run_tests: str | Iterable[str] | None,
    since: str | date | None,
    until: str | date | None,
) -> Selection:
    """What to read of the table.

    A key is told by the folders. A name is looked for in the newest file of executions of each run test.

    Raises:
        ConfigurationError: no partition belongs to one of the run tests, or a day is none.
        DestinationError: as ``read_table``.
    """
    first, last = _day("since", since) or date.min, _day("until", until) or date.max
    if first > last:
        raise ConfigurationError(f"since {first} is later than until {last}")
    keys = None if run_tests is None else _keys(files, table, _texts(run_tests))
    return Selection(keys, first, last)


def read_rows(files: Files, table: schema.Table, selection: Selection, names: list[str]) -> pa.Table:
    """The columns of the selected rows, with exactly the declared types; their order is that of the partitions' paths.

    Raises:
        DestinationError: as ``read_table``.
    """
    columns = {column.name: column for column in (*table.columns, *table.partitions)}
    stored = [name for name in table.names if name in names] or [table.key[0]]
    partitions = [column for column in table.partitions if column.name in names]
    declared = pa.schema([pa.field(name, columns[name].type, metadata=columns[name].texts) for name in names])
    dataset = Dataset(files)

    def rows_of(path: str, place: _Place) -> pa.Table:
        rows = dataset.read(table, path, stored)
        for column in partitions:
            value = pa.scalar(getattr(place, column.name), column.type)
            rows = rows.append_column(column.name, pa.repeat(value, len(rows)))
        return rows.select(names).cast(declared)

    def read(found: dict[str, _Place]) -> pa.Table:
        tables = [rows_of(path, place) for path, place in found.items() if selection.has(place)]
        return pa.concat_tables([declared.empty_table(), *tables]).combine_chunks()

    return _steady(files, table, read)


def _keys(files: Files, table: schema.Table, wanted: list[str]) -> frozenset[str]:
    """The keys of the run tests that are called so, each by its name or key."""
    present = {place.run_test for each in (schema.EXECUTIONS, table) for place in _places(files, each).values()}
    if present.issuperset(wanted):
        return frozenset(wanted)
    names = _steady(files, schema.EXECUTIONS, lambda found: _names(Dataset(files), found))
    keys = set()
    for word in wanted:
        called = present & {word} or {key for key in present if key == default_key(word) or word in names.get(key, ())}
        if not called:
            there = ", ".join(
                f"{' or '.join(sorted(map(repr, names.get(key, ()))))} ({key})" for key in sorted(present)
            )
            raise ConfigurationError(f"{files.where()} has no run test {word!r}: there are {there or 'none yet'}")
        keys |= called
    return frozenset(keys)


def _names(dataset: Dataset, found: dict[str, _Place]) -> dict[str, set[str]]:
    """What each run test is called in its newest file of executions."""
    newest = {place.run_test: path for path, place in found.items()}
    return {
        key: set(dataset.read(schema.EXECUTIONS, path, ["run_test_name"])["run_test_name"].drop_null().to_pylist())
        for key, path in newest.items()
    }


def _places(files: Files, table: schema.Table) -> dict[str, _Place]:
    """The partitions of the table's files by path, in the order of paths."""
    return {path: _place(files, path) for path in files.list(table.name)}


def _place(files: Files, path: str) -> _Place:
    parsed = parse_partition_path(path)
    key, day = (parsed[1].run_test_key, parsed[1].date) if parsed else ("", parse_run_path(path))
    try:
        return _Place(key, date.fromisoformat(day or ""))
    except ValueError:
        raise DestinationError(f"{files.where(path)}: not a file of this dataset; move it elsewhere") from None


def _steady(files: Files, table: schema.Table, read: Callable[[dict[str, _Place]], T]) -> T:
    """What ``read`` makes of the table's files, from a moment at which none of them went away.

    An export that moves rows to another partition writes them there first, and then removes the old file: whoever listed the files
    before and opens them after has to look again, or would miss those rows.
    """
    for _ in range(_TRIES):
        found = _places(files, table)
        try:
            return read(found)
        except DestinationError:
            if all(files.has(path) for path in found):
                raise
    raise DestinationError(f"{files.where()}: its files kept moving while they were read: read again")


def _texts(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _day(option: str, value: str | date | None) -> date | None:
    """A UTC day.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).date()
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    try:
        return date.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ConfigurationError(f"{option} must be a day such as 2026-11-01, got {value!r}") from None
