"""Read the dataset into pandas: the tables, by run test, day and column, and what each column means.

Opens only the files that are needed. Never writes, and takes no lock: an export may run meanwhile.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Literal, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.index import index_if_readable
from etl.dataset.layout import Part, Scope, parse_part_path
from etl.dataset.parquet import OpenPart
from etl.dataset.parts import read_identity, require_whole
from etl.errors import ConfigurationError, DestinationError
from etl.files.interface import Files, data_files, read_each
from etl.files.names import STATE
from etl.files.open import open_files
from etl.inspect.stored import stored_files
from etl.model import schema
from etl.model.days import A_DAY, day_of
from etl.model.findings import Finding, Kind
from etl.model.locations import Options
from etl.model.wording import nearest, quoted
from etl.transform.frames import to_pandas

Deleted = Literal["exclude", "include"]
"""Whether rows that the source no longer has are wanted."""
_Day = str | date | None
"""What a user may give for a day."""
EXPORTED_AT = "exported_at"
"""The column that says when a row last changed."""
DELETED_AT = "deleted_at"
"""The column that marks a row that the source no longer has."""


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
    """The rows of one table, with pyarrow types: whole numbers stay whole, and a null is null.

    Columns and types are those of ``describe(table)``, whatever the files hold: a column missing from an older file is
    null, and a table without rows has all columns. Two more come last: ``run_test`` (its key) and ``date``, the UTC day
    on which the execution was created, which ``since`` and ``until`` use; ``runs`` has only ``date``. Compare ``date``
    with a ``datetime.date``, and times with a ``pd.Timestamp(…, tz="UTC")``, never with text.

    Args:
        path: The dataset's folder, or its URL in a bucket, as in ``[destination] path``.
        table: executions, calls, evals, errors or runs.
        run_tests: Names of run tests, or keys for all rows under ``run_test=KEY``; all by default. Not for ``runs``.
        since: First ``date``: a date, text (``2026-11-01``, ``yesterday``, or ``7d`` for seven days ago), or a datetime
            or Timestamp (in UTC, unless it has a zone).
        until: Last ``date``, included.
        columns: Only these columns, in this order; all by default.
        changed_since: Only rows whose ``exported_at`` is later than this moment: a datetime or Timestamp, or text such
            as ``2026-11-01T02:00:00Z`` (in UTC, unless it has a zone); a day, such as ``7d``, means its first moment.
            Add ``deleted="include"`` for rows that were marked as deleted. Not for ``errors`` and ``runs``, which have
            no ``exported_at``.
        deleted: ``"include"`` adds the executions, calls and evals that the source no longer has: rows with a
            ``deleted_at``.
        options: Those of a bucket, as in ``[destination.options]``; credentials come from their usual places.

    Raises:
        ConfigurationError: an unknown table, column or run test, or an invalid day, moment or ``deleted``.
        DestinationError: there is no dataset, or one of its files cannot be read.
    """
    declared = declared_table(table)
    names = chosen_columns(columns, [column.name for column in (*declared.columns, *declared.added_columns)], table)
    files = open_dataset(path, options)
    if run_tests is not None and declared is schema.RUNS_TABLE:
        raise ConfigurationError('the table "runs" is not partitioned by run test. Leave out run_tests')
    if changed_since is not None and EXPORTED_AT not in declared.names:
        raise ConfigurationError(f"{table} has no column {EXPORTED_AT}. Leave out changed_since")
    after = moment("changed_since", changed_since)
    is_living = not includes_deleted(deleted)
    scope = find_scope(files, declared, run_tests, since, until)
    return to_pandas(read_rows(files, declared, scope, names, changed_since=after, is_living=is_living))


def describe(table: str) -> pd.DataFrame:
    """What each column of a table means, one row per column.

    The rows have ``column``, ``type``, ``unit``, ``meaning``, ``source`` and ``null``. ``source`` is the path in the
    API's answer (alternatives are separated by ``|``), empty if the exporter makes the value; ``null`` says when a
    value is null. Columns that are not in the files come last. All is text.

    Raises:
        ConfigurationError: an unknown table.
    """
    declared = declared_table(table)
    columns = (*declared.columns, *declared.added_columns)
    rows = [{"column": column.name} | column.described for column in columns]
    return pd.DataFrame(rows, dtype=pd.ArrowDtype(schema.STRING))


def declared_table(name: str) -> schema.Table:
    """The table of this name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in schema.TABLES:
        raise ConfigurationError(f"there is no table {name!r}. {nearest(name, schema.TABLES)}")
    return schema.TABLES[name]


