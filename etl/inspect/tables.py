"""Read the dataset into pandas: the tables, by run test, day and column, and what each column means.

Opens only the files that are needed. Never writes, and takes no lock: an export may run meanwhile.
"""

import os
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime
from difflib import get_close_matches
from typing import Literal, TypeVar, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import ConfigurationError, DestinationError, FileMissingError
from etl.inspect.times import day, moment
from etl.load.files.contract import Files, read_each
from etl.load.files.open import open_files
from etl.load.identity import read_identity
from etl.load.later_starts import with_later_starts
from etl.load.layout import STATE, Part, Scope, is_data, parse_part_path, parse_run_path, place_of
from etl.load.parquet import read_columns
from etl.model import schema
from etl.model.keys import default_key
from etl.model.locations import Options
from etl.model.wording import quoted
from etl.transform.frames import to_pandas

T = TypeVar("T")
Deleted = Literal["exclude", "include"]
EXPORTED_AT, DELETED_AT = "exported_at", "deleted_at"
_TRIES = 10


def read_table(  # noqa: PLR0913 each narrows what is read, and is given by name
    path: str | os.PathLike[str],
    table: str,
    *,
    run_tests: str | Iterable[str] | None = None,
    since: str | date | None = None,
    until: str | date | None = None,
    columns: str | Iterable[str] | None = None,
    changed_since: str | date | None = None,
    deleted: Deleted = "exclude",
    options: Options | None = None,
) -> pd.DataFrame:
    """The rows of one table, with pyarrow-backed dtypes: a whole number stays whole, and a null is null.

    Columns and types are those of ``describe(table)``, whatever the files hold: a column that is missing in a file of an older
    version is null, and a table without rows has all columns. Two more come last: ``run_test`` (the key, text) and ``date``, the
    UTC day on which the execution was created, for ``since``, ``until`` and grouping; ``runs`` has ``date`` alone. Compare ``date``
    with a ``datetime.date``, times with a ``pd.Timestamp(…, tz="UTC")``; pandas compares neither with text.

    Args:
        path: The folder of the dataset, or its URL in a bucket, as in ``[destination] path``.
        table: executions, calls, evals, errors or runs.
        run_tests: Names or keys of run tests; all of them by default. Not for ``runs``.
        since: First day of ``date`` (UTC): a date, text such as ``2026-11-01``, or a datetime or Timestamp (without a zone, UTC).
        until: Last day of ``date``, included.
        columns: Only these columns, in this order; all of them by default.
        changed_since: Only rows whose ``exported_at`` is later than this moment: a datetime or Timestamp, or text such as
            ``2026-11-01T02:00:00Z`` (without a zone, UTC; a day means its first moment). A row that is gone cannot say so:
            ``executions`` tells of what rows were taken. Not for ``errors`` and ``runs``, which have no such column.
        deleted: ``"include"`` also gives the rows of executions that were deleted at the source: those with a ``deleted_at``.
        options: Of a bucket, as in ``[destination.options]``; credentials come from their usual places.

    Raises:
        ConfigurationError: no such table, column or run test, no day or moment, or another word for ``deleted``.
        DestinationError: there is no dataset, or a file of it cannot be read.
    """
    declared = declared_table(table)
    names = chosen_columns(columns, [column.name for column in (*declared.columns, *declared.added_columns)], table)
    files = open_dataset(path, options)
    if run_tests is not None and declared is schema.RUNS_TABLE:
        raise ConfigurationError("runs: an export run is not of one run test: leave run_tests out")
    if changed_since is not None and EXPORTED_AT not in declared.names:
        raise ConfigurationError(f"{table} has no {EXPORTED_AT}: leave changed_since out, and read it whole")
    after = moment("changed_since", changed_since)
    is_whole = includes_deleted(deleted) or declared is schema.RUNS_TABLE
    scope = find_scope(files, declared, run_tests, since, until)
    if is_whole or declared is schema.EXECUTIONS:
        rows = read_rows(files, declared, scope, names, changed_since=after, is_living=not is_whole)
    else:
        wanted = dict.fromkeys([*names, "execution_id"])
        rows = read_rows(files, declared, scope, list(wanted), changed_since=after)
        executions = read_rows(files, schema.EXECUTIONS, scope, ["execution_id", DELETED_AT], is_of_days=False)
        rows = without(rows, deleted_in(executions)).select(names)
    return to_pandas(rows)


