"""What each file of the dataset holds, as far as a reader needs it, and which rows somebody took away. Changes nothing.

A file that the index knows in this version is not opened, unless it has columns that the index does not.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from etl.dataset.index import Index, index_if_readable
from etl.dataset.layout import Part, Scope, parse_part_path, part_path
from etl.dataset.parquet import OpenPart, UnreadableError, read_size
from etl.errors import FileMissingError
from etl.files.interface import Entry, Files, data_files, read_each
from etl.model import schema
from etl.model.findings import Finding, Kind
from etl.model.wording import counted

_RUNS_READ = 30
_NO_COLUMNS = pa.table({})


@dataclass(slots=True)
class TableStatus:
    """One table: its rows, and the files that hold them."""

    name: str
    rows: int = 0
    files: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file: how many rows and bytes it has, and the wanted columns of the rows."""

    path: str
    rows: int
    size_bytes: int
    columns: pa.Table
    part: Part


def stored_files(
    files: Files, table: schema.Table, index: Index, findings: list[Finding], names: Sequence[str] = ()
) -> list[StoredFile]:
    """The table's files with these columns; damaged ones, and foreign ones, are added to ``findings``.

    Of export runs the newest 30 are read: each has one row, and they are more every night.
    """
    ours: list[tuple[Entry, Part]] = []
    for entry in data_files(files, table.name):
        if parsed := parse_part_path(entry.path):
            ours.append((entry, parsed[1]))
        else:
            findings.append(Finding(Kind.FOREIGN_FILE, entry.path, "is not a file of this dataset"))
    older = ours[:-_RUNS_READ] if table is schema.RUNS_TABLE else []

    def read(one: tuple[Entry, Part]) -> StoredFile | Finding | None:
        entry, part = one
        rows = index.count(table, entry)
        if rows is not None and (table is schema.EXECUTIONS or not names):
            known = index.parts[part].rows
            return StoredFile(entry.path, rows, entry.size_bytes, known.filter(known["is_here"]).select(names), part)
        try:
            if not names:
                return StoredFile(entry.path, read_size(files, entry.path)[0], entry.size_bytes, _NO_COLUMNS, part)
            opened = OpenPart(files, table, entry.path)
            columns = opened.read(names, may_be_newer=True)
            return StoredFile(entry.path, opened.rows, opened.size_bytes, columns, part)
        except FileMissingError:  # by now
            return None
        except UnreadableError as exc:
            # No row of the source is in the record of a run.
            kind = Kind.UNREADABLE if part.run_test_key else Kind.DOCUMENT_SET_ASIDE
            return Finding(kind, entry.path, f"cannot be read: {exc.reason}")

    found = [*read_each(files, read, ours[len(older) :])]
    findings += (each for each in found if isinstance(each, Finding))
    unread = [StoredFile(entry.path, 1, entry.size_bytes, _NO_COLUMNS, part) for entry, part in older]
    return [*unread, *(each for each in found if isinstance(each, StoredFile))]


def find_lost(index: Index, rows: Mapping[str, int | None], scope: Scope) -> Iterator[Finding]:
    """A finding for each file in the scope that is missing, or has fewer ``rows`` (by path) than the index says. Pure.

    No run removes a row of executions, calls or evals: what is gone was taken away, even while a run is at work. None is for a
    file that cannot be read, which is a finding of its own.
    """
    for part, known in sorted(index.parts.items()):
        for table, before in zip(schema.OF_EXECUTIONS, known.counts, strict=True):
            path = part_path(table.name, part)
            now = rows.get(path, 0)
            if table is not schema.ERRORS and scope.has(part) and now is not None and now < before:
                text = f"{counted(before - now, 'row')} missing; there were {before:,} after the last run"
                yield Finding(Kind.LOST_ROWS, path, text)


def read_lost(files: Files, keys: Collection[str]) -> list[Finding]:
    """What ``find_lost`` finds under these keys of run tests."""
    index, damaged = index_if_readable(files, []), list[Finding]()  # before the files: a run may replace it meanwhile
    tables = (schema.EXECUTIONS, schema.CALLS, schema.EVALS)
    found = [each for table in tables for each in stored_files(files, table, index, damaged)]
    rows: dict[str, int | None] = {each.subject: None for each in damaged}
    return list(find_lost(index, rows | {each.path: each.rows for each in found}, Scope(frozenset(keys))))