def chosen_columns(columns: str | Iterable[str] | None, known: Collection[str], of: str) -> list[str]:
    """The wanted columns, each once and in their order; all known ones by default.

    Messages call the table ``of``.

    Raises:
        ConfigurationError: a column is unknown, or none is wanted.
    """
    names = list(dict.fromkeys(known if columns is None else _texts(columns)))
    for name in names:
        if name not in known:
            hint = nearest(str(name), known, otherwise=f"etl.describe({of!r}) lists all columns")
            raise ConfigurationError(f"{of} has no column {name!r}. {hint}")
    if not names:
        raise ConfigurationError("columns is empty. Name at least one column, or pass None for all")
    return names


def open_dataset(path: str | os.PathLike[str], options: Options | None = None, *, is_whole: bool = True) -> Files:
    """The files of the dataset at this path, a folder or a URL in a bucket.

    Unless it need not be ``is_whole``, one of which rows are being removed is refused.

    Raises:
        ConfigurationError: the URL or the options are wrong, or the bucket's client is not installed.
        DestinationError: there is no dataset, it is of a newer version, or it cannot be reached or read now.
    """
    files = open_files(os.fspath(path), options)
    if not any(files.entries(name) for name in (STATE, *schema.TABLES)):
        raise DestinationError(
            f"there is no dataset at {files.where()}. Give the path that [destination] names, or run metrics-etl run"
        )
    (require_whole if is_whole else read_identity)(files)
    return files


def find_scope(
    files: Files, table: schema.Table, run_tests: str | Iterable[str] | None, since: _Day, until: _Day
) -> Scope:
    """The part of the table to read: these run tests, each by name or key, and these days, the last one included.

    None means all. The scope covers whole months; ``read_rows`` then leaves out rows of other days.

    Raises:
        ConfigurationError: a run test is unknown, a day is invalid, or the first day is later than the last.
        DestinationError: a file that could have rows of a run test of this name cannot be read.
    """
    first, last = _day("since", since) or date.min, _day("until", until) or date.max
    if first > last:
        raise ConfigurationError(f"since {first} is later than until {last}")
    scope = Scope(None, first, last)
    return scope if run_tests is None else _only(scope, files, table, _texts(run_tests))


def includes_deleted(deleted: str) -> bool:
    """Whether rows are wanted that the source no longer has.

    Raises:
        ConfigurationError: ``deleted`` is neither ``"exclude"`` nor ``"include"``.
    """
    if deleted not in get_args(Deleted):
        raise ConfigurationError(f'deleted must be "exclude" or "include", got {deleted!r}')
    return deleted == "include"


def read_rows(  # noqa: PLR0913 each narrows what is read, and is given by name
    files: Files,
    table: schema.Table,
    scope: Scope,
    names: list[str],
    *,
    changed_since: datetime | None = None,
    is_living: bool = False,
    is_of_days: bool = True,
    once_per: str | None = None,
) -> pa.Table:
    """The rows in the scope: these columns, with exactly the declared types, in the order of the parts' paths.

    Args:
        files: The dataset.
        table: The table.
        scope: Run tests and days.
        names: The columns, which may be partition columns or ``date``.
        changed_since: Leave out rows whose ``exported_at`` is not later. A row without one may have changed, and stays.
        is_living: Leave out rows that are marked as deleted, in a table that has such.
        is_of_days: Leave out rows of other days than the scope's; otherwise, all rows of a part that is in the scope
            count.
        once_per: Of the rows of a part that have one value in this column, one alone: for long texts that repeat.

    Raises:
        DestinationError: a file cannot be read, or is not a file of the dataset.
    """
    columns = {column.name: column for column in (*table.columns, *table.added_columns)}
    declared = pa.schema([pa.field(name, columns[name].type) for name in names])
    needed = {*names, *table.key, table.start, EXPORTED_AT, DELETED_AT, "run_test_name"}
    stored = [name for name in table.names if name in needed]

    def rows_of(path_and_part: tuple[str, Part]) -> pa.Table:
        path, part = path_and_part
        rows = OpenPart(files, table, path).read(stored)
        rows = rows.append_column("run_test", pa.repeat(part.run_test_key, len(rows)))
        rows = rows.append_column(schema.DAY.name, rows[table.start].cast(schema.DATE))
        if is_of_days and (scope.since, scope.until) != (date.min, date.max):
            days = rows[schema.DAY.name]
            rows = rows.filter(pc.and_(pc.greater_equal(days, scope.since), pc.less_equal(days, scope.until)))
        if changed_since:
            is_later = pc.greater(rows[EXPORTED_AT], pa.scalar(changed_since, schema.TIMESTAMP))
            rows = rows.filter(pc.fill_null(is_later, fill_value=True))
        if is_living and DELETED_AT in table.names:
            rows = rows.filter(pc.is_null(rows[DELETED_AT]))
        if (only := scope.names.get(part.run_test_key)) is not None:
            rows = rows.filter(pc.is_in(rows["run_test_name"], value_set=pa.array(only, schema.STRING)))
        if once_per:
            rows = rows.take(pc.index_in(rows[once_per].unique(), value_set=rows[once_per].combine_chunks()))
        return rows.select(names).cast(declared)

    in_scope = [(path, part) for path, part in parts_of(files, table).items() if scope.has(part)]
    return pa.concat_tables([declared.empty_table(), *read_each(files, rows_of, in_scope)]).combine_chunks()