def describe(table: str) -> pd.DataFrame:
    """One row per column of the table: ``column``, ``type``, ``unit``, ``meaning``, ``source`` and ``null``, all of them text.

    ``source`` is the path in the API's payload (alternatives split by ``|``), empty for what the exporter makes; ``null`` says when
    a value is null. Those that are not in the files come last.

    Raises:
        ConfigurationError: no such table.
    """
    declared = declared_table(table)
    rows = [
        (column.name, column.type_name, column.unit, column.meaning, column.source, column.null_rule)
        for column in (*declared.columns, *declared.added_columns)
    ]
    names = ["column", "type", "unit", "meaning", "source", "null"]
    return pd.DataFrame(rows, columns=names, dtype=pd.ArrowDtype(schema.STRING))


def declared_table(name: str) -> schema.Table:
    """The table of this name.

    Raises:
        ConfigurationError: there is no such table.
    """
    if name not in schema.TABLES:
        raise ConfigurationError(f"no table {name!r}: there are {', '.join(schema.TABLES)}")
    return schema.TABLES[name]


def chosen_columns(columns: str | Iterable[str] | None, known: Collection[str], of: str) -> list[str]:
    """The wanted columns, each once; all known ones by default.

    Raises:
        ConfigurationError: one of them is unknown, or there are none.
    """
    names = list(dict.fromkeys(known if columns is None else _texts(columns)))
    for name in names:
        if name not in known:
            meant = [each for each in known if each.endswith(f"_{name}")] or get_close_matches(str(name), known, n=1)
            hint = f"did you mean {' or '.join(meant)}?" if meant else f"etl.describe({of!r}) lists its columns"
            raise ConfigurationError(f"{of} has no column {name!r}: {hint}")
    if not names:
        raise ConfigurationError("columns is empty: name at least one, or leave it out")
    return names


def open_dataset(path: str | os.PathLike[str], options: Options | None = None) -> Files:
    """The files of the dataset at this path.

    Raises:
        ConfigurationError: there is no storage for this kind of path.
        DestinationError: there is no dataset, or one of a newer version.
    """
    files = open_files(os.fspath(path), options)
    if not files.has(""):
        raise DestinationError(f"{files.where()}: no such folder: give the one that [destination] path names")
    if not any(files.has(name) for name in (STATE, *schema.TABLES)):
        raise DestinationError(f"{files.where()} holds no dataset: give the folder that [destination] path names")
    read_identity(files)
    return files


def find_scope(
    files: Files,
    table: schema.Table,
    run_tests: str | Iterable[str] | None,
    since: str | date | None,
    until: str | date | None,
) -> Scope:
    """What to read of the table.

    Keys are those of the folders. Names are those in the newest file of executions of each run test.

    Raises:
        ConfigurationError: a run test has no rows, or a day is not one.
        DestinationError: as ``read_table``.
    """
    first, last = day("since", since) or date.min, day("until", until) or date.max
    if first > last:
        raise ConfigurationError(f"since {first} is later than until {last}")
    keys = None if run_tests is None else _keys(files, table, _texts(run_tests))
    return with_later_starts(files, Scope(keys, first, last))


def includes_deleted(deleted: str) -> bool:
    """Whether rows of deleted executions are wanted.

    Raises:
        ConfigurationError: it is another word.
    """
    if deleted not in get_args(Deleted):
        raise ConfigurationError(f'deleted must be "exclude" or "include", got {deleted!r}')
    return deleted == "include"


def deleted_in(executions: pa.Table) -> pa.Array:
    """The ids of those of these executions that were deleted at the source."""
    return executions.filter(pc.is_valid(executions[DELETED_AT]))["execution_id"].combine_chunks()


def without(rows: pa.Table, executions: pa.Array) -> pa.Table:
    """The rows of other executions than these."""
    return rows.filter(pc.invert(pc.is_in(rows["execution_id"], value_set=executions))) if len(executions) else rows


