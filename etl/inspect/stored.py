"""What each file of the dataset holds, as far as a reader needs it, and which rows somebody took away.

A file that the index knows in this version is opened only for columns that the index does not have. Nothing is changed.
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
"""How many of the newest export runs are read: each has one row in a file of its own, and more come every night."""
_NO_COLUMNS = pa.table({})


@dataclass(slots=True)
class TableStatus:
    """How much one table of the dataset holds."""

    name: str
    """The table."""
    rows: int = 0
    """How many rows it has, in the files that can be read."""
    files: int = 0
    """How many files it has; ``verify`` counts those that cannot be read, too."""
    size_bytes: int = 0
    """The size of the files that can be read."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of the dataset."""

    path: str
    """Where it is, relative to the dataset."""
    rows: int
    """How many rows it has."""
    size_bytes: int
    """Its size."""
    columns: pa.Table
    """The columns that were wanted of its rows; no rows if none were wanted, or if it was not read."""
    part: Part
    """The part that it belongs to."""


def stored_files(
    files: Files, table: schema.Table, index: Index, findings: list[Finding], names: Sequence[str] = ()
) -> list[StoredFile]:
    """The table's files with these columns. Findings about damaged and foreign files are added to ``findings``.

    Of export runs, only the newest ``_RUNS_READ`` are read, and have columns.
    """
    ours: list[tuple[Entry, Part]] = []
    for entry in data_files(files, table.name):
        if parsed := parse_part_path(entry.path):
            ours.append((entry, parsed[1]))
        else:
            findings.append(Finding(Kind.FOREIGN_FILE, entry.path, "is not a file of this dataset"))
    older = ours[:-_RUNS_READ] if table is schema.RUNS_TABLE else []

    def read(entry_and_part: tuple[Entry, Part]) -> StoredFile | Finding | None:
        entry, part = entry_and_part
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
        except FileMissingError:  # a run has replaced or removed it since it was listed
            return None
        except UnreadableError as exc:
            # The record of a run holds no row of the source, so its damage is no alarm.
            kind = Kind.UNREADABLE if part.run_test_key else Kind.DOCUMENT_SET_ASIDE
            return Finding(kind, entry.path, f"cannot be read: {exc.reason}")

    results = [*read_each(files, read, ours[len(older) :])]
    findings += (result for result in results if isinstance(result, Finding))
    unread = [StoredFile(entry.path, 1, entry.size_bytes, _NO_COLUMNS, part) for entry, part in older]
    return [*unread, *(result for result in results if isinstance(result, StoredFile))]


def find_lost(index: Index, rows: Mapping[str, int | None], scope: Scope) -> Iterator[Finding]:
    """A finding for each file in the scope that is missing, or has fewer rows than the index says. Pure.

    ``rows`` are the numbers of rows by path; None for a file that cannot be read, which is a finding of its own. No run
    removes a row of executions, calls or evals: whatever is gone, somebody took away, even while a run is at work.
    """
    for part, known in sorted(index.parts.items()):
        for table, before in zip(schema.OF_EXECUTIONS, known.counts, strict=True):
            path = part_path(table.name, part)
            now = rows.get(path, 0)
            if table is not schema.ERRORS and scope.has(part) and now is not None and now < before:
                text = f"has lost {before - now:,} of the {counted(before, 'row')} that it had after the last run"
                yield Finding(Kind.LOST_ROWS, path, text)


def read_lost(files: Files, keys: Collection[str]) -> list[Finding]:
    """The findings of ``find_lost`` for the run tests with these keys, in the dataset as it is now."""
    index = index_if_readable(files, [])  # before the files: a run may replace it meanwhile
    damaged = list[Finding]()
    tables = (schema.EXECUTIONS, schema.CALLS, schema.EVALS)
    stored = [file for table in tables for file in stored_files(files, table, index, damaged)]
    rows: dict[str, int | None] = {finding.subject: None for finding in damaged}
    return list(find_lost(index, rows | {file.path: file.rows for file in stored}, Scope(frozenset(keys))))