def _only(scope: Scope, files: Files, table: schema.Table, wanted: list[str]) -> Scope:
    """The scope narrowed to the wanted run tests, each given by its key, or else by a name that its rows have.

    All rows under a key belong to a run test that is given by its key. If it is given by its name, only rows of that
    name do.
    """
    present = {part.run_test_key for of in (schema.EXECUTIONS, table) for part in parts_of(files, of).values()}
    keys = present & {*wanted}
    names_wanted = {*wanted} - keys
    names_by_key = names_in(files) if names_wanted else {}
    names = defaultdict[str, frozenset[str]](frozenset)
    for name in sorted(names_wanted):
        keys_of_name = {key for key, stored in names_by_key.items() if name in stored}
        if not keys_of_name:
            known = set().union(*names_by_key.values()) or present
            raise ConfigurationError(f"{files.where()} has no run test {quoted(name)}. {nearest(name, known)}")
        for key in keys_of_name - keys:
            names[key] |= {name}
    return replace(scope, run_test_keys=frozenset(keys | names.keys()), names=names)


def names_in(files: Files) -> dict[str, set[str]]:
    """By key, the names that the run tests have in the rows of ``executions`` under this key.

    Raises:
        DestinationError: a file cannot be read.
    """
    damaged = list[Finding]()
    names = defaultdict[str, set[str]](set)
    for file in stored_files(files, schema.EXECUTIONS, index_if_readable(files, []), damaged, ["run_test_name"]):
        names[file.part.run_test_key].update(file.columns["run_test_name"].drop_null().unique().to_pylist())
    if unreadable := [finding for finding in damaged if finding.kind is Kind.UNREADABLE]:
        raise DestinationError(f"{files.where(unreadable[0].subject)}: {unreadable[0].text}")
    return names


def parts_of(files: Files, table: schema.Table) -> dict[str, Part]:
    """The part of each of the table's files, by path, in order.

    Raises:
        DestinationError: another file lies among them.
    """
    parts: dict[str, Part] = {}
    for entry in data_files(files, table.name):
        if parsed := parse_part_path(entry.path):
            parts[entry.path] = parsed[1]
        else:
            raise DestinationError(f"{files.where(entry.path)} is not a file of this dataset. Move it elsewhere")
    return parts


def _texts(value: str | Iterable[str]) -> list[str]:
    """A list, whether a user gave one text or several."""
    return [value] if isinstance(value, str) else list(value)


def moment(option: str, value: object, *, wanted: str = "timestamp such as 2026-11-01T02:00:00Z") -> datetime | None:
    """The moment that a user gave for ``option``, in UTC; None for None.

    A value without a zone is in UTC, and a day means its first moment. Messages call what is expected ``wanted``.

    Raises:
        ConfigurationError: the value is not a moment.
    """
    if value is None:
        return None
    timestamp: pd.Timestamp | None = None
    if isinstance(value, str):
        value = day_of(value, datetime.now(UTC).date()) or value
    if isinstance(value, str | date):
        with suppress(ValueError):
            timestamp = pd.Timestamp(value)
    if pd.isna(timestamp):
        raise ConfigurationError(f"{option} must be a {wanted}, got {value!r}")
    timestamp = timestamp.tz_convert(UTC) if timestamp.tzinfo else timestamp.tz_localize(UTC)
    return timestamp.floor("us").to_pydatetime()


def _day(option: str, value: object) -> date | None:
    """The day that a user gave for ``option``; None for None. ConfigurationError as ``moment``."""
    first_moment = moment(option, value, wanted=f"date {A_DAY}")
    return first_moment.date() if first_moment else None