def read_rows(
    files: Files,
    table: schema.Table,
    scope: Scope,
    names: list[str],
    *,
    changed_since: datetime | None = None,
    is_living: bool = False,
    is_of_days: bool = True,
) -> pa.Table:
    """The columns of the rows in the scope, with exactly the declared types; in the order of the parts' paths.

    Rows whose ``exported_at`` is unknown may have changed since. With ``is_living``, executions that were deleted are left out.
    Without ``is_of_days``, all rows of the parts count, whatever their day.

    Raises:
        DestinationError: as ``read_table``.
    """
    columns = {column.name: column for column in (*table.columns, *table.added_columns)}
    has_bounds = is_of_days and scope.has_bounds
    needs_day = schema.DAY.name in names or has_bounds
    needed = {*names, *([table.start] if needs_day else ()), *([EXPORTED_AT] if changed_since else ())}
    needed |= {DELETED_AT} if is_living else set()
    stored = [name for name in table.names if name in needed] or [table.key[0]]
    declared = pa.schema([pa.field(name, columns[name].type, metadata=columns[name].metadata) for name in names])

    def rows_of(found: tuple[str, Part]) -> pa.Table:
        path, part = found
        rows = read_columns(files, table, path, stored)
        if needs_day:
            days = rows[table.start].cast(schema.DATE)
            rows = rows.append_column(schema.DAY.name, days)
            if has_bounds:
                rows = rows.filter(pc.and_(pc.greater_equal(days, scope.since), pc.less_equal(days, scope.until)))
        if changed_since:
            rows = rows.filter(_is_later(rows[EXPORTED_AT], changed_since))
        if is_living:
            rows = rows.filter(pc.is_null(rows[DELETED_AT]))
        if "run_test" in names:
            rows = rows.append_column("run_test", pa.repeat(part.run_test_key, len(rows)))
        return rows.select(names).cast(declared)

    def read(found: dict[str, Part]) -> pa.Table:
        tables = read_each(files, rows_of, [each for each in found.items() if scope.has(each[1])])
        return pa.concat_tables([declared.empty_table(), *tables]).combine_chunks()

    return read_listed(files, table, read)


def _is_later(times: pa.ChunkedArray, moment: datetime) -> pa.ChunkedArray:
    return pc.fill_null(pc.greater(times, pa.scalar(moment, schema.TIMESTAMP)), fill_value=True)


def _keys(files: Files, table: schema.Table, wanted: list[str]) -> frozenset[str]:
    """The keys of the wanted run tests, each given by its name or key."""
    tables = (schema.EXECUTIONS, table)
    present = {part.run_test_key for each in tables for part in _parts(files, each).values()}
    if present.issuperset(wanted):
        return frozenset(wanted)
    names = read_listed(files, schema.EXECUTIONS, lambda found: _names(files, found))
    keys = set()
    for word in wanted:
        called = present & {word} or {key for key in present if key == default_key(word) or word in names.get(key, ())}
        if not called:
            there = ", ".join(
                f"{' or '.join(sorted(map(quoted, names.get(key, ()))))} ({key})" for key in sorted(present)
            )
            raise ConfigurationError(f"{files.where()} has no run test {quoted(word)}: there are {there or 'none yet'}")
        keys |= called
    return frozenset(keys)


def _names(files: Files, found: dict[str, Part]) -> dict[str, set[str]]:
    """The names of each run test in its newest file of executions."""
    in_order = sorted(found, key=lambda path: (found[path].folder, found[path].number))
    newest = {found[path].run_test_key: path for path in in_order}

    def names_in(path: str) -> set[str]:
        rows = read_columns(files, schema.EXECUTIONS, path, ["run_test_name"])
        return set(rows["run_test_name"].drop_null().to_pylist())

    return dict(zip(newest, read_each(files, names_in, newest.values()), strict=True))


def _parts(files: Files, table: schema.Table) -> dict[str, Part]:
    """The part of each of the table's files, in the order of paths; an export run's has no key."""
    parts: dict[str, Part] = {}
    for path in filter(is_data, files.list(table.name)):
        if parsed := parse_part_path(path):
            parts[path] = parsed[1]
        elif run := parse_run_path(path):
            parts[path] = Part("", place_of(run[0], 0))
        else:
            raise DestinationError(f"{files.where(path)}: not a file of this dataset; move it elsewhere")
    return parts


def read_listed(files: Files, table: schema.Table, read: Callable[[dict[str, Part]], T]) -> T:
    """What ``read`` makes of the table's files; these are listed again when one of them is gone before it is read.

    An export that moves rows writes them to the new part first, then removes the old file: a reader that listed the files before
    and reads them after would miss those rows.
    """
    for _ in range(_TRIES):
        try:
            return read(_parts(files, table))
        except FileMissingError:
            continue
    raise DestinationError(f"{files.where()}: its files kept moving while they were read: try again")


def _texts(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
